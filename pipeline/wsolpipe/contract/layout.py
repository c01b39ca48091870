"""Where things lie in a store, which rows a shard holds, and the one spelling of its JSON. No input or output."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from wsolpipe.contract.errors import ConfigError, StoreError, raise_as

KEY_LENGTH = 16


def canonical(value: Any) -> bytes:
    """Encode `value` as JSON with sorted keys, no white space and no NaN.

    Raises
    ------
    ConfigError
        If it holds anything that JSON cannot express exactly (NaN, infinities, objects).
    """
    with raise_as(ConfigError, "not expressible as canonical JSON", TypeError, ValueError, say=str):
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of `value`, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


def short_key(fingerprint: str) -> str:
    """Folder name made of a fingerprint: its first 16 digits; the manifest holds the whole."""
    return fingerprint[:KEY_LENGTH]


def sha256_bytes(data: bytes) -> str:
    """sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(data: bytes | str) -> Any:
    """Value of a JSON text.

    Raises
    ------
    ValueError
        If it is not JSON, or nests too deep to be read.
    """
    try:
        return json.loads(data)
    except RecursionError as error:
        msg = "nested too deep"
        raise ValueError(msg) from error


def jsonable(value: Any) -> Any:
    """`value` with NaN and infinities as None and dataclasses as mappings, which any JSON reader accepts."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: jsonable(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    return value


DEFAULT_SHARD_ROWS = 4096
_STEPS = frozenset({"", ".", ".."})
_KEY = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}")
_SHARD_FILE = re.compile(r"(0|[1-9][0-9]{0,17})\.json")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


def check_name(kind: str, name: str) -> str:
    """Return `name` if it can be a folder of a store.

    Raises
    ------
    ConfigError
        If it is empty, starts with a dot or holds anything but letters, digits, ``_``, ``.`` and ``-``.
    """
    if not is_name(name):
        msg = f"{kind} name {name!r} cannot name a folder: use letters, digits, '_', '.' and '-', no dot first"
        raise ConfigError(msg)
    return name


def is_name(name: str) -> bool:
    """Whether `name` can be a folder of a store."""
    return _NAME.fullmatch(name) is not None


def is_key(name: str) -> bool:
    """Whether `name` has the form of a key."""
    return _KEY.fullmatch(name) is not None


def subfolders(names: Iterable[str]) -> list[str]:
    """Folders of a listing that can be parts of a store; others, such as a stray copy, are skipped."""
    return [name[:-1] for name in names if name.endswith("/") and is_name(name[:-1])]


def check_object_name(name: str, store: str) -> str:
    """Return `name` if it stays inside a store: no empty part, no ``.`` or ``..``, no backslash.

    Raises
    ------
    StoreError
        If it leaves the store.
    """
    if "\\" in name or "\0" in name or not _STEPS.isdisjoint(name.split("/")):
        msg = f"object name {name!r} leaves the store {store}"
        raise StoreError(msg)
    return name


def check_object_size(name: str, size: int, limit: int | None, store: str) -> None:
    """Refuse an object of more than `limit` bytes, before it is read.

    Raises
    ------
    StoreError
        If it is larger.
    """
    if limit is not None and size > limit:
        msg = f"{store}/{name} has {size} bytes, over the {limit} that it may have"
        raise StoreError(msg)


@dataclass(frozen=True, slots=True)
class Shards:
    """How `rows` rows are cut into shards of `shard_rows`; the last one may be shorter."""

    rows: int
    shard_rows: int = DEFAULT_SHARD_ROWS

    def __post_init__(self) -> None:
        if self.shard_rows < 1 or self.rows < 0:
            msg = f"shard_rows={self.shard_rows} with {self.rows} rows: shard_rows must be at least 1"
            raise ConfigError(msg)

    def __len__(self) -> int:
        return -(-self.rows // self.shard_rows)

    def span(self, shard: int) -> tuple[int, int]:
        """First row and one past the last row of `shard`."""
        if not 0 <= shard < len(self):
            msg = f"shard {shard} of {len(self)}"
            raise IndexError(msg)
        return shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.rows)

    def of(self, row: int) -> int:
        """Shard that holds `row`."""
        if not 0 <= row < self.rows:
            msg = f"row {row} of {self.rows}"
            raise IndexError(msg)
        return row // self.shard_rows

    def covering(self, start: int, stop: int) -> range:
        """Shards that hold any of the rows `start` … `stop` − 1."""
        if stop <= start:
            return range(0)
        return range(self.of(start), self.of(stop - 1) + 1)


def split_folder(dataset: str, split: str) -> str:
    """Folder of a split, relative to the store."""
    return f"{check_name('data set', dataset)}/{check_name('split', split)}"


def stage_folder(dataset: str, split: str | None, stage: str, key: str) -> str:
    """Folder of one stage's output; ``split=None`` is an artifact, which belongs to no split."""
    check_name("stage", stage)
    check_name("key", key)
    if split is None:
        return f"{check_name('data set', dataset)}/artifacts/{stage}/{key}"
    return f"{split_folder(dataset, split)}/{stage}/{key}"


def file_of(shard: int | None) -> str:
    """Name of the file about a shard or artifact (``shard=None``) in ``commits``, ``leases``, ``retries`` …"""
    return f"{'artifact' if shard is None else shard}.json"


def shard_of(file: str) -> int | None:
    """Shard that a file in ``commits``, ``leases``, ``retries`` … is about; None if it is not about a shard.

    Examples
    --------
    >>> shard_of("12.json"), shard_of("artifact.json"), shard_of("012.json"), shard_of("12.json~")
    (12, None, None, None)
    """
    match = _SHARD_FILE.fullmatch(file)
    return int(match[1]) if match else None


def commit_name(folder: str, shard: int | None) -> str:
    """Commit record of a shard or artifact."""
    return f"{folder}/commits/{file_of(shard)}"


def lease_name(folder: str, shard: int | None) -> str:
    """Lease of a shard or artifact."""
    return f"{folder}/leases/{file_of(shard)}"


def shard_object(folder: str, array: str, shard: int, ndim: int) -> str:
    """The one Zarr object that holds `shard` of `array`, an array of `ndim` axes sharded along axis 0 only."""
    return f"{folder}/data.zarr/{array}/c/" + "/".join([str(shard)] + ["0"] * (ndim - 1))
