"""Layouts `tar` and `parquet`: images as members of tar files, or as bytes in tables.

Tar files are those of webdataset, or class folders packed as they are; tables those of Hugging Face `datasets`.
"""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, first_line, unknown
from wsolpipe.images.importers.lines import IMAGE_ENDINGS, label_of, parse_box, path_fault, read_classes, stamp
from wsolpipe.images.listing import Annotation, Layout, ListedRow, Listing
from wsolpipe.images.members import tar_members

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from wsolpipe.images.dataset import DatasetConfig
    from wsolpipe.images.importers.lines import Edges, Stamp
    from wsolpipe.images.listing import Problems

TAR_TREE = """\
  {root}/
    train-000.tar …    sample.jpg, sample.cls (a label) or sample.json (label or labels, boxes), sample by sample
                       or cat/0001.jpg …, one folder a class
                       split: maps each split to the beginning of its files' names or to their folder"""
PARQUET_TREE = """\
  {root}/
    train-00000-of-00002.parquet …   columns image (bytes, or a struct with bytes and path), label or labels, image_id,
                                     objects (bbox a list of boxes); columns: gives other names
                                     split: maps each split to the beginning of its files' names or to their folder"""
COLUMNS = ("image", "image_id", "label", "labels", "objects")
MOST_BYTES = 2**20


@dataclass
class _Sample:
    """Members of one sample: the image, and the texts beside it."""

    image: str = ""
    texts: dict[str, str] = field(default_factory=dict)


def list_members(config: DatasetConfig, split: str, problems: Problems) -> Listing:
    """List the images of a split's archives; an image is known by its name in the archive.

    A sample's name goes to the first dot. Its label is that of ``.cls``, else of ``.json``, else its folder in the
    archive where the class list knows it; without a class list folders are numbered in sorted order.
    """
    count, names = read_classes(config, None, problems)
    samples: dict[str, tuple[str, _Sample]] = {}
    for path in archives(config, split, ".tar"):
        inside = path.relative_to(config.image_root()).as_posix()
        for sample in _samples(path, problems):
            if not sample.image:
                continue
            if sample.image in samples:
                problems.add(f"{inside}#{sample.image}", f"duplicate id, first in {samples[sample.image][0]}")
            elif fault := path_fault(sample.image):
                problems.add(f"{inside}#{sample.image}", fault)
            else:
                samples[sample.image] = (inside, sample)
    if not names and not any(sample.texts for _, sample in samples.values()):
        folders = sorted({image.partition("/")[0] for image in samples if "/" in image})
        names, count = dict(enumerate(folders)), max(len(folders), count or 0) or None
    labels = {name: label for label, name in names.items()}
    rows: list[ListedRow] = []
    annotations: list[Annotation] = []
    for image, (inside, sample) in samples.items():
        where = f"{inside}#{image}"
        try:
            own, boxes = _facts(image, sample, labels, count)
        except ValueError as error:
            problems.add(where, str(error))
            continue
        rows.append(ListedRow(image, where, own))
        annotations += [Annotation(image, "box", *box, "", where) for box in boxes]
    return Listing(rows=rows, annotations=annotations, classes=count, class_names=names)


def archive_sources(config: DatasetConfig, split: str, *, ending: str) -> Iterator[Stamp]:
    """The archives of the split."""
    yield from (stamp(path) for path in archives(config, split, ending))


def archives(config: DatasetConfig, split: str, ending: str) -> list[Path]:
    """Archives of a split: in the folder that it maps to, or with names that begin so; all where it maps to nothing.

    Raises
    ------
    ConfigError
        If there is none, or only compressed ones.
    """
    root = config.image_root()
    given = config.split_folder(split)
    if given in (None, "", "."):
        found = sorted(root.rglob(f"*{ending}"))
    elif (root / str(given)).is_dir():
        found = sorted((root / str(given)).rglob(f"*{ending}"))
    else:
        head, _, name = str(given).rpartition("/")
        found = sorted(path for path in (root / head).glob(f"*{ending}") if path.name.startswith(name))
    if not found:
        packed = any(root.rglob(f"*{ending}.*"))
        text = f"no {ending} file of split {split} in {root}" + (", only compressed ones" if packed else "")
        raise config.layout_error(text, hint="split: maps each split to the beginning of its files' names")
    return found


def _samples(path: Path, problems: Problems) -> list[_Sample]:
    """Samples of one archive, in its order."""
    found: dict[str, _Sample] = {}
    try:
        with path.open("rb") as file:
            for name, start, size in tar_members(os.fspath(path)):
                folder, slash, last = name.rpartition("/")
                stem, _, ending = last.partition(".")
                if not stem:
                    continue
                if last.lower().endswith(IMAGE_ENDINGS):
                    key = f"{folder}{slash}{stem}"
                    if found.setdefault(key, _Sample()).image:  # two images of one sample, such as a mask beside it
                        found[name] = _Sample(name)
                    else:
                        found[key].image = name
                elif ending in {"cls", "json"} and size <= MOST_BYTES:
                    file.seek(start)
                    text = file.read(size).decode("utf-8", "replace").strip()
                    found.setdefault(f"{folder}{slash}{stem}", _Sample()).texts[ending] = text
    except (OSError, tarfile.TarError, EOFError) as error:
        problems.add(path.name, f"cannot be read as a tar file: {error}")
    return list(found.values())


def _facts(
    image: str, sample: _Sample, labels: Mapping[str, int], count: int | None
) -> tuple[tuple[int, ...], list[Edges]]:
    """Labels and boxes of a sample.

    Raises
    ------
    ValueError
        If a label or box of it is malformed.
    """
    values: Any = json.loads(sample.texts["json"]) if "json" in sample.texts else {}
    values = values if isinstance(values, dict) else {}
    given = sample.texts.get("cls", values.get("labels", values.get("label")))
    folder = image.partition("/")[0]
    if given is None and "/" in image and folder in labels:
        given = folder
    return _labels(given, labels, count), _edges(values.get("boxes") or [])


def _labels(given: Any, labels: Mapping[str, int], count: int | None) -> tuple[int, ...]:
    """Labels of an image, each once, of one value or a list of them."""
    listed = [] if given is None else given if isinstance(given, list) else [given]
    return tuple(dict.fromkeys(label_of(item, labels, count) for item in listed))


def _edges(boxes: list[Any], *, sized: bool = False) -> list[Edges]:
    """Boxes of an image; raises ValueError where one is malformed."""
    found = []
    for item in boxes:
        box = parse_box([str(edge) for edge in item], sized=sized) if isinstance(item, list) else f"not a box: {item!r}"
        if isinstance(box, str):
            raise ValueError(box)  # noqa: TRY004
        found.append(box)
    return found


def list_cells(config: DatasetConfig, split: str, problems: Problems) -> Listing:
    """List the rows of a split's tables without reading an image.

    An image is known by ``image_id``, else by the ``path`` inside its struct, else by file and row. Class names are
    those of the class list, else of a ``ClassLabel`` in the tables' own description. Boxes of ``objects.bbox`` are read
    by `box_format`, which is xywh in most published data sets.
    """
    root = config.image_root()
    count, names = read_classes(config, None, problems)
    rows: list[tuple[str, str, dict[str, Any]]] = []
    for path in archives(config, split, ".parquet"):
        inside = path.relative_to(root).as_posix()
        found, described = _read(config, path, problems)
        if not names and described:
            names, count = dict(enumerate(described)), max(len(described), count or 0)
        rows += [
            (f"{inside}#{_image_column(config)}/{row}", f"{inside}: row {row}", line) for row, line in enumerate(found)
        ]
    labels = {name: label for label, name in names.items()}
    own_names = [str(line.get("image_id") or line.get("path") or "") for _, _, line in rows]
    named = all(own_names) and len(set(own_names)) == len(own_names)
    listed: list[ListedRow] = []
    annotations: list[Annotation] = []
    for (place, where, line), own_name in zip(rows, own_names, strict=True):
        image_id = own_name if named else place
        given = line.get("labels") if line.get("labels") is not None else line.get("label")
        try:
            found_labels = _labels(given, labels, count)
            boxes = _edges(_boxes_of(line), sized=config.box_format == "xywh")
        except ValueError as error:
            problems.add(where, str(error))
            continue
        listed.append(ListedRow(image_id, place, found_labels))
        annotations += [Annotation(image_id, "box", *box, "", where) for box in boxes]
    return Listing(rows=listed, annotations=annotations, classes=count, class_names=names)


def _image_column(config: DatasetConfig) -> str:
    return config.columns.get("image", "image")


def _read(config: DatasetConfig, path: Path, problems: Problems) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of a table by our names of columns, and the names of its classes, if it describes them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        problems.add(path.name, f"not a Parquet file: {first_line(error)}")
        return [], []
    schema = file.schema_arrow
    for ours, theirs in config.columns.items():
        if ours not in COLUMNS:
            msg = f"{config.source}: columns: {unknown('column', ours, COLUMNS)}"
            raise ConfigError(msg)
        if theirs not in schema.names:
            msg = f"{path}: {unknown('column', theirs, schema.names)}"
            raise ConfigError(msg)
    image = _image_column(config)
    if image not in schema.names:
        msg = f"{path} has no column {image!r}; it has: {', '.join(schema.names)}"
        raise ConfigError(msg, hint="columns: {image: NAME} in the YAML names the column of images")
    there = {ours: config.columns.get(ours, ours) for ours in COLUMNS[1:]}
    there = {ours: theirs for ours, theirs in there.items() if theirs in schema.names}
    kind = schema.field(image).type
    packed = pa.types.is_struct(kind)
    if not (packed and kind.get_field_index("bytes") >= 0) and not pa.types.is_binary(kind):
        msg = f"{path}: column {image!r} holds {kind}, not the bytes of images"
        raise ConfigError(msg, hint="columns: {image: NAME} in the YAML names the column of images")
    inner = [f"{image}.path"] if packed and kind.get_field_index("path") >= 0 else []
    lines: list[dict[str, Any]] = []
    wanted = [*there.values(), *inner]
    for row in file.read(columns=wanted).to_pylist() if wanted else [{}] * file.metadata.num_rows:
        line = {ours: row[theirs] for ours, theirs in there.items()}
        lines.append({**line, "path": (row[image] or {}).get("path")} if inner else line)
    return lines, _described(schema, there.get("label", there.get("labels", "")))


def _described(schema: Any, column: str) -> list[str]:
    """Names of classes in the description that `datasets` keeps in a table's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
        return [str(name) for name in names]
    except (KeyError, TypeError, ValueError):
        return []


def _boxes_of(line: Mapping[str, Any]) -> list[Any]:
    objects = line.get("objects") or {}
    return [item.get("bbox") for item in objects] if isinstance(objects, list) else objects.get("bbox") or []


TAR = Layout(list_members, partial(archive_sources, ending=".tar"), TAR_TREE, upright=True)
PARQUET = Layout(
    list_cells,
    partial(archive_sources, ending=".parquet"),
    PARQUET_TREE,
    keys=frozenset({"columns", "box_format"}),
    upright=True,
)
