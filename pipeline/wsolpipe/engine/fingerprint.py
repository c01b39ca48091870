"""Keys: what a result depends on, as canonical JSON, and its sha256. No code, path, time, batch size or device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wsolpipe.contract.layout import digest, short_key
from wsolpipe.contract.schema import IMAGE_COLUMNS


def expand_columns(columns: Iterable[str]) -> tuple[str, ...]:
    """Index columns that a stage declares, with ``image`` spelled out, sorted and without repeats."""
    spelled: set[str] = set()
    for column in columns:
        spelled.update(IMAGE_COLUMNS if column == "image" else (column,))
    return tuple(sorted(spelled))


@dataclass(frozen=True)
class Ingredients:
    """Everything that a stage's result depends on.

    Attributes
    ----------
    params : mapping
        Resolved parameters that change results.
    upstream : mapping of str to str
        Fingerprints of the rows stages that are read.
    artifacts : mapping of str to str
        Content digests of the artifacts that are read: what was produced, not how.
    weights : mapping of str to str
        sha256 of each weights file.
    columns : mapping of str to str
        Digest of each index column that is read (for an artifact ``split/column``).
    bases : mapping of str to str
        `basis` of the rows stages that are read.
    """

    stage: str
    version: int
    params: Mapping[str, Any]
    upstream: Mapping[str, str]
    artifacts: Mapping[str, str]
    weights: Mapping[str, str]
    columns: Mapping[str, str]
    bases: Mapping[str, str]

    def _common(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "version": self.version,
            "params": dict(self.params),
            "artifacts": dict(self.artifacts),
            "weights": dict(self.weights),
        }

    def fingerprint(self) -> str:
        """sha256 over all of it."""
        return digest({**self._common(), "upstream": dict(self.upstream), "columns": dict(self.columns)})

    def basis(self) -> str:
        """sha256 over all but the rows: two keys of equal basis make equal shards of equal rows."""
        return digest({**self._common(), "bases": dict(self.bases)})

    def key(self) -> str:
        """Folder name."""
        return short_key(self.fingerprint())


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Names of the fields in which two nested mappings differ, with both values.

    Examples
    --------
    >>> differences({"a": {"b": 1}}, {"a": {"b": 2}})
    ['a.b: 1 -> 2']
    """
    found: list[str] = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {_short(before)} -> {_short(after)}")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"
