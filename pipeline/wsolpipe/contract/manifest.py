"""Manifests and commit records: small JSON files on what a folder of a store holds and which shards exist."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from wsolpipe.contract.errors import AccessError, SchemaMismatch, StoreError, explain_all
from wsolpipe.contract.layout import commit_name, digest, read_json
from wsolpipe.contract.schema import SCHEMA_VERSION, ArraySpec, Weights

if TYPE_CHECKING:
    from wsolpipe.contract.backends.base import Backend


MAX_JSON_BYTES = 64 * 2**20


class _Record(BaseModel, extra="forbid", frozen=True):
    schema_version: int = SCHEMA_VERSION

    def to_bytes(self) -> bytes:
        """JSON, indented for people, ending in a newline."""
        return (json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


R = TypeVar("R", bound=_Record)


class StoredObject(BaseModel, extra="forbid", frozen=True):
    """One object of a commit: digest and size of the bytes as stored."""

    sha256: str
    bytes: int


class IndexManifest(_Record):
    """Of ``index/<key>/manifest.json``: what `plan` needs to know about a split without reading its table.

    ``objects`` maps a table's file name to its stored bytes; ``digests`` maps a column to the sha256 of its canonical
    rows in row order, and ``retired`` to that of which rows left the split, where any did; ``retired`` counts these,
    which ``quarantined`` and ``label_counts`` leave out; ``selection`` holds the `limit=` or
    `rows=` that cut this index; ``classes`` is the number of classes where known, ``class_names`` their names by index.
    """

    kind: Literal["index"] = "index"
    dataset: str
    split: str
    key: str
    fingerprint: str
    rows: int
    quarantined: int
    retired: int = 0
    shard_rows: int
    objects: dict[str, StoredObject] = Field(default_factory=dict)
    digests: dict[str, str]
    label_counts: dict[str, int]
    classes: int | None = None
    class_names: dict[str, str] = Field(default_factory=dict)
    objectless: tuple[int, ...] = ()
    boxes: int = 0
    masks: int = 0
    rows_with_truth: int = 0
    clipped_boxes: int = 0
    ignored: dict[str, int] = Field(default_factory=dict)
    selection: dict[str, Any] = Field(default_factory=dict)
    params: dict[str, Any] = Field(default_factory=dict)
    licence: str = ""
    title: str = ""
    software: dict[str, str] = Field(default_factory=dict)
    created: str = ""

    def to_bytes(self) -> bytes:
        """Bytes as of any record; ``retired`` is left out where no row is retired, as earlier versions wrote it."""
        return super().to_bytes() if self.retired else super().to_bytes().replace(b'\n "retired": 0,', b"")


class StageManifest(_Record):
    """Of ``<stage>/<key>/manifest.json``, rows and artifact stages alike.

    Attributes
    ----------
    columns
        digest of each index column that is read
    upstream
        fingerprints of the rows stages that are read
    artifacts
        content digests of the artifacts that are read
    basis
        fingerprint of all but the rows: equal bases make equal shards of equal rows
    checksum
        of every chunk of the arrays; none before schema 2
    """

    kind: Literal["rows", "artifact"]
    dataset: str
    split: str | None
    stage: str
    key: str
    fingerprint: str
    version: int
    params: dict[str, Any]
    index_key: str | None = None
    columns: dict[str, str]
    upstream: dict[str, str]
    artifacts: dict[str, str]
    basis: str
    weights: tuple[Weights, ...] = ()
    rows: int = 0
    shard_rows: int = 1
    arrays: dict[str, ArraySpec] = Field(default_factory=dict)
    checksum: Literal["", "crc32c"] = ""
    licence: str = ""
    title: str = ""
    software: dict[str, str] = Field(default_factory=dict)
    created: str = ""


class Quarantined(BaseModel, extra="forbid", frozen=True):
    """A row without a result, and why."""

    row: int
    image_id: str
    path: str
    reason: str


class CommitRecord(_Record):
    """Of ``commits/<shard>.json``. A shard whose record is missing does not exist.

    ``objects`` maps an array name (rows stage) or file name (artifact stage) to its stored bytes; ``upstream`` maps a
    needed stage to the content digests of the shards that were read.

    Attributes
    ----------
    adopted
        why shards of another key were accepted, where somebody did
    """

    shard: int | None
    start: int = 0
    stop: int = 0
    rows_digest: str = ""
    objects: dict[str, StoredObject]
    upstream: dict[str, dict[str, str]] = Field(default_factory=dict)
    ok: int = 0
    no_object: int = 0
    quarantined: tuple[Quarantined, ...] = ()
    summary: dict[str, Any] = Field(default_factory=dict)
    seconds: float = 0.0
    rows_per_second: float = 0.0
    device: str = ""
    batch: int = 0
    host: str = ""
    time: str = ""
    generation: int = 1
    taken_over_from: str | None = None
    adopted: str = ""

    @property
    def content(self) -> str:
        """Digest of what the shard holds: equal for two makings that gave the same bytes."""
        return digest({name: item.sha256 for name, item in self.objects.items()})


def check_size(kind: type[BaseModel], size: int, where: str) -> None:
    """Refuse a manifest or record of more than `MAX_JSON_BYTES`.

    Raises
    ------
    StoreError
        If it is larger.
    """
    if size > MAX_JSON_BYTES:
        msg = f"{where} has {size} bytes, over the {MAX_JSON_BYTES} that a {kind.__name__} may have"
        raise StoreError(msg)


def parse(kind: type[R], data: bytes, where: str) -> R:
    """Read a manifest or record.

    Raises
    ------
    SchemaMismatch
        If it was written by a newer schema; names both versions.
    StoreError
        If `data` is not JSON of that kind, or is too large to be.
    """
    check_size(kind, len(data), where)
    with contextlib.suppress(ValidationError):  # thousands are read at a time: what is right is read in one go
        found = kind.model_validate_json(data)
        if "schema_version" in found.model_fields_set and found.schema_version <= SCHEMA_VERSION:
            return found
    try:
        fields = read_json(data)
        version = fields["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{where} is not a valid {kind.__name__}: {type(error).__name__}: {error}"
        raise StoreError(msg, hint="wsolpipe repair store=… removes what is torn, run remakes it") from error
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        msg = f"{where} was written with store schema {version}; this wsolpipe reads up to schema {SCHEMA_VERSION}"
        raise SchemaMismatch(msg, hint="pip install --upgrade wsolpipe")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        msg = f"{where} is not a valid {kind.__name__}: {explain_all(error)}"
        raise StoreError(msg, hint="wsolpipe repair store=… removes what is torn, run remakes it") from error


M = TypeVar("M", IndexManifest, StageManifest)


def read_record(backend: Backend, folder: str, shard: int | None) -> CommitRecord | None:
    """Commit record of a shard or artifact; None if it does not exist.

    Raises
    ------
    StoreError
        If the record is unreadable or of a newer schema.
    """
    name = commit_name(folder, shard)
    try:
        return _parse_object(backend, CommitRecord, name)
    except FileNotFoundError:
        return None


def standing_record(backend: Backend, folder: str, shard: int | None) -> tuple[CommitRecord | None, str]:
    """Commit record of a shard or artifact, and what is wrong with it where it is there and cannot be parsed.

    Raises
    ------
    AccessError, SchemaMismatch
        If it cannot be read, or was written by a newer wsolpipe.
    """
    try:
        return read_record(backend, folder, shard), ""
    except (AccessError, SchemaMismatch):
        raise
    except StoreError as error:
        return None, error.message


def total_seconds(backend: Backend, folder: str) -> float:
    """Seconds that all shards of a folder took together; 0 where another store made them."""
    seconds = 0.0
    for name in backend.names(f"{folder}/commits"):
        with contextlib.suppress(StoreError, ValueError):  # a torn record only lacks its time
            record = read_record(backend, folder, int(name.removesuffix(".json")))
            seconds += record.seconds if record else 0.0
    return round(seconds, 3)


def read_manifest(backend: Backend, kind: type[M], name: str) -> M:
    """A manifest.

    Raises
    ------
    StoreError
        If it is missing, unreadable or of a newer schema.
    """
    try:
        return _parse_object(backend, kind, name)
    except FileNotFoundError as error:
        msg = f"{backend.url}/{name} is missing"
        raise StoreError(msg, hint=f"wsolpipe status store={backend.url}") from error


def _parse_object(backend: Backend, kind: type[R], name: str) -> R:
    """A manifest or record, read only if it is not too large to be one."""
    return parse(kind, backend.get(name, limit=MAX_JSON_BYTES), f"{backend.url}/{name}")
