"""Layout `voc`: images, labels and boxes of Pascal VOC folders, and the boxes of one annotation file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.images.importers.folder import walk
from wsolpipe.images.importers.ground_truth import mask_annotations
from wsolpipe.images.importers.lines import (
    Stamp,
    labels_by_area,
    parse_box,
    read_lines,
    read_xml_tree,
    settle_classes,
    stamp,
    stamp_folders,
    text_of,
)
from wsolpipe.images.listing import Annotation, Layout, ListedRow, Listing, Problems

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wsolpipe.images.dataset import DatasetConfig

TREE = """\
  {root}/
    JPEGImages/  2007_000027.jpg …
    Annotations/ 2007_000027.xml …
    ImageSets/Main/  train.txt, val.txt …   stems of each split's images; without such a file, all images"""
IMAGES, ANNOTATIONS, SETS = "JPEGImages", "Annotations", "ImageSets/Main"
EDGES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class VocObject:
    """One object: its class and half-open xyxy edges in pixels, counted from 0.

    A file counts pixels from 1 and its edges belong to the box, so xmin and ymin are one larger there.
    """

    name: str
    edges: tuple[float, float, float, float]
    score: float | None = None


@dataclass(frozen=True)
class VocFile:
    """One annotation file; sizes are None where it gives none."""

    file_name: str
    folder: str
    width: int | None
    height: int | None
    objects: tuple[VocObject, ...]


def read_voc(path: Path) -> VocFile:
    """Read an annotation file.

    Raises
    ------
    DataError
        If it is not one, or a box is malformed.
    """
    root = read_xml_tree(path)
    if root.tag != "annotation":
        msg = f"{path} is not a Pascal VOC annotation: it begins with <{root.tag}>"
        raise DataError(msg)
    objects = []
    for number, item in enumerate(root.iter("object"), 1):
        box = item.find("bndbox")
        found = parse_box(["" if box is None else text_of(box, edge) for edge in EDGES])
        score = text_of(item, "score") or text_of(item, "confidence")
        try:
            confidence = float(score) if score else None
        except ValueError:
            found = f"score {score!r} is not a number"
        if isinstance(found, str):
            msg = f"{path}: object {number}: {found}"
            raise DataError(msg)
        x0, y0, x1, y1 = found
        objects.append(VocObject(text_of(item, "name"), (x0 - 1, y0 - 1, x1, y1), confidence))
    size = root.find("size")
    sides = [0, 0] if size is None else [text_of(size, name) for name in ("width", "height")]
    width, height = (int(side) if str(side).isdecimal() and int(side) > 0 else None for side in sides)
    return VocFile(text_of(root, "filename"), text_of(root, "folder"), width, height, tuple(objects))


def _list_rows(config: DatasetConfig, split: str, problems: Problems) -> Listing:
    """List images with the classes and boxes of their annotations.

    With `classes: FILE` the list numbers the classes; else the class names of all annotations in sorted order. The
    label of an image is the class of its largest box, then the others by area.
    """
    root = config.image_root()
    files = _image_files(root)
    found: dict[str, VocFile] = {}
    annotations = root / ANNOTATIONS
    if not annotations.is_dir():
        text = f"no folder {annotations}"
        raise config.layout_error(text, hint="root= is the folder that holds JPEGImages/ and Annotations/")
    wanted = _stems(config, root, split, files, problems)
    for stem in sorted(files) if not isinstance(config.classes, str) else wanted:
        path = annotations / f"{stem}.xml"
        if path.is_file():
            try:
                found[stem] = read_voc(path)
            except DataError as error:
                problems.take(error.message)

    def named() -> dict[int, str]:
        return dict(enumerate(sorted({item.name for one in found.values() for item in one.objects})))

    count, names = settle_classes(config, problems, named)
    labels = {name: label for label, name in names.items()}
    rows, boxes = [], []
    for stem in wanted:
        image, own = f"{IMAGES}/{files[stem]}", found.get(stem)
        objects = own.objects if own else ()
        if unknown := [item.name for item in objects if item.name not in labels]:
            problems.add(f"{ANNOTATIONS}/{stem}.xml", f"class {unknown[0]!r} is not in {config.classes}")
            continue
        given = labels_by_area((labels[item.name], item.edges) for item in objects)
        where = f"{stem}.xml"
        width, height = (own.width, own.height) if own else (None, None)
        rows.append(ListedRow(stem, image, given, width, height, where))
        boxes += [Annotation(stem, "box", *item.edges, "", where) for item in objects]
    return Listing(
        rows=rows, annotations=boxes + mask_annotations(config, rows, problems), classes=count, class_names=names
    )


def _sources(config: DatasetConfig, split: str) -> Iterator[Stamp]:  # noqa: ARG001 - classes are those of all splits
    """Folders of images and annotations, and lists of splits."""
    root = config.image_root()
    for name in (IMAGES, ANNOTATIONS, SETS):
        yield from stamp_folders(root / name, name)
    for path in sorted((root / SETS).glob("*.txt")):
        yield stamp(path)


def _image_files(root: Path) -> dict[str, str]:
    """Path below the folder of images by stem."""
    if not (root / IMAGES).is_dir():
        msg = f"no folder {root / IMAGES}"
        raise ConfigError(msg, hint="root= is the folder that holds JPEGImages/ and Annotations/")
    return {os.path.splitext(path)[0]: path for path in walk(root / IMAGES, "", deep=True)[0]}


def _stems(config: DatasetConfig, root: Path, split: str, files: dict[str, str], problems: Problems) -> list[str]:
    """Stems of a split, by its list; of all images where there are no lists and one split."""
    name = config.split_folder(split) or split
    path = root / SETS / f"{name}.txt"
    if not path.is_file():
        if len(config.splits) > 1:
            missing = f"no list {path} of split {split}"
            raise config.layout_error(missing, hint="split: maps each split to the name of its list, such as trainval")
        return sorted(files)
    text = read_lines(path, f"{SETS}/{name}.txt", problems)
    stems = []
    for number, line in enumerate(text.lines, 1):
        stem = line if line in files else line.split()[0] if line else ""  # of one class: 1 or -1 in a second column
        if stem and stem not in files:
            problems.add(text.at(number), f"no image {stem} in {IMAGES}")
        elif stem:
            stems.append(stem)
    return stems


LAYOUT = Layout(_list_rows, _sources, TREE, keys=frozenset({"masks"}))
