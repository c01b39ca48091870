"""Layout `coco`: images, labels and boxes of a COCO annotations file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import DataError, raise_as
from wsolpipe.images.importers.ground_truth import mask_annotations
from wsolpipe.images.importers.lines import labels_by_area, metadata_file, parse_box, path_fault, read_json, stamp
from wsolpipe.images.listing import Annotation, Layout, ListedRow, Listing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from wsolpipe.images.dataset import DatasetConfig
    from wsolpipe.images.importers.lines import Stamp
    from wsolpipe.images.listing import Problems

TREE = """\
  {root}/                       image files, at the paths that file_name gives
  <metadata>                    a COCO file with images, annotations and categories, or a folder of such files where
                                split: maps each split to its file, as in split: {{val: instances_val2017.json}}"""


@dataclass(frozen=True)
class CocoImage:
    """An entry of ``images``; `image_id` is the one that an export of wsolpipe wrote, if any."""

    number: int
    file_name: str
    width: int | None
    height: int | None
    image_id: str = ""


@dataclass(frozen=True)
class CocoBox:
    """An annotation: xyxy edges in pixels, the category's id, its score where one is given."""

    edges: tuple[float, float, float, float]
    category: int
    score: float | None
    crowd: bool


@dataclass(frozen=True)
class CocoFile:
    """A COCO file.

    Attributes
    ----------
    images : dict of int to CocoImage
    boxes : dict of int to list of CocoBox
        By id of the image, in the order of the file.
    categories : dict of int to str
        Names by id.
    whole : bool
        Whether it lists its images itself; results do not, and say nothing of an image without a box.
    """

    images: dict[int, CocoImage] = field(default_factory=dict)
    boxes: dict[int, list[CocoBox]] = field(default_factory=dict)
    categories: dict[int, str] = field(default_factory=dict)
    whole: bool = True


def read_coco(path: Path, *, results_of: Path | None = None) -> CocoFile:
    """Read annotations, or, where `results_of` is the file of the annotations with their images, results.

    Raises
    ------
    DataError
        If the file is not a COCO file, or an entry of it is malformed; names the entry.
    """
    content = read_json(path)
    if isinstance(content, list):
        if results_of is None or not results_of.is_file():
            msg = f"{path} holds COCO results, whose images only the annotations name"
            raise DataError(msg, hint=f"put {results_of.name if results_of else 'the annotations'} beside it")
        known = read_coco(results_of)
        return CocoFile(known.images, _boxes(content, known.images, path), known.categories, whole=False)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        msg = f"{path} is not a COCO file: it has no list images"
        raise DataError(msg, hint='a COCO file is {"images": […], "annotations": […], "categories": […]}')
    images = {}
    for place, item in enumerate(content["images"]):
        try:
            sides = [None if item.get(name) is None else int(item[name]) for name in ("width", "height")]
            image = CocoImage(int(item["id"]), str(item["file_name"]), sides[0], sides[1], _own_id(item))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            msg = f"{path}: images[{place}] has no id and file_name as COCO has them"
            raise DataError(msg) from error
        if image.number in images:
            msg = f"{path}: images[{place}]: id {image.number} is given twice"
            raise DataError(msg)
        images[image.number] = image
    return CocoFile(images, _boxes(content.get("annotations") or (), images, path), _categories(content, path))


def _categories(content: dict[str, Any], path: Path) -> dict[int, str]:
    """Names of the categories by id."""
    names: dict[int, str] = {}
    with raise_as(DataError, f"{path}: a category has no id and name", KeyError, TypeError, ValueError, say=None):
        pairs = [(int(item["id"]), str(item["name"])) for item in content.get("categories") or ()]
    for number, name in pairs:
        if names.setdefault(number, name) != name:
            msg = f"{path}: the categories {names[number]} and {name} have one id, {number}"
            raise DataError(msg, hint="give each category an id of its own")
    return names


def _own_id(item: dict[str, Any]) -> str:
    found = item.get("image_id")
    return found if isinstance(found, str) else ""


def _boxes(items: Any, images: dict[int, CocoImage], path: Path) -> dict[int, list[CocoBox]]:
    boxes: dict[int, list[CocoBox]] = {}
    for place, item in enumerate(items):
        where = f"{path}: annotations[{place}]"
        try:
            number, category = int(item["image_id"]), int(item["category_id"])
            edges = parse_box([str(value) for value in item["bbox"]], sized=True) if item.get("bbox") else None
            score = None if item.get("score") is None else float(item["score"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            msg = f"{where} has no image_id, category_id and bbox as COCO has them"
            raise DataError(msg) from error
        if isinstance(edges, str) or (score is not None and not math.isfinite(score)):
            msg = f"{where}: {edges if isinstance(edges, str) else f'score {score} is not finite'}"
            raise DataError(msg)
        if number not in images:
            msg = f"{where}: no image has the id {number}"
            raise DataError(msg)
        if edges is not None:
            boxes.setdefault(number, []).append(CocoBox(edges, category, score, bool(item.get("iscrowd"))))
    return boxes


def _list_rows(config: DatasetConfig, split: str, problems: Problems) -> Listing:
    """List images with the classes and boxes of their annotations.

    Labels number the categories in the order of their ids, from 0. The label of an image is the category with the
    largest box, then the others by area; an image without a box has none. Groups (``iscrowd``) give no box.
    """
    path = _annotations_path(config, split)
    content = read_coco(path)
    labels = {category: label for label, category in enumerate(sorted(content.categories))}
    names = {labels[category]: name for category, name in content.categories.items()}
    rows: list[ListedRow] = []
    annotations: list[Annotation] = []
    folder = image_folder(config.image_root(), path, [image.file_name for image in content.images.values()])
    for image in content.images.values():
        where = f"{path.name}: image {image.number}"
        if fault := path_fault(image.file_name):
            problems.add(where, fault)
            continue
        own = [box for box in content.boxes.get(image.number, ()) if not box.crowd]
        if unknown := {box.category for box in own} - labels.keys():
            problems.add(where, f"category {min(unknown)} is not among the categories")
            continue
        found = labels_by_area((labels[box.category], box.edges) for box in own)
        rows.append(ListedRow(image.file_name, folder + image.file_name, found, image.width, image.height, where))
        annotations += [Annotation(image.file_name, "box", *box.edges, "", where) for box in own]
    if len({row.image_id for row in rows}) < len(rows):
        seen: set[str] = set()
        twice = next(row for row in rows if row.image_id in seen or seen.add(row.image_id))  # type: ignore[func-returns-value]
        problems.add(path.name, f"two images have the file name {twice.path!r}")
    annotations += mask_annotations(config, rows, problems)
    return Listing(rows=rows, annotations=annotations, classes=len(names) or None, class_names=names)


def _sources(config: DatasetConfig, split: str) -> Iterator[Stamp]:
    """The annotations file."""
    yield stamp(_annotations_path(config, split))


def _annotations_path(config: DatasetConfig, split: str) -> Path:
    return metadata_file(config, split, ".json", needs="FILE.json", kind="COCO file")


def image_folder(root: Path, path: Path, names: Sequence[str]) -> str:
    """Folder below the root, with its slash, in which the images of a file lie: that of COCO's own splits, or none.

    ``instances_train2017.json`` names images of ``train2017/``, other files those of ``images/`` or beside themselves.
    """
    first = names[:1]
    part = path.stem.partition("_")[2] or path.stem
    beside = path.parent.relative_to(root).as_posix() if path.parent.is_relative_to(root) else ""
    folders = ("", f"{part}/", f"images/{part}/", "images/", f"{path.stem}/", f"images/{path.stem}/", f"{beside}/")
    return next((folder for folder in folders for name in first if (root / f"{folder}{name}").is_file()), "")


LAYOUT = Layout(_list_rows, _sources, TREE, keys=frozenset({"metadata", "masks"}))
