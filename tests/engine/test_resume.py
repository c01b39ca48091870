"""What a second run finds: done, taken over, torn, damaged or outdated shards."""

from __future__ import annotations

import json

import pytest

from e2e.toy import litter, object_bytes, records
from engine.bench import line
from wsolpipe import open_store
from wsolpipe.contract.errors import FingerprintMismatch, SchemaMismatch
from wsolpipe.contract.schema import SCHEMA_VERSION
from wsolpipe.engine.graph import resolve
from wsolpipe.engine.plan import make_plan
from wsolpipe.share.repair import repair
from wsolpipe.share.verify import verify


def reasons(bench, *words):
    session = bench.session(*words)
    return {item.stage: item.reason for item in make_plan(session, resolve(session))}


def only(folder, pattern):
    """The one file below `folder` that matches."""
    (found,) = folder.glob(pattern)
    return found


def test_a_second_run_makes_nothing(done):
    bench, before = done
    outcome = bench.go()
    assert outcome.code == 0
    assert bench.made() == []
    assert object_bytes(bench.store) == before
    assert set(reasons(bench).values()) == {"done"}


def test_a_finished_store_holds_no_lease_no_checkpoint_and_nothing_half_written(done):
    bench, _ = done
    assert litter(bench.store) == []
    assert list(bench.store.glob("**/leases/*")) == []
    assert list(bench.store.glob("**/failures/*")) == []
    assert list(bench.folder.glob("scratch/*")) == []


def test_a_record_says_what_was_made_of_what(done):
    bench, _ = done
    record = records(bench.store, "frame")[f"{bench.keys()['frame']}/4"]
    assert (record.start, record.stop, record.ok, record.quarantined) == (64, 72, 8, ())
    assert sorted(record.objects) == ["boxes", "count", "scores", "status"]
    shade = records(bench.store, "shade")[f"{bench.keys()['shade']}/4"]
    assert record.upstream["shade"] == {"4": shade.content}
    assert set(record.upstream["palette"]) == {"artifact"}
    assert record.device == "cpu"
    assert record.rows_per_second > 0
    assert shade.summary["brightness"] > 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-7]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
    ],
    ids=["gone", "truncated", "empty", "longer"],
)
@pytest.mark.parametrize("stage", ["shade", "frame", "palette"])
def test_a_torn_object_is_found_and_its_shard_remade(done, damage, stage):
    bench, before = done
    name = {"shade": "data.zarr/maps/c/2/0/0/0", "frame": "data.zarr/boxes/c/2/0/0", "palette": "files/salt.txt"}[stage]
    damage(bench.folder_of(stage) / name)
    assert "1 torn" in reasons(bench)[stage]
    assert bench.go().code == 0
    assert [item for item in bench.made() if item[0] == stage] == [(stage, None if stage == "palette" else 2)]
    assert object_bytes(bench.store) == before


@pytest.mark.parametrize("content", [b"", b'{"schema_version": 1, "sha', b"\0" * 600], ids=["empty", "half", "zeros"])
def test_a_torn_record_is_remade(done, content):
    bench, before = done
    (bench.folder_of("shade") / "commits" / "1.json").write_bytes(content)
    assert "1 torn" in reasons(bench)["shade"]
    assert bench.go().code == 0
    assert bench.made() == [("shade", 1)]
    assert object_bytes(bench.store) == before


def test_a_changed_byte_upstream_is_found_by_whoever_reads_it(done):
    """Same size, so that no look at the folder tells; the codec would decode many such changes into wrong numbers."""
    bench, before = done
    path = bench.folder_of("shade") / "data.zarr/mean/c/3"
    data = bytearray(path.read_bytes())
    data[3] ^= 0x40
    path.write_bytes(data)
    (bench.folder_of("frame") / "commits" / "3.json").unlink()
    assert bench.go().code == 0
    assert ("shade", 3) in bench.made()
    assert ("frame", 3) in bench.made()
    assert object_bytes(bench.store) == before


def test_lost_metadata_of_an_upstream_array_stops_nothing_and_repair_writes_it_again(done):
    bench, before = done
    (bench.folder_of("shade") / "data.zarr/maps/zarr.json").unlink()
    (bench.folder_of("frame") / "commits" / "0.json").unlink()
    assert bench.go().code == 0
    assert bench.made() == [("frame", 0)]
    assert [action for _, action in repair(open_store(str(bench.store)))] == ["written again from the manifest"]
    assert object_bytes(bench.store) == before


@pytest.mark.parametrize("table", ["index.parquet", "annotations.parquet", "scan/0.parquet"])
def test_a_damaged_index_table_is_assembled_again(done, table):
    bench, before = done
    path = only(bench.store / "toy/train/index", f"*/{table}")
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    if table.startswith("scan"):
        only(bench.store / "toy/train/index", "*/manifest.json").unlink()
    assert bench.go().code == 0
    assert [item for item in bench.made() if item[0] != "index"] == []
    assert path.read_bytes() == good
    assert object_bytes(bench.store) == before


def test_an_upstream_shard_of_other_bytes_makes_its_readers_outdated(done):
    bench, before = done
    manifest = bench.folder_of("shade")
    path = manifest / "commits" / "2.json"
    record = json.loads(path.read_bytes())
    record["objects"]["mean"]["sha256"] = "0" * 64  # as another device would have made it
    path.write_text(json.dumps(record))
    assert reasons(bench)["frame"] == "1 upstream shard changed"
    assert bench.go().code == 0
    assert {item for item in bench.made() if item[0] == "frame"} == {("frame", 2)}
    assert object_bytes(bench.store) == before
    assert set(reasons(bench).values()) == {"done"}


def test_force_makes_a_new_generation_of_what_was_named_and_nothing_else(done):
    bench, before = done
    assert bench.go("force=true", stage="shade").code == 0
    assert {stage for stage, _ in bench.made()} == {"shade"}
    assert {record.generation for record in records(bench.store, "shade").values()} == {2}
    assert object_bytes(bench.store) == before
    assert reasons(bench)["frame"] == "done"  # the same bytes were made
    assert bench.go().code == 0
    assert bench.made() == []


def test_shards_of_unchanged_rows_are_taken_over_when_the_index_grew(done):
    bench, before = done
    bench.draw([f"class{row % 3}/image{row:03d}.png" for row in range(72, 80)])
    outcome = bench.go()
    assert outcome.code == 0
    assert line(outcome, "frame").rows == 80
    # the palette saw more rows and produced other numbers, so that only shade can be taken over
    assert bench.taken_over() == [("shade", shard) for shard in range(4)]
    assert [item for item in bench.made() if item[0] == "shade"] == [("shade", 4)]
    folder = bench.folder_of("shade").relative_to(bench.store).as_posix()
    after = object_bytes(bench.store)
    old = {name.split("/", 4)[4]: data for name, data in before.items() if "/shade/" in name}
    new = {name.split("/", 4)[4]: data for name, data in after.items() if name.startswith(folder)}
    for name in (name for name in old if "/c/" in name and not name.split("/c/")[1].startswith("4")):
        assert new[name] == old[name]
    session = bench.session()
    table = session.index_of("train").table(["image_id", "row"])
    assert table.column("image_id").to_pylist()[72:] == sorted(table.column("image_id").to_pylist()[72:])
    assert all("image07" in name for name in table.column("image_id").to_pylist()[72:])


def test_a_damaged_older_shard_is_not_taken_over(done):
    bench, _ = done
    path = bench.folder_of("shade") / "data.zarr/maps/c/1/0/0/0"
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    bench.draw(["class0/image090.png"])
    assert bench.go(stage="shade").code == 0
    assert bench.taken_over() == [("shade", shard) for shard in (0, 2, 3)]


def test_an_image_that_is_gone_keeps_its_row(done):
    bench, _ = done
    (bench.images / "class0/image000.png").unlink()
    outcome = bench.go()
    assert line(outcome, "shade").rows == 72
    assert line(outcome, "shade").quarantined == 0
    assert bench.made() == [("index", 0), ("palette", None)]
    assert bench.taken_over() == [(stage, shard) for stage in ("shade", "frame") for shard in range(5)]


def test_plan_names_the_field_that_changed(done):
    bench, _ = done
    assert reasons(bench, "shade.gain=2.0")["shade"] == "changed: params.gain: 1.0 -> 2.0"
    assert reasons(bench, "shade.gain=2.0")["frame"].startswith("changed: upstream.shade")
    assert reasons(bench, "palette.seed=3")["frame"] == "key after palette"


def test_limit_makes_an_index_of_its_own(done):
    bench, _ = done
    outcome = bench.go("limit=10")
    assert line(outcome, "frame").rows == 10
    assert line(bench.go(), "frame").rows == 72
    assert bench.made() == []
    assert line(bench.go("rows=70:"), "shade").rows == 2


def test_a_store_of_a_newer_schema_is_refused_with_both_versions(done):
    bench, before = done
    path = bench.folder_of("shade") / "commits" / "1.json"
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({**record, "schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(SchemaMismatch, match=f"schema {SCHEMA_VERSION + 1}; .* up to schema {SCHEMA_VERSION}"):
        bench.go()
    assert object_bytes(bench.store) == before


def test_a_folder_that_holds_another_fingerprint_than_its_name_says_is_refused(done):
    bench, before = done
    path = bench.folder_of("shade") / "manifest.json"
    manifest = json.loads(path.read_bytes())
    path.write_text(json.dumps({**manifest, "fingerprint": "f" * 64}))
    with pytest.raises(FingerprintMismatch, match="holds fingerprint ffff"):
        bench.go()
    assert object_bytes(bench.store) == before


def test_two_splits_have_indexes_and_keys_of_their_own(bench):
    for number, split in enumerate(("train", "val")):
        for row in range(5):
            source = bench.images / f"class{row % 3}" / f"image{row:03d}.png"
            target = bench.folder / "both" / split / f"class{row % 3}" / f"image{row + number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    bench.yaml.write_text(
        "name: toy\naccept: [shared_images]\nlayout: folder\nroot: both\nsplit: {train: train, val: val}\n"
    )
    outcome = bench.go()
    assert outcome.code == 0
    assert [(item.stage, item.split) for item in outcome.lines if item.stage == "frame"] == [
        ("frame", "train"), ("frame", "val"),
    ]  # fmt: skip
    before = object_bytes(bench.store)
    assert bench.go("split=val", "frame.spread=3.0").code == 0
    assert {name: data for name, data in object_bytes(bench.store).items() if "/train/" in name} == {
        name: data for name, data in before.items() if "/train/" in name
    }


@pytest.mark.parametrize("name", ["listing.parquet", "listing_annotations.parquet", "listing.json"])
@pytest.mark.parametrize("beside", ["index.parquet", "annotations.parquet", "seen.json"])
def test_a_listing_that_was_exchanged_with_a_table_is_made_again_and_changes_no_key(done, name, beside):
    """Every run ended with a traceback, since the listing was believed and repair did not look at it."""
    bench, before = done
    (index,) = bench.store.glob("toy/train/index/*")
    one, other = index / name, index / beside
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    assert bench.go().code == 0
    assert bench.made() == []
    assert object_bytes(bench.store) == before


@pytest.mark.parametrize("name", ["listing.parquet", "listing_annotations.parquet", "listing.json"])
def test_verify_names_a_changed_listing_and_repair_lets_the_run_make_it_again(done, name):
    bench, before = done
    (path,) = bench.store.glob(f"toy/train/index/*/{name}")
    path.write_bytes(path.read_bytes().replace(b'"rows": 7', b'"rows": 6') if name == "listing.json" else b"PAR1")
    assert [item.kind for item in verify(open_store(str(bench.store)))] == ["index"]
    repair(open_store(str(bench.store)))
    assert bench.go().code == 0
    assert bench.made() == []
    assert object_bytes(bench.store) == before
    assert list(verify(open_store(str(bench.store)))) == []


def test_notes_of_a_listing_that_were_exchanged_with_the_manifest_are_made_again_after_repair(done):
    """A manifest was taken for the notes of an older version, and every run ended with a traceback."""
    bench, before = done
    (index,) = bench.store.glob("toy/train/index/*")
    one, other = index / "listing.json", index / "manifest.json"
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    repair(open_store(str(bench.store)))
    assert bench.go().code == 0
    assert object_bytes(bench.store) == before
    assert list(verify(open_store(str(bench.store)))) == []
