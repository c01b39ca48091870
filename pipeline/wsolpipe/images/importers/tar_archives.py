"""Layout `tar`: images in uncompressed tar files, as webdataset writes them, or class folders packed as they are."""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.nearest import unknown
from wsolpipe.images.importers.lines import IMAGE_ENDINGS, parse_box, path_fault, read_classes, stamp
from wsolpipe.images.layouts import Layout
from wsolpipe.images.listing import Annotation, ListedRow, Listing
from wsolpipe.images.members import tar_members

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from wsolpipe.images.dataset import DatasetConfig
    from wsolpipe.images.importers.lines import Stamp
    from wsolpipe.images.listing import Problems

TREE = """\
  {root}/
    train-000.tar …    sample.jpg, sample.cls (a label) or sample.json (label or labels, boxes), sample by sample
                       or cat/0001.jpg …, one folder a class
                       split: maps each split to the beginning of its files' names or to their folder"""
MOST_BYTES = 2**20


@dataclass
class _Sample:
    """Members of one sample: the image, and the texts beside it."""

    image: str = ""
    texts: dict[str, str] = field(default_factory=dict)


def list_rows(config: DatasetConfig, split: str, problems: Problems) -> Listing:
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


def sources(config: DatasetConfig, split: str) -> Iterator[Stamp]:
    """The archives of the split and the class list."""
    for path in archives(config, split, ".tar"):
        yield stamp(path)
    if isinstance(config.classes, str):
        yield stamp(config.locate("classes", config.classes))


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
) -> tuple[tuple[int, ...], list[tuple[float, float, float, float]]]:
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
    listed = [] if given is None else given if isinstance(given, list) else [given]
    boxes = []
    for item in values.get("boxes") or []:
        box = parse_box([str(edge) for edge in item]) if isinstance(item, list) else f"not a box: {item!r}"
        if isinstance(box, str):
            raise ValueError(box)  # noqa: TRY004
        boxes.append(box)
    return tuple(dict.fromkeys(label_of(item, labels, count) for item in listed)), boxes


def label_of(given: Any, labels: Mapping[str, int], count: int | None) -> int:
    """Label that a number or the name of a class stands for.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if str(given) in labels:
        return labels[str(given)]
    try:
        label = int(str(given))
    except ValueError:
        told = unknown("class", str(given), labels) if labels else f"label {given!r} is not an integer"
        raise ValueError(told) from None
    if label < 0 or (count is not None and label >= count):
        msg = f"label {label} is " + (f"outside the {count} classes" if count is not None else "negative")
        raise ValueError(msg)
    return label


LAYOUT = Layout(list_rows, sources, TREE, upright=True)
