"""CVAT: the XML of tasks of images, format "CVAT for images 1.1"."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from wsolpipe.contract.errors import DataError
from wsolpipe.images.importers.lines import parse_box
from wsolpipe.images.importers.xml_files import read_xml_tree
from wsolpipe.images.label_lines import LabelBox
from wsolpipe.share.formats.base import Format, Found, class_list, class_name, find_file, placed_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from wsolpipe.images.label_lines import LabelledImage
    from wsolpipe.share.formats.base import Subject

    Element = ElementTree.Element

EDGES = ("xtl", "ytl", "xbr", "ybr")
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")


class Cvat(Format):
    """``annotations.xml``, to upload to a task of the same images, and ``labels.json`` for the task's labels."""

    about = "CVAT: annotations.xml (CVAT for images 1.1), and labels.json for the task"
    loss = "edges keep two decimals"

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write both files, and ``images/`` if asked for."""
        path, labels = folder / "annotations.xml", folder / "labels.json"
        names = dict.fromkeys(class_list(subject.class_names))
        with path.open("w", encoding="utf-8") as file:
            file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
            for image in images:
                item = ElementTree.Element("image", id=str(image.row), name=placed_name(image.path),
                                           width=str(image.width), height=str(image.height))  # fmt: skip
                for order, box in enumerate(image.boxes):
                    name = box.name or class_name(subject.class_names, box.label)
                    names[name] = None
                    edges = {edge: f"{value:.2f}" for edge, value in zip(EDGES, box.edges, strict=True)}
                    about = {"label": name, "source": "auto", "occluded": "0", **edges}
                    found = ElementTree.SubElement(item, "box", {**about, "z_order": str(len(image.boxes) - order)})
                    if box.score is not None:
                        ElementTree.SubElement(found, "attribute", name="score").text = f"{box.score:.9g}"
                file.write(ElementTree.tostring(item, encoding="unicode") + "\n")
                if subject.images != "none":
                    subject.place(image, folder / "images" / placed_name(image.path))
            file.write("</annotations>\n")
        labels.write_text(_labels(list(names)), encoding="utf-8")
        return [path, labels]

    def read(self, path: Path) -> Iterator[Found]:
        """Boxes by the name of the image, the uppermost first."""
        file = find_file(path, "annotations.xml")
        root = read_xml_tree(file)
        if root.tag != "annotations":
            msg = f"{file} is not an annotations file of CVAT: it begins with <{root.tag}>"
            raise DataError(msg, hint="export the task as CVAT for images 1.1")
        if root.find("track") is not None:
            msg = f"{file} holds tracks of a video"
            raise DataError(msg, hint="export the task as CVAT for images 1.1")
        for item in root.iter("image"):
            name = item.get("name", "")
            boxes = [_read_box(box, f"{file}: {name}") for box in item.iter("box")]
            boxes.sort(key=lambda pair: -pair[0])
            yield Found(name, tuple(box for _, box in boxes), f"{file}: {name}")


def _labels(names: list[str]) -> str:
    """Labels of a task as CVAT's raw editor takes them."""
    score = {"name": "score", "mutable": False, "input_type": "text", "default_value": "", "values": []}
    found = [
        {"name": name, "color": COLOURS[place % len(COLOURS)], "attributes": [score]}
        for place, name in enumerate(names)
    ]
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _read_box(item: Element, where: str) -> tuple[int, LabelBox]:
    edges = parse_box([item.get(edge, "") for edge in EDGES])
    if isinstance(edges, str):
        msg = f"{where}: {edges}"
        raise DataError(msg)
    score = next((text for at in item.iter("attribute") if at.get("name") == "score" and (text := at.text)), None)
    try:
        order, value = int(item.get("z_order") or 0), None if not score else float(score)
    except ValueError as error:
        msg = f"{where}: z_order and score are numbers"
        raise DataError(msg) from error
    if value is not None and not math.isfinite(value):
        msg = f"{where}: score {value} is not finite"
        raise DataError(msg)
    return order, LabelBox(edges, item.get("label", ""), None, value)
