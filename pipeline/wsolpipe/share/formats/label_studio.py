"""Label Studio: tasks with boxes as predictions, and what annotators made of them."""

from __future__ import annotations

import json
import math
from html import escape
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import DataError
from wsolpipe.images.importers.json_files import read_json
from wsolpipe.images.label_lines import LabelBox
from wsolpipe.share.formats.base import Format, Found, class_list, class_name, find_file, placed_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from wsolpipe.images.label_lines import LabelledImage
    from wsolpipe.share.formats.base import Subject

LOCAL = "/data/local-files/?d="


class LabelStudio(Format):
    """``tasks.json`` to import into a project, and ``config.xml``, the labelling interface that it goes with.

    Images are named as Label Studio's local storage serves them, ``/data/local-files/?d=<path>``.
    """

    about = "Label Studio: tasks.json with the boxes as predictions, and config.xml"
    loss = "nothing; edges are shares of the image's sides in per cent"

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write both files, and ``images/`` if asked for."""
        tasks, config = folder / "tasks.json", folder / "config.xml"
        names = dict.fromkeys(class_list(subject.class_names))
        with tasks.open("w", encoding="utf-8") as file:
            file.write("[")
            first = True
            for image in images:
                names |= dict.fromkeys(_name(box, subject) for box in image.boxes)
                task = _task(image, subject)
                file.write(f"{'' if first else ','}\n{json.dumps(task, ensure_ascii=False)}")
                first = False
                if subject.images != "none":
                    subject.place(image, folder / "images" / placed_name(image.path))
            file.write("]\n")
        labels = "".join(f'    <Label value="{escape(name)}"/>\n' for name in names)
        config.write_text(
            '<View>\n  <Image name="image" value="$image"/>\n  <RectangleLabels name="label" toName="image">\n'
            f"{labels}  </RectangleLabels>\n</View>\n",
            encoding="utf-8",
        )
        return [tasks, config]

    def read(self, path: Path) -> Iterator[Found]:
        """Boxes of each task: of its last annotation that was not cancelled, else of its last prediction."""
        file = find_file(path, "tasks.json")
        content = read_json(file)
        if not isinstance(content, list):
            msg = f"{file} is not a list of Label Studio tasks"
            raise DataError(msg, hint="export the project as JSON, not as JSON-MIN")
        for place, task in enumerate(content):
            where = f"{file}: task {place + 1}"
            try:
                data = task["data"]
                name = str(data.get("image_id") or data["image"])
                boxes = tuple(_read_boxes(task))
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                msg = f"{where} is not a task with data.image and rectangle labels"
                raise DataError(msg, hint="export the project as JSON, not as JSON-MIN") from error
            yield Found(name.partition(LOCAL)[2] or name, boxes, where, relative=True)


def _name(box: LabelBox, subject: Subject) -> str:
    return box.name or class_name(subject.class_names, box.label)


def _task(image: LabelledImage, subject: Subject) -> dict[str, Any]:
    results = [_result(number, box, image, subject) for number, box in enumerate(image.boxes)]
    scores = [box.score for box in image.boxes if box.score is not None]
    prediction: dict[str, Any] = {"model_version": f"{subject.stage} {subject.key}", "result": results}
    prediction |= {"score": max(scores)} if scores else {}
    where = f"images/{placed_name(image.path)}" if subject.images != "none" else image.path
    data = {"image": f"{LOCAL}{where}", "image_id": image.image_id, "row": image.row}
    return {"data": data, "predictions": [prediction]}


def _result(number: int, box: LabelBox, image: LabelledImage, subject: Subject) -> dict[str, Any]:
    x0, y0, x1, y1 = box.edges
    across, down = 100 / image.width, 100 / image.height
    value: dict[str, Any] = {"x": x0 * across, "y": y0 * down, "rotation": 0}
    value |= {"width": (x1 - x0) * across, "height": (y1 - y0) * down, "rectanglelabels": [_name(box, subject)]}
    found = {
        "id": f"box{number}", "type": "rectanglelabels", "from_name": "label", "to_name": "image",
        "original_width": image.width, "original_height": image.height, "image_rotation": 0, "value": value,
    }  # fmt: skip
    return found if box.score is None else {**found, "score": box.score}


def _read_boxes(task: dict[str, Any]) -> Iterator[LabelBox]:
    annotations = [item for item in task.get("annotations") or () if not item.get("was_cancelled")]
    chosen = annotations or task.get("predictions") or []
    for item in chosen[-1]["result"] if chosen else ():
        if item.get("type") not in {"rectanglelabels", "rectangle"}:
            continue
        value = item["value"]
        x, y, width, height = (float(value[name]) for name in ("x", "y", "width", "height"))
        corners = _corners(item, (x, y, width, height), float(value.get("rotation") or 0))
        if not all(map(math.isfinite, corners)) or width < 0 or height < 0:
            raise ValueError
        name = next(iter(value.get("rectanglelabels") or ()), "")
        score = item.get("score")
        yield LabelBox(corners, str(name), None, None if score is None else float(score))


def _corners(
    item: dict[str, Any], box: tuple[float, float, float, float], rotation: float
) -> tuple[float, float, float, float]:
    """Edges as shares of the sides; of a turned rectangle those of the box around it."""
    x, y, width, height = (value / 100 for value in box)
    if not rotation:
        return x, y, x + width, y + height
    across, down = float(item["original_width"]), float(item["original_height"])
    turn = math.radians(rotation)  # clockwise about the upper left corner, in pixels
    points = [
        (x * across + dx * math.cos(turn) - dy * math.sin(turn), y * down + dx * math.sin(turn) + dy * math.cos(turn))
        for dx in (0.0, width * across)
        for dy in (0.0, height * down)
    ]
    xs, ys = [point[0] / across for point in points], [point[1] / down for point in points]
    return min(xs), min(ys), max(xs), max(ys)
