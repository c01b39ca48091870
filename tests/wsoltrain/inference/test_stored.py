"""Predictions as a stage of the store: made in shards, scored as the network is, and read by what reads labels."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from e2e.toy import Toy, object_bytes
from trained import SMALL
from wsolpipe.cli.eval import command as pipeline_eval
from wsolpipe.cli.run import command as pipeline_run
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.reader import open_store
from wsoltrain.cli import figures as scoring
from wsoltrain.cli import use as predicting

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Predicted:
    """A data set with boxes, a store with the predictions of a run on it, and the run's folder."""

    yaml: Path
    store: Path
    run: Path
    root: str

    def words(self, *more: str, store: Path | None = None) -> list[str]:
        return [f"dataset={self.yaml}", f"store={store or self.store}", "split=val", *more]

    def predict(self, *more: str, store: Path | None = None):
        words = [f"checkpoint={self.run}", *self.words(store=store), "shard_rows=16", "device=cpu", *more, "--json"]
        return CliRunner().invoke(predicting.predict_command, words, catch_exceptions=False)


@pytest.fixture(scope="module")
def predicted(trained, trainable, tmp_path_factory):
    """The images of `trainable` with their boxes in metadata files, and predictions of every row but a broken one."""
    folder = tmp_path_factory.mktemp("predicted")
    broken = "0/broken.png"
    shutil.copytree(trainable.root, folder / "images")
    (folder / "images" / broken).write_bytes(b"no image")
    lines = {
        "image_ids": [*trainable.paths, broken],
        "class_labels": [f"{name},{label}" for name, label in zip(trainable.paths, trainable.labels, strict=True)],
        "localization": [
            ",".join([name, *(f"{edge:g}" for edge in box)])
            for name, box in zip(trainable.paths, trainable.objects, strict=True)
        ],
    }
    lines["class_labels"].append(f"{broken},0")
    for name, content in lines.items():
        (folder / f"{name}.txt").write_text("\n".join(content) + "\n")
    (folder / "boxed.yaml").write_text(
        "name: boxed\nlayout: metadata\nroot: images\nmetadata: .\nclasses: 5\nsplit: val\n"
    )
    made = Predicted(folder / "boxed.yaml", folder / "store", trained, str(folder / "images"))
    done = made.predict()
    assert done.exit_code == 0, done.output
    told = next(item for item in json.loads(done.stdout)["stages"] if item["stage"] == "predictions")
    assert (told["rows"], told["done"], told["quarantined"], told["shards_done"]) == (41, 40, 1, 3)
    return made


def figures(command, *words: str):
    done = CliRunner().invoke(command, [*words, "--json"], catch_exceptions=False)
    return json.loads(done.stdout)


def test_the_stage_scores_as_the_network_does_to_the_digit(predicted):
    stage = figures(pipeline_eval, "stage=predictions", *predicted.words("threads=1"))
    network = figures(scoring.eval_command, f"checkpoint={predicted.run}", *predicted.words("workers=0", "device=cpu"))
    assert stage["tau_from"] == "the stage predictions"
    assert stage["rows_scored"] == 40
    mine = network["localizer"]
    assert {name: stage[name] for name in mine if name != "tau_from"} == {
        name: value for name, value in mine.items() if name != "tau_from"
    }
    assert stage["boxes"]["iou_top1"] == pytest.approx(mine["iou"], abs=0.02)  # the evaluator truncates
    assert {"top1", "top5"} <= {name.lower().replace("-", "")[:4] for name in mine}


def test_levels_alone_score_within_their_steps(predicted, tmp_path):
    assert predicted.predict("exact=false", "target=predicted", store=tmp_path).exit_code == 0
    exact, levels = (
        figures(pipeline_eval, "stage=predictions", *predicted.words("threads=1", store=store))
        for store in (predicted.store, tmp_path)
    )
    assert levels["iou"] == pytest.approx(exact["iou"], abs=0.01)
    assert (exact["labels"], levels["labels"]) == ("true", "predicted")
    held = open_store(str(tmp_path))["boxed"]["val"]["predictions"]
    assert "values" not in held.manifest.arrays


@pytest.mark.slow
def test_a_killed_prediction_is_resumed_by_two_workers_and_leaves_the_bytes_of_one_run(predicted, tmp_path):
    words = predicted.words("shard_rows=16", "device=cpu", "lease=0.5", store=tmp_path / "store")
    toy = Toy(tmp_path, {"PYTHONPATH": os.pathsep.join(sys.path)})
    command = ["predict", f"checkpoint={predicted.run}", *words]
    killed = toy.command_line(command, program="wsoltrain", WSOLPIPE_FAULT="before_record:2")
    assert killed.code == -signal.SIGKILL
    done = toy.command_line([*command, "workers=2"], program="wsoltrain")
    assert done.code == 0, done.err
    mine, theirs = (
        {name: data for name, data in object_bytes(store).items() if "/predictions/" in name}
        for store in (tmp_path / "store", predicted.store)
    )
    assert mine == theirs
    assert not list(tmp_path.glob("**/leases/*.json"))


def test_another_student_learns_from_the_predictions(predicted, tmp_path):
    from wsoltrain.data.config import Labelling
    from wsoltrain.training.loop import Trainer
    from wsoltrain.training.recipe_file import load_recipe
    from wsoltrain.training.settings import Settings
    from wsoltrain.training.tracker import JsonLines

    taught = {**SMALL, "epochs": 1, "maps": "predictions", "boxes": "predictions"}
    recipe = load_recipe("dips", dataset="boxed", changes=taught)
    labelling = Labelling(str(predicted.store), "boxed", "val", maps="predictions", boxes="predictions")
    settings = Settings(
        labelling, root=predicted.root, out=tmp_path, workers=0, thresholds=(50, 50), annotators=["predictions"]
    )
    Trainer(recipe, settings, [JsonLines(tmp_path / "metrics.jsonl")]).fit()
    assert (tmp_path / "best-predictions.safetensors").exists()


def test_wrong_words_are_refused(predicted, tmp_path):
    with pytest.raises(ConfigError, match="source= is of pictures"):
        predicted.predict("source=photos")
    with pytest.raises(ConfigError, match="store= is of a data set, and none is named"):
        CliRunner().invoke(predicting.predict_command, ["store=x", "source=y"], catch_exceptions=False)
    with pytest.raises(ConfigError, match="tau=1 is not"):
        predicted.predict("tau=1")
    with pytest.raises(ConfigError, match="names no trained localizer"):
        CliRunner().invoke(
            pipeline_run, ["stage=predictions", *predicted.words(store=tmp_path)], catch_exceptions=False
        )
    (predicted.yaml.parent / "six.yaml").write_text(predicted.yaml.read_text().replace("classes: 5", "classes: 6"))
    other = Predicted(predicted.yaml.parent / "six.yaml", tmp_path / "store", predicted.run, predicted.root)
    with pytest.raises(ConfigError, match="the network knows 5 classes, and boxed has 6"):
        other.predict()


def test_the_key_is_of_the_checkpoint_and_its_words(predicted):
    manifest = open_store(str(predicted.store))["boxed"]["val"]["predictions"].manifest
    assert [item.name for item in manifest.weights] == ["checkpoint"]
    assert "checkpoint" not in manifest.params
    assert manifest.params["unit"] is True
    values = open_store(str(predicted.store))["boxed"]["val"]["predictions"]
    good = values["status"][:] == 1
    assert np.isfinite(values["boxes"][:][good]).all()
    assert good.sum() == 40
