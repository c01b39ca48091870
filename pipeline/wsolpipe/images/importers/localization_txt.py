"""``localization.txt``: the boxes and masks of the metadata layout, one a line.

A box is ``path,x0,y0,x1,y1``, or with ``box_format: xywh`` ``path,x0,y0,width,height``; a mask is
``path,mask.png,ignore.png``, where the ignore mask is on the image's first line only and may be left out.
"""

from __future__ import annotations

import os
from math import isfinite
from typing import TYPE_CHECKING

from wsolpipe.images.importers.lines import IMAGE_ENDINGS, TextFile, box_fault, parse_box, path_fault
from wsolpipe.images.listing import Annotation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from wsolpipe.images.dataset import DatasetConfig
    from wsolpipe.images.listing import Problems


def read_localization(
    config: DatasetConfig,
    text: TextFile | None,
    ids: Collection[str],
    problems: Problems,
    *,
    subset: bool,
) -> list[Annotation]:
    """Boxes and masks, one a line. Mask files must be there."""
    found: list[Annotation] = []
    if text is None:
        return found
    mask_root: Path | None = None
    for number, line in enumerate(text.lines, 1):
        if not line:
            continue
        fields = line.rsplit(",", 4)
        if len(fields) == 5:
            try:
                x0, y0, x1, y1 = float(fields[1]), float(fields[2]), float(fields[3]), float(fields[4])
            except ValueError:
                pass
            else:
                if config.box_format == "xywh":
                    x1, y1 = x0 + x1, y0 + y1
                if not (isfinite(x0 + y0 + x1 + y1) and x1 >= x0 and y1 >= y0):
                    problems.add(text.at(number), str(box_fault(x0, y0, x1, y1)))
                elif fields[0] in ids:
                    found.append(Annotation(fields[0], "box", x0, y0, x1, y1, "", text.at(number)))
                elif not subset:
                    problems.add(text.at(number), f"{fields[0]!r} is not in the image ids")
                continue
        masks = _mask_fields(line)
        if masks is None:
            fault = (
                parse_box(fields[1:], sized=config.box_format == "xywh")
                if len(fields) == 5
                else f"neither a box nor a mask: {line!r}"
            )
            problems.add(text.at(number), str(fault))
            continue
        mask_root = mask_root or config.mask_root()
        found += _read_masks(masks, text.at(number), ids, mask_root, problems, subset=subset)
    return found


def _mask_fields(line: str) -> tuple[str, list[str]] | None:
    """Image id and the fields after it of a mask line, or None if it is not one."""
    fields = line.split(",")
    if len(fields) in (2, 3) and fields[1].lower().endswith(IMAGE_ENDINGS):
        return fields[0], fields[1:]
    head = line.rsplit(",", 2)
    return (head[0], head[1:]) if len(head) == 3 and head[1].lower().endswith(IMAGE_ENDINGS) else None


def _read_masks(
    fields: tuple[str, Sequence[str]],
    where: str,
    ids: Collection[str],
    mask_root: Path,
    problems: Problems,
    *,
    subset: bool,
) -> Iterator[Annotation]:
    name, paths = fields
    if name not in ids:
        if not subset:
            problems.add(where, f"{name!r} is not in the image ids")
        return
    for kind, path in zip(("mask", "ignore"), paths, strict=False):
        if not path:
            continue
        if fault := path_fault(path):
            problems.add(where, fault)
        elif not os.path.isfile(os.path.join(mask_root, path)):
            problems.add(where, f"no mask file {path} in {mask_root}")
        else:
            yield Annotation(name, "mask" if kind == "mask" else "ignore", path=path, where=where)
