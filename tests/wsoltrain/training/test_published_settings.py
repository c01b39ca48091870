"""The trainer trains with the settings of the authors, which tools/published_settings.yaml lists with their sources."""

from __future__ import annotations

import functools
import json
import math
import re
from itertools import groupby
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save, save_file
from torch import nn

from wsolpipe.contract.errors import ConfigError
from wsolpipe.keys.safe_yaml import read_yaml
from wsolpipe.networks.classifier import ClassifierRecord, ImageClassifier, save_classifier
from wsoltrain.methods.base import Task
from wsoltrain.training.optimisation import Moment, plan_phases
from wsoltrain.training.recipe_file import known_recipes, load_recipe

TABLE = read_yaml(Path(__file__).parents[3] / "tools" / "published_settings.yaml")
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def recipe_of(row):
    changes = {"weights": None, **row.get("small", {}), **({"profile": row["profile"]} if row["profile"] else {})}
    if row["recipe"] in ("fcam", "tcam"):
        del changes["weights"]
    return load_recipe(row["recipe"], dataset=row["dataset"], changes=changes)


@functools.cache
def network(method, keys):
    """A method's network, built once for all data sets that differ in rates alone."""
    recipe = next(recipe for recipe in map(recipe_of, TABLE["rows"]) if key_of(recipe) == (method, keys))
    return recipe.build(Task(200, recipe.size, artifacts=artifacts(method)))


def artifacts(method):
    if method == "fcam":
        torch.manual_seed(0)
        record = ClassifierRecord("resnet10t", 200, 224, *IMAGENET, model_args={"channels": [8, 8, 16, 16]})
        return {"classifier/model.safetensors": save_classifier(ImageClassifier(record))["model.safetensors"]}
    if method == "tedloc":
        about = {"names": [str(number) for number in range(200)], "labels": list(range(200)), "orthogonal": "none"}
        drawn = torch.randn(200, 24)
        anchors = save({"plain": drawn, "anchors": drawn.clone()})
        return {"text_anchors/anchors.safetensors": anchors, "text_anchors/anchors.json": json.dumps(about).encode()}
    return {}


def key_of(recipe):
    left_out = (
        "epochs", "batch", "lr", "lr_min", "lr_step", "lr_gamma", "lr_power", "milestones", "schedule", "schedule_by",
        "count_from", "weight_decay", "optimiser", "betas", "keep_classifier", "one_per_group", "maps", "boxes",
    )  # fmt: skip
    kept = recipe.model_dump_json(exclude=set(left_out))
    return recipe.method, kept


@pytest.mark.parametrize("row", TABLE["rows"], ids=lambda row: f"{row['recipe']}-{row['dataset']}-{row['profile']}")
def test_a_dry_run_has_the_settings_of_the_authors(row):
    recipe = recipe_of(row)
    model = network(*key_of(recipe))
    running = [each for each in plan_phases(model, recipe) if each.phase.scored][-1]
    assert type(running.optimiser).__name__ == row["optimiser"]
    assert row["source"] in TABLE["sources"]
    assert recipe.batch == row["batch"]
    assert not recipe.amp
    assert (recipe.mean, recipe.std) == (CLIP if row.get("clip_input") else IMAGENET)
    assert getattr(recipe, "keep_classifier", False) == row.get("kept", False)
    check_groups(row, model, running, recipe)
    assert rates_of(running, recipe) == pytest.approx(wanted_rates(row))
    dropped = {part.p for part in running_parts(model) if isinstance(part, nn.Dropout)}
    assert max(dropped, default=0) == row["drop"]
    paths = [part.drop_prob for part in running_parts(model) if isinstance(part, timm.layers.DropPath)]
    assert max(paths, default=0) == pytest.approx(row["path"])
    state = model.state_dict()
    for name, rule in row["start"].items():
        check_start(state[name], rule)


def running_parts(model):
    return list(model.modules())


def check_groups(row, model, running, recipe):
    names = {id(value): name.removeprefix("net.") for name, value in model.named_parameters()}
    running.set_rates(recipe, Moment(0))
    base = running.optimiser.param_groups[0]["lr"] / running.phase.groups[0].lr
    for group in running.optimiser.param_groups:
        if row["optimiser"] == "SGD":
            assert (group["momentum"], group["nesterov"]) == (0.9, row["nesterov"])
        else:
            assert list(group["betas"]) == row.get("betas", [0.9, 0.999])
        for parameter in group["params"]:
            name = names[id(parameter)]
            wanted = next(values for start, values in row["groups"].items() if re.match(start, name))
            assert [group["lr"] / base, group["weight_decay"]] == pytest.approx(wanted), name


def rates_of(running, recipe):
    found = []
    for epoch in range(running.epochs):
        running.set_rates(recipe, Moment(epoch))
        found.append(running.optimiser.param_groups[0]["lr"] / running.phase.groups[0].lr)
    return found


def wanted_rates(row):
    if "polynomial" in row:
        lr, epochs, power = row["polynomial"]
        return [lr * (1 - epoch / epochs) ** power for epoch in range(epochs)]
    if "cosine" in row:
        lr, epochs = row["cosine"]
        return [lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs)) for epoch in range(epochs)]
    return [rate for rate, epochs in row["rates"] for _ in range(epochs)]


def check_start(value, rule):
    """First weights of a layer: spread by He or Glorot, a normal distribution of a deviation, or zero."""
    if rule == "zero":
        assert not value.any()
        return
    into, given = value.shape[0] * math.prod(value.shape[2:]), math.prod(value.shape[1:])
    kinds = {"he": math.sqrt(2 / into), "xavier": math.sqrt(2 / (into + given))}
    spread = kinds[rule] if rule in kinds else float(rule.split()[1])
    error = 4 * spread / math.sqrt(value.numel())
    assert float(value.mean()) == pytest.approx(0, abs=error)
    assert float(value.std()) == pytest.approx(spread, rel=0.1)
    bound = math.sqrt(3) * spread
    assert (float(value.abs().max()) <= bound * 1.0001) == (rule == "xavier")


def test_every_recipe_that_follows_a_paper_has_a_row():
    assert {row["recipe"] for row in TABLE["rows"]} == set(known_recipes()) - {"dino"}


def test_the_classifier_of_the_weights_is_kept_where_a_recipe_says_so(tmp_path):
    args = {"channels": [8, 8, 16, 16], "stem_width": 8}
    plain = timm.create_model("resnet10t", num_classes=5, **args)
    save_file(plain.state_dict(), tmp_path / "net.safetensors")
    given = {"backbone": "resnet10t", "model_args": args, "weights": str(tmp_path / "net.safetensors"), "size": 64}
    recipe = load_recipe("cam", dataset="ilsvrc", changes=given)
    assert torch.equal(recipe.build(Task(5, 64)).net.fc.weight, plain.fc.weight)
    with pytest.raises(ConfigError, match="holds a classifier of 5 classes, the data set has 7"):
        recipe.build(Task(7, 64))


def test_rates_of_the_table_are_written_in_order():
    for row in TABLE["rows"]:
        rates = [rate for rate, _ in groupby(wanted_rates(row))]
        assert rates == sorted(rates, reverse=True)
