"""Words of ``by``, masks as truth, and many annotators in one pass over the validation maps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from stores import build_store, write_masks
from trained import trainer
from wsolpipe.cli.eval import command as pipeline_eval
from wsolpipe.contract.errors import ConfigError, StoreError
from wsolpipe.metrics.protocol import annotator_of, read_runs
from wsoltrain.cli import figures as scoring
from wsoltrain.cli import figures as selecting
from wsoltrain.cli import use as predicting
from wsoltrain.data.config import Labelling
from wsoltrain.inference.model import load_trained
from wsoltrain.methods.pixel_trained import PixelTrained
from wsoltrain.runs import predict as running
from wsoltrain.runs.settle import settle_words
from wsoltrain.training.annotators import Annotator, read_annotators
from wsoltrain.training.scoreboard import Evaluator, Scoreboard

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("word", "annotator"),
    [
        ("proposals", Annotator("proposals", "proposals")),
        ("val_boxes:1f2e", Annotator("val_boxes", "val_boxes:1f2e")),
        ("ss:val_boxes", Annotator("ss", "val_boxes")),
        ("ss:val_boxes@1f2e", Annotator("ss", "val_boxes:1f2e")),
        ("val_masks@1f2e", Annotator("val_masks", "val_masks:1f2e")),
        ("truth", Annotator("gt", "gt")),
        ("cls", Annotator("cls", "cls")),
        ("noisy:10", Annotator("noisy:10", "gt", 0.1)),
        ("made/by_hand.txt", Annotator("by_hand", "made/by_hand.txt")),
    ],
)
def test_words_name_annotators(word, annotator):
    assert read_annotators([word]) == [annotator]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["noisy:0.1"], "percentage from 1 to 100"),
        (["noisy:much"], "percentage from 1 to 100"),
        (["val_boxes@1f2e", "val_boxes@3a4b"], "second annotator named val_boxes"),
        (["ss:@1f2e"], "not NAME:STAGE@KEY"),
        ([":val_boxes"], "not NAME:STAGE@KEY"),
        ([], "names no annotator"),
    ],
)
def test_words_that_mean_nothing_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        read_annotators(words)


def test_one_pass_of_five_annotators_equals_five_passes(trainable, trained):
    model = load_trained(str(trained), device=CPU)
    labelling = Labelling(trainable.url, "tiny", "val", maps=None, boxes=None)
    words = ["gt", "first:proposals", "noisy:10", "noisy:30", "noisy:50"]

    def entries(of):
        scores = Evaluator(model.recipe, labelling, trainable.root, of, 0).run(
            model.model, CPU, thresholds=100, more=("otsu",)
        )
        return {name: each.entry() for name, each in scores.items()}

    together = entries(words)
    assert list(together) == ["gt", "first", "noisy:10", "noisy:30", "noisy:50"]
    for word in words:
        (name, alone), *_ = entries([word]).items()
        assert together[name] == alone
    best = [max(together[name]["largest"]["50"]) for name in ("gt", "noisy:30", "noisy:50")]
    assert best == sorted(best, reverse=True)
    assert best[0] > best[2]  # noise costs


def test_the_first_rows_of_each_class_may_be_all_that_chooses(trainable, trained):
    place = [f"store={trainable.url}", f"dataset={trainable.root}/../tiny.yaml", "by=gt", "val=val", "device=cpu"]
    words = [*place, "test=val", "val_rows_per_class=2"]
    settled = settle_words(words)
    recipe, settings = settled.recipe, settled.settings
    chosen, shown = (Scoreboard(recipe, settings, []).evaluators[kind].stream for kind in ("val", "test"))
    labels = chosen.items.rows.labels
    assert chosen.rows.tolist() == sorted(row for label in set(labels) for row in np.flatnonzero(labels == label)[:2])
    assert len(shown.rows) == len(labels) == len(chosen.rows) + chosen.counts["beyond"] > len(chosen.rows)
    model, labelling = load_trained(str(trained), device=CPU), Labelling(trainable.url, "tiny", "val", None, None)
    evaluator = Evaluator(model.recipe, labelling, trainable.root, ["gt"], 0, per_class=2)
    assert evaluator.run(model.model, CPU, thresholds=10)["gt"].entry()["rows"] == len(chosen.rows)


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """A store whose validation rows have masks and no boxes, and a run chosen by them and by eroded ones."""
    folder = tmp_path_factory.mktemp("masked")
    store = build_store(folder, rows=24, sizes=(30, 50))
    build_store(folder, rows=24, sizes=(30, 50), split="val")
    (folder / "tiny.yaml").write_text(
        "name: tiny\nlayout: folder\nroot: images\nmasks: masks\nsplit: {train: ., val: .}\n"
    )
    write_masks(folder, store, [row for row in range(24) if row % 5])
    more = {"annotators": ["gt", "noisy:50", "noisy:90"], "test": "val", "masks": folder / "masks"}
    trainer(store, folder / "run", more=more, epochs=2, vflip=0.5, jitter=(0.2, 0.2, 0.2, 0.05)).fit()
    return folder, store


def test_masks_choose_epochs_and_pxap_equals_that_of_the_pipeline_to_the_last_digit(masked, tmp_path):
    folder, store = masked
    runs = read_runs(folder / "run" / "runs")
    words = [f"checkpoint={folder}/run/best-gt.safetensors", f"source={store.root}", f"out={tmp_path}", "device=cpu"]
    CliRunner().invoke(predicting.predict_command, [*words, "overlays=false"], catch_exceptions=False)
    assert sorted(path.suffixes for path in (tmp_path / "maps").rglob("*.npy")) == [[".npy"]] * 24  # no x.jpg.npy
    told = json.loads((tmp_path / "boxes.json").read_text())
    words = [
        f"maps={tmp_path}/maps", f"dataset={folder}/tiny.yaml", f"store={store.url}", "split=val", "threads=1",
        "normalise=false", f"tau={told['tau']}", "--json",
    ]  # fmt: skip
    theirs = json.loads(CliRunner().invoke(pipeline_eval, words, catch_exceptions=False).stdout)
    chosen = json.loads(CliRunner().invoke(selecting.select_command, [f"runs={folder}/run", "--json"]).output)
    mine = next(run for run in runs if run.epoch == chosen["epoch"])
    assert (chosen["metric"], chosen["by"]) == ("PxAP", "gt")
    assert theirs["PxAP"] == mine.validation["gt"]["PxAP"] == chosen["score"]
    assert len({run.validation["gt"]["PxAP"] for run in runs}) == len(runs) > 1
    assert theirs["pixel_iou"] == pytest.approx(mine.validation["gt"]["iou"][round(1000 * told["tau"])], abs=1e-6)
    assert theirs["rows_without_mask"] == 5
    shown = (
        CliRunner()
        .invoke(selecting.select_command, [f"runs={folder}/run", "by=noisy:90"], catch_exceptions=False)
        .output
    )
    assert "PxAP" in shown


def test_runs_of_masks_make_the_table_of_the_pipeline(masked):
    folder, _ = masked
    done = CliRunner().invoke(
        pipeline_eval, [f"runs={folder}/run/runs", "metric=all", "--json"], catch_exceptions=False
    )
    table = json.loads(done.stdout)
    assert table["metric"] == "PxAP"
    names = list(dict.fromkeys(cell["annotator"] for cell in table["table"]))
    assert names == ["cls", "cls, tau of gt", "gt", "noisy:50", "noisy:90"]
    assert all(cell["PxAP"] > 5 and 0 <= cell["iou"] <= 1 for cell in table["table"])
    assert CliRunner().invoke(pipeline_eval, [f"runs={folder}/run/runs"], catch_exceptions=False).exit_code == 0


def test_the_best_weights_of_each_annotator_are_kept_under_its_name(masked):
    folder, _ = masked
    names = sorted(path.name for path in (folder / "run").glob("best-*.safetensors"))
    assert names == [f"best-{name}.safetensors" for name in ("gt", "noisy-50", "noisy-90")]
    assert load_trained(str(folder / "run" / names[1]), device=CPU).annotator == "noisy:50"


@pytest.mark.parametrize(
    ("annotators", "metric", "message"),
    [
        (["proposals"], "PxAP", "holds boxes and no mask"),
        (["gt"], "MaxBoxAcc", "holds masks and no box"),
        (["gt", "owls"], "auto", "no stage 'owls' under .*tiny.val"),
    ],
)
def test_what_a_truth_cannot_give_is_refused_before_the_first_step(masked, tmp_path, annotators, metric, message):
    folder, store = masked
    more = {"annotators": annotators, "metric": metric, "masks": folder / "masks"}
    with pytest.raises((ConfigError, StoreError), match=message):
        trainer(store, tmp_path, more=more)
    assert not list(tmp_path.glob("*.safetensors"))


def test_accuracy_chooses_beside_others_and_its_boxes_are_scored_at_otsus_threshold(trainable, tmp_path):
    run = trainer(trainable, tmp_path, more={"annotators": ["cls", "proposals"]}, epochs=1, head_epochs=1)
    best = run.fit()["best"]
    runs = read_runs(tmp_path / "runs")
    assert best["cls"] == max(each.validation["accuracy"] for each in runs)
    assert load_trained(str(tmp_path / "best-cls.safetensors"), device=CPU).tau is None
    assert annotator_of(runs) == "proposals"
    words = [f"checkpoint={tmp_path}/best-cls.safetensors", f"store={trainable.url}", "split=val", "workers=0"]
    words += [f"dataset={trainable.root}/../tiny.yaml", "device=cpu", "--json"]
    table = json.loads(CliRunner().invoke(scoring.eval_command, words, catch_exceptions=False).stdout)["table"]
    assert table[-1]["threshold"] == "Otsu of each map"


def test_a_method_without_classes_cannot_be_chosen_by_accuracy(trainable, tmp_path, monkeypatch):
    shown = PixelTrained.foreground
    monkeypatch.setattr(PixelTrained, "foreground", lambda self, logits, scores: shown(self, logits, None))
    with pytest.raises(ConfigError, match="dips names no classes"):
        trainer(trainable, tmp_path, more={"annotators": ["cls"]})


def test_maps_files_of_one_stem_keep_their_endings():
    taken: set[str] = set()
    named = [running._map_name(name, taken) for name in ("a/x.jpg", "a/x.png", "film.mp4#000003")]
    assert named == ["a/x", "a/x.png", "film.mp4#000003"]
    assert np.unique(named).size == 3
