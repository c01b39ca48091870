"""A manifest of an index that is not as it was written is never worked with."""

from __future__ import annotations

import json

import pytest

from e2e.toy import object_bytes
from wsolpipe.contract.errors import TornShardError

CHANGES = {
    "a digest": lambda fields: fields["digests"].update(sha256="0" * 64),
    "a name of a class": lambda fields: fields["class_names"].update({"0": "cat"}),
    "the count of classes": lambda fields: fields.update(classes=7),
    "the selection": lambda fields: fields.update(selection={"limit": 3}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_index_manifest_is_made_again_and_changes_no_key(done, change):
    bench, before = done
    keys = bench.keys()
    (manifest,) = bench.store.glob("toy/train/index/*/manifest.json")
    good = manifest.read_bytes()
    fields = json.loads(good)
    change(fields)
    manifest.write_text(json.dumps(fields))
    assert bench.go().code == 0
    assert bench.keys() == keys
    assert [item for item in bench.made() if item[0] != "index"] == []
    assert object_bytes(bench.store) == before
    assert {**json.loads(manifest.read_bytes()), "created": ""} == {**json.loads(good), "created": ""}


def test_digests_of_an_index_of_an_older_version_are_held_against_its_table_once(done):
    bench, _ = done
    keys = bench.keys()
    (manifest,) = bench.store.glob("toy/train/index/*/manifest.json")
    seen = manifest.parent / "seen.json"
    note = json.loads(seen.read_bytes())
    seen.write_text(json.dumps({"stamp": note["stamp"], "time": note["time"]}))
    fields = json.loads(manifest.read_bytes())
    fields["digests"]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(fields))
    assert bench.go().code == 0
    assert bench.keys() == keys
    assert "manifest" in json.loads(seen.read_bytes())


def test_a_manifest_that_lacks_a_digest_is_named_by_whoever_makes_a_key_of_it(done):
    """It was a traceback of `eval`."""
    bench, _ = done
    (path,) = bench.store.glob("toy/train/index/*/manifest.json")
    fields = json.loads(path.read_bytes())
    del fields["digests"]["sha256"]
    path.write_text(json.dumps(fields))
    with pytest.raises(TornShardError, match=r"manifest.json lacks the digests of sha256") as caught:
        bench.nodes()
    assert "wsolpipe repair" in str(caught.value.hint)
