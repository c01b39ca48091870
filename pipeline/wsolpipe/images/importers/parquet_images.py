"""Layout `parquet`: images as bytes in Parquet tables, as Hugging Face `datasets` writes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown
from wsolpipe.images.importers.lines import parse_box, read_classes, stamp
from wsolpipe.images.importers.tar_archives import archives, label_of
from wsolpipe.images.layouts import Layout
from wsolpipe.images.listing import Annotation, ListedRow, Listing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wsolpipe.images.dataset import DatasetConfig
    from wsolpipe.images.importers.lines import Stamp
    from wsolpipe.images.listing import Problems

TREE = """\
  {root}/
    train-00000-of-00002.parquet …   columns image (bytes, or a struct with bytes and path), label or labels, image_id,
                                     objects (bbox a list of boxes); columns: gives other names
                                     split: maps each split to the beginning of its files' names or to their folder"""
COLUMNS = ("image", "image_id", "label", "labels", "objects")


def list_rows(config: DatasetConfig, split: str, problems: Problems) -> Listing:
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
        given = [] if given is None else given if isinstance(given, list) else [given]
        try:
            found_labels = tuple(dict.fromkeys(label_of(item, labels, count) for item in given))
            boxes = _boxes(line, sized=config.box_format == "xywh")
        except ValueError as error:
            problems.add(where, str(error))
            continue
        listed.append(ListedRow(image_id, place, found_labels))
        annotations += [Annotation(image_id, "box", *box, "", where) for box in boxes]
    return Listing(rows=listed, annotations=annotations, classes=count, class_names=names)


def sources(config: DatasetConfig, split: str) -> Iterator[Stamp]:
    """The tables of the split and the class list."""
    for path in archives(config, split, ".parquet"):
        yield stamp(path)
    if isinstance(config.classes, str):
        yield stamp(config.locate("classes", config.classes))


def _image_column(config: DatasetConfig) -> str:
    return config.columns.get("image", "image")


def _read(config: DatasetConfig, path: Path, problems: Problems) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of a table by our names of columns, and the names of its classes, if it describes them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        problems.add(path.name, f"not a Parquet file: {str(error).splitlines()[0]}")
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


def _boxes(line: dict[str, Any], *, sized: bool) -> list[tuple[float, float, float, float]]:
    objects = line.get("objects") or {}
    edges = [item.get("bbox") for item in objects] if isinstance(objects, list) else objects.get("bbox") or []
    found = []
    for item in edges:
        box = parse_box([str(edge) for edge in item or ()], sized=sized)
        if isinstance(box, str):
            raise ValueError(box)  # noqa: TRY004
        found.append(box)
    return found


LAYOUT = Layout(list_rows, sources, TREE, keys=frozenset({"columns", "box_format"}), upright=True)
