"""Canonical JSON and digests: the same meaning gives the same bytes on every machine."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from wsolpipe.contract.errors import ConfigError, raise_as

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
