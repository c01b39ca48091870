"""Recipes: what lies over what, what a search may try, and which word is told to be wrong."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from wsolpipe.contract.errors import ConfigError
from wsoltrain.runs.draws import Range, load_ranges
from wsoltrain.training.recipe_file import check_recipe, known_recipes, load_recipe, read_recipe

WRITTEN = """
model: dips
backbone: vit_small_patch16_224
pixels: {n_fg: 1, n_bg: 1, top_n: 2}
lr: 0.01
datasets:
  birds: {lr: 0.5, pixels: {n_fg: 7}, epochs: 3}
  cells: {lr: 0.6}
search:
  lr: {low: 1e-4, high: 1.0e-1, log: true}
  crf_weight: {choices: [0, 2e-9]}
  pixels.n_fg: {low: 1, high: 100, step: 3}
"""


@pytest.fixture
def written(tmp_path):
    def write(text: str = WRITTEN) -> str:
        path = tmp_path / "own.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_data_set_lies_between_recipe_and_command_line(written):
    path = written()
    birds = load_recipe(path, dataset="birds", changes={"epochs": 9})
    assert (birds.lr, birds.epochs) == (0.5, 9)
    assert birds.pixels == {"n_fg": 7, "n_bg": 1, "top_n": 2}
    assert load_recipe(path, dataset="other", changes={}).lr == 0.01
    changed = load_recipe(path, dataset="birds", changes={"pixels.n_bg": 5, "lr": 0.7})
    assert (changed.lr, changed.pixels["n_bg"], changed.pixels["n_fg"]) == (0.7, 5, 7)


def test_wrong_key_of_another_data_set_is_found(written):
    path = written(WRITTEN.replace("cells: {lr: 0.6}", "cells: {epoch: 6}"))
    with pytest.raises(ConfigError, match="epochs"):
        load_recipe(path, dataset="birds", changes={})
    path = written(WRITTEN.replace("cells: {lr: 0.6}", "cells: {lr: fast}"))
    with pytest.raises(ConfigError, match="data set cells: lr"):
        load_recipe(path, dataset="birds", changes={})


def test_ranges_are_read_but_for_what_the_command_line_fixes(written):
    path = written()
    ranges = load_ranges(path, dataset="birds", changes={"lr": 0.1})
    assert ranges == {
        "crf_weight": Range(choices=[0, 2e-9]),
        "pixels.n_fg": Range(low=1, high=100, step=3),
    }
    low = load_ranges(path, dataset="birds", changes={})["lr"].low
    assert low == pytest.approx(1e-4)
    with pytest.raises(ConfigError, match="nothing to be searched"):
        load_ranges(written("model: dips\nbackbone: vit\n"), dataset="birds", changes={})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("{low: 1}", "low and high, or choices"),
        ("{low: 1, high: 2, choices: [1]}", "low and high, or choices"),
        ("{low: 2, high: 1}", "at most high"),
        ("{low: 0, high: 1, log: true}", "above 0"),
        ("{choices: []}", "choices"),
        ("{low: 0.1, hihg: 1}", "hihg"),
        ("{low: -1, high: 1}", "lr"),
        ("{choices: [fast]}", "lr"),
    ],
)
def test_wrong_ranges_are_named(written, given, told):
    path = written(WRITTEN.replace("{low: 1e-4, high: 1.0e-1, log: true}", given))
    with pytest.raises(ConfigError, match=told):
        load_ranges(path, dataset="birds", changes={})


def test_a_file_says_what_chooses_unless_somebody_does(written):
    file = read_recipe(written(WRITTEN.replace("birds: {", "birds: {by: [cls, gt], ")))
    assert [file.annotators(name) for name in ("birds", "cells")] == [["cls", "gt"], ["proposals"]]
    assert "by" not in file.datasets["birds"]
    assert read_recipe(written(f"by: noisy:10\n{WRITTEN}")).annotators("cells") == ["noisy:10"]
    for wrong, told in (("noisy:0", "percentage"), ("3", "not a list of annotators"), ("[a, a]", "second annotator")):
        with pytest.raises(ConfigError, match=told):
            read_recipe(written(f"by: {wrong}\n{WRITTEN}"))


def test_unknown_key_of_a_search_is_named(written):
    path = written(WRITTEN.replace("  crf_weight:", "  crf_wait:"))
    with pytest.raises(ConfigError, match="crf_weight"):
        load_ranges(path, dataset="birds", changes={})


@pytest.mark.parametrize("text", ["- lr", "lr: 1\ndatasets: [cub]", "lr: 1\ndatasets: {cub: 3}", "lr: 1\nsearch: lr"])
def test_file_of_another_shape_is_refused(written, text):
    with pytest.raises(ConfigError, match="mappings"):
        read_recipe(written(text))


@pytest.mark.parametrize("changes", [{"labels": "clip"}, {"stage": "clip on the fly"}, {"maps": "clip"}])
def test_clip_on_the_fly_is_told_what_to_do_instead(changes):
    with pytest.raises(ConfigError, match="none while it trains") as caught:
        load_recipe("dips", dataset="demo", changes=changes)
    assert "wsolpipe run stage=clip_cams" in str(caught.value)


def test_ranges_of_shipped_recipes_fit():
    for name in known_recipes():
        file = read_recipe(name)
        for dataset in ("demo", *file.datasets) if file.search else ():
            load_ranges(name, dataset=dataset, changes={})


def test_a_search_may_start_from_a_profile():
    assert "lr_step" in load_ranges("sat", dataset="demo", changes={"profile": "thesis"})
    with pytest.raises(ConfigError, match="thesiss"):
        load_ranges("sat", dataset="demo", changes={"profile": "thesiss"})


@pytest.mark.parametrize("name", ["ts_cam", "scm", "sat", "molt"])
def test_transformers_have_the_values_of_their_code_and_those_of_the_thesis(name):
    released = load_recipe(name, dataset="cub", changes={})
    thesis = load_recipe(name, dataset="cub", changes={"profile": "thesis"})
    assert (released.optimiser, released.lr) == ("adamw", 1e-4 if name == "sat" else 5e-5)
    assert (thesis.optimiser, thesis.batch, thesis.epochs, thesis.schedule) == ("sgd", 32, 50, "step")
    assert load_recipe(name, dataset="ilsvrc", changes={"profile": "thesis_ilsvrc"}).epochs == 10


def test_the_demos_recipe_is_what_the_demo_says_of_it():
    recipe = load_recipe("dips_workshop", dataset="demo", changes={})
    assert recipe.weights == "data:demo/weights/demo_cnn.safetensors"
    assert recipe.model_args["out_indices"] == [0, 1]
    assert recipe.pixel_sampler().background == "anywhere"
    assert recipe.temperature > 1


@pytest.mark.parametrize("sampler", ["dips", "dips_released", "trcam", "fcam", "tedloc"])
def test_every_sampler_can_be_named_and_takes_its_own_keys(sampler):
    recipe = load_recipe("dips", dataset="other", changes={"sampler": sampler, "pixels.bg_share": 0.25})
    assert "bg_share=0.25" in repr(recipe.pixel_sampler())


def test_another_sampler_does_not_inherit_keys():
    assert load_recipe("dips", dataset="other", changes={"sampler": "fcam"}).pixels == {}
    assert load_recipe("dips", dataset="other", changes={"sampler": "dips"}).pixels["top_n"] == 2


def test_profiles_hold_what_the_released_code_does_on_any_data_set():
    code = load_recipe("trcam", dataset="demo", changes={"profile": "code"})
    assert (code.method, code.size, code.backbone) == ("trcam_attention", 96, "vit_tiny_patch16_224")
    assert (code.size_weight, code.crf_weight, code.epochs) == (0, 0, 30)
    sampler = code.pixel_sampler()
    assert (sampler.region, sampler.keep_out, sampler.strict, sampler.dilation) == ("all", False, False, 3)
    for dataset in ("ilsvrc", "cub", "demo"):
        released = load_recipe("dips_workshop", dataset=dataset, changes={"profile": "released"})
        assert (released.cls_detached, released.cls_weight, released.pixel_weight) == (True, 0.669, 0.384)
        sampler = released.pixel_sampler()
        assert (sampler.n_fg, sampler.n_bg, sampler.top_n, sampler.background) == (5139, 2399, 2, "anywhere")
        assert (sampler.map, sampler.dilation) == ("box", 3)
    ilsvrc = load_recipe("dips_workshop", dataset="ilsvrc", changes={})
    assert ilsvrc == load_recipe("dips_workshop", dataset="ilsvrc", changes={"profile": "released"})
    assert load_recipe("dips_workshop", dataset="cub", changes={}).pixel_sampler().background == "anywhere"


def test_every_recipe_of_the_papers_takes_the_strength_of_their_filter():
    for name in ("dips", "dips_workshop", "trcam", "fcam"):
        recipe = load_recipe(name, dataset="cub", changes={})
        assert (recipe.crf_weight, recipe.crf_normalisation) == (2e-9, "reference")
    for name, side in (("dips", 48), ("trcam", 48), ("dips_workshop", 32)):
        demo = load_recipe(name, dataset="demo", changes={})
        assert demo.size * demo.crf_scale == side
        assert demo.crf_weight == pytest.approx(2e-9 * (224 / side) ** 4, rel=0.01)


def test_a_profile_lies_over_the_data_set_and_under_single_keys():
    plain = load_recipe("adl", dataset="ilsvrc", changes={})
    other = load_recipe("adl", dataset="ilsvrc", changes={"profile": "standard", "batch": 7})
    assert (plain.drop_rate, plain.epochs, plain.batch) == (0.4, 10, 32)
    assert (other.drop_rate, other.epochs, other.batch) == (0.75, 40, 7)
    with pytest.raises(ConfigError, match="unknown profile of recipe adl 'standart'; did you mean 'standard'"):
        load_recipe("adl", dataset="cub", changes={"profile": "standart"})


def test_a_profile_is_checked_even_where_it_is_not_asked_for(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("method: cam\nbackbone: resnet18\nprofiles:\n  other: {batchs: 3}\n")
    with pytest.raises(ConfigError, match="unknown key 'batchs'; did you mean 'batch'"):
        load_recipe(str(path), dataset="cub", changes={})


@pytest.mark.parametrize("changes", [{"weights.foo": 1}, {"weights": {"foo": 1}}])
def test_a_key_within_a_key_of_one_value_is_refused_in_one_line(changes):
    with pytest.raises(ConfigError, match=r"unknown key 'weights\.foo'; did you mean 'weights'"):
        load_recipe("cam", dataset="demo", changes=changes)


NUMBERS = [-1, 10**20, -(10**20), 1e308, -1e308, 1e-60, float("nan"), float("inf")]


@pytest.mark.parametrize("name", known_recipes())
def test_no_key_takes_a_number_beyond_what_tensors_hold(name):
    """Each key alone, as a number and as a list of numbers: refused by name, or a value that float32 and int64 hold."""
    keys = load_recipe(name, dataset="demo", changes={}).model_dump()
    for key, given in keys.items():
        count = len(given) or 1 if isinstance(given, tuple) else 3
        for number in NUMBERS:
            for value in (number, [number] * count):
                with contextlib.suppress(ConfigError):
                    made = getattr(check_recipe(name, {**keys, key: value}), key)
                    held = np.asarray(made)
                    assert held.dtype.kind in "fi", f"{key}={value} became {made}"
                    assert (
                        np.isfinite(held.astype(np.float32)) & ((held == 0) == (held.astype(np.float32) == 0))
                    ).all()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lr": 1e308}, "lr: must be at most 1e.30"),
        ({"seed": 10**20}, "seed: 1e.20 does not fit into 64 bits"),
        ({"std": [0, 0, 0]}, "std: must be at least"),
        ({"mean": [float("nan"), 0, 0]}, "mean.0"),
        ({"temperature": float("inf")}, "temperature"),
        ({"pixels.n_fg": -1}, "pixels.n_fg=-1: must be at least 0"),
        ({"pixels.dilation": 4}, "pixels.dilation=4: must be odd"),
        ({"pixels.fg_share": float("nan")}, "pixels.*finite"),
        ({"sampler": "dipz"}, "unknown sampler 'dipz'; did you mean 'dips'"),
    ],
)
def test_numbers_that_would_fail_hours_later_are_refused_by_name(changes, told):
    with pytest.raises(ConfigError, match=told):
        load_recipe("dips", dataset="demo", changes=changes)


def test_a_list_of_texts_is_read_as_help_shows_it():
    assert load_recipe("cam", dataset="", changes={"fast": "layer3,layer4"}).fast == ("layer3", "layer4")
    assert load_recipe("cam", dataset="", changes={"fast": ["layer4"]}).fast == ("layer4",)
