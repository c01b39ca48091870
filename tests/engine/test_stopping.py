"""A run that is asked to stop ends inside a block, blames no row for it, and keeps what it finished."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING

import pytest

from e2e.toy import object_bytes
from engine.slow_stage import STAGES, WORKED
from wsolpipe.engine.config import build_config
from wsolpipe.engine.isolation import Pace
from wsolpipe.launch.run import run
from wsolpipe.stages.registry import load_registry

if TYPE_CHECKING:
    from engine.bench import Bench

DEMO = [
    "cls_maps", "pixels", "regions", "cams", "proposals", "val_boxes", "text_maps", "clip_cams", "clip_masks"
]  # fmt: skip
#: Small versions of stages that need no more to be stopped.
SMALL = ["limit=12", "regions.top_n=40", "val_boxes.slots=40", "clip_cams.size=96", "clip_masks.size=16"]


def stop_at(count: int, config, stage: str):
    """Run, and ask to stop at the `count`-th report of progress of a stage: the outcome, and how many reports came."""
    stop, seen = threading.Event(), []

    def hear(event):
        if event["event"] == "progress" and event["stage"] == stage:
            seen.append(event)
            if len(seen) == count:
                stop.set()

    return run(config, hear, stop), len(seen)


@pytest.fixture
def slow(bench: Bench):
    """The bench with the stage `slow`: 72 rows in one shard, of one block."""
    path = bench.folder / "slow.yaml"
    path.write_text(STAGES)
    bench.stages_file = path
    WORKED.clear()
    return lambda *words: bench.session("shard_rows=128", *words, stage="slow").config


def test_a_stop_inside_a_block_blames_no_row(slow, bench):
    """The stop used to be taken for a fault of a row: the block was halved and made again, down to single rows."""
    outcome, seen = stop_at(3, slow(), "slow")
    assert (outcome.code, seen, WORKED) == (130, 3, [0, 1, 2])
    assert bench.go("shard_rows=128", stage="slow").lines[-1].quarantined == 0


def test_what_a_stage_keeps_of_a_block_is_not_made_again(slow):
    stop_at(30, slow("slow.keeps=true", "checkpoint=0"), "slow")
    assert run(slow("slow.keeps=true"), lambda _: None, threading.Event()).code == 0
    assert [row for row in WORKED if row < 29] == list(range(29))
    assert sorted(set(WORKED)) == list(range(72))


def test_a_block_that_may_be_cut_is_taken_up_where_it_was_left(slow):
    stop_at(1, slow("slow.cuts=true"), "slow")
    assert WORKED == [0]
    WORKED.clear()
    assert stop_at(20, slow("slow.cuts=true", "checkpoint=1000"), "slow")[0].code == 130
    made = [row for row in WORKED if row < 8]
    assert run(slow("slow.cuts=true"), lambda _: None, threading.Event()).code == 0
    assert [row for row in WORKED if row < 8] == made == list(range(8))


def test_a_scan_of_the_index_stops_between_files(bench, monkeypatch):
    from wsolpipe.images import scan

    stop, opened, real = threading.Event(), [], scan.scan_file

    def slow_file(path, *, exif):
        opened.append(path)
        stop.set()
        return real(path, exif=exif)

    monkeypatch.setattr(scan, "scan_file", slow_file)
    assert run(bench.session("threads=1", stage="shade").config, lambda _: None, stop).code == 130
    assert len(opened) < 20
    assert bench.go(stage="shade").code == 0


def test_no_scratch_is_left_behind(slow, bench):
    stop_at(30, slow("slow.keeps=true", "checkpoint=0"), "slow")
    assert list(bench.folder.glob("scratch/*"))
    assert run(slow("slow.keeps=true"), lambda _: None, threading.Event()).code == 0
    assert list(bench.folder.glob("scratch/*")) == []


def test_cuts_lie_on_the_grain_and_no_block_is_crossed():
    pace = Pace(block=256, grain=32)
    assert pace.stop(0, 1000) == 32
    pace.learn(32, seconds=0.1)
    assert pace.stop(32, 1000) == 160
    pace.learn(128, seconds=0.4)
    assert pace.stop(160, 1000) == 256
    pace.learn(96, seconds=1000.0)
    assert pace.stop(256, 1000) == 288
    assert Pace(block=256, grain=None).stop(0, 200) == 200
    assert Pace(block=256, grain=1).stop(0, 200) == 8  # enough to tell a broken stage from a bad row


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A store in which every slow stage stands for a few rows of the demo, and the words that made it."""
    store = tmp_path_factory.mktemp("demo") / "store"
    words = [f"stage={','.join(DEMO)}", "dataset=demo", "split=val", f"store={store}", *SMALL]
    words += ["classifier.epochs=1", "classifier.measure=[]"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSOLPIPE_SCRATCH", str(store.parent / "scratch"))
        config, _ = build_config(words, load_registry(None))
        assert run(config, lambda _: None, threading.Event()).code == 0
        yield store, config


@pytest.mark.slow
@pytest.mark.parametrize("stage", DEMO)
def test_every_slow_stage_stops_within_a_batch_and_makes_the_same_bytes_afterwards(demo, stage):
    store, config = demo
    before = object_bytes(store)
    shutil.rmtree(store / "demo/val" / stage)
    outcome, seen = stop_at(1, config, stage)
    assert (outcome.code, seen) == (130, 1)
    assert run(config, lambda _: None, threading.Event()).code == 0
    assert object_bytes(store) == before
