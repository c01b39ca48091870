"""Stages that fail, workers that die, disks that are full: what is good is kept, and the way on is printed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from e2e.toy import litter, object_bytes, records


def test_a_stage_that_always_raises_fails_the_run_and_keeps_the_rest(toy):
    toy.stages.write_text(toy.stages.read_text().replace("block: 4", "block: 16"))
    assert toy.run("limit=16", stage="shade").code == 0
    done = toy.run("shade.fault=process", stage="shade,palette")
    assert done.code == 1
    assert "the kernel is broken" in done.err
    assert "Traceback" not in done.err
    assert "not made: shade" in done.err
    assert "resume with: wsolpipe run stage=shade,palette" in done.err
    assert done.line("palette", None)["shards_done"] == 1
    assert done.line("shade")["shards_done"] == 1  # taken over from the smaller index
    status = toy.call("status", stage="shade").json["stages"]
    assert any("the kernel is broken" in reason for line in status for reason in line["failures"].values())
    mended = toy.run(stage="shade")
    assert mended.code == 0, mended.err
    assert not list(toy.store.glob("**/failures/*"))


def test_a_stage_that_fails_on_one_shard_keeps_the_others(toy):
    toy.stages.write_text(toy.stages.read_text().replace("block: 4", "block: 16"))
    done = toy.run(f"shade.bad={list(range(16, 32))}", stage="shade")
    assert done.code == 1
    assert done.line("shade")["shards_done"] == 2
    assert "shard 1" in done.err


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("shape", "array maps is (4, 1, 8, 8) uint8; declared: (4, 2, 8, 8) uint8"),
        ("dtype", "array mean is (4,) float64; declared: (4,) float32"),
        ("names", "returned arrays ['maps'] where ['maps', 'mean'] were declared"),
        ("setup", "no such model"),
    ],
)
def test_what_a_stage_got_wrong_is_said_and_nothing_is_committed(toy, fault, told):
    done = toy.run(f"shade.fault={fault}", "retries=0", "limit=16", stage="shade")
    assert done.code == 1
    assert told in done.err.replace("\n", " ")
    assert records(toy.store, "shade") == {}


def test_an_artifact_that_fails_stops_what_needs_it_only(toy):
    done = toy.run("palette.fault=no-labels", "retries=0")
    assert done.code == 1
    assert done.line("shade")["shards_done"] == 3
    assert done.line("frame")["key"] is None
    assert "not made: palette, frame" in done.err


def test_a_kill_in_the_middle_of_a_shard_does_not_cost_its_finished_blocks(toy):
    killed = toy.run("checkpoint=0", stage="shade", WSOLPIPE_FAULT="block:6")  # the second block of shard 1
    assert killed.code == -9
    before = len(toy.calls("shade"))
    assert before == 6
    assert toy.run("checkpoint=0", stage="shade").code == 0
    firsts = [call["first"] for call in toy.calls("shade")[before:]]
    assert firsts == list(range(24, 40, 4))
    assert not list((toy.folder / "scratch").glob("*"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", None], ids=["empty", "torn", "half"])
def test_a_torn_checkpoint_is_ignored(toy, undisturbed, content):
    assert toy.run("checkpoint=0", stage="shade", WSOLPIPE_FAULT="block:2").code == -9
    (path,) = (toy.folder / "scratch").glob("*.npz")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    assert toy.run("checkpoint=0").code == 0
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)


def mounted(folder, *words):
    """Mount something for a test, or skip where this machine does not let us."""
    folder.mkdir(exist_ok=True)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", *words, str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    folder = tmp_path / "small"
    mounted(folder, "-t", "tmpfs", "-o", "size=2m", "tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_run_with_advice_and_harms_nothing(toy, undisturbed, small_disk):
    store = small_disk / "store"
    filler = small_disk / "filler"
    assert toy.run(stage="index", store=store).code == 0
    free = os.statvfs(small_disk)
    filler.write_bytes(b"x" * (free.f_bavail * free.f_frsize - 60_000))
    full = toy.run(store=store)
    assert full.code != 0
    assert "No space left" in full.err
    assert "free some space" in full.err
    assert "Traceback" not in full.err
    assert litter(store) == []
    filler.unlink()
    assert toy.run(store=store).code == 0
    assert object_bytes(store) == object_bytes(undisturbed.store)


def test_a_read_only_store_says_so(toy):
    assert toy.run("limit=16").code == 0
    mounted(toy.store, "--bind", str(toy.store))
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(toy.store)], check=True)
        done = toy.run("limit=20")
        assert done.code == 4
        assert "Read-only file system" in done.err
        assert "store=" in done.err
        assert "Traceback" not in done.err
        assert toy.call("plan", "limit=16").code == 0
        assert toy.call("status").code == 0
    finally:
        subprocess.run(["umount", str(toy.store)], check=True)


def test_a_finished_run_says_what_scripts_rely_on(toy):
    done = toy.run("limit=16", stage="shade")
    assert set(done.json) >= {"stages", "store", "resume"}
    assert done.json["resume"].startswith("wsolpipe run stage=shade")
    for line in done.json["stages"]:
        assert set(line) >= {
            "stage", "split", "key", "rows", "done", "quarantined", "shards", "shards_done", "seconds",
        }  # fmt: skip
    status = toy.call("status", stage="shade").json
    assert set(status) >= {"stages", "failed", "store", "resume"}
    assert json.loads(done.out)["stages"][-1]["shards_done"] == 1


def test_plan_checks_whether_work_is_pending(toy):
    assert toy.call("plan", "check=true", stage="shade").code == 2
    assert toy.run("limit=16", stage="shade").code == 0
    assert toy.call("plan", "check=true", "limit=16", stage="shade").code == 0
    assert toy.call("plan", "check=true", "limit=16", "shade.gain=2", stage="shade").code == 2


def test_plan_sees_an_image_that_was_added_or_removed_and_a_folder_that_is_away(toy):
    """Files are listed by `plan` too, where a folder changed since they were indexed; nothing is written."""
    words = ("check=true",)
    assert toy.run(stage="shade").code == 0
    done = toy.call("plan", *words, stage="shade")
    assert done.code == 0, done.out
    toy.draw(["class0/new.png"])
    (toy.images / "class1" / "image001.png").unlink()
    kept = sorted(toy.store.rglob("*"))
    changed = toy.call("plan", *words, stage="shade")
    assert changed.code == 2
    assert changed.json["pending"]
    assert (changed.line("index")["reason"], changed.line("index")["rows"]) == ("1 rows new, 1 rows left", 41)
    assert (changed.line("shade")["reason"], changed.line("shade")["shards"]) == ("key after index of train", 3)
    assert changed.line("shade")["remaining_seconds"] is not None
    assert sorted(toy.store.rglob("*")) == kept
    toy.images.rename(toy.folder / "away")
    away = toy.call("plan", *words, stage="shade")
    assert away.code == 0
    (unseen,) = away.json["not_looked_at"]
    assert unseen["split"] == "train"
    assert unseen["since"] > "2025"


def test_a_full_disk_ends_a_pull_with_advice_and_harms_nothing(undisturbed, small_disk):
    store, filler = small_disk / "store", small_disk / "filler"
    words = ["pull", f"from={undisturbed.store}", f"store={store}", "--json"]
    free = os.statvfs(small_disk)
    filler.write_bytes(b"x" * (free.f_bavail * free.f_frsize - 60_000))
    full = undisturbed.command_line(words)
    assert full.code == 4
    assert "No space left" in full.err
    assert "free some space" in full.err
    assert full.err.splitlines()[-1].startswith("resume with: wsolpipe pull")
    assert litter(store) == []
    filler.unlink()
    done = undisturbed.command_line(words)
    assert done.code == 0, done.err
    assert object_bytes(store) == object_bytes(undisturbed.store)
