"""What is refused of manifests and records, and what is kept."""

from __future__ import annotations

import json

import pytest

from wsolpipe.contract.errors import SchemaMismatch, StoreError
from wsolpipe.contract.manifest import MAX_JSON_BYTES, CommitRecord, StageManifest, StoredObject, parse
from wsolpipe.contract.reader import open_store
from wsolpipe.contract.schema import SCHEMA_VERSION

RECORD = CommitRecord(shard=3, start=48, stop=64, objects={"maps": StoredObject(sha256="ab" * 32, bytes=10)})


def test_a_record_comes_back_as_it_was_written():
    assert parse(CommitRecord, RECORD.to_bytes(), "here") == RECORD


def test_the_content_digest_depends_on_bytes_only():
    later = RECORD.model_copy(update={"seconds": 9.0, "host": "elsewhere", "generation": 2})
    other = RECORD.model_copy(update={"objects": {"maps": StoredObject(sha256="cd" * 32, bytes=10)}})
    assert later.content == RECORD.content != other.content


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: text[: len(text) // 2],
        lambda text: b"\0" * len(text),
        lambda text: b"[]",
        lambda text: b"{}",
        lambda text: b'{"schema_version": 1}',
        lambda text: b"[" * 100_000,
        lambda text: text.replace(b'"shard": 3', b'"shard": "three"'),
        lambda text: text.replace(b'"host"', b'"hosts"'),
        lambda text: b"\xff\xfe" + text,
    ],
    ids=["empty", "half", "zeros", "list", "no version", "no fields", "deep", "wrong type", "unknown field", "binary"],
)
def test_a_torn_record_is_said_to_be_torn_and_where(damage):
    with pytest.raises(StoreError, match=r"store/commits/3.json is not a valid CommitRecord") as caught:
        parse(CommitRecord, damage(RECORD.to_bytes()), "store/commits/3.json")
    assert "wsolpipe repair" in str(caught.value.hint)
    assert not isinstance(caught.value, SchemaMismatch)


def test_a_newer_schema_is_refused_with_both_versions():
    fields = json.loads(RECORD.to_bytes())
    fields["schema_version"] = SCHEMA_VERSION + 1
    fields["something_new"] = 1
    with pytest.raises(SchemaMismatch, match=f"schema {SCHEMA_VERSION + 1}.*up to schema {SCHEMA_VERSION}"):
        parse(CommitRecord, json.dumps(fields).encode(), "there")


def test_a_manifest_of_65_mb_is_refused(tiny, monkeypatch):
    """Before it is read: a hostile store could hold one larger than the memory."""
    store = open_store(tiny.url)
    view = store["tiny"]["train"]["cls_maps"]
    path = store.backend.local_path(f"{view.folder}/manifest.json")
    path.write_bytes(path.read_bytes()[:-3] + b" " * (MAX_JSON_BYTES + 2**20) + b"}\n")
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda self: pytest.fail(f"{self} was read"))
    with pytest.raises(StoreError, match=r"manifest.json has \d+ bytes, over"):
        open_store(tiny.url)["tiny"]["train"]["cls_maps"].manifest  # noqa: B018


def test_bytes_in_memory_beyond_the_limit_are_refused():
    with pytest.raises(StoreError, match="over the"):
        parse(StageManifest, b" " * (MAX_JSON_BYTES + 1), "there")
