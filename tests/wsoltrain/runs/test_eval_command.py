"""``wsoltrain eval``: a localizer beside what it learned from, every line scored as ``wsolpipe eval`` scores it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from stores import build_store, write_masks, write_stage
from wsolpipe.cli.eval import command as pipeline_eval
from wsolpipe.contract.errors import ConfigError, RunFailed, StoreError
from wsolpipe.contract.schema import ArraySpec
from wsoltrain.cli import figures as scoring
from wsoltrain.data.config import Labelling
from wsoltrain.inference.model import load_trained
from wsoltrain.training.scoreboard import Evaluator, NetworkMaps


def words_of(checkpoint, store, *more):
    return [
        f"checkpoint={checkpoint}", f"store={store.url}", f"dataset={store.root}/../tiny.yaml", "workers=0",
        "device=cpu", *more,
    ]  # fmt: skip


def figures(words):
    return json.loads(CliRunner().invoke(scoring.eval_command, [*words, "--json"], catch_exceptions=False).output)


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
            line = next(line for line in mine["table"] if line["threshold"] == "its best on these images (oracle)")
            best = (theirs["MaxBoxAcc"], theirs["MaxBoxAccV2"]["mean"], theirs["iou"])
            assert (line["accuracy"], line["v2"], line["iou"]) == best
    for line in mine["table"]:
        assert (line["rows"], line["rows_quarantined"]) == (30, 10), line["name"]
    assert (mine["localizer"]["rows"], mine["localizer"]["rows_quarantined"]) == (30, 10)


def store_classes(store):
    """A stage that says of each image five classes, the right one first in two rows of three."""
    labels = np.array(store.labels)
    classes = (labels[:, None] + np.arange(5) + (np.arange(len(labels)) % 3 == 0)[:, None]) % 5
    arrays = {"classes": (ArraySpec(dtype="int32", shape=(5,), fill=-1), classes.astype(np.int32))}
    status = np.ones(len(labels), np.uint8)
    write_stage(store.url, "predictions", "abcd000011112222", arrays, status=status, split="val")
    return classes


@pytest.mark.parametrize("masks", [False, True])
def test_maps_of_a_network_score_as_they_do_from_files_against_boxes_and_masks(trained, tmp_path, masks):
    store = build_store(tmp_path, rows=24, sizes=(30, 50), split="val", quarantined={3: "truncated"})
    (tmp_path / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\nsplit: {val: .}\n")
    if masks:
        write_masks(tmp_path, store, [row for row in range(24) if row % 3])
        (tmp_path / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\nmasks: masks\nsplit: {val: .}\n")
    judge = store_classes(store)
    asked = ("classifier=predictions", "corloc=class")
    mine = figures(words_of(trained, store, "split=val", *asked))
    model = load_trained(str(trained), device=torch.device("cpu"))
    labelling = Labelling(store.url, "tiny", "val", maps=None, boxes=None)
    if masks:
        with pytest.raises(ConfigError, match="has no gt box or mask"):  # nobody said where the files are
            Evaluator(model.recipe, labelling, store.root, ["gt"], 0)
    evaluator = Evaluator(model.recipe, labelling, store.root, ["gt"], 0, tmp_path / "masks")
    for batch in NetworkMaps(model.model, evaluator.stream, torch.device("cpu"), "dips").batches():
        for row, values in zip(batch.rows, batch.maps, strict=True):
            (tmp_path / "maps" / store.paths[row]).parent.mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "maps" / f"{store.paths[row]}.npy", values)
    words = [
        f"maps={tmp_path}/maps", f"dataset={tmp_path}/tiny.yaml", f"store={store.url}", "split=val", "threads=1",
        "normalise=false", f"tau={mine['localizer']['tau']}", *asked, "--json",
    ]  # fmt: skip
    theirs = json.loads(CliRunner().invoke(pipeline_eval, words, catch_exceptions=False).stdout)
    names = [
        "MaxBoxAcc", "MaxBoxAccV2", "iou", "PxAP", "pixel_iou", "rows", "rows_quarantined", "rows_missing", "CL",
        "top1_loc", "top5_loc", "accuracy_top1", "errors", "values_inside", "MaxBoxAcc_area",
    ]  # fmt: skip
    assert {name: mine["localizer"][name] for name in names} == {name: theirs[name] for name in names}
    assert theirs["rows_quarantined"] == 1
    assert mine["classifier"] == theirs["classifier"] == "predictions abcd000011112222"
    right = np.delete(judge[:, 0] == store.labels, 3)
    assert theirs["accuracy_top1"] == pytest.approx(100 * right.mean())
    assert mine["localizer"].get("CorLoc") == theirs.get("CorLoc")
    own = mine["table"][-1]
    if masks:
        assert theirs["MaxBoxAcc"] is None
        assert own["pxap"] == theirs["PxAP"] > 30
        assert (own["rows"], mine["boxes"], [line["name"] for line in mine["table"]]) == (
            16,
            None,
            ["cls_maps", "cls_maps", "localizer"],
        )
        assert {name: test["figure"] for name, test in mine["paired"].items()} == {"cls_maps": "PxAP"}
    else:
        assert (own["accuracy"], own["pxap"], own["rows"]) == (theirs["MaxBoxAcc"], None, 23)
        assert (own["top1"], own["accuracy_top1"]) == (theirs["top1_loc"], theirs["accuracy_top1"])
        assert theirs["top1_loc"] < theirs["top5_loc"] <= theirs["MaxBoxAcc"]
        assert theirs["CorLoc"]["oracle"]
        assert theirs["CorLoc"]["pooled"] >= theirs["MaxBoxAcc"]
        shown = CliRunner().invoke(scoring.eval_command, words_of(trained, store, "split=val", *asked)).output
        for told in ("Top-1", "Top-5", "each class's own best threshold, an oracle", "class 0: ", "LPE "):
            assert told in shown


def test_an_image_that_cannot_be_read_counts_as_quarantined(trained, tmp_path):
    store = build_store(tmp_path, rows=24, sizes=(30, 50), split="val")
    (tmp_path / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\nsplit: {val: .}\n")
    (tmp_path / "images" / store.paths[7]).write_bytes(b"no image")
    found = figures(words_of(trained, store, "split=val"))["localizer"]
    assert (found["rows"], found["rows_quarantined"], found["rows_missing"]) == (23, 1, 0)


def test_stages_that_are_not_there_are_refused_by_their_nearest_name(trained, trainable):
    for word in ("maps=cls_mapz", "beside=proposal", "against=proposels", "classifier=cls_mapz"):
        with pytest.raises(StoreError, match=r"no stage .* under .*tiny.val; did you mean"):
            figures(words_of(trained, trainable, "split=val", word))


def test_command_shows_all_methods_and_fails_where_it_must_beat_what_it_cannot(trainable, trained):
    words = words_of(trained, trainable, "split=val")  # maps and boxes that it learned from are beside by themselves
    found = figures(words)
    names = [line["name"] for line in found["table"]]
    assert names == ["centred box", "cls_maps", "cls_maps", "proposals", "localizer"]
    assert found["table"][-1]["v2"] == found["localizer"]["MaxBoxAccV2"]["mean"]
    assert found["beats"]["centred box"]
    assert not found["beats"]["proposals"]  # the tiny store's first boxes are the objects themselves
    assert list(found["paired"]) == ["centred box", "cls_maps", "proposals"]
    assert {test["figure"] for test in found["paired"].values()} == {"MaxBoxAcc"}
    for name, line in zip(found["paired"], (0, 1, 3), strict=True):
        test = found["paired"][name]
        gap = found["table"][-1]["accuracy"] - found["table"][line]["accuracy"]
        assert test["difference"] == pytest.approx(gap, abs=1e-4)
        assert (test["low"] <= gap <= test["high"], test["rows"]) == (True, 40)
    shown = CliRunner().invoke(scoring.eval_command, words, catch_exceptions=False).output
    assert "does NOT beat proposals: MaxBoxAcc " in shown
    with pytest.raises(RunFailed, match="does not beat proposals"):
        CliRunner().invoke(scoring.eval_command, [*words, "must_beat=true"], catch_exceptions=False)


def test_boxes_of_each_maps_own_otsu_threshold_stand_beside_and_need_no_validation(trainable, trained):
    found = figures(words_of(trained, trainable, "split=val", "otsu=true"))
    plain, own = found["table"][-2:]
    assert (own["name"], own["threshold"]) == ("localizer", "Otsu of each map")
    assert own["rows"] == plain["rows"]
    again = figures(words_of(trained, trainable, "split=val", "otsu=true", "tau=0.9"))["table"][-1]
    assert (again["iou"], again["v2"]) == (own["iou"], own["v2"])
    assert own["iou"] > found["table"][0]["iou"]  # the centred box
    assert "localizer" not in found["beats"]
