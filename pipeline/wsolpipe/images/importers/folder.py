"""Layout `folder`: one sub-folder a class. The images of a split lie in the root or in the split's own folder."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.images.importers.ground_truth import mask_annotations
from wsolpipe.images.importers.lines import IMAGE_ENDINGS, Stamp, settle_classes, stamp_folders
from wsolpipe.images.listing import Layout, ListedRow, Listing, Problems

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wsolpipe.images.dataset import DatasetConfig

TREE = """\
  {root}/
    cat/  0001.jpg …            one sub-folder a class, or <split>/<class>/ where the YAML maps splits to folders
    dog/  0001.jpg …"""
MAX_DEPTH = 16


def _list_rows(config: DatasetConfig, split: str, problems: Problems) -> Listing:
    """List image files; a label is the position of the class folder's name among those of all splits, sorted.

    With `classes: FILE` the ``label,name`` lines of the file assign labels to folders. Images directly in the
    split's folder have no label, or, with `classes: 1` and no class folder, that of the one class ``object``.
    """
    root = config.image_root()

    def named() -> dict[int, str]:
        found = sorted({name for other in config.splits for name in class_folders(split_root(config, root, other))})
        return dict(enumerate(found or (["object"] if config.classes == 1 else [])))

    count, names = settle_classes(config, problems, named)
    labels = {name: label for label, name in names.items()}
    top = split_root(config, root, split)
    prefix = "" if top == root else top.relative_to(root).as_posix() + "/"
    loose, ignored = walk(top, prefix, deep=False)
    only = (0,) if names == {0: "object"} and not class_folders(top) else ()
    rows = [ListedRow(path, path, only) for path in loose]
    for name in class_folders(top):
        if name not in labels:
            problems.add(os.path.join(top, name), f"folder {name!r} is not a class of {config.classes}")
            continue
        if config.classes is not None and isinstance(config.classes, int) and labels[name] >= config.classes:
            problems.add(os.path.join(top, name), f"label {labels[name]} is outside the {config.classes} classes")
            continue
        label = (labels[name],)
        paths, passed = walk(os.path.join(top, name), f"{prefix}{name}/", deep=True)
        rows += [ListedRow(path, path, label) for path in paths]
        ignored += passed
    return Listing(
        rows=rows,
        annotations=mask_annotations(config, rows, problems),
        classes=count,
        class_names=names,
        ignored=dict(ignored),
    )


def sources(config: DatasetConfig, split: str) -> Iterator[Stamp]:
    """Folders of every split (their names make the labels)."""
    root = config.image_root()
    for other in config.splits:
        top = split_root(config, root, other)
        if other == split:
            yield from stamp_folders(top, other)
        else:
            yield from ((f"{other}/{name}", 0, 0) for name in class_folders(top))


def split_root(config: DatasetConfig, root: Path, split: str) -> Path:
    """Folder of a split's images.

    Raises
    ------
    ConfigError
        If it is not there.
    """
    folder = config.split_folder(split)
    top = root if folder in (None, "", ".") else root / str(folder)
    if not top.is_dir():
        msg = f"data set {config.name}: no folder {top} for split {split}"
        raise ConfigError(msg, hint="split: maps each split to its folder in the root")
    return top


def class_folders(top: Path) -> list[str]:
    """Names of the sub-folders, hidden ones left out."""
    with os.scandir(top) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def walk(folder: Path | str, prefix: str, *, deep: bool, depth: int = 0) -> tuple[list[str], Counter[str]]:
    """Image files of a folder as `prefix` + name, and how many files of other suffixes were passed over.

    Raises
    ------
    DataError
        If folders lie more than `MAX_DEPTH` deep, as a link to a parent makes them.
    """
    if depth > MAX_DEPTH:
        msg = f"{folder}: folders more than {MAX_DEPTH} deep; is there a link to a folder above?"
        raise DataError(msg)
    paths: list[str] = []
    below: list[str] = []
    ignored: Counter[str] = Counter()
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                continue
            if name.lower().endswith(IMAGE_ENDINGS):
                paths.append(prefix + name)
            elif entry.is_dir():
                below.append(name)
            else:
                ignored[os.path.splitext(name)[1].lower()] += 1
    if deep:
        for name in below:
            more, passed = walk(os.path.join(folder, name), f"{prefix}{name}/", deep=True, depth=depth + 1)
            paths += more
            ignored += passed
    return paths, ignored


LAYOUT = Layout(_list_rows, sources, TREE, keys=frozenset({"masks"}), upright=True)
