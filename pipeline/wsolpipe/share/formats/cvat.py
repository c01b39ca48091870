"""CVAT: the XML of tasks of images, format "CVAT for images 1.1"."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from wsolpipe.contract.errors import DataError
from wsolpipe.images.importers.xml_files import read_xml_tree
from wsolpipe.images.label_lines import entry_of, read_box
from wsolpipe.share.formats.base import Format, Found, class_list, find_file, placed_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from wsolpipe.images.label_lines import LabelBox, LabelledImage
    from wsolpipe.share.formats.base import Subject

    Element = ElementTree.Element

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
