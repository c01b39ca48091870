"""``wsoltrain eval``: a localizer beside what it learned from, every line scored as ``wsolpipe eval`` scores it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from stores import build_store
from wsolpipe.cli.eval import command as pipeline_eval
from wsolpipe.contract.errors import RunFailed, StoreError
from wsoltrain.cli import eval as scoring


def words_of(checkpoint, store, *more):
    return [
        f"checkpoint={checkpoint}", f"store={store.url}", f"dataset={store.root}/../tiny.yaml", "workers=0",
        "device=cpu", *more,
    ]  # fmt: skip


def figures(words):
    return json.loads(CliRunner().invoke(scoring.command, [*words, "--json"], catch_exceptions=False).output)


def test_quarantined_rows_count_in_both_commands_alike(trained, tmp_path):
    bad = dict.fromkeys(range(1, 40, 4), "truncated")
    store = build_store(tmp_path, rows=40, sizes=(30, 50), split="val", quarantined=bad)
    (tmp_path / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\nsplit: {val: .}\n")
    mine = figures(words_of(trained, store, "split=val", "beside=proposals", "maps=cls_maps"))
    words = [f"dataset={tmp_path}/tiny.yaml", f"store={store.url}", "split=val", "threads=1", "--json"]
    for stage, key in (("proposals", "boxes"), ("cls_maps", None)):
        done = CliRunner().invoke(pipeline_eval, [f"stage={stage}", *words], catch_exceptions=False)
        theirs = json.loads(done.stdout)
        assert (theirs["rows"], theirs["rows_scored"], theirs["rows_quarantined"]) == (30, 30, 10)
        if key is not None:
            assert mine[key] == {name: theirs[name] for name in mine[key]}
            assert mine[key]["iou_top1"] > 0.99  # a quarantined row's empty slot would pull it down to .75
        else:
            line = next(line for line in mine["table"] if line["threshold"] == "its best on these images")
            best = (theirs["MaxBoxAcc"], theirs["MaxBoxAccV2"]["mean"], theirs["iou"])
            assert (line["accuracy"], line["v2"], line["iou"]) == best
    for line in mine["table"]:
        assert (line["rows"], line["rows_quarantined"]) == (30, 10), line["name"]
    assert (mine["localizer"]["rows"], mine["localizer"]["rows_quarantined"]) == (30, 10)


def test_stages_that_are_not_there_are_refused_by_their_nearest_name(trained, trainable):
    for word in ("maps=cls_mapz", "beside=proposal", "against=proposels"):
        with pytest.raises(StoreError, match=r"unknown stage of tiny val .*; did you mean"):
            figures(words_of(trained, trainable, "split=val", word))


def test_command_shows_all_methods_and_fails_where_it_must_beat_what_it_cannot(trainable, trained):
    words = words_of(trained, trainable, "split=val", "maps=cls_maps")
    found = figures(words)
    names = [line["name"] for line in found["table"]]
    assert names == ["centred box", "cls_maps", "cls_maps", "proposals", "localizer"]
    assert found["table"][-1]["v2"] == found["localizer"]["MaxBoxAccV2"]["mean"]
    assert found["beats"]["centred box"]
    assert not found["beats"]["proposals"]  # the tiny store's first boxes are the objects themselves
    shown = CliRunner().invoke(scoring.command, words, catch_exceptions=False).output
    assert "does NOT beat proposals" in shown
    with pytest.raises(RunFailed, match="does not beat proposals"):
        CliRunner().invoke(scoring.command, [*words, "must_beat=true"], catch_exceptions=False)
