"""Doubts about a training that has ended: chance, a centred box, and what it learned from."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from trained import trainer
from wsolpipe.evaluate.results import StoreResults
from wsolpipe.evaluate.scored import score_beside
from wsolpipe.keys.key import read_keys
from wsolpipe.metrics.protocol import Choice, Run, doubts
from wsoltrain.runs.evaluate import KEYS, evaluate
from wsoltrain.runs.verdict import doubts_of


def listed(store, path, boxes):
    """A localization.txt of one box an image."""
    lines = (f"{name},{','.join(map(str, box))}" for name, box in zip(store.paths, boxes.tolist(), strict=True))
    path.write_text("\n".join(lines) + "\n")
    return {"annotators": [str(path)]}


def test_an_untrained_network_is_said_to_be_below_the_maps_that_it_learned_from_with_what_to_use(trainable, tmp_path):
    results = StoreResults(trainable.url, "tiny", None)
    first = results.view("proposals", "val")["boxes"][:][:, 0]
    ended = trainer(
        trainable, tmp_path / "run", epochs=1, lr=1e-8, more=listed(trainable, tmp_path / "boxes.txt", first)
    )
    ended.fit()
    own = ended.best["boxes"]
    truth = ended.scoreboard.evaluators["val"].truths["boxes"]
    maps = score_beside(truth, maps=results.view("cls_maps", "val"))[1].line().accuracy
    assert own < maps
    texts = [text for text in doubts_of(ended) if text.startswith("below")]
    assert texts[0].startswith(
        f"below cls_maps, from which it learned: MaxBoxAcc {own:.1f} against {maps:.1f} by boxes of val"
    )
    assert "wsolpipe export stage=cls_maps" in texts[0]
    assert texts[1].startswith("below proposals, from which it learned")


def test_maps_are_not_judged_by_boxes_that_are_made_of_them(trainable, tmp_path):
    ended = trainer(trainable, tmp_path, epochs=1, lr=1e-8)
    ended.fit()
    results = StoreResults(trainable.url, "tiny", None)
    assert set(results.view("proposals", "val").manifest.upstream) == {"cls_maps"}
    truth = ended.scoreboard.evaluators["val"].truths["proposals"]
    assert ended.best["proposals"] < score_beside(truth, maps=results.view("cls_maps", "val"))[1].line().accuracy
    assert not [text for text in doubts_of(ended) if text.startswith("below")]


def test_other_runs_below_the_folder_do_not_count_and_a_damaged_epoch_is_said_and_fails_nothing(trainable, tmp_path):
    ended = trainer(trainable, tmp_path, epochs=1, lr=1e-8)
    ended.fit()
    (written,) = (tmp_path / "runs").rglob("*.json")
    other = json.loads(written.read_text()) | {"run": "other", "dataset": "another"}
    (tmp_path / "other/runs").mkdir(parents=True)
    (tmp_path / "other/runs/other-0000.json").write_text(json.dumps(other))
    assert not [text for text in doubts_of(ended) if text.startswith("not judged")]
    written.write_text("{")
    (only,) = doubts_of(ended)
    assert only.startswith("not judged: ")
    assert written.name in only


def test_a_run_chosen_by_boxes_of_a_file_is_scored_beside_its_maps_without_being_asked(trainable, tmp_path):
    first = StoreResults(trainable.url, "tiny", None).view("proposals", "val")["boxes"][:][:, 0]
    out = tmp_path / "run"
    trainer(trainable, out, epochs=1, more=listed(trainable, tmp_path / "boxes.txt", first)).fit()
    place = [f"dataset={trainable.root}/../tiny.yaml", f"store={trainable.url}", "split=val", "workers=0"]
    found = evaluate(read_keys([f"checkpoint={out}", *place], KEYS))
    assert [line["name"] for line in found["table"]] == ["centred box", "cls_maps", "proposals", "localizer"]
    assert list(found["paired"]) == ["centred box", "proposals"]  # nothing chose a threshold for the maps


def test_an_epoch_below_a_centred_box_is_named_while_the_training_runs_and_at_its_end(trainable, tmp_path, caplog):
    sizes = StoreResults(trainable.url, "tiny", None).rows("val").sizes.astype(float)
    # boxes that a centred one meets and a whole image does not
    boxes = np.hstack([sizes * 0.175, sizes * 0.825])
    ended = trainer(trainable, tmp_path / "run", epochs=1, more=listed(trainable, tmp_path / "localization.txt", boxes))
    with caplog.at_level(logging.WARNING):
        ended.fit()
    below = f"MaxBoxAcc {ended.best['localization']:.1f} is below a centred box (100.0)"
    assert f"epoch 0: {below}" in caplog.text
    assert below in doubts_of(ended)


def test_what_chooses_is_not_held_against_itself_and_a_good_student_is_not_doubted(trainable, tmp_path):
    ended = trainer(trainable, tmp_path, epochs=6, lr=0.05)
    ended.fit()
    assert not [text for text in doubts_of(ended) if text.startswith("below") or "centred" in text]


def test_accuracy_near_chance_is_named_beside_chance(trainable, tmp_path):
    board = trainer(trainable, tmp_path, epochs=1).scoreboard
    assert board.weaknesses(None, 29.9) == ["accuracy 29.9 is near chance (20.0): another lr, or more epochs"]
    assert board.weaknesses(100.0, 30.1) == []


@pytest.mark.parametrize(("tau", "words"), [(0.01, "nearly the whole image"), (0.99, "the peak alone"), (0.5, "")])
def test_a_threshold_at_an_end_and_a_first_epoch_that_stays_the_best_are_doubted(tau, words):
    levels = {name: [9, 10, 9] for name in ("30", "50", "70")}
    worse = {name: [5, 6, 5] for name in ("30", "50", "70")}
    runs = [
        Run("a", epoch, {"rpn": {"rows": 10, "largest": each, "all": each, "iou": [0.5] * 3}})
        for epoch, each in enumerate((levels, worse, worse))
    ]
    found = doubts(runs, "rpn", Choice(runs[0], tau, 100.0))
    assert "the first of 3 epochs scores best: by rpn, training made the maps worse" in found
    assert [text for text in found if text.startswith("threshold")] == (
        [f"threshold {tau:.3f}: boxes enclose {words}"] if words else []
    )
