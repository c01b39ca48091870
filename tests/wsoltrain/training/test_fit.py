"""Training from a tiny store: what is learned, resuming after a kill, and errors before the first step."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stores import build_store
from trained import SMALL, lines, recipe, tensors, trainer
from wsolpipe.contract.backends.opening import open_backend
from wsolpipe.contract.errors import ConfigError, DataError, RunFailed, StoreError
from wsolpipe.metrics.protocol import read_runs, select
from wsoltrain.data.config import Labelling
from wsoltrain.networks.encoders import load_judge
from wsoltrain.training import checkpoint
from wsoltrain.training.loop import Trainer
from wsoltrain.training.optimisation import Moment
from wsoltrain.training.recipe_file import known_recipes, load_recipe
from wsoltrain.training.scoreboard import Evaluator
from wsoltrain.training.settings import Settings
from wsoltrain.training.tracker import JsonLines


@pytest.fixture(scope="module")
def store(trainable):
    return trainable


class Killed(Exception):
    """Stands for the end of the process at some step."""


class Killer:
    def __init__(self, step: int) -> None:
        self.step = step

    def write(self, kind, step, figures) -> None:
        if kind == "step" and step == self.step:
            raise Killed

    def close(self) -> None:
        pass


def test_training_learns_the_objects_of_its_pseudo_boxes_and_keeps_the_best(store, trained, tmp_path):
    losses = [line["pixels"] for line in lines(trained, "step") if line["phase"] == "maps"]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    last = checkpoint.state_of(trained / "last.safetensors")
    assert last["step"] == 7 * 5
    runs = read_runs(trained / "runs")
    assert [run.epoch for run in runs] == list(range(6))
    choice = select(runs, "proposals")
    assert choice.score == pytest.approx(last["best"]["proposals"])
    fresh = trainer(store, tmp_path).model
    state = checkpoint.load(trained / "best-proposals.safetensors", fresh)
    assert (state["epoch"], state["tau"]) == (choice.run.epoch, choice.tau)


def test_selected_epoch_is_scored_beside_the_boxes_it_learned_from(store, tmp_path):
    from click.testing import CliRunner

    from wsoltrain.cli import figures as scoring
    from wsoltrain.cli import figures as selecting

    trainer(store, tmp_path, more={"annotators": ["proposals", "gt"], "test": "val"}).fit()
    chosen = json.loads(CliRunner().invoke(selecting.select_command, [f"runs={tmp_path}", "--json"]).output)
    assert {(cell["annotator"], cell["model"], cell["threshold"]) for cell in chosen["table"]} == {
        (annotator, model, threshold)
        for annotator in ("proposals", "gt")
        for model in ("BT", "BV")
        for threshold in ("TT", "VT")
    }
    words = [
        f"checkpoint={tmp_path / 'best-proposals.safetensors'}", f"store={store.url}", "split=val", "workers=0",
        f"dataset={store.root}/../tiny.yaml",
    ]  # fmt: skip
    done = CliRunner().invoke(scoring.eval_command, [*words, "--json"], catch_exceptions=False)
    result = json.loads(done.output)
    assert result["localizer"]["tau"] == pytest.approx(chosen["tau"])
    assert result["tau_from"] == "validation"
    cell = next(c for c in chosen["table"] if (c["annotator"], c["model"], c["threshold"]) == ("proposals", "BV", "VT"))
    assert result["localizer"]["MaxBoxAcc"] == pytest.approx(cell["MaxBoxAcc"])
    assert result["boxes"]["iou_top1"] == pytest.approx(1.0)  # slot 0 of the tiny store is the object itself
    plain = CliRunner().invoke(scoring.eval_command, words, catch_exceptions=False).output
    assert "localizer" in plain
    assert "proposals" in plain
    assert "BV-VT" in CliRunner().invoke(selecting.select_command, [f"runs={tmp_path}"], catch_exceptions=False).output


@pytest.mark.parametrize("step", [5, 8])  # every step: test_kills.py
def test_resuming_after_any_step_gives_the_same_bytes(store, tmp_path, step):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    trainer(store, whole, clip=1.0).fit()
    stopped = trainer(store, broken, clip=1.0)
    stopped.trackers.append(Killer(step))
    with pytest.raises(Killed):
        stopped.fit()
    trainer(store, broken, clip=1.0).fit()
    expected, got = tensors(whole / "last.safetensors"), tensors(broken / "last.safetensors")
    assert expected.keys() == got.keys()
    assert all(torch.equal(value, got[name]) for name, value in expected.items())
    assert any(name.startswith("optimiser.maps") for name in got)


def test_another_recipe_does_not_resume_into_the_folder(store, tmp_path):
    trainer(store, tmp_path, epochs=1, head_epochs=0).fit()
    with pytest.raises(ConfigError, match=r"lr was 0\.01, is 0\.02"):
        trainer(store, tmp_path, epochs=1, head_epochs=0, lr=0.02).fit()


def test_damaged_checkpoint_is_named(store, tmp_path):
    (tmp_path / "last.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"last\.safetensors cannot be read"):
        trainer(store, tmp_path).fit()


def test_weights_for_predictions_are_named_where_a_training_would_resume_from_them(store, tmp_path):
    trainer(store, tmp_path, epochs=1, head_epochs=0).fit()
    (tmp_path / "last.safetensors.previous").unlink(missing_ok=True)
    exchange(tmp_path / "last.safetensors")
    with pytest.raises(DataError, match="another checkpoint than the one that was saved here: it holds no stream"):
        trainer(store, tmp_path, epochs=2, head_epochs=0).fit()


def flip(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)


def stop_at(store, out, step):
    stopped = trainer(store, out)
    stopped.trackers.append(Killer(step))
    with pytest.raises(Killed):
        stopped.fit()


def exchange(path):
    """Put weights for predictions in the place of the state of a training."""
    path.write_bytes(path.with_name("best-proposals.safetensors").read_bytes())


@pytest.mark.parametrize(
    "damage", [flip, Path.unlink, lambda path: path.write_bytes(b""), exchange], ids=["flip", "none", "cut", "exchange"]
)
def test_from_a_damaged_checkpoint_the_one_before_it_continues_to_the_same_bytes(store, tmp_path, damage):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    trainer(store, whole).fit()
    stop_at(store, broken, 12)
    damage(broken / "last.safetensors")
    trainer(store, broken).fit()
    for name in ("last.safetensors", "best-proposals.safetensors"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name


def test_damaged_best_weights_stop_a_run_that_could_not_write_them_again(store, tmp_path):
    trainer(store, tmp_path).fit()
    flip(tmp_path / "best-proposals.safetensors")
    with pytest.raises(DataError, match=r"best-proposals\.safetensors is damaged or missing"):
        trainer(store, tmp_path).fit()


def test_a_run_goes_on_with_fewer_annotators_and_not_with_one_that_saw_none_of_its_epochs(store, tmp_path):
    trainer(store, tmp_path, more={"annotators": ["proposals", "gt"]}, epochs=1).fit()
    with pytest.raises(ConfigError, match="judged by gt and proposals; noisy:10 has seen none"):
        trainer(store, tmp_path, more={"annotators": ["noisy:10", "gt"]}, epochs=2).fit()
    kept = (tmp_path / "best-proposals.safetensors").read_bytes()
    found = trainer(store, tmp_path, more={"annotators": ["gt"]}, epochs=2).fit()
    assert found["best"].keys() == {"proposals", "gt"}
    assert (tmp_path / "best-proposals.safetensors").read_bytes() == kept


def test_a_full_disk_names_the_file_and_the_next_step_and_keeps_the_checkpoint(store, tmp_path, monkeypatch):
    from wsolpipe.contract.errors import AccessError

    stop_at(store, tmp_path, 12)
    kept = (tmp_path / "last.safetensors").read_bytes()

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        AccessError, match=r"(last|best-proposals)\.safetensors cannot be written: no space left"
    ) as told:
        trainer(store, tmp_path).fit()
    assert "df -h" in told.value.hint
    assert (tmp_path / "last.safetensors").read_bytes() == kept
    assert not list(tmp_path.glob("*.partial"))


def test_loss_that_is_nan_stops_with_step_and_rows(store, tmp_path):
    run = trainer(store, tmp_path, head_epochs=0)
    with torch.no_grad():
        run.model.decoder.blocks[0][0][0].weight.fill_(float("nan"))
    with pytest.raises(RunFailed, match=r"NaN or infinite at step 0 .*rows"):
        run.fit()


def test_images_without_labels_are_counted_and_harmless(store, tmp_path):
    run = trainer(store, tmp_path, epochs=1, head_epochs=0)
    batch = next(iter(run.stream))
    batch["boxes"][:] = 0  # proposals of zero area
    result = run.learn([batch], run.phases["maps"], Moment(0))
    assert result["count no_region"] == 8
    assert result["pixels"] == 0.0


def test_head_is_trained_before_and_apart_from_the_maps(store, tmp_path):
    run = trainer(store, tmp_path, epochs=1)
    decoder = {name: value.clone() for name, value in run.model.decoder.state_dict().items()}
    batch = next(iter(run.stream))
    run.learn([batch], run.phases["head"], Moment(0))
    assert all(torch.equal(value, decoder[name]) for name, value in run.model.decoder.state_dict().items())
    head = run.model.head.weight.clone()
    run.learn([batch], run.phases["maps"], Moment(0))
    assert torch.equal(run.model.head.weight, head)


def test_trcam_trains_on_maps_alone(store, tmp_path):
    changes = {**SMALL, "maps": "cls_maps", "epochs": 1, "head_epochs": 0}
    made = load_recipe("trcam", dataset="tiny", changes=changes)
    labelling = Labelling(store.url, "tiny", "train", boxes=None)
    place = Settings(labelling, root=store.root, out=tmp_path, workers=0, thresholds=(50, 50))
    result = Trainer(made, place, [JsonLines(tmp_path / "metrics.jsonl")]).fit()
    assert result["steps"] == 5
    assert {"pixels", "crf", "size"} <= set(lines(tmp_path, "step")[0])


def test_network_of_other_classes_is_refused(store, trained, tmp_path):
    from wsoltrain.inference.model import load_trained

    other = build_store(tmp_path, rows=16, classes=3, sizes=(30, 50), labels=[0, 1] * 8)
    model = load_trained(str(trained), device="cpu").model
    evaluator = Evaluator(recipe(), Labelling(other.url, "tiny", "train"), other.root, ["proposals"], 0)
    with pytest.raises(ConfigError, match="knows 5 classes, and tiny has 3"):
        evaluator.run(model, torch.device("cpu"), thresholds=10)


def test_head_that_a_network_does_not_have_is_not_trained(store, tmp_path):
    changes = {"method": "dips_workshop", "backbone": "resnet10t", "model_args": {"channels": [8, 8, 8, 8]}}
    with pytest.raises(ConfigError, match="head_epochs: expected 0"):
        trainer(store, tmp_path, **changes)


def test_missing_annotator_is_found_before_the_first_step(store, tmp_path):
    with pytest.raises(StoreError, match="val_boxes") as caught:
        trainer(store, tmp_path, more={"annotators": ["val_boxes"]})
    assert "wsolpipe run stage=val_boxes" in str(caught.value)


def test_batch_larger_than_the_data_set_is_refused(store, tmp_path):
    with pytest.raises(ConfigError, match="batch=64"):
        trainer(store, tmp_path, batch=64)


def test_shipped_recipes_are_whole_and_differ_by_data_set():
    for name in known_recipes():
        load_recipe(name, dataset="demo", changes={})
    assert load_recipe("dips", dataset="ilsvrc", changes={}).epochs == 10


@pytest.mark.parametrize(
    ("changes", "result"),
    [({"epoch": 3}, "epochs"), ({"pixels.n_gf": 3}, r"pixels\.n_fg"), ({"lr": "fast"}, "lr"), ({"batch": 0}, "batch")],
)
def test_wrong_keys_and_values_are_named(changes, result):
    with pytest.raises(ConfigError, match=result):
        load_recipe("dips", dataset="demo", changes=changes)


@pytest.mark.s3
def test_training_from_s3_through_the_cache_gives_the_same_bytes(trainable, s3, tmp_path):
    far = replace(trainable, url=s3.store())
    backend, folder = open_backend(far.url), Path(trainable.url)
    for path in (path for path in folder.rglob("*") if path.is_file()):
        backend.create(path.relative_to(folder).as_posix(), path.read_bytes())
    for where, out in ((trainable, "near"), (far, "far")):
        trainer(where, tmp_path / out, epochs=1).fit()
    expected, got = (tensors(tmp_path / out / "best-proposals.safetensors") for out in ("near", "far"))
    assert all(torch.equal(value, got[name]) for name, value in expected.items())
    assert any((tmp_path / "cache").rglob("*"))


def test_average_of_the_weights_is_kept_beside_them_and_is_what_is_scored(store, tmp_path):
    run = trainer(store, tmp_path, epochs=1, head_epochs=0, ema=0.5)
    begun = {name: value.clone() for name, value in run.shown.saved().items()}
    run.fit()
    last, best = tensors(tmp_path / "last.safetensors"), tensors(tmp_path / "best-proposals.safetensors")
    name = "decoder.blocks.0.0.0.weight"
    average = last[f"average.{name}"]
    assert torch.equal(best[f"model.{name}"], average)
    assert not torch.equal(last[f"model.{name}"], average)
    assert (average - begun[name]).norm() < (last[f"model.{name}"] - begun[name]).norm()
    assert torch.equal(last["average.decoder.blocks.0.0.1.running_var"], last["model.decoder.blocks.0.0.1.running_var"])


def test_average_follows_its_formula(store, tmp_path):
    run = trainer(store, tmp_path, ema=0.9)
    weight, name = run.model.head.weight, "head.weight"
    expected = weight.detach().clone()
    for step in range(120):
        with torch.no_grad():
            weight += 0.1
        run.average.update_parameters(run.model)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.detach()
    torch.testing.assert_close(run.shown.saved()[name], expected)


def test_gradients_are_clipped_to_their_norm(store, tmp_path):
    run = trainer(store, tmp_path, clip=1e-3, momentum=0.0)
    before = [value.detach().clone() for value in run.model.decoder.parameters()]
    run.learn([next(iter(run.stream))], run.phases["maps"], Moment(0))
    moved = torch.cat(
        [(new.detach() - old).flatten() for new, old in zip(run.model.decoder.parameters(), before, strict=True)]
    )
    assert moved.norm() == pytest.approx(1e-3 * run.recipe.lr, rel=1e-3)


def test_judge_of_masked_images_moves_the_maps_and_does_not_run_where_nothing_is_learned_of_it(store, tmp_path):
    from wsolpipe.networks.classifier import ClassifierRecord, ImageClassifier, save_classifier

    statistics = ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    made = ImageClassifier(ClassifierRecord("test_resnet.r160_in1k", 5, 32, *statistics)).eval()
    file = tmp_path / "model.safetensors"
    file.write_bytes(save_classifier(made)["model.safetensors"])
    alone = {"pixel_weight": 0.0, "crf_weight": 0.0, "cls_weight": 0.5, "momentum": 0.0}
    for detached in (True, False):
        run = trainer(store, tmp_path / "run", classifier=str(file), cls_detached=detached, **alone)
        batch = next(iter(run.stream))
        before = [value.detach().clone() for value in run.model.decoder.parameters()]
        result = run.learn([batch], run.phases["maps"], Moment(0))
        assert ("judged" in result) != detached
        same = [torch.equal(new, old) for new, old in zip(run.model.decoder.parameters(), before, strict=True)]
        assert all(same) == detached
    judge = run.model.judges[0]
    pixels = batch["rgb"]
    torch.testing.assert_close(judge(judge.normalised(pixels)), made.logits(pixels), rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="knows 5 classes, the data set has 7"):
        load_judge(run.settings.labelling, file=str(file), classes=7)
    with pytest.raises(StoreError, match="classifier") as caught:
        trainer(store, tmp_path / "run", **alone)
    assert "wsolpipe run stage=classifier" in str(caught.value)


def test_importing_the_trainer_pulls_in_nothing_of_the_pipeline():
    code = (
        "import sys, wsoltrain, wsoltrain.training.loop, wsoltrain.cli.main, wsoltrain.cli.fit, "
        "wsoltrain.cli.search, wsoltrain.cli.use, wsoltrain.cli.figures, wsoltrain.runs.search, "
        "wsoltrain.inference.localizer; "
        "bad = {'dask', 'distributed', 'open_clip', 'cv2', 'skimage', 'optuna', 'wandb', 'tensorboard', 'onnx', "
        "'onnxruntime', 'av'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
