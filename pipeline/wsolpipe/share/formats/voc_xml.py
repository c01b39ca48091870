"""Pascal VOC: an XML file an image."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

from wsolpipe.contract.errors import DataError
from wsolpipe.images.importers.voc import EDGES, read_voc
from wsolpipe.images.label_lines import LabelBox
from wsolpipe.share.formats.base import Format, Found, class_name, placed_name, stem_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from wsolpipe.images.label_lines import LabelledImage
    from wsolpipe.share.formats.base import Subject


class Voc(Format):
    """``Annotations/<image>.xml`` with edges in whole pixels counted from 1, as VOC's own tools read them."""

    about = "Pascal VOC: Annotations/<image>.xml, and JPEGImages/ with images="
    loss = "edges are rounded to whole pixels; a score is kept in <score>, which other tools pass over"

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write the XML files, ``ImageSets/Main/<split>.txt`` and, if asked for, ``JPEGImages/``."""
        stems = []
        for image in images:
            stem = stem_of(image.path)
            target = folder / "Annotations" / f"{stem}.xml"
            target.parent.mkdir(parents=True, exist_ok=True)
            tree = ElementTree.ElementTree(_annotation(image, subject))
            ElementTree.indent(tree, "\t")
            tree.write(target, encoding="utf-8")
            stems.append(f"{stem}\n")
            if subject.images != "none":
                subject.place(image, folder / "JPEGImages" / placed_name(image.path))
        lists = folder / "ImageSets" / "Main"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{subject.split}.txt").write_text("".join(stems), encoding="utf-8")
        return [folder / "Annotations", lists / f"{subject.split}.txt"]

    def read(self, path: Path) -> Iterator[Found]:
        """Boxes of every XML file below ``Annotations/``, below `path`, or of the file `path`."""
        top = path / "Annotations" if (path / "Annotations").is_dir() else path
        files = [top] if top.is_file() else sorted(top.rglob("*.xml"))
        if not files:
            msg = f"{path} holds no XML file"
            raise DataError(msg, hint="in= names the folder that holds Annotations/")
        for file in files:
            own = read_voc(file)
            boxes = tuple(LabelBox(item.edges, item.name, None, item.score) for item in own.objects)
            inside = file.relative_to(top).with_suffix("").as_posix() if file != top else file.stem
            yield Found(inside, boxes, str(file))


def _annotation(image: LabelledImage, subject: Subject) -> ElementTree.Element:
    root = ElementTree.Element("annotation")
    parent, _, name = placed_name(image.path).rpartition("/")
    for tag, text in (("folder", parent), ("filename", name)):
        ElementTree.SubElement(root, tag).text = text
    ElementTree.SubElement(ElementTree.SubElement(root, "source"), "database").text = subject.dataset
    size = ElementTree.SubElement(root, "size")
    for tag, value in (("width", image.width), ("height", image.height), ("depth", 3)):
        ElementTree.SubElement(size, tag).text = str(value)
    ElementTree.SubElement(root, "segmented").text = "0"
    for box in image.boxes:
        item = ElementTree.SubElement(root, "object")
        name = box.name or class_name(subject.class_names, box.label)
        for tag, text in (("name", name), ("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
            ElementTree.SubElement(item, tag).text = text
        if box.score is not None:
            ElementTree.SubElement(item, "score").text = f"{box.score:.6g}"
        edges = ElementTree.SubElement(item, "bndbox")
        x0, y0, x1, y1 = (round(edge) for edge in box.edges)
        for tag, value in zip(EDGES, (x0 + 1, y0 + 1, max(x1, x0 + 1), max(y1, y0 + 1)), strict=True):
            ElementTree.SubElement(edges, tag).text = str(value)
    return root
