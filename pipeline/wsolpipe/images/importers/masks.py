"""The `masks:` folder: mask images that mirror the image files by stem."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from wsolpipe.images.listing import Annotation
from wsolpipe.images.video import split_frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wsolpipe.images.dataset import DatasetConfig
    from wsolpipe.images.listing import ListedRow, Problems

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
