"""The check of a data set: faults of its splits, classes, labels and boxes that no single file shows.

It reads the tables of the indexes a part at a time and keeps a few numbers a row, so that its memory is bounded.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wsolpipe.contract.layout import read_json
from wsolpipe.contract.schema import EDGES, RETIRED
from wsolpipe.images.dataset import SPLITS, DatasetConfig
from wsolpipe.images.importers.folder import class_folders
from wsolpipe.images.importers.lines import IMAGE_ENDINGS
from wsolpipe.images.listing import describe_ignored
from wsolpipe.images.scan import MISSING, near_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from wsolpipe.contract.manifest import IndexManifest
    from wsolpipe.contract.reader import Index

PART_ROWS = 16_384
#: Of a sha256, by which images are compared.
HASH_BYTES = 8
EXAMPLES = 5
#: Share of the images or boxes above which a fault is an error; up to it, it is a warning.
SERIOUS = 0.01
#: The same, of images without a label: COCO's own splits have 1 %.
SERIOUS_UNLABELLED = 0.05
#: Boxes with a side of fewer pixels.
LEAST_SIDE = 2.0
#: Names of folders that hold splits or images, and are no classes.
FOLDERS = frozenset({*SPLITS, "training", "validation", "valid", "testing", "images", "imgs", "data", "jpegimages"})


@dataclass(frozen=True)
class Finding:
    """One fault of a data set.

    Attributes
    ----------
    name : str
        One of `wsolpipe.keys.run_keys.FINDINGS`, as ``accept=`` takes it.
    level : {"error", "warning"}
        Errors would spoil training: they stop a run.
    text : str
        What is wrong and where, in one line.
    advice : str
        The next step.
    count : int
        Images, boxes or classes.
    """

    name: str
    level: Literal["error", "warning"]
    text: str
    advice: str = ""
    count: int = 0

    def line(self) -> str:
        """One line with the name that ``accept=`` takes."""
        return f"{self.name}: {self.text}" + (f"; {self.advice}" if self.advice else "")


@dataclass
class SplitFacts:
    """Facts of the index of one split; retired rows are left out.

    Attributes
    ----------
    labels : Counter of int
        Images by label; an image with several labels counts for each.
    orientations, formats : Counter
        Images by EXIF orientation, and by the ending of their names.
    reasons : dict of str to (int, list of str)
        Why rows are quarantined: how many, and the first paths.
    hashes : uint64 array
        First 64 bits of the sha256 of each image that could be read, ascending.
    sides : int32 array [N, 2]
        Width and height of each image that could be read.
    boxes, relative, tiny, repeated : int
        All boxes; those within 0 … 1; with a side under `LEAST_SIDE`; those that their image has twice.
    notes : list of str
        Remarks of the importer.
    """

    index: Index
    rows: int = 0
    unlabelled: int = 0
    labels: Counter[int] = field(default_factory=Counter)
    orientations: Counter[int] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    hashes: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    sides: NDArray[np.int32] = field(default_factory=lambda: np.empty((0, 2), np.int32))
    boxes: int = 0
    relative: int = 0
    tiny: int = 0
    repeated: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def split(self) -> str:
        """Name of the split."""
        return self.index.split

    @property
    def manifest(self) -> IndexManifest:
        """Manifest of the index."""
        return self.index.manifest

    def name(self, label: int) -> str:
        """Name of a class, its number where it has none."""
        return self.manifest.class_names.get(str(label), str(label))

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the class names of the labels."""
        sides = self.sides if len(self.sides) else np.zeros((1, 2), np.int32)
        return {
            "split": self.split, "rows": self.rows, "unlabelled": self.unlabelled,
            "quarantined": {why: {"rows": count, "first": first} for why, (count, first) in self.reasons.items()},
            "labels": {self.name(label): count for label, count in sorted(self.labels.items())},
            "smallest": sides.min(axis=0).tolist(), "median": np.median(sides, axis=0).astype(int).tolist(),
            "largest": sides.max(axis=0).tolist(), "formats": dict(self.formats.most_common()),
            "orientations": {str(key): count for key, count in sorted(self.orientations.items())},
            "boxes": self.boxes, "masks": self.manifest.masks, "rows_with_truth": self.manifest.rows_with_truth,
        }  # fmt: skip


def read_facts(index: Index, check: Callable[[], None] = lambda: None) -> SplitFacts:
    """Gather what the check needs of one split, a part of its tables at a time.

    Parameters
    ----------
    check : callable
        Called after every part; may raise to stop.
    """
    import pyarrow.compute as pc

    facts = SplitFacts(index)
    hashes, sides = [facts.hashes], [facts.sides]
    for part in _parts(index, ["labels", "width", "height", "orientation", "sha256", "path", "reason"]):
        part = part.set_column(part.column_names.index("reason"), "reason", pc.fill_null(part["reason"], ""))
        listed = part.filter(pc.not_equal(part["reason"], RETIRED))
        good = listed.filter(pc.equal(listed["reason"], ""))
        for row in listed.filter(pc.not_equal(listed["reason"], "")).select(["reason", "path"]).to_pylist():
            count, first = facts.reasons.get(row["reason"], (0, []))
            facts.reasons[row["reason"]] = count + 1, [*first, row["path"]] if count < EXAMPLES else first
        facts.rows += len(listed)
        facts.unlabelled += sum(not count for count in pc.list_value_length(listed["labels"]).to_pylist())
        facts.labels.update(pc.list_flatten(listed["labels"]).to_pylist())
        facts.orientations.update(good["orientation"].to_pylist())
        facts.formats.update(map(_ending, good["path"].to_pylist()))
        hashes.append(_first_bits(good["sha256"].to_pylist()))
        sides.append(np.stack([good[side].to_numpy().astype(np.int32) for side in ("width", "height")], axis=1))
        check()
    facts.hashes, facts.sides = np.sort(np.concatenate(hashes)), np.concatenate(sides)
    _read_boxes(facts)
    with contextlib.suppress(FileNotFoundError):  # a store that was pulled has no listing
        facts.notes = read_json(index.store.backend.get(f"{index.folder}/listing.json")).get("notes", [])
    return facts


def _parts(index: Index, columns: list[str]) -> Iterator[pa.Table]:
    """Rows of an index, some at a time."""
    spans = index.spans()
    for start in range(0, index.rows, PART_ROWS):
        yield spans.table(columns, start=start, stop=min(start + PART_ROWS, index.rows))


def _annotation_parts(index: Index, columns: list[str]) -> Iterator[pa.Table]:
    """Annotations of an index, some at a time."""
    rows, start = index.annotation_spans(), 0
    while len(part := rows.table(columns, start=start, stop=start + PART_ROWS)):
        yield part
        start += len(part)


def _first_bits(digests: Iterable[str]) -> NDArray[np.uint64]:
    bits = bytes.fromhex("".join(text[: 2 * HASH_BYTES] for text in digests))
    return np.frombuffer(bits, f">u{HASH_BYTES}").astype(np.uint64)


def _ending(path: str) -> str:
    """Ending of a file, of the archive of a frame or of a cell, of the member of a tar file."""
    return path.rpartition(".")[2].partition("#")[0].lower() if "." in path else ""


def _read_boxes(facts: SplitFacts) -> None:
    """Count the boxes of a split, which stand in row order."""
    kept: NDArray[np.float64] = np.empty((0, 5))
    for part in _annotation_parts(facts.index, ["row", "kind", *EDGES]):
        boxes = np.stack([part.column(name).to_numpy().astype(np.float64) for name in ("row", *EDGES)], axis=1)
        boxes = boxes[np.array(part.column("kind").to_pylist()) == "box"]
        sides, edges = boxes[:, 3:] - boxes[:, 1:3], boxes[:, 1:]
        facts.boxes += len(boxes)
        within = ((edges >= 0) & (edges <= 1)).all(axis=1)
        facts.relative += int(within.sum())
        facts.tiny += int(((sides < LEAST_SIDE).any(axis=1) & ~within).sum())
        together = np.concatenate([kept, boxes])  # boxes of an image may lie in two parts
        facts.repeated += len(together) - len(np.unique(together, axis=0)) - (len(kept) - len(np.unique(kept, axis=0)))
        kept = boxes[boxes[:, 0] == boxes[-1, 0]] if len(boxes) else kept


def find_faults(config: DatasetConfig, splits: Sequence[SplitFacts]) -> list[Finding]:
    """Findings of a data set, errors first.

    Parameters
    ----------
    splits : sequence of SplitFacts
        Of the splits that have an index; a fault between splits needs both.
    """
    found = [
        *_unused_keys(config),
        *_shared_images(splits),
        *_class_faults(splits),
        *_too_high(config, splits),
        *(finding for facts in splits for finding in _split_faults(facts, config.root)),
    ]
    return sorted(found, key=lambda item: item.level)


def _unused_keys(config: DatasetConfig) -> Iterator[Finding]:
    unused = config.unused_keys()
    if unused:
        text = f"{', '.join(unused)} in {config.source} {'is' if len(unused) == 1 else 'are'} not read by layout "
        yield Finding("unused_keys", "warning", text + config.layout, "remove them, or choose another layout:")


def _shared_images(splits: Sequence[SplitFacts]) -> Iterator[Finding]:
    for one, other in combinations(splits, 2):
        shared = np.intersect1d(one.hashes, other.hashes)
        if not len(shared):
            continue
        least = max(1, min(len(one.hashes), len(other.hashes)))
        scored = {one.split, other.split} & {"train", "test"}
        level = _level(len(shared), SERIOUS * least) if scored else "warning"
        first = " and ".join(_path_of(facts, int(shared[0])) for facts in (one, other))
        text = f"{one.split} and {other.split} share {_images(len(shared))}, such as {first}"
        yield Finding("shared_images", level, text, "take them out of one of the splits", len(shared))


def _path_of(facts: SplitFacts, wanted: int) -> str:
    """Path of the first image whose sha256 begins with these bits."""
    for part in _parts(facts.index, ["sha256", "path"]):
        for digest, path in zip(part["sha256"].to_pylist(), part["path"].to_pylist(), strict=True):
            if digest.startswith(f"{wanted:0{2 * HASH_BYTES}x}"):
                return str(path)
    return "?"


def _class_faults(splits: Sequence[SplitFacts]) -> Iterator[Finding]:
    """Faults of the classes over all splits."""
    names = {label: facts.name(label) for facts in splits for label in map(int, facts.manifest.class_names)}
    held = {facts.split: {label for label, count in facts.labels.items() if count} for facts in splits}
    everywhere = set().union(*held.values()) if held else set()
    whole = not any(facts.manifest.selection for facts in splits)
    alike: dict[str, list[str]] = {}
    for name in dict.fromkeys(names.values()):
        alike.setdefault(" ".join(name.casefold().replace("_", " ").split()), []).append(name)
    for group in alike.values():
        if len(group) > 1:
            text = f"the classes {' and '.join(map(repr, group))} differ only in case or white space"
            yield Finding("alike_classes", "error", text, "give them one name", len(group))
    folders = sorted(names[label] for label in everywhere if label in names)
    if folders and all(name.casefold() in FOLDERS for name in folders):  # "train" alone may be the vehicle
        text = f"the classes are called {', '.join(folders)}, as folders of splits or of images are"
        advice = "root: is one folder too high, or split: must map each split to its folder"
        yield Finding("folder_classes", "error", text, advice, len(folders))
    if "train" in held and held["train"] and whole:
        for facts in splits:
            if missing := sorted(held[facts.split] - held["train"]):
                shown = ", ".join(facts.name(label) for label in missing[:EXAMPLES])
                rows = sum(facts.labels[label] for label in missing)
                text = f"{facts.split} has {_images(rows)} of classes without an image in train: {shown}"
                text += f" and {len(missing) - EXAMPLES} more" if len(missing) > EXAMPLES else ""
                yield Finding("untrained_classes", "error", text, "name these classes as train does", len(missing))
    empty = sorted(set(names) - everywhere)
    if empty and everywhere and whole and set(held) >= {"train"}:
        shown = ", ".join(names[label] for label in empty[:EXAMPLES])
        text = f"{len(empty)} of {len(names)} classes have no image, such as {shown}"
        yield Finding("empty_classes", "warning", text, "", len(empty))


def _too_high(config: DatasetConfig, splits: Sequence[SplitFacts]) -> Iterator[Finding]:
    """The one class of layout folder where its folder holds those of splits."""
    names = {facts.name(label) for facts in splits for label in facts.labels}
    if config.layout != "folder" or config.root is None or len(names) != 1:
        return
    folder = config.root / next(iter(names))
    below = class_folders(folder) if folder.is_dir() else []
    if below and all(name.casefold() in FOLDERS for name in below):
        text = f"the one class is called {folder.name}, and its folder holds {', '.join(below)}"
        advice = "root: is too high, or split: must map each split to its folder"
        yield Finding("folder_classes", "error", text, advice, 1)


def _split_faults(facts: SplitFacts, root: Path | None) -> Iterator[Finding]:
    """Faults of one split."""
    where, rows, boxes = f"of split {facts.split}", facts.rows, facts.boxes
    if not rows:
        return
    if facts.unlabelled == rows:
        text = f"no image {where} has a label: stages that need one quarantine every row"
        yield Finding("missing_labels", "warning", text, "layout folder takes labels from one sub-folder per class")
    elif facts.unlabelled:
        level = _level(facts.unlabelled, SERIOUS_UNLABELLED * rows)
        text = f"{facts.unlabelled:,} of the {_images(rows)} {where} have no label"
        yield Finding("missing_labels", level, text, "complete the labels, or take the images out", facts.unlabelled)
    if facts.relative > SERIOUS * boxes:
        text = f"{facts.relative:,} of the {boxes:,} boxes {where} lie between 0 and 1, and edges are read as pixels"
        yield Finding("relative_boxes", "error", text, "multiply them by the sides of their image", facts.relative)
    if facts.tiny:
        text = f"{facts.tiny:,} of the {boxes:,} boxes {where} have a side under {LEAST_SIDE:g} pixels"
        advice = "is box_format: of the data set's YAML right?"
        yield Finding("tiny_boxes", _level(facts.tiny, SERIOUS * boxes), text, advice, facts.tiny)
    if facts.repeated:
        text = f"{facts.repeated:,} boxes {where} are given twice for their image"
        yield Finding("repeated_boxes", "warning", text, "", facts.repeated)
    if clipped := facts.manifest.clipped_boxes:
        text = f"{clipped} boxes {where} reach over an edge of their image and were clipped to it"
        yield Finding("clipped_boxes", "warning", text, "", clipped)
    if repeated := len(facts.hashes) - len(np.unique(facts.hashes)):
        twice = int(facts.hashes[:-1][facts.hashes[1:] == facts.hashes[:-1]][0])
        text = f"{repeated:,} images {where} have the bytes of another one, such as {_path_of(facts, twice)}"
        yield Finding("repeated_images", "warning", text, "", repeated)
    for reason, (count, first) in sorted(facts.reasons.items(), key=lambda item: -item[1][0])[:EXAMPLES]:
        text = f"{count:,} of the {_images(rows)} {where} are quarantined: {reason}: {', '.join(first)}"
        yield Finding(
            "quarantined", "warning", text, near_file(root, first[0]) if root and reason == MISSING else "", count
        )
    if ignored := facts.manifest.ignored:
        text = f"split {facts.split} also has files that are not taken for images: {describe_ignored(ignored)}"
        yield Finding("passed_over", "warning", text, "", sum(ignored.values()))
    for text in facts.notes:
        yield Finding("passed_over", "warning", text)


def _level(bad: int, most: float) -> Literal["error", "warning"]:
    return "error" if bad > most else "warning"


def _images(count: int) -> str:
    return f"{count:,} image" + ("s" if count != 1 else "")


def find_unlisted(config: DatasetConfig, indexes: Sequence[Index]) -> list[Finding]:
    """Image files below the root that belong to no split; masks are left out."""
    root = os.fspath(config.image_root())
    masks = os.path.realpath(config.mask_root()) if config.masks else ""
    known = [np.fromiter((hash(path) for path in _names(index)), np.int64) for index in indexes]
    listed = np.unique(np.concatenate(known)) if known else np.empty(0, np.int64)
    count, first = 0, ""
    for folder, below, files in os.walk(root):
        below[:] = sorted(name for name in below if name[0] != "." and os.path.realpath(f"{folder}/{name}") != masks)
        names = [name for name in sorted(files) if name[0] != "." and name.lower().endswith(IMAGE_ENDINGS)]
        paths = [os.path.relpath(f"{folder}/{name}", root).replace(os.sep, "/") for name in names]
        hashes = np.fromiter((hash(path) for path in paths), np.int64, len(paths))
        passed = ~np.isin(hashes, listed)
        first = first or next((path for path, out in zip(paths, passed, strict=True) if out), "")
        count += int(passed.sum())
    if not count:
        return []
    text = f"{_images(count)} below {root} belong to no split, such as {first}"
    return [Finding("passed_over", "warning", text, "split: of the data set's YAML says which do", count)]


def _names(index: Index) -> Iterator[str]:
    """Paths of the rows of an index, and of the mask files of its annotations."""
    for part in _parts(index, ["path"]):
        yield from part["path"].to_pylist()
    for part in _annotation_parts(index, ["path"]):
        yield from filter(None, part["path"].to_pylist())
