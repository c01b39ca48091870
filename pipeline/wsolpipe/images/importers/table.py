"""Layout `csv`: one CSV, TSV or Parquet table of images; an image with several boxes or labels has several lines.

Columns (`columns:` in the YAML maps these names to the table's own):

``path`` (needed; relative to the root), ``image_id`` (default: the path), ``label`` or ``labels`` (integers, several as
``1;4``, or names; without a class list those of the whole table in sorted order), ``width``, ``height``, ``x0``,
``y0``, ``x1``, ``y1`` (a box, or all empty; with ``box_format: xywh`` the last two are width and height), ``mask`` and
``ignore`` (files relative to `masks:` or the root), ``group``, ``frame``, ``split``. Other columns are ignored.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, unknown
from wsolpipe.images.importers.ground_truth import mask_annotations
from wsolpipe.images.importers.lines import Stamp, label_of, metadata_file, parse_box, path_fault, settle_classes, stamp
from wsolpipe.images.listing import TEXTS, Annotation, Layout, ListedRow, Listing, Problems

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from wsolpipe.images.dataset import DatasetConfig

TREE = """\
  {root}/                       image files, at the paths that the table names
  <metadata>                    a .csv or .parquet table with the columns path, label (or 1;4), and, where known,
                                image_id, width, height, x0, y0, x1, y1, mask, ignore, group, frame, split"""
BOX = ("x0", "y0", "x1", "y1")
COLUMNS = (
    "path",
    "image_id",
    "label",
    "labels",
    "width",
    "height",
    *BOX,
    "mask",
    "ignore",
    "group",
    "frame",
    "split",
)


@dataclass
class _Image:
    """The fields of one image from the lines read so far."""

    path: str
    where: str
    labels: list[int] = field(default_factory=list)
    size: tuple[int, int] | None = None
    size_where: str = ""
    group: str = ""
    frame: int | None = None

    def row(self, image_id: str) -> ListedRow:
        width, height = self.size or (None, None)
        labels = tuple(self.labels)
        return ListedRow(image_id, self.path, labels, width, height, self.size_where, self.group, self.frame)


def _list_rows(config: DatasetConfig, split: str, problems: Problems) -> Listing:
    """Read the lines of `split`: all of the table, or those whose ``split`` column names it."""
    wanted = config.split_folder(split) or split
    path = table_path(config, split)
    count, names = settle_classes(config, problems, lambda: _names_in(config))
    by_name = {name: label for label, name in names.items()}
    others: Counter[str] = Counter()
    images: dict[str, _Image] = {}
    annotations: list[Annotation] = []
    mask_root: Path | None = None
    for where, line in read_table(config, path):
        if line.get("split", wanted) not in (wanted, split):
            others[line["split"]] += 1
            continue
        if fault := path_fault(line["path"]):
            problems.add(where, fault)
            continue
        image_id = line.get("image_id") or line["path"]
        first = images.get(image_id)
        image = first or _Image(line["path"], where)
        images[image_id] = image
        try:
            labels = _labels(line.get("label") or line.get("labels") or "", by_name, count)
            new = _merge(image, labels, line, where)
            own = list(_annotations(image_id, line, where, config))
        except ValueError as error:
            problems.add(where, str(error))
            continue
        if first is not None and not new and not own:
            problems.add(where, f"duplicate id {image_id!r}, first at {first.where}")
        for item in own:
            if item.kind != "box":
                mask_root = mask_root or config.mask_root()
                if not os.path.isfile(os.path.join(mask_root, item.path)):
                    problems.add(where, f"no mask file {item.path} in {mask_root}")
            annotations.append(item)
    rows = [image.row(image_id) for image_id, image in images.items()]
    annotations += mask_annotations(config, rows, problems) if not any(a.kind == "mask" for a in annotations) else []
    known = {*config.splits, *(config.split_folder(other) for other in config.splits)}
    notes = [
        f"{path.name}: {lines:,} lines are of "
        + (f"split {name!r}, which the data set's YAML does not name" if name else "no split")
        for name, lines in others.items()
        if name not in known
    ]
    return Listing(rows=rows, annotations=annotations, classes=count, class_names=names, notes=notes)


def _names_in(config: DatasetConfig) -> dict[int, str]:
    """Class names of the tables of all splits in sorted order; none where the first label is a number."""
    tables = sorted({table_path(config, split) for split in config.splits})
    lines = (line for path in tables for _, line in read_table(config, path))
    cells = (line.get("label") or line.get("labels") or "" for line in lines)
    found = {part.strip() for cell in takewhile(lambda cell: not _is_number(cell), cells) for part in cell.split(";")}
    return dict(enumerate(sorted(found - {""})))


def _is_number(cell: str) -> bool:
    return cell.partition(";")[0].strip().lstrip("-").isdecimal()


def _sources(config: DatasetConfig, split: str) -> Iterator[Stamp]:
    """The tables; those of all splits where their labels make the classes."""
    splits = [split] if isinstance(config.classes, str) else config.splits
    yield from (stamp(path) for path in sorted({table_path(config, each) for each in splits}))


def table_path(config: DatasetConfig, split: str) -> Path:
    """The table of a split; see `metadata_file`."""
    return metadata_file(config, split, ".csv", needs="FILE.csv or FILE.parquet", kind="table")


def read_table(config: DatasetConfig, path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Lines of a table as (``file:line``, our column -> text); empty cells and unknown columns are left out.

    Raises
    ------
    ConfigError
        If `columns` names a missing column, or there is no column of paths.
    """
    lines = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    header = next(lines)[1]
    chosen = _choose_columns(config, path, header)
    if (
        len(config.splits) > 1
        and "split" not in dict(chosen)
        and path == config.locate("metadata", str(config.metadata))
    ):
        msg = f"{path} has no column 'split', and {config.source} names {len(config.splits)} splits: all would be alike"
        raise ConfigError(
            msg, hint="columns: {split: NAME} names the column of splits, or metadata: a folder of a table each"
        )
    splits = "split" in dict(chosen)
    for where, cells in lines:
        line = {name: cells[place] for name, place in chosen if place < len(cells) and cells[place] != ""}
        if splits:
            line.setdefault("split", "")
        line.setdefault("path", "")
        yield where, line


def read_rows(path: Path, columns: Mapping[str, str]) -> tuple[list[str], list[list[str]], int, int | None]:
    """Header and lines of a table as they are, and the places of the columns of paths and of labels."""
    (_, header), *lines = _csv(path)
    label = columns.get("label", "label")
    cells = [line + [""] * (len(header) - len(line)) for _, line in lines]
    return header, cells, header.index(columns.get("path", "path")), header.index(label) if label in header else None


def _csv(path: Path) -> Iterator[tuple[str, list[str]]]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        header = file.readline()
        delimiter = max(",;\t", key=header.count)  # spreadsheets of some languages separate by semicolons
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter)
        yield "", [cell.strip() for cell in next(reader, [])]
        for cells in reader:
            if cells:
                yield f"{path.name}:{reader.line_num}", [cell.strip() for cell in cells]


def _parquet(path: Path) -> Iterator[tuple[str, list[str]]]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    yield "", table.column_names
    columns = [column.to_pylist() for column in table.columns]
    for number, cells in enumerate(zip(*columns, strict=True), 1):
        yield f"{path.name}: row {number}", [_text(cell) for cell in cells]


def _text(cell: Any) -> str:
    """A cell of Parquet as CSV text."""
    if cell is None or cell != cell:  # NaN marks a missing number  # noqa: PLR0124
        return ""
    if isinstance(cell, list):
        return ";".join(map(_text, cell))
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _choose_columns(config: DatasetConfig, path: Path, header: list[str]) -> list[tuple[str, int]]:
    """Our column names with their places in the table."""
    for ours, theirs in config.columns.items():
        if ours not in COLUMNS:
            msg = f"{config.source}: columns: {unknown('column', ours, COLUMNS)}"
            raise ConfigError(msg)
        if theirs not in header:
            msg = f"{path}: {unknown('column', theirs, header)}"
            raise ConfigError(msg)
    names = {ours: config.columns.get(ours, ours) for ours in COLUMNS}
    chosen = [(ours, header.index(theirs)) for ours, theirs in names.items() if theirs in header]
    if "path" not in dict(chosen):
        msg = f"{path} has no column 'path'; it has: {', '.join(header) or 'nothing'}"
        raise ConfigError(msg, hint="columns: {path: NAME} in the YAML names the column of paths")
    return chosen


def _labels(text: str, by_name: Mapping[str, int], count: int | None) -> list[int]:
    parts = [text] if text in by_name else filter(None, (part.strip() for part in text.split(";")))
    return [label_of(part, by_name, count) for part in parts]


def _merge(image: _Image, labels: list[int], line: Mapping[str, str], where: str) -> bool:
    """Add the fields of a line to its image; return whether it has a new label.

    Raises
    ------
    ValueError
        If it contradicts an earlier line.
    """
    if line["path"] != image.path:
        msg = f"path {line['path']!r}, but {image.path!r} at {image.where}"
        raise ValueError(msg)
    if "width" in line or "height" in line:
        size = _whole(line, "width", 1), _whole(line, "height", 1)
        if image.size not in (None, size):
            msg = f"size {size[0]}x{size[1]} contradicts {image.size_where}"
            raise ValueError(msg)
        if image.size is None:
            image.size, image.size_where = size, where
    image.group = line.get("group", image.group)
    if "frame" in line:
        image.frame = _whole(line, "frame", 0)
    new = [label for label in labels if label not in image.labels]
    image.labels += new
    return bool(new)


def _whole(line: Mapping[str, str], name: str, least: int) -> int:
    text = line.get(name, "")
    if not text.isdecimal() or int(text) < least:
        msg = f"{name} {text!r} is not a whole number of at least {least}"
        raise ValueError(msg)
    return int(text)


def _annotations(image_id: str, line: Mapping[str, str], where: str, config: DatasetConfig) -> Iterator[Annotation]:
    fields = [line.get(name, "") for name in BOX]
    if any(fields):
        box = parse_box(fields, sized=config.box_format == "xywh")
        if isinstance(box, str):
            raise ValueError(box)
        yield Annotation(image_id, "box", *box, "", where)
    for kind in ("mask", "ignore"):
        path = line.get(kind)
        if path:
            if fault := path_fault(path):
                raise ValueError(fault)
            yield Annotation(image_id, "mask" if kind == "mask" else "ignore", path=path, where=where)


LAYOUT = Layout(_list_rows, _sources, TREE, keys=TEXTS - {"files"} | {"columns"}, upright=True)
