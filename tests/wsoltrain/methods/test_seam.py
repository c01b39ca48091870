"""Methods that do not keep to the interface are refused in one clear line, before the first step where possible."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from pydantic import Field
from torch import nn

from trained import build, lines, settings, tensors
from wsolpipe.contract.errors import ConfigError, RunFailed
from wsolpipe.keys.models import keys_of
from wsoltrain.data.keys import Keys
from wsoltrain.methods.base import Losses, Method, Phase, Prediction, Weighted
from wsoltrain.methods.registry import METHODS
from wsoltrain.training import recipe as recipes
from wsoltrain.training.loop import Trainer
from wsoltrain.training.recipe import recipe_type
from wsoltrain.training.recipe_file import load_recipe
from wsoltrain.training.tracker import JsonLines


class PlainKeys(Keys):
    nan_after: int = Field(99, description="Epoch after which maps are NaN")


class Plain(Method):
    """One 1x1 convolution: class maps of single pixels."""

    Keys = PlainKeys

    def __init__(self, keys, task):
        super().__init__(keys, task)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.maps = nn.Conv2d(4, task.classes, 1)
        self.epoch = -1

    def phases(self):
        return [
            Phase("train", [Weighted(list(self.body.parameters()), 1.0, 0.0), Weighted([*self.maps.parameters()], 10)])
        ]

    def losses(self, batch, phase, epoch):
        self.epoch = epoch
        scores = self.maps(self.body(batch["image"])).mean((2, 3))
        return Losses({"classes": nn.functional.cross_entropy(scores, batch["label"])})

    def predict(self, image, labels=None):
        maps = self.maps(self.body(image))
        return Prediction(
            maps[:, 0] + (torch.nan if self.epoch >= self.keys.nan_after else 0), False, maps.mean((2, 3))
        )


@pytest.fixture
def declare(monkeypatch, tmp_path):
    """Register a class as method ``own`` and return a function that makes its trainer."""
    recipe_type.cache_clear()

    def register(kind):
        module = types.ModuleType("own_methods")
        module.Own = kind
        monkeypatch.setitem(sys.modules, "own_methods", module)
        monkeypatch.setitem(METHODS.builtins, "own", "own_methods:Own")
        path = tmp_path / "own.yaml"
        path.write_text("method: own\nsize: 32\nresize: 36\nbatch: 8\nepochs: 2\n")

        def trainer(store, out, **keys):
            made = load_recipe(str(path), dataset="tiny", changes=keys)
            place = settings(store, out)
            return Trainer(made, place, [JsonLines(out / "metrics.jsonl")])

        return trainer

    yield register
    recipe_type.cache_clear()


def test_unknown_methods_are_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown method 'dipps'; did you mean 'dips'"):
        METHODS.find("dipps")
    with pytest.raises(ConfigError, match="unknown method 'camm'; did you mean 'cam'"):
        load_recipe("dips", dataset="demo", changes={"method": "camm"})


def test_method_that_cannot_be_imported_or_is_none_is_named(monkeypatch):
    monkeypatch.setitem(METHODS.builtins, "own", "nowhere.at_all:Own")
    with pytest.raises(ConfigError, match=r"method own \(nowhere\.at_all:Own\) cannot be imported"):
        METHODS.find("own")
    monkeypatch.setitem(METHODS.builtins, "own", "torch.nn:Linear")
    with pytest.raises(ConfigError, match=r"method own \(torch.nn:Linear\) is not of wsoltrain.methods.base.Method"):
        METHODS.find("own")


def test_key_that_every_recipe_has_is_refused(declare):
    class Clash(Keys):
        lr: float = Field(1.0, description="another learning rate")

    declare(type("Own", (Plain,), {"Keys": Clash}))
    with pytest.raises(ConfigError, match="method own declares lr, which every recipe has"):
        recipe_type("own")


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (lambda maps: Prediction(maps, False, None), r"predicts maps \[2, 5, 32, 32\]"),
        (lambda maps: Prediction(maps[:, 0], False, maps[:1, :, 0, 0]), r"class scores \[1, 5\] for 2 images"),
        (lambda maps: Prediction(maps[:, 0].long(), False, None), "of torch.int64"),
    ],
)
def test_maps_and_scores_of_another_shape_are_found_before_the_first_step(
    declare, trainable, tmp_path, prediction, message
):
    kind = type("Own", (Plain,), {"predict": lambda self, image, labels=None: prediction(self.maps(self.body(image)))})
    with pytest.raises(ConfigError, match=message):
        declare(kind)(trainable, tmp_path / "run")
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_maps_that_are_nan_end_the_run_and_lose_nothing(declare, trainable, tmp_path):
    out = tmp_path / "run"
    run = declare(Plain)(trainable, out, nan_after=1)
    with pytest.raises(RunFailed, match=r"method own predicts maps with NaN or infinite values for rows \d+"):
        run.fit()
    assert len(lines(out, "step")) == 10
    before = tensors(out / "last.safetensors")
    declare(Plain)(trainable, out).fit  # noqa: B018 - another recipe: is refused, the files stay
    assert tensors(out / "last.safetensors").keys() == before.keys()
    assert (out / "best-proposals.safetensors").exists()


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        (lambda own: [Phase("head", [Weighted([])])], "phase head of method own trains no parameters"),
        (lambda own: [], "has phases none"),
        (
            lambda own: [Phase("a", [Weighted([own.maps.bias])]), Phase("a", [Weighted([own.maps.bias])])],
            "names must differ",
        ),
        (lambda own: [Phase("a", [Weighted([own.maps.bias])], scored=False)], "one must be scored"),
        (lambda own: [Phase("a", [Weighted([own.maps.bias]), Weighted([own.maps.bias])])], "phase a of method own"),
    ],
)
def test_phases_that_cannot_be_trained_are_refused(declare, trainable, tmp_path, phases, message):
    with pytest.raises(ConfigError, match=message):
        declare(type("Own", (Plain,), {"phases": phases}))(trainable, tmp_path)


def test_unknown_optimisers_and_schedules_are_refused():
    for key, value in (("optimiser", "adamm"), ("schedule", "linear")):
        with pytest.raises(ConfigError, match=f"{key}: expected "):
            load_recipe("dips", dataset="demo", changes={key: value})
    with pytest.raises(ConfigError, match="multi_step needs milestones"):
        load_recipe("dips", dataset="demo", changes={"schedule": "multi_step"})


def test_weights_of_another_network_are_refused():
    args = {"channels": [8, 8, 8, 8], "stem_width": 8}
    small = build("cam", "resnet10t", weights=None, size=64, classes=3, model_args=args)
    other = build("cam", "resnet10t", weights=None, size=64, classes=4, model_args=args)
    with pytest.raises(ConfigError, match=r"weights are of another network: net\.fc"):
        other.restore(small.saved())


def test_every_key_of_every_method_says_what_it_means():
    for name in METHODS.names():
        for key in keys_of(recipes.recipe_type(name)):
            assert len(key.meaning) > 10, f"{name}: {key.name}"


def test_groups_have_their_own_rates_and_decay(declare, trainable, tmp_path):
    run = declare(Plain)(
        trainable, tmp_path, optimiser="adamw", weight_decay=0.1, lr=0.01, schedule="constant", epochs=1
    )
    run.fit()
    first, second = run.phases["train"].optimiser.param_groups
    assert isinstance(run.phases["train"].optimiser, torch.optim.AdamW)
    assert (first["lr"], second["lr"]) == pytest.approx((0.01, 0.1))
    assert (first["weight_decay"], second["weight_decay"]) == (0.0, 0.1)


def test_frozen_batch_normalisation_keeps_its_statistics(declare, trainable, tmp_path):
    for frozen in (True, False):
        run = declare(Plain)(trainable, tmp_path / str(frozen), frozen_bn=frozen, epochs=1)
        before = run.model.body[1].running_mean.clone()
        run.fit()
        assert torch.equal(run.model.body[1].running_mean, before) == frozen


def test_frozen_parts_of_a_phase_stay_as_they_are(declare, trainable, tmp_path):
    class Partly(Plain):
        """Trains its maps alone."""

        def phases(self):
            return [Phase("train", [Weighted(list(self.maps.parameters()), 1.0)], frozen=[self.body])]

    run = declare(Partly)(trainable, tmp_path, epochs=1)
    before = {name: value.clone() for name, value in run.model.body.state_dict().items()}
    run.fit()
    assert all(torch.equal(value, before[name]) for name, value in run.model.body.state_dict().items())


def test_accumulated_batches_give_the_gradient_of_one_large_batch(declare, trainable, tmp_path):
    """Both see the same rows: 8 rows once, or 4 and 4; batch normalisation by its stored statistics."""
    keys = {"frozen_bn": True, "epochs": 1, "momentum": 0.0, "clip": 100.0}
    whole = declare(Plain)(trainable, tmp_path / "whole", batch=8, **keys)
    parts = declare(Plain)(trainable, tmp_path / "parts", batch=4, accumulate=2, **keys)
    counts = [trainer.fit()["steps"] for trainer in (whole, parts)]
    assert counts == [5, 5]
    for one, other in zip(lines(tmp_path / "whole", "step"), lines(tmp_path / "parts", "step"), strict=True):
        assert one["classes"] == pytest.approx(other["classes"], rel=1e-4)
    for name, value in whole.model.saved().items():
        torch.testing.assert_close(value, parts.model.saved()[name], rtol=1e-4, atol=1e-5)
