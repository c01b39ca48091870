"""Blocks of rows whose images are drawn: a rectangle in the colour of its class on grey noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsolpipe.contract.errors import BadImageError
from wsolpipe.stages.base import Rows

COLOURS = np.array([[220, 40, 40], [40, 200, 60], [50, 60, 220], [230, 210, 40], [200, 60, 210], [60, 210, 210]])


@dataclass(frozen=True)
class Drawn:
    """Images, their class and the rectangle's box (xyxy)."""

    images: list[np.ndarray]
    labels: list[int]
    boxes: np.ndarray

    def rows(self, *, bad=(), labels=None, threads=2) -> Rows:
        """A fresh block; images at `bad` positions cannot be decoded."""

        def load(position: int) -> np.ndarray:
            if position in bad:
                msg = "the file ends early"
                raise BadImageError(msg)
            return self.images[position]

        columns = {
            "labels": [[label] for label in self.labels] if labels is None else labels,
            "height": [image.shape[0] for image in self.images],
            "width": [image.shape[1] for image in self.images],
        }
        return Rows(np.arange(len(self.images)), columns, load, threads=threads)


def draw(count: int, *, classes: int = 4, seed: int = 0) -> Drawn:
    """`count` images of about 60 to 100 pixels a side, classes in turn."""
    rng = np.random.default_rng(seed)
    images, labels, boxes = [], [], []
    for number in range(count):
        height, width = rng.integers(60, 100, 2)
        image = rng.integers(80, 150, (height, width, 3)).astype(np.uint8)
        h, w = int(height * rng.uniform(0.3, 0.6)), int(width * rng.uniform(0.3, 0.6))
        y, x = rng.integers(0, height - h), rng.integers(0, width - w)
        image[y : y + h, x : x + w] = np.clip(COLOURS[number % classes] + rng.integers(-15, 16, (h, w, 3)), 0, 255)
        images.append(image)
        labels.append(number % classes)
        boxes.append([x, y, x + w, y + h])
    return Drawn(images, labels, np.array(boxes))
