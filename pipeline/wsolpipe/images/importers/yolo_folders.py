"""Layout `yolo`: images with a text file of boxes each, as Ultralytics' ``data.yaml`` describes them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import BadImageError
from wsolpipe.images.decode import probe, read_file
from wsolpipe.images.importers.folder import walk
from wsolpipe.images.importers.ground_truth import mask_annotations
from wsolpipe.images.importers.lines import TextFile, labels_by_area, read_lines, settle_classes, stamp, stamp_folders
from wsolpipe.images.listing import Annotation, Layout, ListedRow, Listing
from wsolpipe.keys.safe_yaml import read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wsolpipe.images.dataset import DatasetConfig
    from wsolpipe.images.importers.lines import Stamp
    from wsolpipe.images.listing import Problems

TREE = """\
  {root}/
    data.yaml                   names: [cat, dog], and train:, val:, test: where they are elsewhere   (optional)
    images/train/ 0001.jpg …    or train/images/; images/ alone without splits
    labels/train/ 0001.txt …    "class x y width height" a line, as shares of the image, or the corners of a polygon"""


def _list_rows(config: DatasetConfig, split: str, problems: Problems) -> Listing:
    """List images with the boxes and classes of their text files; an image without one has neither.

    Headers of images that have boxes are read, since the boxes are shares of their sides. The label of an image is the
    class of its largest box, then the others by area.
    """
    count, names = settle_classes(config, problems, lambda: _class_names(config, problems))
    root = config.image_root()
    paths, ignored = _images(config, split, problems)
    rows, annotations = [], []
    for path in paths:
        file = root / _label_path(path)
        found = _boxes(read_lines(file, _label_path(path), problems), problems, count) if file.is_file() else []
        size = _size(root / path, config) if found else None
        if found and size is None:  # the image cannot be read: scanning it says why
            found = []
        width, height = size or (1, 1)
        rows.append(ListedRow(path, path, labels_by_area((label, edges) for label, edges, _ in found)))
        annotations += [
            Annotation(path, "box", x0 * width, y0 * height, x1 * width, y1 * height, "", where)
            for _, (x0, y0, x1, y1), where in found
        ]
    annotations += mask_annotations(config, rows, problems)
    return Listing(rows=rows, annotations=annotations, classes=count, class_names=names, ignored=dict(ignored))


def _sources(config: DatasetConfig, split: str) -> Iterator[Stamp]:
    """The description, folders of images, and every text file, which is often corrected in its place."""
    root = config.image_root()
    yield stamp(root / "data.yaml")
    place = _place(config, split)
    if place.suffix == ".txt":
        yield stamp(place)
        return
    yield from stamp_folders(place, "images")
    labels = root / _label_path(f"{place.relative_to(root).as_posix()}/_.jpg").rpartition("/")[0]
    for folder, _, files in os.walk(labels):
        yield from (stamp(f"{folder}/{name}", os.path.relpath(f"{folder}/{name}", root)) for name in sorted(files))


def _description(config: DatasetConfig) -> dict[str, Any]:
    path = config.image_root() / "data.yaml"
    content = read_yaml(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def _class_names(config: DatasetConfig, problems: Problems) -> dict[int, str]:
    """Names of ``data.yaml``, else of the lines of ``classes.txt`` in the root or in ``labels/``."""
    names = _description(config).get("names")
    if isinstance(names, dict):
        return {int(label): str(name) for label, name in names.items()}
    if isinstance(names, list):
        return dict(enumerate(map(str, names)))
    root = config.image_root()
    for path in (root / "classes.txt", root / "labels" / "classes.txt", root / "obj.names"):
        if path.is_file():
            return dict(enumerate(line for line in read_lines(path, path.name, problems).lines if line))
    return {}


def _place(config: DatasetConfig, split: str) -> Path:
    """Folder of the images of a split, or the list of their paths.

    Raises
    ------
    ConfigError
        If there is none; shows the layout.
    """
    root, part = config.image_root(), config.split_folder(split)
    entry = _description(config).get(part or split)
    base = _description(config).get("path")
    given = [entry, f"{base}/{entry}"] if isinstance(entry, str) else []
    name = part or split
    usual = [f"images/{name}", f"{name}/images", name, f"{name}.txt"]
    places = [*given, *usual, *(["images", "."] if part is None else [])]
    for place in places:
        inside = root / str(place).removeprefix("../")  # as some exports write it, beside their own folders
        if (inside / "images").is_dir() and str(place) not in {"images", "."}:
            inside = inside / "images"
        if inside.is_dir() or inside.suffix == ".txt" and inside.is_file():
            return inside
    text = f"no images of split {split}"
    raise config.layout_error(text, hint="split: maps each split to its folder below images/, or its key in data.yaml")


def _images(config: DatasetConfig, split: str, problems: Problems) -> tuple[list[str], dict[str, int]]:
    """Paths of the images of a split below the root, and the files that were passed over."""
    root, place = config.image_root(), _place(config, split)
    if place.suffix == ".txt":
        lines = read_lines(place, place.name, problems).lines
        return [os.path.relpath(root / line, root).replace(os.sep, "/") for line in lines if line], {}
    inside = place.relative_to(root).as_posix()
    paths, ignored = walk(place, "" if inside == "." else f"{inside}/", deep=True)
    return paths, {ending: number for ending, number in ignored.items() if ending not in {".txt", ".yaml", ".cache"}}


def _label_path(path: str) -> str:
    """Text file of an image: the last folder called images is labels there; beside the image without such a folder.

    Examples
    --------
    >>> _label_path("images/train/1.jpg"), _label_path("train/images/1.jpg"), _label_path("1.jpg")
    ('labels/train/1.txt', 'train/labels/1.txt', '1.txt')
    """
    head, found, tail = f"/{path}".rpartition("/images/")
    text = f"{head}/labels/{tail}" if found else f"/{path}"
    return text.removeprefix("/").rpartition(".")[0] + ".txt"


def _boxes(
    text: TextFile, problems: Problems, count: int | None
) -> list[tuple[int, tuple[float, float, float, float], str]]:
    """Label, edges as shares of the image, and place of every line."""
    found = []
    for number, line in enumerate(text.lines, 1):
        if not line:
            continue
        try:
            label, values = int(line.split()[0]), [float(value) for value in line.split()[1:]]
        except ValueError:
            problems.add(text.at(number), f"not 'class x y width height': {line!r}")
            continue
        if label < 0 or (count is not None and label >= count):
            problems.add(text.at(number), f"class {label} is outside the {count} classes of data.yaml")
        elif len(values) not in (4, 5) and (len(values) < 6 or len(values) % 2):
            problems.add(text.at(number), f"not 'class x y width height': {len(values) + 1} numbers")
        elif not all(-0.01 <= value <= 1.01 for value in values):  # also refuses what is not a number
            problems.add(text.at(number), f"not shares of the image, which lie between 0 and 1: {line!r}")
        else:
            found.append((label, _edges(values), text.at(number)))
    return found


def _edges(values: list[float]) -> tuple[float, float, float, float]:
    """Edges of a box by its middle and sides (a fifth number is a score), or around the corners of a polygon."""
    if len(values) > 5:
        across, down = values[0::2], values[1::2]
        return min(across), min(down), max(across), max(down)
    x, y, width, height = values[:4]
    return max(0.0, x - width / 2), max(0.0, y - height / 2), min(1.0, x + width / 2), min(1.0, y + height / 2)


def _size(path: Path, config: DatasetConfig) -> tuple[int, int] | None:
    try:
        found = probe(read_file(str(path)), exif=config.exif)
    except (BadImageError, OSError):
        return None
    return found.width, found.height


LAYOUT = Layout(_list_rows, _sources, TREE, keys=frozenset({"masks"}), upright=True)
