"""Formats of programs in which people draw boxes: Label Studio's tasks, and CVAT's XML "CVAT for images 1.1"."""

from __future__ import annotations

import json
import math
from html import escape
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from wsolpipe.contract.errors import DataError
from wsolpipe.images.importers.lines import read_json, read_xml_tree
from wsolpipe.images.label_lines import LabelBox, LabelledImage, entry_of, read_box
from wsolpipe.share.formats.base import Format, Found, Subject, class_list, find_file, placed_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    Element = ElementTree.Element


LOCAL = "/data/local-files/?d="
AS_JSON = "export the project as JSON, not as JSON-MIN"


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
            for place, image in enumerate(images):
                names |= dict.fromkeys(subject.label(box) for box in image.boxes)
                file.write(f"{',' if place else ''}\n{json.dumps(_task(image, subject), ensure_ascii=False)}")
                subject.place(image, folder / "images" / placed_name(image.path))
            file.write("]\n")
        labels = "".join(f'    <Label value="{escape(name)}"/>\n' for name in names)
        config.write_text(
            '<View>\n  <Image name="image" value="$image"/>\n  <RectangleLabels name="label" toName="image">\n'
            f"{labels}  </RectangleLabels>\n</View>\n",
            encoding="utf-8",
        )
        return [tasks, config]

    def read(self, path: Path, split: str) -> Iterator[Found]:
        """Boxes of each task: of its last annotation that was not cancelled, else of its last prediction."""
        file = find_file(path, "tasks.json", f"{split}/tasks.json", "project*.json")
        content = read_json(file)
        if not isinstance(content, list):
            msg = f"{file} is not a list of Label Studio tasks"
            raise DataError(msg, hint=AS_JSON)
        for place, task in enumerate(content):
            where = f"{file}: task {place + 1}"
            with entry_of(where, f"a task with data.image and rectangle labels ({AS_JSON})"):
                name = str(task["data"].get("image_id") or task["data"]["image"])
                done = [item for item in task.get("annotations") or () if not item.get("was_cancelled")]
                chosen = done or task.get("predictions") or []
                boxes = tuple(_read_results(chosen[-1]["result"] if chosen else ()))
            yield Found(
                name.partition(LOCAL)[2] or name, boxes, where, relative=True, drawn=bool(done) if chosen else None
            )


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
    value |= {"width": (x1 - x0) * across, "height": (y1 - y0) * down, "rectanglelabels": [subject.label(box)]}
    found = {
        "id": f"box{number}", "type": "rectanglelabels", "from_name": "label", "to_name": "image",
        "original_width": image.width, "original_height": image.height, "image_rotation": 0, "value": value,
    }  # fmt: skip
    return found if box.score is None else {**found, "score": box.score}


def _read_results(items: Iterable[dict[str, Any]]) -> Iterator[LabelBox]:
    for item in items:
        if item.get("type") not in {"rectanglelabels", "rectangle"}:
            continue
        value = item["value"]
        x, y, width, height = (float(value[name]) for name in ("x", "y", "width", "height"))
        corners = _corners(item, (x, y, width, height), float(value.get("rotation") or 0))
        yield read_box(corners, next(iter(value.get("rectanglelabels") or ()), ""), score=item.get("score"))


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


EDGES = ("xtl", "ytl", "xbr", "ybr")
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
SCORE = {"name": "score", "mutable": False, "input_type": "text", "default_value": "", "values": []}


class Cvat(Format):
    """``annotations.xml``, to upload to a task of the same images, and ``labels.json`` for the task's labels."""

    about = "CVAT: annotations.xml (CVAT for images 1.1), and labels.json for the task"
    loss = "edges keep two decimals"

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write both files, and ``images/`` if asked for."""
        path, labels, part = folder / "annotations.xml", folder / "labels.json", folder / "images.part"
        names, count = dict.fromkeys(class_list(subject.class_names)), 0
        with part.open("w", encoding="utf-8") as file:
            for image in images:
                count += 1
                item = ElementTree.Element("image", id=str(image.row), name=placed_name(image.path),
                                           width=str(image.width), height=str(image.height))  # fmt: skip
                for order, box in enumerate(image.boxes):
                    names[subject.label(box)] = None
                    edges = {edge: f"{value:.2f}" for edge, value in zip(EDGES, box.edges, strict=True)}
                    about = {"label": subject.label(box), "source": "auto", "occluded": "0", **edges}
                    found = ElementTree.SubElement(item, "box", {**about, "z_order": str(len(image.boxes) - order)})
                    if box.score is not None:
                        ElementTree.SubElement(found, "attribute", name="score").text = f"{box.score:.9g}"
                file.write(ElementTree.tostring(item, encoding="unicode") + "\n")
                subject.place(image, folder / "images" / placed_name(image.path))
        with path.open("w", encoding="utf-8") as file, part.open(encoding="utf-8") as items:
            file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
            file.write(ElementTree.tostring(_meta(names, count, subject), encoding="unicode") + "\n")
            file.writelines(items)
            file.write("</annotations>\n")
        part.unlink()
        found_labels = [
            {"name": name, "color": COLOURS[place % len(COLOURS)], "attributes": [SCORE]}
            for place, name in enumerate(names)
        ]
        labels.write_text(json.dumps(found_labels, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return [path, labels]

    def read(self, path: Path, split: str) -> Iterator[Found]:
        """Boxes by the name of the image, the uppermost first."""
        file = find_file(path, "annotations.xml", f"{split}/annotations.xml")
        root = read_xml_tree(file)
        if root.tag != "annotations" or root.find("track") is not None:
            what = "tracks of a video" if root.tag == "annotations" else f"<{root.tag}>, no annotations of CVAT"
            msg = f"{file} holds {what}"
            raise DataError(msg, hint="export the task as CVAT for images 1.1")
        for item in root.iter("image"):
            where = f"{file}: {item.get('name', '')}"
            with entry_of(where, "boxes with the numbers xtl, ytl, xbr, ybr, z_order and score"):
                boxes = sorted((_read_box(box) for box in item.iter("box")), key=lambda pair: -pair[0])
            touched = any(box.get("source", "auto") != "auto" for box in item.iter("box"))
            yield Found(item.get("name", ""), tuple(box for _, box in boxes), where, drawn=True if touched else None)


def _meta(names: Iterable[str], count: int, subject: Subject) -> Element:
    """The description of the task, which other readers of the format ask for."""
    meta = ElementTree.Element("meta")
    task = ElementTree.SubElement(meta, "task")
    facts = {"name": f"{subject.dataset} {subject.split}", "size": str(count), "mode": "annotation", "overlap": "0"}
    for tag, text in facts.items():
        ElementTree.SubElement(task, tag).text = text
    labels = ElementTree.SubElement(task, "labels")
    for name in names:
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        attribute = ElementTree.SubElement(ElementTree.SubElement(label, "attributes"), "attribute")
        for tag, text in {"name": "score", "mutable": "False", "input_type": "text", "default_value": ""}.items():
            ElementTree.SubElement(attribute, tag).text = text
        ElementTree.SubElement(attribute, "values")
    return meta


def _read_box(item: Element) -> tuple[int, LabelBox]:
    score = next((text for at in item.iter("attribute") if at.get("name") == "score" and (text := at.text)), None)
    box = read_box((item.get(edge, "") for edge in EDGES), item.get("label", ""), score=score)
    return int(item.get("z_order") or 0), box
