"""Names of data sets, their splits, and the stages that a store holds: for completion, and to look them up.

Functions for completion take the words given so far and return nothing if they cannot know.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from wsolpipe.contract.errors import WsolError
from wsolpipe.images.dataset import known_datasets, load_dataset


def offered_datasets(given: Mapping[str, str]) -> Iterable[str]:  # noqa: ARG001
    """Names of the data sets that come with the package."""
    return known_datasets()


def offered_splits(given: Mapping[str, str]) -> Iterable[str]:
    """Splits of the data set that is named."""
    try:
        return load_dataset(given["dataset"], need_root=False).splits
    except (KeyError, WsolError, OSError):
        return ()


def stored_name(dataset: str) -> str:
    """Return the name under which a store holds what ``dataset=`` says: that in the YAML file, where one is named."""
    return load_dataset(dataset, need_root=False).name if dataset.endswith((".yaml", ".yml")) else dataset


def stored_datasets(given: Mapping[str, str]) -> Iterable[str]:
    """Data sets in the store, where it is a folder."""
    return _folders(_store(given))


def stored_stages(given: Mapping[str, str]) -> Iterable[str]:
    """Stages of the data set, in any of its splits, in the named store if that is a folder."""
    try:
        dataset = load_dataset(given["dataset"], need_root=False).name
    except KeyError:
        return ()
    except (WsolError, OSError):
        dataset = given["dataset"]
    folder = _store(given) / dataset
    return sorted({stage for split in _folders(folder) for stage in _folders(folder / split)} - {"index"})


def _store(given: Mapping[str, str]) -> Path:
    from wsolpipe.keys.run_keys import DEFAULT_STORE

    return Path(given.get("store") or os.environ.get("WSOLPIPE_STORE") or DEFAULT_STORE).expanduser()


def _folders(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return []
