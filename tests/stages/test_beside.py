"""Stages over the frames of a clip, against a loop over groups: frames in other shards, out of order or broken."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass

import numpy as np
import pytest

from e2e.toy import PACKAGE
from engine.bench import Bench
from videos import tear, write_video
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.reader import open_store
from wsolpipe.contract.schema import ArraySpec, Status
from wsolpipe.metrics.boxes import iou_matrix
from wsolpipe.stages.base import Context, Rows, Upstream
from wsolpipe.stages.frames import Smooth
from wsolpipe.stages.registry import load_registry

BOTH = "smooth,propagate"
WORDS = ("smooth.maps=shade", "propagate.boxes=frame", "shard_rows=4", "smooth.frames=2", "propagate.frames=1")
BROKEN = "cat/a/4.png"
TAKE = {"mean": np.mean, "median": np.median, "max": np.max}


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """Clips of 11 and 3 frames; index rows are in the order of names (1, 10, 11, 2), and one frame is broken."""
    monkeypatch.syspath_prepend(str(PACKAGE))
    monkeypatch.setenv("WSOLPIPE_SCRATCH", str(tmp_path / "scratch"))
    bench = Bench(tmp_path)
    bench.draw([f"cat/a/{frame}.png" for frame in range(1, 12)] + [f"dog/b/{frame}.png" for frame in range(1, 4)])
    (bench.images / BROKEN).write_bytes(b"no image")
    bench.yaml.write_text("name: toy\nlayout: clips\nroot: images\nsplit: train\n")
    return bench


def windows(split, view, frames):
    """Each row with the rows of its window that have a result, in the order of frames, by a plain loop."""
    rows = split.index().table(["group", "frame"]).to_pylist()
    ok = np.asarray(view["status"][:]) == Status.OK
    for row, own in enumerate(rows):
        if not ok[row]:
            continue
        clip = sorted((other["frame"], number) for number, other in enumerate(rows) if other["group"] == own["group"])
        at = clip.index((own["frame"], row))
        yield row, [number for _, number in clip[max(0, at - frames) : at + frames + 1] if ok[number]]


def check_maps(split, by):
    source, made = split.stage("shade"), split.stage("smooth")
    levels = source["maps"][:].astype(np.float32)
    found = 0
    for row, near in windows(split, source, 2):
        expected = TAKE[by](levels[near], axis=0)
        limits = made["range"][row]
        np.testing.assert_allclose(limits[:, 0], expected.min(axis=(1, 2)), rtol=1e-5)
        values = limits[:, :1, None] + made["maps"][row] / 255.0 * (limits[:, 1:] - limits[:, :1])[..., None]
        np.testing.assert_allclose(values, expected, atol=0.51)
        found += 1
    return found


def check_boxes(split, by):
    source, made = split.stage("frame"), split.stage("propagate")
    boxes = source["boxes"][:].astype(np.float64)
    sizes = np.array([(row["width"], row["height"]) for row in split.index().table(["width", "height"]).to_pylist()])
    for row, near in windows(split, source, 1):
        frames = [boxes[other][np.isfinite(boxes[other][:, 0])] for other in near]
        if by == "median":
            expected = np.median([found[0] for found in frames], axis=0)
        else:
            supports = [
                (np.mean([iou_matrix(box[None], found).max() for found in frames]), box)
                for found in frames
                for box in found
            ]
            best = max(support for support, _ in supports)
            expected = next(box for support, box in supports if support > best - 1e-12)
        bound = [*sizes[row], *sizes[row]]
        np.testing.assert_allclose(made["boxes"][row, 0], expected.clip(0, bound), rtol=1e-6)
        assert 0 < made["support"][row] <= 1


@pytest.mark.parametrize(("maps", "boxes"), [("mean", "median"), ("max", "vote"), ("median", "vote")])
def test_frames_are_taken_together_across_shards_and_around_a_broken_one(clips, maps, boxes):
    ended = clips.go(*WORDS, f"smooth.by={maps}", f"propagate.by={boxes}", stage=BOTH)
    assert ended.code == 0
    split = open_store(str(clips.store))["toy"]["train"]
    assert check_maps(split, maps) == 13
    check_boxes(split, boxes)
    (broken,) = np.flatnonzero(split.stage("smooth")["status"][:] == Status.QUARANTINED)
    assert split.index().table(["path"])["path"][int(broken)].as_py() == BROKEN
    assert not np.array_equal(split.stage("smooth")["maps"][0], split.stage("shade")["maps"][0])


def test_a_shard_names_the_shards_of_its_frames_and_is_made_again_with_them(clips):
    assert clips.go(*WORDS, stage=BOTH).code == 0
    split = open_store(str(clips.store))["toy"]["train"]
    first, last = (split.stage("smooth").record(shard).upstream["shade"] for shard in (0, 3))
    assert set(first) == {"0", "1", "2"}  # frames 1, 10, 11, 2 read 3, 4, 8 and 9 of the same clip
    assert set(last) == {"2", "3"}
    clips.draw(["dog/b/4.png"])
    assert clips.go(*WORDS, stage=BOTH).code == 0
    assert ("smooth", 0) in clips.taken_over()
    assert {("smooth", 3), ("propagate", 3)} <= set(clips.made())
    split = open_store(str(clips.store))["toy"]["train"]
    assert check_maps(split, "mean") == 14
    check_boxes(split, "median")


def test_a_broken_frame_amid_a_film_costs_its_frames_alone_in_every_stage(clips):
    pytest.importorskip("av")
    shutil.rmtree(clips.images)
    tear(write_video(clips.images / "cat" / "film.mp4", 30, every_key=6), after=10)
    assert clips.go(*WORDS, stage="smooth").code == 0
    split = open_store(str(clips.store))["toy"]["train"]
    reasons = split.index().table(["reason"]).column("reason").to_pylist()
    bad = [row for row, reason in enumerate(reasons) if reason]
    assert 0 < len(bad) < 15
    assert all(reasons[row] == f"broken: frame {row} cannot be decoded" for row in bad)
    for stage in ("shade", "smooth"):
        assert np.flatnonzero(split.stage(stage)["status"][:] == Status.QUARANTINED).tolist() == bad
    assert check_maps(split, "mean") == 30 - len(bad)


@pytest.mark.parametrize(
    ("stage", "word", "text"),
    [("smooth", "smooth.maps=frame", "no maps"), ("propagate", "propagate.boxes=shade", "no boxes")],
)
def test_a_stage_without_maps_or_boxes_is_refused_also_where_it_declares_no_outputs(clips, stage, word, text):
    with pytest.raises(ConfigError, match=f"{word} holds {text}, but"):
        clips.go(word, stage=stage)
    clips.write_stages(lambda whole: re.sub(r"\n  outputs:[^\n]*(\n    [^\n]*)*", "", whole))
    with pytest.raises(ConfigError, match=f"holds {text} to"):
        clips.go(word, stage=stage)


def test_photographs_have_no_frames_to_take_together(clips):
    clips.yaml.write_text("name: toy\nlayout: folder\nroot: images\nsplit: train\n")
    with pytest.raises(ConfigError, match="stage smooth takes frames of a clip together, and train of toy holds photo"):
        clips.go("smooth.maps=shade", stage="smooth")


@dataclass
class View:
    """What smooth asks of a stage whose frames all lie in the block."""

    arrays: dict[str, ArraySpec]
    stage: str = "mine"

    @property
    def manifest(self):
        return self


def test_a_frame_whose_map_is_not_finite_is_quarantined_and_takes_no_part():
    maps = np.arange(3 * 4, dtype=np.float32).reshape(3, 1, 2, 2)
    maps[1, 0, 0, 0] = np.nan
    view = View({"maps": ArraySpec(dtype="float32", shape=(1, 2, 2))})
    made = Smooth(load_registry().params("smooth", {"maps": "mine"}), Context(dataset="x", upstream={"mine": view}))
    made.setup()
    rows = Rows(np.arange(3), {}, lambda _: maps, beside=np.array([[-1, 1], [0, 2], [1, -1]]))
    arrays = made.process(rows, {"mine": Upstream({"maps": maps}, np.ones(3, np.uint8), {})})
    assert rows.status.tolist() == [Status.OK, Status.QUARANTINED, Status.OK]
    assert rows.reasons == {1: "maps of mine hold NaN or infinite values"}
    np.testing.assert_allclose(arrays["range"][[0, 2], 0], [[0, 3], [8, 11]])  # each by itself alone
