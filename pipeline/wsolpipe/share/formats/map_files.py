"""Maps and masks as files: PNG at the image's size, NPY at the map's own resolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from wsolpipe.maps.upsample import upsample
from wsolpipe.share.formats.base import Format, stem_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from wsolpipe.images.label_lines import LabelledImage
    from wsolpipe.share.formats.base import Subject


class Png(Format):
    """8-bit grey images of the size of their image, below the image's path: masks are 0 and 255."""

    about = "PNG of masks (0 and 255) or of maps (min-max of each map to 0 … 255), at the size of the image"
    loss = "values of maps beyond 256 levels, and their range"
    holds = frozenset({"masks", "maps"})
    reads = False

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:  # noqa: ARG002
        """Write ``<path>.png``."""
        for image in images:
            if image.mask is not None:
                grey = image.mask.astype(np.uint8) * 255
            elif image.map is not None:
                values = upsample(image.map, (image.height, image.width))
                low, high = float(values.min()), float(values.max())
                grey = np.round((values - low) * (255 / ((high - low) or 1.0))).astype(np.uint8)
            else:
                continue
            target = folder / f"{stem_of(image.path)}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey).save(target)
        return [folder]


class Npy(Format):
    """Arrays below the image's id, as ``eval maps=FOLDER`` reads them."""

    about = "NPY of maps (float32, the model's own resolution) or masks (bool, the image's size), as eval maps= reads"
    loss = "nothing beyond the 8 bits in which maps are stored"
    holds = frozenset({"masks", "maps"})
    reads = False

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:  # noqa: ARG002
        """Write ``<image_id>.npy``."""
        for image in images:
            values = image.mask if image.mask is not None else image.map
            if values is not None:
                target = folder / f"{image.image_id}.npy"
                target.parent.mkdir(parents=True, exist_ok=True)
                np.save(target, values, allow_pickle=False)
        return [folder]
