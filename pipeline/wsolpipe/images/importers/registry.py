"""Listing the images of a split with the importer of its layout, and the checks that every listing must pass."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING

from wsolpipe.contract.canonical import digest
from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.contract.nearest import unknown
from wsolpipe.images.layouts import LAYOUTS
from wsolpipe.images.listing import Problems, describe_ignored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsolpipe.images.dataset import DatasetConfig
    from wsolpipe.images.listing import ListedRow, Listing


def list_split(config: DatasetConfig, split: str) -> Listing:
    """List the images of a split with labels and annotations, without opening an image file.

    Raises
    ------
    ConfigError
        If the split is unknown, or the root or a named file is not there.
    DataError
        For up to twenty bad lines at once, each with file and line.
    """
    config.split_folder(split)
    problems = Problems(f"data set {config.name}, split {split}")
    with _no_collector():
        listing = LAYOUTS.find(config.layout).list_rows(config, split, problems)
        problems.settle()
        rows = sorted(listing.rows, key=itemgetter(0))
        _check_text(rows, problems)
    if not rows:
        others = f", only {describe_ignored(listing.ignored)}" if listing.ignored else ""
        msg = f"data set {config.name}, split {split}: no image in {config.image_root()}{others}"
        raise DataError(msg, hint="look at root, split and files in the YAML")
    return replace(listing, rows=rows, objectless=objectless_labels(config, listing))


def source_stamp(config: DatasetConfig, split: str) -> str:
    """Digest that changes when the listing of `split` may have: names, sizes and times of what it is made from.

    Reads no file and, for image folders, looks at folders only: an image that is added, removed or renamed changes its
    folder's time; one that is overwritten does not change the listing.

    Raises
    ------
    ConfigError
        If the root or a named file is not there.
    """
    described = config.model_dump(mode="json", exclude={"stages", "licence", "title", "citation", "root", "accept"})
    return digest([described, split, sorted(LAYOUTS.find(config.layout).sources(config, split))])


def objectless_labels(config: DatasetConfig, listing: Listing) -> tuple[int, ...]:
    """Labels that the YAML's `objectless` names.

    Raises
    ------
    ConfigError
        If a name is not a class or a label is outside the classes.
    """
    by_name = {name: label for label, name in listing.class_names.items()}
    labels = set()
    for item in config.objectless:
        if isinstance(item, str) and item not in by_name:
            msg = f"{config.source}: objectless: {unknown('class', item, by_name)}"
            raise ConfigError(msg)
        label = by_name[item] if isinstance(item, str) else item
        if label < 0 or (listing.classes is not None and label >= listing.classes):
            msg = f"{config.source}: objectless: label {label} is outside the {listing.classes} classes"
            raise ConfigError(msg)
        labels.add(label)
    return tuple(sorted(labels))


def _check_text(rows: list[ListedRow], problems: Problems) -> None:
    """Add a problem for names that are not UTF-8, which cannot be stored in the index."""
    try:
        "".join([row[0] for row in rows]).encode()
    except UnicodeEncodeError:
        for row in rows:
            if row.image_id.encode(errors="replace").decode() != row.image_id:
                problems.add(ascii(row.image_id), "the file name is not UTF-8: rename the file")
        problems.settle()


@contextmanager
def _no_collector() -> Iterator[None]:
    """Disable the cyclic garbage collector, which millions of small tuples without cycles would start repeatedly."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
