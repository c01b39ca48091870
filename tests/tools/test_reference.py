"""The reference says whose each recipe and stage is, shows what stages make, and explains each key of a data set."""

from __future__ import annotations

import re

import pytest

import reference
from guide_blocks import ROOT
from wsolpipe.images.dataset import DatasetConfig
from wsolpipe.images.listing import LAYOUTS
from wsolpipe.keys.models import keys_of
from wsolpipe.stages.registry import load_registry
from wsoltrain.training.recipe_file import known_recipes

#: Stages that are no method of a paper: rows and files kept as they are, and plain arithmetic over neighbouring frames.
OWN = {"human_boxes", "map_choice", "pixels", "predictions", "smooth", "propagate"}
#: Stages whose pictures need published weights, or somebody who draws.
UNDRAWN = {"clipseg_cams", "sam_boxes", "human_boxes"}
SHOWN = {"maps", "boxes", "masks", "labels", "rgb"}


@pytest.fixture(scope="module")
def pages():
    return reference.write_pages()


def sections(page: str) -> dict[str, str]:
    return {part.partition("\n")[0]: part for part in re.split(r"(?m)^## ", page)[1:]}


def test_each_recipe_has_its_paper_a_description_and_the_command_that_trains_it(pages):
    found = sections(pages["recipes.md"])
    assert list(found) == ["Keys of every recipe", "Settings of the authors", *known_recipes()]
    assert "| `sat` | cub |" in found.pop("Settings of the authors")
    assert "| `weight_decay` |" in found.pop("Keys of every recipe")
    assert "| `weight_decay` |" not in found["dips"]
    for name, text in found.items():
        words = text.partition("| key")[0]
        assert re.search(r"(19|20)\d\d|thesis, |[Mm]ultiscale vision transformer", words), name
        assert re.search(r"Method `\w+`\. \S.{20,}", words), name
        assert f"wsoltrain fit recipe={name} dataset=" in words


def test_each_stage_names_its_paper(pages):
    found = sections(pages["stages.md"])
    assert {name for name, text in found.items() if "\nSource: " not in text} == OWN
    assert "algorithm 2.1" in found["proposals"]


def test_each_stage_of_maps_boxes_or_masks_shows_what_it_makes(pages):
    entries = load_registry().entries
    drawn = {name for name, text in sections(pages["stages.md"]).items() if f"images/stages/{name}.webp" in text}
    assert drawn == {name for name, entry in entries.items() if SHOWN & entry.outputs.keys()} - UNDRAWN
    assert drawn == {path.stem for path in (ROOT / "docs" / "images" / "stages").iterdir()}


def test_each_key_of_a_data_set_is_explained_and_each_layout_drawn(pages):
    page = pages["datasets.md"]
    for key in keys_of(DatasetConfig):
        assert key.meaning, key.name
        assert re.search(rf"(?m)^\| `{key.name}` \|.*\| {re.escape(key.meaning)} \|$", page), key.name
    assert [f"layout: {name}" for name in LAYOUTS.builtins] == list(sections(page))
    assert page.count("```text") == len(LAYOUTS.builtins)
