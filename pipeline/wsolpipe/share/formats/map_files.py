"""Maps and masks as files: PNG at the image's size, NPY at the map's own resolution."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wsolpipe.images.label_lines import IGNORED, LabelledImage
from wsolpipe.maps.resize import upsample
from wsolpipe.share.formats.base import Format, Subject, class_list, placed_name, stem_of
from wsolpipe.share.formats.detectors import voc_palette

#: Class index from which a mask needs 16 bits; 255 is ignored.
MOST_CLASSES = 254


class Png(Format):
    """Masks as class indices for trainers of segmentation, maps as 8-bit grey; both of the size of their image.

    A mask lies below ``ann_dir/<split>/``, its image, if asked for, below ``img_dir/<split>/``, as mmsegmentation has
    them: 0 is background, 1 + label the class of the image, 255 is ignored, with the colours of Pascal VOC. With more
    than 254 classes pixels have 16 bits and 65535 is ignored.
    """

    about = "PNG of masks (class indices, 255 ignored, ann_dir/ and img_dir/) or of maps (0 … 255 of each map)"
    loss = "values of maps beyond 256 levels, and their range"
    holds = frozenset({"masks", "maps"})
    one_tree = True

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write the PNG files of a split."""
        deep = max(subject.class_names, default=0) + 1 > MOST_CLASSES
        top = folder / subject.split
        for image in images:
            if image.mask is not None:
                top = folder / "ann_dir" / subject.split
                found = _indexed(image.mask, image.labels[0] + 1 if image.labels else 1, deep=deep)
                subject.place(image, folder / "img_dir" / subject.split / placed_name(image.path))
            elif image.map is not None:
                values = upsample(image.map, (image.height, image.width))
                low, high = float(values.min()), float(values.max())
                found = Image.fromarray(np.round((values - low) * (255 / ((high - low) or 1.0))).astype(np.uint8))
            else:
                continue
            target = top / f"{stem_of(image.path)}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            found.save(target)
        return [top]

    def finish(self, subjects: list[Subject], folder: Path) -> list[Path]:
        """Write ``classes.txt`` beside masks: one class on each line, in the order of their indices."""
        if not (folder / "ann_dir").is_dir():
            return []
        names = ["background", *(class_list(subjects[0].class_names) or ["object"])]
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        return [folder / "classes.txt"]


def _indexed(mask: Any, index: int, *, deep: bool) -> Image.Image:
    """A mask of 0, 1 and `IGNORED` with `index` in the place of 1."""
    if deep:
        wide = np.where(mask == IGNORED, 65535, np.where(mask == 1, index, 0)).astype(np.uint16)
        return Image.fromarray(wide)
    found = Image.fromarray(np.where(mask == 1, index, mask).astype(np.uint8), "P")
    found.putpalette([value for colour in voc_palette() for value in colour])
    return found


class Npy(Format):
    """Arrays below the image's id, as ``eval maps=FOLDER`` reads them."""

    about = "NPY of maps (float32, the model's own resolution) or masks (uint8 0, 1, 255 ignored, the image's size)"
    loss = "nothing beyond the 8 bits in which maps are stored"
    holds = frozenset({"masks", "maps"})

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:  # noqa: ARG002
        """Write ``<image_id>.npy``."""
        for image in images:
            values = image.mask if image.mask is not None else image.map
            if values is not None:
                target = folder / f"{image.image_id}.npy"
                target.parent.mkdir(parents=True, exist_ok=True)
                np.save(target, values, allow_pickle=False)
        return [folder]
