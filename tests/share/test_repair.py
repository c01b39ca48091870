"""`repair` mends what is damaged, looks again before it removes anything, and touches nothing else."""

from __future__ import annotations

import json
import os
import shutil
import threading

import pytest

from e2e.toy import object_bytes
from wsolpipe import open_store
from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.errors import AccessError
from wsolpipe.contract.layout import sha256_bytes
from wsolpipe.engine.leases import Leases
from wsolpipe.share.inspection import Trust
from wsolpipe.share.repair import repair
from wsolpipe.share.selection import Selection
from wsolpipe.share.transfer import Transfer
from wsolpipe.share.verify import verify


def kinds(store):
    return [(item.kind, item.shard) for item in verify(open_store(str(store)))]


def mend(store):
    """What was done, by kind."""
    return {problem.kind: text for problem, text in repair(open_store(str(store)))}


def flip(path, place=0.5):
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)


def edit(path, **changed):
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changed}))


HARM = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a list": lambda path: path.write_text("[1]"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
@pytest.mark.parametrize("stage", ["shade", "palette", "index"])
def test_a_damaged_manifest_is_named_and_set_aside_and_the_run_keeps_the_shards(done, harm, stage):
    bench, before = done
    (manifest,) = bench.store.glob(f"toy/*/{stage}/*/manifest.json")
    harm(manifest)
    (bench.store / bench.nodes_folder("frame") / "commits/3.json").write_text("[1]")
    found = kinds(bench.store)
    assert ("manifest", None) in found
    assert ("record", 3) in found, "one damaged stage hides another"
    assert "set aside" in mend(bench.store)["manifest"]
    assert bench.go("shard_rows=16").code == 0
    assert [item for item in bench.made() if item[0] != "index"] == [("frame", 3)]
    assert object_bytes(bench.store) == before
    assert kinds(bench.store) == []


def test_a_run_without_the_word_keeps_the_cut_of_rows_that_the_shards_have(done):
    bench, before = done
    manifest = bench.store / bench.nodes()["shade"].folder / "manifest.json"
    manifest.write_bytes(b"")
    mend(bench.store)
    words = [word for word in bench.words(stage="frame") if not word.startswith("shard_rows=")]
    bench.words = lambda *_more, **_how: words
    assert bench.go().code == 0
    assert bench.made() == []
    assert json.loads(manifest.read_bytes())["shard_rows"] == 16
    assert kinds(bench.store) == []
    assert object_bytes(bench.store) == before


@pytest.mark.parametrize("field", ["params", "columns", "version"])
def test_verify_holds_what_a_manifest_says_against_its_key(done, field):
    bench, before = done
    manifest = bench.store / bench.nodes()["shade"].folder / "manifest.json"
    value = json.loads(manifest.read_bytes())[field]
    edit(manifest, **{field: {**value, "gain": 1.5} if isinstance(value, dict) else value + 1})
    assert kinds(bench.store) == [("manifest", None)]
    mend(bench.store)
    assert bench.go().code == 0
    assert bench.made() == []
    assert object_bytes(bench.store) == before


def test_verify_holds_the_index_manifest_against_its_tables_and_listing(done):
    bench, _ = done
    (manifest,) = bench.store.glob("toy/train/index/*/manifest.json")
    good = json.loads(manifest.read_bytes())
    digests = {**good["digests"], "sha256": "0" * 64}
    for change in ({"digests": digests}, {"classes": 7}, {"label_counts": {"0": 1}}, {"class_names": {"0": "cat"}}):
        edit(manifest, **{**good, **change})
        assert kinds(bench.store) == [("index", None)], change
    edit(manifest, **good)
    assert kinds(bench.store) == []


@pytest.mark.parametrize("name", ["mean", "status"])
def test_damaged_array_metadata_is_written_again(done, name):
    bench, before = done
    path = bench.store / bench.nodes()["shade"].folder / "data.zarr" / name / "zarr.json"
    good = path.read_bytes()
    for data in (b"", good.replace(b"72", b"73"), None):
        path.write_bytes(data) if data is not None else path.unlink()
        assert kinds(bench.store) == [("metadata", None)]
        mend(bench.store)
        assert path.read_bytes() == good
    assert object_bytes(bench.store) == before


@pytest.mark.parametrize("change", [{"rows": 8}, {"shard_rows": 8}])
def test_a_manifest_that_its_arrays_outvote_is_set_aside_and_no_shard_is_removed(done, change):
    bench, before = done
    manifest = bench.store / bench.nodes()["shade"].folder / "manifest.json"
    edit(manifest, **change)
    mend(bench.store)
    assert bench.go().code == 0
    assert bench.made() == []
    assert object_bytes(bench.store) == before


def test_a_type_that_no_array_can_have_is_one_line(done):
    bench, _ = done
    manifest = bench.store / bench.nodes()["shade"].folder / "manifest.json"
    fields = json.loads(manifest.read_bytes())
    fields["arrays"]["mean"]["dtype"] = "O"
    manifest.write_text(json.dumps(fields))
    assert kinds(bench.store) == [("manifest", None)]


def test_names_that_are_not_of_shards_stop_nobody(done):
    bench, before = done
    folder = bench.store / bench.nodes()["shade"].folder
    for name in ("²³.json", "99.json", "x.json"):
        (folder / "commits" / name).write_text("{}")
    (folder.parent / "backup copy").mkdir()
    assert {kind for kind, _ in kinds(bench.store)} == {"orphan"}
    mend(bench.store)
    assert kinds(bench.store) == []
    assert object_bytes(bench.store) == before


def test_what_may_not_be_read_stops_verify_and_repair_and_nothing_is_removed(done):
    bench, _ = done
    folder = bench.store / bench.nodes()["shade"].folder
    flip(folder / "data.zarr/mean/c/0")
    far = folder / "data.zarr/mean/c/1"
    far.unlink()
    far.symlink_to("x" * 300)  # not even root can look at it
    before = sorted(bench.store.rglob("*"))
    for look in (lambda store: list(verify(store)), repair):
        with pytest.raises(AccessError, match="data.zarr/mean/c"):
            look(open_store(str(bench.store)))
    assert sorted(bench.store.rglob("*")) == before


def a_folder(path):
    path.unlink()
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def a_loop(path):
    path.unlink()
    path.symlink_to(path.name)


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("instead", [a_folder, a_loop, a_pipe])
@pytest.mark.parametrize(
    "name",
    [
        "toy/train/shade/*/commits/1.json", "toy/train/shade/*/data.zarr/mean/c/1",
        "toy/train/shade/*/data.zarr/maps/c/1/0/0/0", "toy/train/shade/*/manifest.json",
        "toy/train/shade/*/data.zarr/mean/zarr.json", "toy/train/index/*/index.parquet",
        "toy/train/shade/*/data.zarr/zarr.json", "toy/train/index/*/listing.json", "toy/train/index/*/listing.parquet",
        "toy/artifacts/palette/*/commits/artifact.json", "toy/artifacts/palette/*/files/palette.json",
        "toy/check-*.json",
    ],
)  # fmt: skip
def test_what_is_no_file_where_an_object_belongs_is_set_aside_and_the_object_made_again(done, name, instead):
    bench, before = done
    (path,) = bench.store.glob(name)
    instead(path)
    actions = mend(bench.store)
    aside = path.with_name(f"{path.name}.damaged")
    assert actions["misplaced"] == f"set aside as {aside.relative_to(bench.store).as_posix()}"
    if aside.is_dir():
        assert (aside / "notes.txt").read_text() == "mine"
        shutil.rmtree(aside)
    else:
        assert aside.is_symlink() or aside.is_fifo()
        aside.unlink()
    assert bench.go().code == 0
    assert kinds(bench.store) == []
    assert object_bytes(bench.store) == before


def test_an_empty_folder_in_the_place_of_an_artifact_without_a_record_is_set_aside(done):
    bench, before = done
    (path,) = bench.store.glob("toy/artifacts/palette/*/files/palette.json")
    (path.parents[1] / "commits/artifact.json").unlink()
    path.unlink()
    path.mkdir()
    assert bench.go().code == 1
    assert "palette.json.damaged" in mend(bench.store)["misplaced"]
    assert bench.go().code == 0
    path.with_name("palette.json.damaged").rmdir()
    assert object_bytes(bench.store) == before


def test_a_folder_in_the_place_of_a_record_stops_the_run_with_what_to_do(done):
    bench, _ = done
    (path,) = bench.store.glob("toy/train/shade/*/commits/1.json")
    a_folder(path)
    assert bench.go().code == 1
    told = json.loads(next(bench.store.glob("toy/train/shade/*/failures/1.json")).read_bytes())["error"]
    assert "1.json is not a regular file" in told
    assert "-> wsolpipe repair store=" in told


def test_a_shard_made_from_what_was_made_again_is_named(done):
    bench, _ = done
    record = bench.store / bench.nodes()["shade"].folder / "commits/2.json"
    fields = json.loads(record.read_bytes())
    data = (record.parents[1] / "data.zarr/mean/c/1").read_bytes()
    (record.parents[1] / "data.zarr/mean/c/2").write_bytes(data)
    fields["objects"]["mean"] = {"sha256": sha256_bytes(data), "bytes": len(data)}
    record.write_text(json.dumps({**fields, "generation": 2}))
    assert kinds(bench.store) == [("stale", 2)]
    assert mend(bench.store)["stale"] == "left alone: run makes it again"
    assert bench.go().code == 0
    assert kinds(bench.store) == []


def test_stages_made_from_a_damaged_artifact_are_named(done):
    bench, _ = done
    flip(bench.store / bench.nodes()["palette"].folder / "files/palette.json")
    assert sorted(kinds(bench.store)) == [("suspect", None), ("torn", None)]


def test_an_orphan_whose_worker_has_finished_by_now_stays(done):
    """The record comes between the look of verify and that of repair."""
    bench, before = done
    record = bench.store / bench.nodes()["shade"].folder / "commits/2.json"
    data = record.read_bytes()
    record.unlink()

    class Late(LocalBackend):
        def create(self, name, content, *, sync=True):
            if name.endswith("leases/2.json"):
                record.write_bytes(data)
            return super().create(name, content, sync=sync)

    store = open_store(str(bench.store))
    vars(store)["backend"] = Late(bench.store)
    assert [(problem.kind, text) for problem, text in repair(store)] == [("orphan", "left alone: it is intact by now")]
    assert object_bytes(bench.store) == before
    assert kinds(bench.store) == []


def test_a_key_whose_first_run_failed_is_removed_unless_somebody_works_on_it(done):
    bench, before = done
    assert bench.go("shade.fault=process", "shade.gain=3.0", "retries=0", stage="shade").code != 0
    folder = bench.store / bench.nodes("shade.gain=3.0", stage="shade")["shade"].folder
    assert (folder / "manifest.json").exists()
    lease = Leases(LocalBackend(bench.store)).acquire(f"{folder.relative_to(bench.store)}/leases/3.json")
    assert mend(bench.store) == {}
    lease.release()
    assert mend(bench.store) == {"empty": "removed"}
    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert object_bytes(bench.store) == before
    assert kinds(bench.store) == []


def test_a_repair_beside_a_transfer_removes_nothing_that_is_on_its_way(team):
    """The transfer stands still between its objects and their record, as a process that was stopped does."""
    still, go_on = threading.Event(), threading.Event()

    class Stopping(LocalBackend):
        def create(self, name, data, *, sync=True):
            if "/shade/" in name and "/commits/" in name and not still.is_set():
                still.set()
                assert go_on.wait(60)
            return super().create(name, data, sync=sync)

    transfer = Transfer(LocalBackend(team.source), Stopping(team.target), Selection(), Trust(), newer=True, jobs=2)
    results = []
    thread = threading.Thread(target=lambda: results.append(transfer.run()))
    thread.start()
    assert still.wait(60)
    done = repair(open_store(str(team.target)))
    go_on.set()
    thread.join()
    assert {text for problem, text in done if problem.kind == "orphan"} == {"left alone: a transfer is running here"}
    assert results[0].refused == []
    assert object_bytes(team.target) == object_bytes(team.source)
    assert list(verify(open_store(str(team.target)))) == []


def test_a_transfer_that_begins_during_a_repair_waits_for_it(team, done):
    """An object that a killed transfer left is either removed before it is looked at, or kept and used."""
    folder = done[0].nodes()["shade"].folder
    left = team.target / folder / "data.zarr/mean/c/1"
    team.push(stages=("index",))
    left.parent.mkdir(parents=True)
    left.write_bytes((team.source / folder / "data.zarr/mean/c/1").read_bytes())
    results = []

    class Beginning(LocalBackend):
        """Begins a transfer at the moment when the orphan is about to be removed."""

        def delete(self, name):
            if name.endswith("data.zarr/mean/c/1") and not results:
                thread = threading.Thread(target=lambda: results.append(team.push()))
                results.append(thread)
                thread.start()
                thread.join(0.5)
            super().delete(name)

    store = open_store(str(team.target))
    vars(store)["backend"] = Beginning(team.target)
    repair(store)
    assert len(results) == 2 or not results[0].join()
    assert results[1].refused == []
    assert list(verify(open_store(str(team.target)))) == []
    assert object_bytes(team.target) == object_bytes(team.source)


def test_a_pipe_in_place_of_a_manifest_record_or_shard_neither_hangs_nor_stays(done):
    bench, before = done
    folder = bench.store / bench.nodes()["shade"].folder
    for name in ("manifest.json", "commits/1.json", "data.zarr/mean/c/2"):
        path = folder / name
        path.unlink()
        os.mkfifo(path)
        assert kinds(bench.store) != []
        mend(bench.store)
        assert bench.go().code == 0
        assert object_bytes(bench.store) == before
        assert kinds(bench.store) == []
