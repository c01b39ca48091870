"""Layout `cub`: the folder of CUB-200-2011 as published (Wah et al., 2011), with segmentations where they are there.

Image numbers join ``images.txt``, ``image_class_labels.txt``, ``train_test_split.txt`` and ``bounding_boxes.txt``. A
split that the YAML maps to ``train`` or ``test`` is the official one; any other is a folder of metadata files, such as
that of CUBV2 (Choe et al., CVPR 2020).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from wsolpipe.images.importers import metadata
from wsolpipe.images.importers.ground_truth import mask_annotations, mirrored_masks
from wsolpipe.images.importers.lines import Stamp, TextFile, parse_box, path_fault, read_lines, stamp, stamp_folders
from wsolpipe.images.listing import TEXTS, Annotation, Layout, ListedRow, Listing, Problems

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wsolpipe.images.dataset import DatasetConfig

TREE = """\
  {root}/                       CUB_200_2011 as published
    images/001.Black_footed_Albatross/…jpg
    images.txt  image_class_labels.txt  train_test_split.txt  bounding_boxes.txt  classes.txt
    segmentations/001.Black_footed_Albatross/…png                 (optional)"""
FILES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt", "classes.txt")
OFFICIAL = {"train": "1", "test": "0"}
IMAGES = "images/"


def _list_rows(config: DatasetConfig, split: str, problems: Problems) -> Listing:
    """Read the published files; labels count from 0, boxes are x, y, x + width, y + height."""
    part = config.split_folder(split) or split
    if part not in OFFICIAL:
        return _other_split(config, split, problems)
    texts = {name: _read(config, name, problems) for name in FILES}
    images = _numbered(texts["images.txt"], problems)
    labels = _numbered(texts["image_class_labels.txt"], problems, images)
    splits = _numbered(texts["train_test_split.txt"], problems, images)
    boxes = _numbered(texts["bounding_boxes.txt"], problems, images)
    names = _class_names(texts["classes.txt"], problems)
    rows, annotations = [], []
    for number, (path, line) in images.items():
        where = texts["images.txt"].at(line)
        if fault := path_fault(path):
            problems.add(where, fault)
            continue
        missing = [
            name for name, found in (("label", labels), ("split", splits), ("box", boxes)) if number not in found
        ]
        if missing:
            problems.add(where, f"image {number} has no {' and no '.join(missing)}")
            continue
        label = _label(*labels[number], texts["image_class_labels.txt"], names, problems)
        if splits[number][0] != OFFICIAL[part]:
            continue
        rows.append(ListedRow(path, IMAGES + path, (label,)))
        text, line = boxes[number]
        box = parse_box(text.split(), sized=True)
        if isinstance(box, str):
            problems.add(texts["bounding_boxes.txt"].at(line), box)
        else:
            annotations.append(Annotation(path, "box", *box, "", texts["bounding_boxes.txt"].at(line)))
    annotations += _segmentations(config, rows, problems)
    return Listing(rows=rows, annotations=annotations, classes=len(names) or None, class_names=names)


def _sources(config: DatasetConfig, split: str) -> Iterator[Stamp]:
    """The published files, or the metadata files of another split."""
    part = config.split_folder(split) or split
    if part in OFFICIAL:
        for name in FILES:
            yield stamp(config.image_root() / name)
        yield from stamp_folders(_segmentation_root(config), "segmentations")
    else:
        yield from metadata.sources(config, split)


def _other_split(config: DatasetConfig, split: str, problems: Problems) -> Listing:
    listing = metadata.list_rows(config, split, problems)
    text = _read(config, "classes.txt", problems)
    names = listing.class_names or _class_names(text, problems)
    return Listing(listing.rows, listing.annotations, len(names), names)


def _read(config: DatasetConfig, name: str, problems: Problems) -> TextFile:
    path = config.image_root() / name
    if not path.is_file():
        msg = f"no file {path}"
        raise config.layout_error(msg)
    return read_lines(path, name, problems)


def _numbered(
    text: TextFile, problems: Problems, images: Mapping[int, tuple[str, int]] | None = None
) -> dict[int, tuple[str, int]]:
    """Lines ``number rest`` as number -> (rest, line number)."""
    found: dict[int, tuple[str, int]] = {}
    for line_number, line in enumerate(text.lines, 1):
        if not line:
            continue
        number, _, rest = line.partition(" ")
        if not number.isdecimal() or not rest:
            problems.add(text.at(line_number), f"does not begin with a number and a space: {line!r}")
        elif int(number) in found:
            problems.add(text.at(line_number), f"duplicate id {number}")
        elif images is not None and int(number) not in images:
            problems.add(text.at(line_number), f"image {number} is not in images.txt")
        else:
            found[int(number)] = (rest.strip(), line_number)
    return found


def _class_names(text: TextFile, problems: Problems) -> dict[int, str]:
    return {number - 1: name for number, (name, _) in _numbered(text, problems).items()}


def _label(text: str, line: int, file: TextFile, names: Mapping[int, str], problems: Problems) -> int:
    """Label counted from 0, of one counted from 1."""
    if not text.isdecimal() or int(text) - 1 not in names:
        problems.add(file.at(line), f"label {text} is outside the {len(names)} classes of classes.txt")
        return 0
    return int(text) - 1


def _segmentation_root(config: DatasetConfig) -> str:
    return os.path.join(config.image_root(), "segmentations")


def _segmentations(config: DatasetConfig, rows: list[ListedRow], problems: Problems) -> list[Annotation]:
    """Masks of the published segmentations, or of `masks:` where given."""
    if config.masks is not None:
        return mask_annotations(config, rows, problems)
    found = mirrored_masks(_segmentation_root(config), [(row.image_id, row.image_id) for row in rows])
    return [
        Annotation(image_id, "mask", path=f"segmentations/{path}", where=f"segmentations/{path}")
        for image_id, path in found
    ]


LAYOUT = Layout(_list_rows, _sources, TREE, keys=TEXTS)
