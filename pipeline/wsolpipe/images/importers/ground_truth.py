"""Boxes and masks of images: the lines of ``localization.txt``, and the `masks:` folder that mirrors the images.

A box is ``path,x0,y0,x1,y1``, or with ``box_format: xywh`` ``path,x0,y0,width,height``; a mask is
``path,mask.png,ignore.png``, where the ignore mask is on the image's first line only and may be left out.
"""

from __future__ import annotations

import os
from math import isfinite
from typing import TYPE_CHECKING

from wsolpipe.images.importers.lines import IMAGE_ENDINGS, TextFile, box_fault, parse_box, path_fault
from wsolpipe.images.listing import Annotation, ListedRow, Problems
from wsolpipe.images.video import split_frame

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from wsolpipe.images.dataset import DatasetConfig


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


#: Tried in this order where one stem has several files.
MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".pgm", ".jpg", ".jpeg")


def mask_annotations(config: DatasetConfig, rows: Sequence[ListedRow], problems: Problems) -> list[Annotation]:
    """Masks of `rows` in the `masks:` folder: for ``a/b.jpg`` the file ``a/b.png`` there; an image may have none.

    Adds a problem if no image has a mask, because then the folder has another layout.
    """
    if config.masks is None:
        return []
    top = config.mask_root()
    pairs = mirrored_masks(os.fspath(top), [(row.image_id, row.path) for row in rows])
    found = [Annotation(image_id, "mask", path=path, where=f"{config.masks}/{path}") for image_id, path in pairs]
    if rows and not found:
        stem = rows[0].path.rpartition(".")[0]
        problems.add(str(top), f"no image has a mask there; for {rows[0].path} one would be {stem}.png")
    return found


def frame_masks(config: DatasetConfig, rows: Sequence[ListedRow], problems: Problems) -> list[Annotation]:
    """As `mask_annotations`, where frames of a video ``a/b.mp4#000012`` have theirs in ``a/b/``: ``a/b/12.png``.

    The number of a mask file is read as a number: ``12.png``, ``00012.png`` and ``000012.png`` are of one frame.
    """
    images = [row for row in rows if split_frame(row.path) is None]
    found = mask_annotations(config, images, problems) if images else []
    if config.masks is None or len(images) == len(rows):
        return found
    top = os.fspath(config.mask_root())
    folders: dict[str, dict[int, str]] = {}
    for row in rows:
        frame = split_frame(row.path)
        if frame is None:
            continue
        folder = frame[0].rpartition(".")[0]
        if folder not in folders:
            names = _stems(os.path.join(top, folder))
            folders[folder] = {int(stem): name for stem, name in names.items() if stem.isdecimal()}
        if frame[1] in folders[folder]:
            path = f"{folder}/{folders[folder][frame[1]]}"
            found.append(Annotation(row.image_id, "mask", path=path, where=f"{config.masks}/{path}"))
    return found


def mirrored_masks(top: str, images: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of (image id, image path) pairs, those with a mask of the same stem below `top`: (image id, mask path)."""
    folders: dict[str, dict[str, str]] = {}
    found = []
    for image_id, path in images:
        folder, _, name = path.rpartition("/")
        if folder not in folders:
            folders[folder] = _stems(os.path.join(top, folder))
        mask = folders[folder].get(name.rpartition(".")[0] or name)
        if mask is not None:
            found.append((image_id, f"{folder}/{mask}" if folder else mask))
    return found


def _stems(folder: str) -> dict[str, str]:
    """File name of the mask for each stem."""
    try:
        names = os.listdir(folder)
    except OSError:
        return {}
    best: dict[str, tuple[int, str]] = {}
    for name in names:
        stem, dot, ending = name.rpartition(".")
        rank = f".{ending.lower()}"
        if dot and rank in MASK_ENDINGS:
            best[stem] = min(best.get(stem, (len(MASK_ENDINGS), "")), (MASK_ENDINGS.index(rank), name))
    return {stem: name for stem, (_, name) in best.items()}
