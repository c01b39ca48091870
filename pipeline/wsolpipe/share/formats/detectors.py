"""Formats that detectors are trained with: YOLO's text files and Pascal VOC's XML files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import yaml

from wsolpipe.contract.errors import DataError, raise_as
from wsolpipe.images.importers.voc import EDGES, read_voc
from wsolpipe.images.label_lines import LabelBox, LabelledImage, entry_of, read_box
from wsolpipe.keys.safe_yaml import read_yaml
from wsolpipe.share.formats.base import Format, Found, Subject, class_list, flat_name, stem_of

LISTS = frozenset({"classes.txt", "images.txt", "train.txt", "val.txt", "test.txt"})


class Yolo(Format):
    """``images/<split>/`` and ``labels/<split>/`` for training, and ``predictions/<split>/`` with every box's score."""

    about = "YOLO (ultralytics): labels/ for training, predictions/ of all boxes with scores, one data.yaml"
    loss = "scores, unless in= names the folder predictions; edges keep six decimals of the image's sides"
    with_images = trained = one_tree = True

    def __init__(self) -> None:
        self._highest = -1

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write the labels, the predictions and the images of a split."""
        for part in ("images", "labels", "predictions"):
            (folder / part / subject.split).mkdir(parents=True, exist_ok=True)
        for image in images:
            name = flat_name(image.path)
            lines = [_line(box, image) for box in image.boxes]
            self._highest = max([self._highest, *(box.label or 0 for box in image.boxes)])
            for part, text in (
                ("labels", "".join(f"{line}\n" for line in lines[: subject.top])),
                ("predictions", "".join(f"{line} {1.0 if box.score is None else box.score:.6g}\n"
                                        for line, box in zip(lines, image.boxes, strict=True))),
            ):  # fmt: skip
                (folder / part / subject.split / f"{stem_of(name)}.txt").write_text(text, encoding="utf-8")
            subject.place(image, folder / "images" / subject.split / name)
        return [folder / "labels" / subject.split]

    def finish(self, subjects: list[Subject], folder: Path) -> list[Path]:
        """Write ``data.yaml``, which names the folder of each split; paths are relative to it."""
        names = class_list(subjects[0].class_names)
        bare = not names and self._highest == 0
        names += ["object" if bare else str(label) for label in range(len(names), self._highest + 1)]
        content = {subject.split: f"images/{subject.split}" for subject in subjects}
        for part in ("train", "val"):
            content.setdefault(part, f"images/{subjects[0].split}")  # ultralytics wants both
        path = folder / "data.yaml"
        described = {**content, "names": dict(enumerate(names))}
        path.write_text(yaml.safe_dump(described, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return [path]

    def read(self, path: Path, split: str) -> Iterator[Found]:
        """Boxes of the text files below ``labels/<split>/``, or of the first of its parents that is there."""
        places = [path / "labels" / split, path / split / "labels", path / "labels", path / split, path]
        top = next((place for place in places if place.is_dir()), None)
        if top is None:
            msg = f"{path} is not a folder of YOLO labels"
            raise DataError(msg, hint="in= names the folder that holds labels/ and data.yaml")
        names = next(
            (_names(base / "data.yaml") for base in (path, *path.parents[:3]) if (base / "data.yaml").is_file()), {}
        )
        for file in sorted(file for file in top.rglob("*.txt") if file.name not in LISTS):
            inside = os.path.relpath(file, top).removesuffix(".txt").replace(os.sep, "/")
            with raise_as(DataError, f"cannot read {file}", OSError, UnicodeDecodeError):
                lines = file.read_text(encoding="utf-8").splitlines()
            boxes = [
                _read_line(line, f"{file}:{number}", names) for number, line in enumerate(lines, 1) if line.strip()
            ]
            yield Found(inside, tuple(boxes), str(file), relative=True)


def _line(box: LabelBox, image: LabelledImage) -> str:
    x0, y0, x1, y1 = box.edges
    width, height = image.width, image.height
    shares = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height
    return " ".join([str(box.label or 0), *(f"{value:.6f}" for value in shares)])


def _names(path: Path) -> dict[int, str]:
    content = read_yaml(path)
    names = content.get("names") if isinstance(content, dict) else None
    with entry_of(str(path), "a description with names of classes"):
        pairs = names.items() if isinstance(names, dict) else enumerate(names or ())
        return {int(label): str(name) for label, name in pairs}


def _read_line(line: str, where: str, names: dict[int, str]) -> LabelBox:
    with entry_of(where, "class x y width height [score]"):
        label, *numbers = line.split()
        x, y, width, height, *rest = map(float, numbers)
        if len(rest) > 1:
            msg = f"{len(numbers) + 1} numbers"
            raise ValueError(msg)
        edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return read_box(edges, names.get(int(label), ""), label=label, score=rest[0] if rest else None)


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
