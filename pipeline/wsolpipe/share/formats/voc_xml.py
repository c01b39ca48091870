"""Pascal VOC: one XML file for each image, in the folders of a VOC development kit."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

from wsolpipe.contract.errors import DataError
from wsolpipe.images.importers.voc import EDGES, read_voc
from wsolpipe.images.label_lines import LabelBox
from wsolpipe.share.formats.base import Format, Found, class_list, flat_name, stem_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from wsolpipe.images.label_lines import LabelledImage
    from wsolpipe.share.formats.base import Subject


class Voc(Format):
    """``Annotations/<image>.xml`` with edges in whole pixels counted from 1, as VOC's own tools read them."""

    about = "Pascal VOC: Annotations/, ImageSets/Main/, labelmap.txt, and JPEGImages/ with images="
    loss = "edges are rounded to whole pixels; a score is kept in <score>, which other tools pass over"
    trained = one_tree = True

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write the XML files, ``ImageSets/Main/<split>.txt`` and, if asked for, ``JPEGImages/``."""
        self._names |= dict.fromkeys(class_list(subject.class_names))
        lists = folder / "ImageSets" / "Main"
        for part in (folder / "Annotations", lists):
            part.mkdir(parents=True, exist_ok=True)
        stems = []
        for image in images:
            name = flat_name(image.path)
            tree = ElementTree.ElementTree(self._annotation(image, name, subject))
            ElementTree.indent(tree, "\t")
            tree.write(folder / "Annotations" / f"{stem_of(name)}.xml", encoding="utf-8")
            stems.append(f"{stem_of(name)}\n")
            subject.place(image, folder / "JPEGImages" / name)
        (lists / f"{subject.split}.txt").write_text("".join(stems), encoding="utf-8")
        return [lists / f"{subject.split}.txt"]

    def finish(self, subjects: list[Subject], folder: Path) -> list[Path]:  # noqa: ARG002
        """Write ``labelmap.txt``, a line ``class:red,green,blue::`` each."""
        lines = ["# label:color_rgb:parts:actions\n", "background:0,0,0::\n"]
        colours = voc_palette(len(self._names) + 1)[1:]
        lines += [f"{name}:{','.join(map(str, rgb))}::\n" for name, rgb in zip(self._names, colours, strict=True)]
        (folder / "labelmap.txt").write_text("".join(lines), encoding="utf-8")
        return [folder / "Annotations"]

    def read(self, path: Path, split: str) -> Iterator[Found]:
        """Boxes of the XML files that the list of the split names, else of all below ``Annotations/`` or `path`."""
        top = path / "Annotations" if (path / "Annotations").is_dir() else path
        listed = path / "ImageSets" / "Main" / f"{split}.txt"
        if listed.is_file():
            lines = [line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
            whole = [top / f"{line}.xml" for line in lines]  # the list of one class has 1 or -1 in a second column
            files = [path if path.is_file() else top / f"{path.stem.split()[0]}.xml" for path in whole]
        else:
            files = [top] if top.is_file() else sorted(top.rglob("*.xml"))
        if not files:
            msg = f"{path} holds no XML file"
            raise DataError(msg, hint="in= names the folder that holds Annotations/")
        for file in files:
            boxes = tuple(LabelBox(item.edges, item.name, None, item.score) for item in read_voc(file).objects)
            inside = file.relative_to(top).with_suffix("").as_posix() if file != top else file.stem
            yield Found(inside, boxes, str(file))

    def _annotation(self, image: LabelledImage, name: str, subject: Subject) -> ElementTree.Element:
        root = ElementTree.Element("annotation")
        for tag, text in (("folder", "JPEGImages"), ("filename", name)):
            ElementTree.SubElement(root, tag).text = text
        ElementTree.SubElement(ElementTree.SubElement(root, "source"), "database").text = subject.dataset
        size = ElementTree.SubElement(root, "size")
        for tag, value in (("width", image.width), ("height", image.height), ("depth", 3)):
            ElementTree.SubElement(size, tag).text = str(value)
        ElementTree.SubElement(root, "segmented").text = "0"
        for box in image.boxes[: subject.top]:
            item = ElementTree.SubElement(root, "object")
            self._names[subject.label(box)] = None
            about = (("name", subject.label(box)), ("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0"))
            for tag, text in about:
                ElementTree.SubElement(item, tag).text = text
            if box.score is not None:
                ElementTree.SubElement(item, "score").text = f"{box.score:.6g}"
            edges = ElementTree.SubElement(item, "bndbox")
            x0, y0, x1, y1 = (round(edge) for edge in box.edges)
            for tag, value in zip(EDGES, (x0 + 1, y0 + 1, max(x1, x0 + 1), max(y1, y0 + 1)), strict=True):
                ElementTree.SubElement(edges, tag).text = str(value)
        return root


def voc_palette(count: int = 256) -> list[tuple[int, int, int]]:
    """Colours that Pascal VOC gives to the indices of its masks: bits of the index spread over red, green and blue.

    Examples
    --------
    >>> voc_palette()[:3], voc_palette()[255]
    ([(0, 0, 0), (128, 0, 0), (0, 128, 0)], (224, 224, 192))
    """
    found = []
    for index in range(count):
        rgb = [sum((index >> 3 * bit + channel & 1) << 7 - bit for bit in range(8)) for channel in range(3)]
        found.append((rgb[0], rgb[1], rgb[2]))
    return found
