"""Pseudo-boxes as files: the ``localization.txt`` layout in which the field exchanges boxes, read and written."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import DataError
from wsolpipe.contract.machine import reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


def read_boxes(path: Path) -> dict[str, NDArray[np.float64]]:
    """Read a box file: one ``image_id,x0,y0,x1,y1`` a line, several lines for several boxes.

    Columns after the fifth (such as an added IoU) are ignored.

    Returns
    -------
    dict of str to float64 array [M, 4]
        xyxy, pixels of the original image, as the file has them.

    Raises
    ------
    DataError
        If the file cannot be read, or a line is not a box; names the line.
    """
    found: dict[str, list[list[float]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for number, fields in enumerate(csv.reader(file), start=1):
                if not fields:
                    continue
                try:
                    box = [float(value) for value in fields[1:5]]
                except ValueError:
                    box = []
                if len(box) != 4 or not np.isfinite(box).all() or box[2] < box[0] or box[3] < box[1]:
                    msg = f"{path}:{number}: {','.join(fields)!r} is not 'image_id,x0,y0,x1,y1'"
                    raise DataError(msg)
                found.setdefault(fields[0], []).append(box)
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read the box file {path}: {reason(error)}"
        raise DataError(msg, hint="name a file of lines image_id,x0,y0,x1,y1") from error
    return {name: np.array(boxes) for name, boxes in found.items()}


def box_lines(boxes: Mapping[str, NDArray[np.floating[Any]]]) -> str:
    """Text of a box file; NaN rows are padding. Coordinates keep up to two decimals, as the field's files do."""
    lines = []
    for name, own in boxes.items():
        for box in own[~np.isnan(own).any(axis=1)]:
            edges = ",".join(f"{edge:.2f}".rstrip("0").rstrip(".") for edge in box.tolist())
            lines.append(f"{_quoted(name)},{edges}")
    return "".join(f"{line}\n" for line in lines)


def iou_lines(ious: Mapping[str, float]) -> str:
    """Text of ``localization_iou_rows.txt``, with ``image_id,iou`` on each line."""
    return "".join(f"{_quoted(name)},{value:.6f}\n" for name, value in ious.items())


def mean_iou_line(ious: Mapping[str, float]) -> str:
    """Text of ``localization_iou.txt`` as the released files have it: one line with the mean."""
    return f"IoU Performance: {sum(ious.values()) / len(ious)}\n"


def _quoted(name: str) -> str:
    if any(mark in name for mark in ',"\n'):
        return '"' + name.replace('"', '""') + '"'
    return name
