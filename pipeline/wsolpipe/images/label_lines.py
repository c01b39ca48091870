"""Labels of images as they leave and enter: boxes with class and score, as JSON lines or as ``localization.txt``."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsolpipe.contract.errors import DataError, reason
from wsolpipe.contract.layout import read_json
from wsolpipe.images.importers.lines import parse_box

#: Value of the pixels of a mask that count neither as object nor as background.
IGNORED = 255


@dataclass(frozen=True)
class LabelBox:
    """One box of an image.

    Attributes
    ----------
    edges : tuple of four float
        x0, y0, x1, y1: half-open, pixels of the image as the index has it.
    name : str
        Name of its class; the label as text where the class has no name; empty where it has no class.
    label : int or None
        Label of its class.
    score : float or None
        Of its stage; None where it has none.
    source : int or None
        Position of the map that gave it.
    """

    edges: tuple[float, float, float, float]
    name: str = ""
    label: int | None = None
    score: float | None = None
    source: int | None = None


@dataclass(frozen=True)
class LabelledImage:
    """One image with its labels.

    Attributes
    ----------
    row : int
        In the index of its split.
    image_id, path : str
        As the index has them; `path` is relative to the root of the images.
    width, height : int
        In pixels.
    labels : tuple of int
        Of the image, the first is *the* label.
    boxes : tuple of LabelBox
        Best first.
    drawn : bool
        False for boxes of a stage that nobody looked at, kept beside drawn ones.
    mask : uint8 array [height, width] or None
        Of a stage of masks: 0 background, 1 object, `IGNORED`.
    map : float32 array [h, w] or None
        Score map at the model's own resolution, of a stage of maps.
    """

    row: int
    image_id: str
    path: str
    width: int
    height: int
    labels: tuple[int, ...] = ()
    boxes: tuple[LabelBox, ...] = ()
    drawn: bool = True
    mask: NDArray[np.uint8] | None = None
    map: NDArray[np.float32] | None = field(default=None)


def read_box(
    edges: Iterable[Any],
    name: Any = "",
    *,
    label: Any = None,
    score: Any = None,
    source: Any = None,
    sized: bool = False,
) -> LabelBox:
    """A box from what a file holds; empty texts are no value.

    Parameters
    ----------
    edges : iterable
        x0, y0, x1, y1; with `sized` x0, y0, width, height.

    Raises
    ------
    ValueError
        If the edges are no box, or another value is not of its kind.
    """
    found = parse_box([str(edge) for edge in edges], sized=sized)
    if isinstance(found, str):
        raise ValueError(found)  # noqa: TRY004 - the values are of the right type
    value = None if score in (None, "") else float(score)
    if value is not None and not math.isfinite(value):
        msg = f"score {value} is not finite"
        raise ValueError(msg)
    numbers = [None if number in (None, "") else int(number) for number in (label, source)]
    return LabelBox(found, str(name or ""), numbers[0], value, numbers[1])


@contextmanager
def entry_of(where: str, shape: str) -> Iterator[None]:
    """Turn whatever a malformed entry of a file raises into one line with its place.

    Parameters
    ----------
    where : str
        ``file:line`` or the like.
    shape : str
        What the entry should be.

    Raises
    ------
    DataError
        If the block meets a missing or wrong value.
    """
    try:
        yield
    except DataError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        fault = f"no {error}" if isinstance(error, KeyError) else str(error)
        msg = f"{where}: not {shape}: {fault}"
        raise DataError(msg) from error


def label_line(image: LabelledImage) -> str:
    """One line of JSON with everything but maps and masks."""
    boxes = [
        {"box": list(box.edges), **{name: value for name, value in _described(box).items() if value is not None}}
        for box in image.boxes
    ]
    values: dict[str, Any] = {
        "image_id": image.image_id, "path": image.path, "row": image.row, "width": image.width, "height": image.height,
        "labels": list(image.labels), "boxes": boxes,
    }  # fmt: skip
    return json.dumps(values if image.drawn else {**values, "drawn": False}, ensure_ascii=False, allow_nan=False) + "\n"


def _described(box: LabelBox) -> dict[str, Any]:
    return {"name": box.name or None, "label": box.label, "score": box.score, "source": box.source}


def read_label_lines(path: Path) -> Iterator[LabelledImage]:
    """Images of a file of `label_line` lines, in its order; only ``image_id`` and ``boxes`` must be there.

    Lines with ``"unclear": true``, which a person could not decide, are left out.

    Raises
    ------
    DataError
        If the file cannot be read, or a line is not such an object; names the line.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    with entry_of(f"{path}:{number}", 'like {"image_id": …, "boxes": [{"box": [x0, y0, x1, y1]}]}'):
                        values = read_json(line)
                        image = read_line(values)
                    if values.get("unclear") is not True:
                        yield image
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}"
        raise DataError(msg) from error


def read_line(values: Any) -> LabelledImage:
    """One image of a line's values.

    Raises
    ------
    KeyError, TypeError, ValueError
        If a value is missing or not of its kind.
    """
    boxes = tuple(
        read_box(item["box"], **{name: item.get(name) for name in ("name", "label", "score", "source")})
        for item in values["boxes"]
    )
    labels = tuple(int(label) for label in values.get("labels") or ())
    row, width, height = (int(values.get(name) or 0) for name in ("row", "width", "height"))
    image_id, inside = values["image_id"], values.get("path") or ""
    if not isinstance(image_id, str) or not isinstance(inside, str):
        msg = "image_id and path are text"
        raise TypeError(msg)
    return LabelledImage(row, image_id, inside, width, height, labels, boxes, values.get("drawn", True) is not False)


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
