"""Print what the demo's CLIP knows of a split of the demo: accuracy by names, and boxes of its maps.

    python tools/demo/clip_quality.py --split val

Choices are made on the validation split; the test split is for the report. All boxes are those of the largest region
above Otsu's threshold, all figures mean IoU with the best of an image's true boxes.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import yaml
from make_demo_data import best_overlap
from PIL import Image

from wsolpipe.maps.foreground import largest_region_box, otsu_threshold
from wsolpipe.maps.levels import minmax, to_uint8
from wsolpipe.maps.resize import upsample
from wsolpipe.models.weight_sources import resolve
from wsolpipe.stages.base import Context
from wsolpipe.stages.clip_cams import ClipCams
from wsolpipe.stages.registry import load_registry
from wsolpipe.stages.text_maps import TextMaps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsolpipe.stages.clip_cams import ClipCamsParams
    from wsolpipe.stages.text_maps import TextMapsParams

    Bytes = NDArray[np.uint8]
    Floats = NDArray[np.float32]

DATA = Path(__file__).resolve().parents[2] / "data"
GRID = 224
"""Side to which maps are upsampled before Otsu's threshold."""


@dataclass(frozen=True)
class Split:
    """Images uint8 [h, w, 3], labels, and true boxes float32 [n, 4] of each image."""

    images: list[Bytes]
    labels: list[int]
    boxes: list[Floats]


def read_split(split: str) -> Split:
    """Read a split of the demo."""
    folder = DATA / "demo" / "metadata" / split
    names = (folder / "image_ids.txt").read_text().split()
    labels = dict(line.rsplit(",", 1) for line in (folder / "class_labels.txt").read_text().split())
    truth: dict[str, list[list[float]]] = {}
    for line in (folder / "localization.txt").read_text().split():
        name, *box = line.split(",")
        truth.setdefault(name, []).append([float(edge) for edge in box])
    images = [np.asarray(Image.open(DATA / "demo" / "images" / name)) for name in names]
    return Split(images, [int(labels[name]) for name in names], [np.array(truth[name], np.float32) for name in names])


def settings(stage: str) -> dict[str, Any]:
    """Parameters of a stage in the demo's YAML, its files made absolute."""
    chosen = dict(yaml.safe_load((DATA / "demo.yaml").read_text())["stages"][stage])
    for name in ("model", "weights", "classes"):
        chosen[name] = str(DATA / chosen[name])
    return chosen


def clip_cams(**params: Any) -> ClipCams:
    """The stage, set up as the demo's YAML says, with some parameters changed."""
    values = {**settings("clip_cams"), **params}
    made = ClipCams(cast("ClipCamsParams", load_registry().params("clip_cams", values)), _context(values))
    made.setup()
    return made


def text_maps(**params: Any) -> TextMaps:
    """Likewise."""
    values = {**settings("text_maps"), **params}
    made = TextMaps(cast("TextMapsParams", load_registry().params("text_maps", values)), _context(values))
    made.setup()
    return made


def _context(values: dict[str, Any]) -> Context:
    weights = resolve(values["weights"])
    assert weights is not None
    return Context(dataset="demo", weights={"model": weights})


def cam_maps(split: Split, **params: Any) -> Floats:
    """Maps [n, h, w] of `clip_cams` for each image's own class."""
    made = clip_cams(**params)
    maps, _ = made.make_maps(
        np.stack([made.fit(image, 0) for image in split.images]),
        [[at] for at in split.labels],
        range(len(split.images)),
    )
    return np.asarray(maps[:, 0])


def zero_shot(split: Split) -> float:
    """Share of images whose nearest class name is theirs."""
    made = clip_cams(target="predicted", affinity=False)
    _, found = made.make_maps(
        np.stack([made.fit(image, 0) for image in split.images]), [[]] * len(split.images), range(len(split.images))
    )
    return float(np.mean(found[:, 0] == split.labels))


def mean_iou(maps: Floats, split: Split) -> float:
    """Of the boxes of maps [n, h, w]."""
    found = []
    for levels, image, boxes in zip(
        to_uint8(minmax(upsample(maps, (GRID, GRID)))), split.images, split.boxes, strict=True
    ):
        box = largest_region_box(levels > otsu_threshold(levels))
        edges = np.array((0, 0, GRID, GRID) if box is None else box) / GRID * (image.shape[1::-1] * 2)
        found.append(best_overlap(cast("tuple[float, float, float, float]", tuple(edges.tolist())), boxes))
    return float(np.mean(found))


def centred_iou(split: Split) -> float:
    """Of boxes of 0.8 of each side."""
    sizes = [image.shape[:2] for image in split.images]
    return float(
        np.mean(
            [
                best_overlap((0.1 * w, 0.1 * h, 0.9 * w, 0.9 * h), boxes)
                for (h, w), boxes in zip(sizes, split.boxes, strict=True)
            ]
        )
    )


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("val", "test"), default="val")
    split = read_split(parser.parse_args(argv).split)
    torch.set_num_threads(1)
    print(f"{len(split.images)} images, centred box {centred_iou(split):.3f}, zero-shot {zero_shot(split):.3f}")
    for softmax, temperature in ((True, 1.0), (True, 4.0), (False, 1.0)):
        score = f"softmax, logits / {temperature:g}" if softmax else "raw logit"
        plain = cam_maps(split, affinity=False, softmax=softmax, temperature=temperature)
        print(f"clip_cams, {score}: {mean_iou(plain, split):.3f}, all zero {np.mean(plain.max(axis=(1, 2)) == 0):.2f}")
        for blocks in (1, 2, 3, 4):
            boxes = [
                mean_iou(
                    cam_maps(
                        split,
                        softmax=softmax,
                        temperature=temperature,
                        attention_blocks=blocks,
                        box_threshold=threshold,
                    ),
                    split,
                )
                for threshold in (0.2, 0.4, 0.7)
            ]
            row = "  ".join(f"{figure:.3f}" for figure in boxes)
            print(f"  affinity of the last {blocks}, box threshold 0.2 0.4 0.7: {row}")
    for method in ("vanilla", "sclip", "naclip"):
        made = text_maps(methods=method)
        pixels = np.stack([made.fit(image, 0) for image in split.images])
        maps, _ = made.make_maps(pixels, split.labels, range(len(pixels)))
        print(f"text_maps, {method}: {mean_iou(maps[:, 0], split):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
