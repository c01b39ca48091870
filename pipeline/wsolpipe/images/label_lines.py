"""Labels of images as they leave and enter: boxes with class and score, and the JSON-lines file that holds them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.canonical import read_json
from wsolpipe.contract.errors import DataError
from wsolpipe.images.importers.lines import box_fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


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
    mask : bool array [height, width] or None
        Foreground, of a stage of masks.
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
    mask: NDArray[np.bool_] | None = None
    map: NDArray[np.float32] | None = field(default=None)


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

    Raises
    ------
    DataError
        If the file cannot be read, or a line is not such an object; names the line.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _read_line(line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}"
        raise DataError(msg) from error


def _read_line(line: str, where: str) -> LabelledImage:
    fault = ""
    try:
        values = read_json(line)
        boxes = tuple(_read_box(item) for item in values["boxes"])
        labels = tuple(int(label) for label in values.get("labels") or ())
        numbers = [int(values.get(name) or 0) for name in ("row", "width", "height")]
        image_id, inside = values["image_id"], values.get("path") or ""
        if not isinstance(image_id, str) or not isinstance(inside, str):
            fault = "image_id and path are text"
        drawn = values.get("drawn", True) is not False
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fault = f"no {error}" if isinstance(error, KeyError) else str(error)
    if fault:
        msg = f'{where}: not an object such as {{"image_id": …, "boxes": [{{"box": [x0, y0, x1, y1]}}]}}: {fault}'
        raise DataError(msg)
    return LabelledImage(numbers[0], image_id, inside, numbers[1], numbers[2], labels, boxes, drawn)


def _read_box(item: Any) -> LabelBox:
    x0, y0, x1, y1 = (float(edge) for edge in item["box"])
    fault = box_fault(x0, y0, x1, y1)
    score = None if item.get("score") is None else float(item["score"])
    if fault or (score is not None and not math.isfinite(score)):
        raise ValueError(fault or f"score {score} is not finite")
    label = None if item.get("label") is None else int(item["label"])
    source = None if item.get("source") is None else int(item["source"])
    return LabelBox((x0, y0, x1, y1), str(item.get("name") or ""), label, score, source)
