"""Runs chosen again by noisy boxes, from what a training kept of its validation maps; plots of a run by epoch."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from stores import build_store, write_masks
from trained import trainer
from wsolpipe.contract.errors import ConfigError, DataError, WsolError
from wsolpipe.evaluate.results import StoreResults
from wsolpipe.evaluate.truth import find_truth
from wsolpipe.metrics.protocol import Run, read_runs, write_run
from wsoltrain.cli import figures, noise
from wsoltrain.runs.draws import Range, draw, shared_configurations
from wsoltrain.runs.noise import study_noise


@pytest.fixture(scope="module")
def kept(trainable, tmp_path_factory):
    """Two runs that kept their outcomes, and ground truth of their validation rows."""
    folder = tmp_path_factory.mktemp("noise")
    more = {"annotators": ["gt", "noisy:20", "noisy:50", "cls"], "test": "val", "outcomes": True}
    trainer(trainable, folder / "a", more=more, epochs=3, head_epochs=0).fit()
    trainer(trainable, folder / "b", more=more, epochs=2, head_epochs=0, lr=0.1).fit()
    results = StoreResults(trainable.url, "tiny", None)
    return folder, find_truth(results, results.rows("val"), "gt")


def ask(command, *words):
    return CliRunner().invoke(command, [*words], catch_exceptions=False)


def test_picks_are_those_of_the_training_that_saw_the_same_noise(kept):
    folder, truth = kept
    study = study_noise(folder, truth, percents=[20, 50], draws=1, metric="iou")
    assert list(study.runs) == ["a", "b"]
    for level, name in (((0, 0), "gt"), ((20, 0), "noisy:20"), ((50, 0), "noisy:50")):
        for run, choice in zip(study.runs, study.choices[level], strict=True):
            seen = {each.epoch: each.validation[name] for each in read_runs(folder / run / "runs")}
            mine = next(iter(choice.run.validation.values()))
            assert mine["iou"] == seen[choice.run.epoch]["iou"]
            assert mine["largest"] == seen[choice.run.epoch]["largest"]
            assert choice.score == max(max(entry["iou"]) for entry in seen.values())
    true, *noisy = study.lines()
    assert (true["noise"], true["lost"], true["apart"]["0"]) == (0, 0.0, 2)
    for line in noisy:
        assert sum(line["apart"].values()) == 2
        assert line["VT"]["min"] <= line["VT"]["mean"] <= line["VT"]["max"]
        assert line["TT"]["mean"] >= line["VT"]["mean"]
        assert line["VT"]["min"] <= line["chosen"] <= line["VT"]["max"]


def test_command_prints_levels_and_draws_plots(kept, trainable, tmp_path):
    folder, _ = kept
    place = [f"dataset={trainable.root}/../tiny.yaml", f"store={trainable.url}", f"runs={folder}"]
    shown = ask(noise.command, *place, "levels=10,50", "draws=2", f"plots={tmp_path}").output
    assert [line.split()[0] for line in shown.splitlines()[:4]] == ["noise", "gt", "10", "50"]
    assert "2 runs, 2 draws of each level" in shown
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(made) == {
        f"noise-{name}.{end}" for name in ("figures", "epochs") for end in ("svg", "pdf", "png", "csv")
    }
    assert made["noise-figures.pdf"].startswith(b"%PDF")
    assert b"chosen run" in made["noise-figures.svg"]
    told = json.loads(ask(noise.command, *place, "levels=10", "draws=2", "--json").output)
    assert [line["noise"] for line in told["levels"]] == [0, 10]
    assert sum(told["levels"][1]["apart"].values()) == 4


def test_what_a_study_lacks_is_said(kept, trainable, tmp_path):
    folder, truth = kept
    place = [f"dataset={trainable.root}/../tiny.yaml", f"store={trainable.url}"]

    def refused(*words, match, error=DataError):
        with pytest.raises(error, match=match):
            ask(noise.command, *place, *words)

    refused(f"runs={tmp_path}", match="no run in .* kept the boxes")
    refused(f"runs={folder}", "levels=0", match="levels", error=ConfigError)
    refused(f"runs={folder}", "levels=101", match="percentage from 1 to 100", error=ConfigError)
    refused(f"runs={folder}", "val=elsewhere", match="elsewhere", error=WsolError)
    copy = tmp_path / "a"
    shutil.copytree(folder / "a", copy)
    file = copy / "outcomes" / "0000.npz"
    file.write_bytes(file.read_bytes()[:100])
    refused(f"runs={tmp_path}", match=r"0000\.npz holds no boxes")
    for each in (copy / "outcomes").iterdir():
        each.unlink()
    refused(f"runs={tmp_path}", match="holds no epoch")
    np.savez(file, rows=np.array([900]), side=224, peaks=np.zeros(1, np.uint8), starts=np.zeros(2, int),
             cut_steps=np.zeros(0, np.uint8), box_steps=np.zeros((4, 0), np.int16))  # fmt: skip
    refused(f"runs={tmp_path}", match="other rows")
    first = read_runs(copy / "runs")[0]
    write_run(copy / "runs", Run(first.run, first.epoch, first.validation))
    refused(f"runs={tmp_path}", match="no figures of a test split")
    bare = type(truth)(truth.name, truth.rows)
    with pytest.raises(DataError, match="no ground-truth box"):
        study_noise(folder, bare, percents=[10], draws=1, metric="iou")


def test_runs_are_chosen_again_by_noisy_masks_as_the_training_would_have(tmp_path):
    store = build_store(tmp_path, rows=16, sizes=(30, 50), split="val")
    build_store(tmp_path, rows=16, sizes=(30, 50))
    write_masks(tmp_path, store, list(range(16)))
    text = "name: tiny\nlayout: folder\nroot: images\nmasks: masks\nsplit: {train: ., val: .}\n"
    (tmp_path / "tiny.yaml").write_text(text)
    more = {"annotators": ["gt", "noisy:20"], "test": "val", "outcomes": True, "masks": tmp_path / "masks"}
    trainer(store, tmp_path / "runs" / "a", more=more, epochs=2, head_epochs=0).fit()
    assert {path.name for path in (tmp_path / "runs/a/outcomes").iterdir()} == {"0000-maps.npz", "0001-maps.npz"}
    place = [f"dataset={tmp_path}/tiny.yaml", f"store={store.url}", f"runs={tmp_path}/runs"]
    told = json.loads(ask(noise.command, *place, "levels=20", "draws=1", "--json").output)
    assert told["metric"] == "PxAP"
    results = StoreResults(store.url, "tiny", tmp_path / "masks")
    truth = find_truth(results, results.rows("val"), "gt")
    study = study_noise(tmp_path / "runs", truth, percents=[20], draws=1, metric="PxAP")
    for level, name in (((0, 0), "gt"), ((20, 0), "noisy:20")):
        seen = {each.epoch: each.validation[name] for each in read_runs(tmp_path / "runs")}
        (choice,) = study.choices[level]
        assert choice.score == pytest.approx(max(entry["PxAP"] for entry in seen.values()))
        (mine,) = choice.run.validation.values()
        assert mine["iou"] == seen[choice.run.epoch]["iou"]
    assert told["levels"][1]["VT"]["mean"] == pytest.approx(study.lines()[1]["VT"]["mean"])


def test_select_draws_each_annotator_by_epoch_and_by_threshold(kept, tmp_path):
    shown = ask(figures.select_command, f"runs={kept[0]}/a", "by=gt", f"plots={tmp_path}").output
    names = {f"{name}-a.{end}" for name in ("epochs", "thresholds") for end in ("svg", "pdf", "png", "csv")}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert "epochs-a.pdf" in shown
    chart = (tmp_path / "epochs-a.svg").read_text()
    first = read_runs(kept[0] / "a" / "runs")[0]
    named = {"by gt", "by noisy:20", "by noisy:50", "test", "test, Otsu"}
    named |= {"by cls (accuracy)", "test accuracy"} if "accuracy" in first.test else set()
    assert all(f">{label}</text>" in chart for label in named)
    with (tmp_path / "epochs-a.csv").open() as file:
        assert {line["curve"] for line in csv.DictReader(file)} == named


def test_shared_configurations_are_equal_for_recipes_and_crossed_with_own_keys():
    lr = {"lr": Range(low=1e-5, high=1.0, log=True)}
    own = {"hide_rate": Range(low=0.0, high=1.0)}
    plain = dict(shared_configurations(lr, 3, 4))
    crossed = dict(shared_configurations(lr | own, 3, 2))
    assert list(plain) == ["c000", "c001", "c002"]  # nothing to cross with
    assert list(crossed) == [f"c{number:03d}-{other:02d}" for number in range(3) for other in range(2)]
    for name, values in crossed.items():
        assert values["lr"] == plain[name[:4]]["lr"]
    assert len({values["hide_rate"] for values in crossed.values()}) == 6
    assert dict(shared_configurations(lr | own, 3, 1))["c002"] == draw(lr | own, 2)
    assert dict(shared_configurations(lr, 3, 1, seed=1))["c000"] != plain["c000"]
