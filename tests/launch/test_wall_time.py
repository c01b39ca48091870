"""Wall time: no shard is begun that cannot end, what is under way is kept, and the exit code says to come again."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest

from e2e.toy import object_bytes, records
from wsolpipe.contract.layout import Shards
from wsolpipe.contract.manifest import CommitRecord
from wsolpipe.engine.plan import Units
from wsolpipe.engine.worker import LAST_SECONDS, MARGIN, TimeLeft
from wsolpipe.keys.run_keys import RunConfig
from wsolpipe.launch.ending import job_end, settle_end

NODE = SimpleNamespace(folder="toy/train/shade/key", shards=Shards(40, 16))


def record(shard, seconds, **more):
    start, stop = NODE.shards.span(shard)
    return CommitRecord(
        shard=shard, start=start, stop=stop, objects={}, ok=stop - start, seconds=seconds, rows_per_second=1.0,
        host="here", time="2026-01-01T00:00:00", **more,
    )  # fmt: skip


def left(seconds, *, of):
    return TimeLeft(time.monotonic() + seconds, of)


def test_without_a_bound_there_is_always_time():
    time_left = TimeLeft.of(RunConfig())
    assert time_left.fits(NODE, 0, Units(records={0: record(0, 1e9)}))
    assert not time_left.is_up()


def test_a_shard_is_begun_only_if_the_slowest_like_it_would_end_in_time():
    """16 rows at the pace of the slowest, 32 s for 16, take 40 s with the margin; the last shard has half the rows."""
    measured = Units(records={0: record(0, 16.0), 1: record(1, 32.0)})
    assert MARGIN == 1.25
    assert left(41, of=100).fits(NODE, 0, measured)
    assert not left(39, of=100).fits(NODE, 0, measured)
    assert left(21, of=100).fits(NODE, 2, measured)
    assert not left(19, of=100).fits(NODE, 2, measured)


def test_what_this_process_measured_counts_before_what_others_did():
    slow_elsewhere = Units(records={0: record(0, 320.0)})
    time_left = left(50, of=1000)
    assert not time_left.fits(NODE, 1, slow_elsewhere)
    time_left.note(NODE, record(0, 32.0))
    assert time_left.fits(NODE, 1, slow_elsewhere)
    time_left.note(NODE, record(1, 64.0))
    assert not time_left.fits(NODE, 1, slow_elsewhere)


def test_a_shard_that_was_taken_over_measures_nothing():
    copied = Units(records={0: record(0, 1e6, taken_over_from="older")})
    assert left(20, of=100).fits(NODE, 1, copied)


def test_work_that_nothing_is_known_of_is_begun_until_the_last_seconds():
    assert left(LAST_SECONDS + 1, of=100).fits(NODE, 0, Units())
    assert not left(LAST_SECONDS - 1, of=100).fits(NODE, 0, Units())
    assert left(1, of=5).fits(NODE, 0, Units())  # of a short time only a tenth is kept back


def test_a_shard_longer_than_all_the_time_there_is_gets_on_by_its_checkpoints():
    endless = Units(records={0: record(0, 1000.0)})
    assert left(99, of=100).fits(NODE, 1, endless)
    assert not left(49, of=100).fits(NODE, 1, endless)


def test_the_end_is_the_first_of_the_word_and_the_job(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    now = time.time()
    assert settle_end(RunConfig()).ends_at is None
    assert settle_end(RunConfig(wall_time=100)).ends_at == pytest.approx(now + 100, abs=5)
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(now) + 60))
    assert settle_end(RunConfig(wall_time=100)).ends_at == int(now) + 60
    assert settle_end(RunConfig(wall_time=100), lead=20).ends_at == int(now) + 40
    assert settle_end(RunConfig(wall_time=10)).ends_at == pytest.approx(now + 10, abs=5)
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(now) + 365 * 86400))
    assert job_end() is None  # what SLURM says of a job without a bound


@pytest.mark.slurm
def test_a_job_learns_its_end_from_slurm(slurm, tmp_path, monkeypatch):
    """SLURM 22.05 and older do not put it into the environment."""
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/bash\n#SBATCH --output={tmp_path}/log\nsleep 20\n")
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    bounded = slurm.call("sbatch", "--parsable", "--time=7", str(script)).strip()
    endless = slurm.call("sbatch", "--parsable", str(script)).strip()
    slurm.wait(lambda: len(slurm.running()) == 2)
    monkeypatch.setenv("SLURM_JOB_ID", bounded)
    seven = datetime.now() + timedelta(minutes=7)
    assert job_end() == pytest.approx(seven.timestamp(), abs=20)
    monkeypatch.setenv("SLURM_JOB_ID", endless)
    assert job_end() is None


@pytest.mark.slow
def test_a_run_begins_no_shard_that_cannot_end_and_says_to_come_again(toy, undisturbed):
    """A shard takes 4 s, the last one 2 s. After the first neither fits into 6.5 s; the next run makes the rest."""
    done = toy.run("wall_time=6.5", "shade.pause=1.0")
    assert done.code == 75, done.err
    assert "too few for another shard" in done.err
    assert "the wall time is up; everything committed so far is kept" in done.err
    assert "resume with: wsolpipe run" in done.err
    assert done.line("shade")["shards_done"] == 1
    assert [call["first"] for call in toy.calls("shade")] == [0, 4, 8, 12]  # not one block of another shard
    assert not list(toy.store.glob("**/leases/*.json"))
    assert toy.run().code == 0
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)


@pytest.mark.slow
def test_a_slow_shard_gets_on_from_one_wall_time_to_the_next(toy, undisturbed):
    """All 40 rows in one shard of ten blocks, 5 s in all, and 3 s at a time: no block is made twice."""
    words = ("shard_rows=40", "shade.pause=0.5")
    runs = 0
    while (done := toy.run("wall_time=3", *words, stage="shade")).code == 75:
        runs += 1
        assert runs < 8
    assert done.code == 0, done.err
    assert runs >= 1
    assert [call["first"] for call in toy.calls("shade")] == list(range(0, 40, 4))
    (made,) = records(toy.store, "shade").values()
    assert made.seconds >= 5.0  # all of it, not only what the last run did


@pytest.mark.slow
def test_several_workers_end_with_the_job_around_them(toy):
    """The job ends in 8 s; a worker's start is in that."""
    end = str(int(time.time()) + 8)
    done = toy.run("workers=2", "shade.pause=2.0", SLURM_JOB_END_TIME=end, SLURM_JOB_ID="1")
    assert done.code == 75, done.err
    assert "ended with code" not in done.err
    assert done.err.count("of the wall time are left") == 2
    assert not list(toy.store.glob("**/leases/*.json"))


def test_plan_estimates_hours_files_and_bytes_from_measured_shards(toy):
    """Two shards of 16 rows are measured; of the third, with 8 rows, nothing is known."""
    unknown = toy.call("plan", stage="shade").json
    assert unknown["remaining_seconds"] is None
    assert toy.run("shade.pause=0.25", stage="shade").code == 0
    next(toy.store.glob("toy/train/shade/*/commits/2.json")).unlink()
    plan = toy.call("plan", stage="shade").json
    line = next(item for item in plan["stages"] if item["stage"] == "shade")
    made = list(records(toy.store, "shade").values())
    assert (line["shards"], line["shards_done"], len(made)) == (3, 2, 2)
    assert line["remaining_seconds"] == pytest.approx(sum(item.seconds for item in made) / 32 * 8, abs=0.06)
    assert plan["remaining_seconds"] == line["remaining_seconds"] >= 0.5
    stored = sum(item.bytes for record in made for item in record.objects.values())
    assert line["bytes"] == pytest.approx(stored / 32 * 40, abs=1)
    on_disk = [path for path in toy.store.glob("toy/train/shade/**/*") if path.is_file()]
    assert line["files"] == len(on_disk) + 1  # the record that was taken away
    assert toy.call("plan", stage="shade").json["pending"]
    toy.run(stage="shade")
    assert toy.call("plan", stage="shade").json["remaining_seconds"] == 0.0
