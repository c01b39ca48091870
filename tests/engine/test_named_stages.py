"""Parameters that name a stage are checked in the plan: its kind, what it holds, and what that is made of."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from wsolpipe.cli.run import command, plan_command


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def refusal(store, *words, command=plan_command):
    done = CliRunner().invoke(command, ["dataset=demo", "split=test", f"store={store}", *words], standalone_mode=False)
    assert done.exception is not None
    assert not store.exists()
    return f"{done.exception} -> {getattr(done.exception, 'hint', '')}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("stage=refine refine.maps=classifier", "refine.maps=classifier is an artifact of files, not a stage of maps"),
        ("stage=refine refine.maps=proposals", "refine.maps=proposals holds no maps, but boxes, count"),
        ("stage=refine refine.maps=segments", "refine.maps=segments holds no maps, but count, labels"),
        ("stage=refine refine.maps=refine", "refine.maps=refine is that stage itself"),
        ("stage=refine refine.maps=clip_cam", "refine.maps: unknown stage 'clip_cam'; did you mean 'clip_cams'?"),
        ("stage=refine refine.maps=index", "refine.maps: unknown stage 'index'"),
        ("stage=refine refine_weight.against=text_anchors", "refine_weight.against=text_anchors is an artifact"),
        ("stage=fuse fuse.maps=[cams,segments] fuse.weights=[1,1]", "fuse.maps=segments holds no maps"),
        ("stage=smooth smooth.maps=text_anchors", "smooth.maps=text_anchors is an artifact"),
        ("stage=propagate propagate.boxes=cams", "propagate.boxes=cams holds no boxes, but class_ids"),
        ("stage=sam_boxes sam_boxes.boxes=text_anchors", "sam_boxes.boxes=text_anchors is an artifact"),
    ],
)  # fmt: skip
def test_a_stage_that_cannot_be_read_so_is_refused_before_anything_is_made(store, words, said):
    found = refusal(store, *words.split())
    assert said in found
    assert "cams" in found or "proposals" in found  # what would do


def test_a_run_refuses_it_too(store):
    assert "not a stage of maps" in refusal(store, "stage=refine", "refine.maps=classifier", command=command)


@pytest.mark.parametrize(
    "words",
    [
        "refine.maps=clip_cams val_boxes.annotator=clip",
        "refine.maps=cls_maps refine_weight.against=proposals",
        "refine.maps=cls_maps refine_weight.against=propagate propagate.boxes=proposals",
        "refine.maps=smooth smooth.maps=clip_cams val_boxes.annotator=clip",
        "refine.maps=predictions refine_weight.against=predictions",
        "refine.maps=cams val_boxes.annotator=rpn val_boxes.final=agreement",
    ],
)
def test_boxes_made_of_the_maps_may_not_choose_their_weight(store, words):
    found = refusal(store, "stage=refine", *words.split())
    assert "are to judge refine_weight.maps=" in found
    assert "val_boxes.annotator=ss" in found
    assert "refine.w=0.5" in found


@pytest.mark.parametrize(
    "words",
    [
        "refine.maps=cams val_boxes.annotator=ss",  # whose peak only chooses among regions
        "refine.maps=clip_cams val_boxes.annotator=ss",
        "refine.maps=cams refine_weight.against=proposals",
        "refine.maps=clip_cams val_boxes.annotator=clip refine.w=0.4",  # for which nothing is judged
    ],
)
def test_boxes_of_something_else_may(store, words):
    done = CliRunner().invoke(plan_command, ["dataset=demo", f"store={store}", "stage=refine", *words.split()])
    assert done.exit_code == 0, done.output


def test_a_stage_of_ones_own_that_declares_no_outputs_is_asked_when_it_is_set_up(store, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("mine: {class: 'wsolpipe.stages.pixels:Pixels', version: 1, kind: rows, columns: [image], "
                   "params: {size: 8}}\n")  # fmt: skip
    words = [f"stages={own}", f"store={store}", "dataset=demo", "stage=refine", "refine.maps=mine", "refine.w=0.5"]
    done = CliRunner().invoke(plan_command, words)
    assert done.exit_code == 0, done.output
