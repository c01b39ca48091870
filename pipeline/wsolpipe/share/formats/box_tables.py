"""Tables of boxes: ``localization.txt``, CSV, Parquet and JSON lines."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from wsolpipe.contract.errors import DataError, reason
from wsolpipe.images.label_lines import (
    LabelBox,
    LabelledImage,
    box_lines,
    entry_of,
    label_line,
    read_box,
    read_boxes,
    read_label_lines,
)
from wsolpipe.share.formats.base import Format, Found, Subject, find_file

EDGES = ("x0", "y0", "x1", "y1")
COLUMNS = ("image_id", "path", "label", "name", *EDGES, "score", "rank", "source", "row", "split", "width", "height")
AT_ONCE = 50_000


class BoxList(Format):
    """``localization.txt``: ``image_id,x0,y0,x1,y1`` a line, the field's own exchange format."""

    about = "localization.txt of the metadata layout: image_id,x0,y0,x1,y1 a line"
    loss = "classes, scores and images without a box; edges keep two decimals"
    trained = True

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write ``localization.txt``."""
        path = folder / "localization.txt"
        with path.open("w", encoding="utf-8") as file:
            for image in images:
                edges = [box.edges for box in image.boxes[: subject.top]]
                file.write(box_lines({image.image_id: np.array(edges, np.float64).reshape(-1, 4)}))
        return [path]

    def read(self, path: Path, split: str) -> Iterator[Found]:
        """Boxes by image id."""
        file = find_file(path, "localization.txt", f"{split}/localization.txt")
        for name, edges in read_boxes(file).items():
            yield Found(name, tuple(LabelBox((x0, y0, x1, y1)) for x0, y0, x1, y1 in edges.tolist()), str(file))


class JsonLines(Format):
    """One line for each image; the format that a stage of imported boxes reads."""

    about = "JSON lines: an object an image, its boxes in a list"

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:  # noqa: ARG002
        """Write ``labels.jsonl``."""
        path = folder / "labels.jsonl"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(map(label_line, images))
        return [path]

    def read(self, path: Path, split: str) -> Iterator[Found]:
        """Boxes by image id."""
        file = find_file(path, "labels.jsonl", f"{split}/labels.jsonl")
        for number, image in enumerate(read_label_lines(file), 1):
            yield Found(image.image_id, image.boxes, f"{file}:{number}", drawn=None if image.drawn else False)


class Csv(Format):
    """One row for each box, and one with empty edges for an image without a box."""

    about = "CSV table, a row a box"

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write ``boxes.csv``."""
        path = folder / "boxes.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for image in images:
                writer.writerows(box_rows(image, subject.split))
        return [path]

    def read(self, path: Path, split: str) -> Iterator[Found]:
        """Boxes by image; rows of one image stand together."""
        file = find_file(path, "boxes.csv", f"{split}/boxes.csv")
        try:
            with file.open(encoding="utf-8-sig", newline="") as text:
                reader = csv.DictReader(text)
                _check_header(file, reader.fieldnames or ())
                yield from _gather((f"{file}:{reader.line_num}", line) for line in reader)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            msg = f"cannot read {file}: {reason(error)}"
            raise DataError(msg) from error


class Parquet(Format):
    """The table of `Csv` in Parquet."""

    about = "Parquet table, a row a box, the columns of format=csv"

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write ``boxes.parquet``."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {"image_id": pa.string(), "path": pa.string(), "name": pa.string(), "split": pa.string()}
        kinds |= dict.fromkeys((*EDGES, "score"), pa.float64())
        schema = pa.schema([(name, kinds.get(name, pa.int64())) for name in COLUMNS])
        path = folder / "boxes.parquet"
        lines = (line for image in images for line in box_rows(image, subject.split))
        with pq.ParquetWriter(path, schema) as writer:
            while part := list(islice(lines, AT_ONCE)):
                columns = [list(column) for column in zip(*part, strict=True)]
                writer.write_table(pa.table(columns, schema=schema))
        return [path]

    def read(self, path: Path, split: str) -> Iterator[Found]:
        """Boxes by image."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = find_file(path, "boxes.parquet", f"{split}/boxes.parquet")
        try:
            table = pq.ParquetFile(file)
            _check_header(file, table.schema_arrow.names)
            numbered = enumerate((row for part in table.iter_batches(AT_ONCE) for row in part.to_pylist()), 1)
            yield from _gather((f"{file}: row {number}", row) for number, row in numbered)
        except (OSError, pa.ArrowException) as error:
            msg = f"cannot read {file}: {str(error).splitlines()[0]}"
            raise DataError(msg) from error


def box_rows(image: LabelledImage, split: str) -> Iterator[tuple[Any, ...]]:
    """Rows of one image in the order of `COLUMNS`; None in every column of a box that is not there."""
    tail = (image.row, split, image.width, image.height)
    if not image.boxes:
        yield image.image_id, image.path, *[None] * 9, *tail
    for rank, box in enumerate(image.boxes):
        head = (image.image_id, image.path, box.label, box.name or None)
        yield *head, *box.edges, box.score, rank, box.source, *tail


def _check_header(path: Path, names: Iterable[str]) -> None:
    missing = [name for name in EDGES if name not in names]
    if missing or not {"image_id", "path"} & set(names):
        needed = ", ".join(missing) or "image_id or path"
        msg = f"{path} has no column {needed}; it has: {', '.join(names) or 'nothing'}"
        raise DataError(msg, hint=f"columns: {', '.join(COLUMNS)}; image_id (or path) and the edges must be there")


def _gather(lines: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[Found]:
    """Boxes of each run of lines that name one image."""
    named = ((str(line.get("image_id") or line.get("path") or ""), where, line) for where, line in lines)
    for name, run in groupby(named, key=lambda item: item[0]):
        boxes, first = [], ""
        for _, where, line in run:
            first = first or where
            if any(line[edge] not in (None, "") for edge in EDGES):
                word, label, score, source = (line.get(key) for key in ("name", "label", "score", "source"))
                with entry_of(where, "a box with integers label and source and a number score"):
                    edges = [line[edge] for edge in EDGES]
                    boxes.append(read_box(edges, word, label=label, score=score, source=source))
        yield Found(name, tuple(boxes), first)
