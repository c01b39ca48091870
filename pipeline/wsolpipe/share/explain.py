"""Differences of two keys of a stage: every field that changed, followed through the stages that were read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.backends.opening import open_backend
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.manifest import StageManifest
from wsolpipe.share.selection import Selection, select

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.share.found import Found

NOTHING = "nothing that results depend on"


@dataclass(frozen=True)
class Place:
    """One key of a stage, and the store that it lies in."""

    backend: Backend
    found: Found

    @property
    def manifest(self) -> StageManifest:
        """Its manifest."""
        assert isinstance(self.found.manifest, StageManifest)
        return self.found.manifest


@dataclass(frozen=True)
class Difference:
    """One field that differs.

    Attributes
    ----------
    field : str
        Such as ``params.size``, or ``cls_maps.params.size`` where a stage that was read differs.
    before, after : JSON values
    """

    field: str
    before: Any
    after: Any

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


def locate(word: str, store: str, wanted: Selection) -> Place:
    """The stage that a word names: first digits of its key, ``stage/key``, or ``STORE/dataset/split/stage/key``.

    Raises
    ------
    ConfigError
        If it names none or several.
    """
    parts = word.rstrip("/").split("/")
    stages = wanted.stages
    if len(parts) > 4:
        store, wanted = "/".join(parts[:-4]), Selection(dataset=parts[-4], splits=_split(parts[-3]))
        stages, key = (parts[-2],), parts[-1]
    elif len(parts) == 2:
        stages, key = (parts[0],), parts[1]
    else:
        key = word
    if not re.fullmatch(r"[0-9a-f]{4,16}", key):
        msg = f"{word!r} names no key: write its first four or more digits, stage/key or STORE/dataset/split/stage/key"
        raise ConfigError(msg, hint="wsolpipe status lists keys")
    backend = open_backend(store)
    chosen = select(backend, Selection(wanted.dataset, stages, wanted.splits, keys=key), unfinished=True).found
    matching = [item for item in chosen if item.manifest.kind != "index"]
    if len(matching) != 1:
        several = ", ".join(item.folder for item in matching[:5])
        msg = f"{word!r} names {len(matching)} stages of {store}: {several}"
        raise ConfigError(msg, hint="add split= or dataset=, or write STORE/dataset/split/stage/key")
    return Place(backend, matching[0])


def explain(one: Place, other: Place) -> list[Difference]:
    """Every field in which what two keys are made of differs; what they read is followed where its manifest is there.

    Raises
    ------
    ConfigError
        If they are of different stages.
    """
    a, b = one.manifest, other.manifest
    if a.stage != b.stage:
        msg = f"{one.found.folder} is of stage {a.stage}, {other.found.folder} of {b.stage}"
        raise ConfigError(msg, hint="compare two keys of one stage")
    found = _fields("", {"version": a.version}, {"version": b.version})
    found += _fields("params.", a.params, b.params)
    found += _fields("weights.", _weights(a), _weights(b))
    found += _fields("index.", a.columns, b.columns)
    found += _followed(one, other, a.upstream, b.upstream, artifacts=False)
    found += _followed(one, other, a.artifacts, b.artifacts, artifacts=True)
    return found


def _fields(prefix: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    found = []
    for key in sorted({*a, *b}):
        before, after = a.get(key), b.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _fields(f"{prefix}{key}.", before, after)
        elif before != after:
            found.append(Difference(f"{prefix}{key}", before, after))
    return found


def _weights(manifest: StageManifest) -> dict[str, str]:
    return {item.name: item.sha256 for item in manifest.weights}


def _followed(
    one: Place, other: Place, a: Mapping[str, str], b: Mapping[str, str], *, artifacts: bool
) -> list[Difference]:
    """Differences of the stages that were read, or their digests where a manifest is not at hand."""
    found: list[Difference] = []
    for need in sorted({*a, *b}):
        before, after = a.get(need), b.get(need)
        if before == after:
            continue
        mine, theirs = _need(one, need, before, artifacts), _need(other, need, after, artifacts)
        inner = explain(mine, theirs) if mine is not None and theirs is not None else []
        found += [Difference(f"{need}.{item.field}", item.before, item.after) for item in inner]
        if not inner:  # an artifact made again may differ by chance of its training alone
            found.append(Difference(need, before, after))
    return found


def _need(place: Place, stage: str, wanted: str | None, artifact: bool) -> Place | None:  # noqa: FBT001
    """Where a stage that was read lies, by its fingerprint, or by the digest of what an artifact holds."""
    if wanted is None:
        return None
    splits = () if artifact or place.found.split is None else (place.found.split,)
    try:
        chosen = select(place.backend, Selection(place.found.dataset, (stage,), splits, keys="all"), unfinished=True)
    except ConfigError:
        return None
    for item in chosen.found:
        if item.stage != stage:
            continue
        if artifact:
            if item.content == wanted:
                return Place(place.backend, item)
        elif item.manifest.fingerprint == wanted:
            return Place(place.backend, item)
    return None


def _split(name: str) -> tuple[str, ...]:
    return () if name == "artifacts" else (name,)
