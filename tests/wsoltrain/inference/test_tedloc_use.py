"""A trained TeD-Loc in use: resumed, scored at its own size, exported with its anchors, and asked for other classes."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save

from trained import VIT, lines, run_pair, settings, tensors
from wsolpipe.contract.errors import ConfigError
from wsoltrain.cli import use as exporting
from wsoltrain.cli import use as predicting
from wsoltrain.inference.model import load_trained
from wsoltrain.training import checkpoint
from wsoltrain.training.loop import Trainer
from wsoltrain.training.recipe_file import load_recipe
from wsoltrain.training.tracker import JsonLines

KEYS = {
    "backbone": "vit_tiny_patch16_224", "model_args": VIT, "weights": "random:3", "size": 32, "resize": 36, "batch": 8,
    "epochs": 6, "lr": 0.1, "maps": "cls_maps", "decoder_width": 16, "weight_decay": 0.0, "eval_size": 64,
}  # fmt: skip
NAMES = [f"class {number}" for number in range(5)]


def write_anchors(path, plain, names):
    """Write a stage's files: ``path`` and the JSON beside it."""
    plain = torch.nn.functional.normalize(plain.float())
    path.write_bytes(save({"plain": plain, "anchors": plain.clone()}))
    about = {"names": names, "labels": list(range(len(names))), "orthogonal": "none"}
    path.with_suffix(".json").write_text(json.dumps(about))
    return str(path)


@pytest.fixture(scope="module")
def anchors(tmp_path_factory):
    torch.manual_seed(0)
    return write_anchors(tmp_path_factory.mktemp("anchors") / "anchors.safetensors", torch.randn(5, 16), NAMES)


def trainer(store, out, anchors, **changes):
    recipe = load_recipe("tedloc", dataset="tiny", changes={**KEYS, "anchors": anchors, **changes})
    return Trainer(recipe, settings(store, out), [JsonLines(out / "metrics.jsonl")])


@pytest.fixture(scope="module")
def run(trainable, anchors, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    trainer(trainable, out, anchors, ema=0.9).fit()
    return out


def ask(command, *words):
    done = CliRunner().invoke(command, [*words, "--json"], catch_exceptions=False)
    return json.loads(done.stdout)


def test_all_three_losses_fall(run):
    steps = lines(run, "step")
    for name in ("kd", "pcl", "icl"):
        values = [line[name] for line in steps]
        assert sum(values[-5:]) < 0.97 * sum(values[:5]), name
    assert {line["annotator"] for line in lines(run, "val")} == {"proposals"}


class Killed(Exception):
    """Stands for the end of the process at some step."""


class Killer:
    def __init__(self, step):
        self.step = step

    def write(self, kind, step, figures):
        if kind == "step" and step == self.step:
            raise Killed

    def close(self):
        pass


def test_killed_at_every_step_it_ends_with_the_same_bytes_and_other_anchors_do_not_resume(trainable, anchors, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    trainer(trainable, whole, anchors, epochs=2).fit()
    steps = [line["step"] for line in lines(whole, "step")]
    assert len(steps) == 10
    for step in steps:
        stopped = trainer(trainable, broken, anchors, epochs=2)
        stopped.trackers.append(Killer(step))
        with pytest.raises(Killed):
            stopped.fit()
    trainer(trainable, broken, anchors, epochs=2).fit()
    expected, got = tensors(whole / "last.safetensors"), tensors(broken / "last.safetensors")
    assert expected.keys() == got.keys()
    assert all(torch.equal(value, got[name]) for name, value in expected.items())
    torch.manual_seed(1)
    other = write_anchors(tmp_path / "other.safetensors", torch.randn(5, 16), NAMES)
    with pytest.raises(ConfigError, match="anchors was"):
        trainer(trainable, broken, other, epochs=2).fit()
    content = (tmp_path / "other.safetensors").read_bytes()
    (tmp_path / "same.json").write_bytes((tmp_path / "other.json").read_bytes())
    (tmp_path / "same.safetensors").write_bytes(content)
    changed = trainer(trainable, tmp_path / "third", str(tmp_path / "same.safetensors"), epochs=1)
    changed.fit()
    write_anchors(tmp_path / "same.safetensors", torch.randn(5, 16), NAMES)
    with pytest.raises(ConfigError, match="artifacts were"):
        trainer(trainable, tmp_path / "third", str(tmp_path / "same.safetensors"), epochs=1).fit()


@pytest.mark.slow
def test_two_processes_equal_one(trainable, anchors, tmp_path):
    keys = {**KEYS, "anchors": anchors, "epochs": 1}
    words = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in keys.items()]
    data = [f"store={trainable.url}", f"dataset={trainable.root}/../tiny.yaml", "device=cpu", "workers=0"]
    given = ["fit", "recipe=tedloc", *data, *words, f"out={tmp_path / 'both'}"]
    done = run_pair(given)
    assert done.returncode == 0, done.stderr
    trainer(trainable, tmp_path / "alone", anchors, epochs=1).fit()
    one, two = (lines(tmp_path / name, "step") for name in ("alone", "both"))
    assert len(one) == len(two) == 5
    for a, b in zip(one, two, strict=True):
        assert [b[name] for name in ("kd", "pcl", "icl")] == pytest.approx(
            [a[name] for name in ("kd", "pcl", "icl")], rel=1e-3
        )
    expected, got = (tensors(tmp_path / name / "last.safetensors") for name in ("alone", "both"))
    for name, value in expected.items():
        torch.testing.assert_close(
            got[name], value, rtol=1e-2, atol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_exported_programs_carry_the_anchors_and_no_text(run, tmp_path):
    written = ask(exporting.export_command, f"checkpoint={run}", f"out={tmp_path}")
    assert max(written["differences"].values()) < 1e-4
    card = json.loads((tmp_path / "localizer.json").read_text())
    assert card["outputs"] == {"map": ["batch", 16, 16], "classes": ["batch", 5]}
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    session = onnxruntime.InferenceSession(tmp_path / "localizer.onnx", providers=["CPUExecutionProvider"])
    assert [put.name for put in session.get_inputs()] == ["image"]
    image = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    found, classes = session.run(None, {"image": image})
    model = load_trained(str(run), device=torch.device("cpu")).model
    with torch.no_grad():
        expected = model.predict(torch.from_numpy(image))
    assert found == pytest.approx(expected.maps.numpy(), abs=1e-4)
    assert classes == pytest.approx(expected.scores.softmax(1).numpy(), abs=1e-4)
    assert "open_clip" not in sys.modules or "wsolpipe.models" in sys.modules  # another test's; never the trainer's


def test_a_file_of_anchors_gives_other_names_and_the_same_maps(run, anchors, trainable, tmp_path):
    words = [f"checkpoint={run}", f"source={trainable.root}", "device=cpu", "overlays=false"]
    own = ask(predicting.predict_command, *words, f"out={tmp_path / 'own'}")["rows"]
    trained = load_trained(str(run), device=torch.device("cpu"))
    plain = tensors_of(anchors)["plain"]
    swapped = write_anchors(tmp_path / "swapped.safetensors", plain[[4, 3, 2, 1, 0, 0]] + 0.0, [*"edcba", "a again"])
    other = ask(predicting.predict_command, *words, f"out={tmp_path / 'other'}", f"anchors={swapped}")["rows"]
    assert {row["class"] for row in other} <= set("edcba") | {"a again"}
    renamed = dict(zip(NAMES, "abcde", strict=True))
    assert [renamed[row["class"]] for row in own] == [row["class"][0] for row in other]
    assert [row["box"] for row in own] == [row["box"] for row in other]
    assert trained.class_names == NAMES


def tensors_of(path):
    from safetensors.torch import load_file

    return load_file(path)


def test_another_encoder_than_the_checkpoints_is_refused(run, tmp_path):
    state = checkpoint.state_of(run / "best-proposals.safetensors")
    path = tmp_path / "best-proposals.safetensors"
    with pytest.raises(ConfigError, match="trained on an encoder with weights"):
        load_trained(str(changed_weights(run / path.name, path, state, "random:4")), device=torch.device("cpu"))


def changed_weights(source, path, state, weights):
    """A copy of a checkpoint whose recipe names other weights, as after a file was exchanged."""
    from safetensors.torch import load_file, save_file

    state["recipe"]["weights"] = weights
    save_file(load_file(source), path, metadata={"format": "wsoltrain/1", "state": json.dumps(state)})
    return path


def test_methods_with_a_trained_head_refuse_other_classes(trained, anchors):
    with pytest.raises(ConfigError, match="Dips cannot name other classes"):
        load_trained(str(trained), device=torch.device("cpu"), anchors=anchors)
