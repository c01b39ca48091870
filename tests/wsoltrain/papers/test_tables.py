"""Every table of the papers: well formed, with a source; its recipes, keys, stages and figures exist."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from wsolpipe.cli import eval as scoring
from wsolpipe.cli import run
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.reader import open_store
from wsolpipe.engine.config import build_config
from wsolpipe.keys.words import as_words
from wsolpipe.metrics.protocol_tables import CLS_AT_TRUTH
from wsolpipe.stages.registry import load_registry
from wsoltrain.papers import table as paper_tables
from wsoltrain.papers.bare import build_bare
from wsoltrain.papers.table import (
    FIGURES,
    Cell,
    check_recipes,
    facts_of,
    known_facts,
    known_tables,
    load_table,
)
from wsoltrain.papers.work import Reproduction, Request
from wsoltrain.runs.draws import Range, draw, load_ranges, shared_configurations
from wsoltrain.runs.many import Site
from wsoltrain.training.recipe_file import known_recipes, load_recipe

PUBLISHED = {
    *(f"2.{number}" for number in range(1, 7)), *(f"3.{number}" for number in range(1, 6)),
    *(f"4.{number}" for number in range(1, 10)), *(f"I-{number}" for number in range(1, 6)),
    "II-1", "II-2", "II-3", "molt-1", "molt-2",
}  # fmt: skip
ACTIVATIONS = ("gradcam", "gradcam++", "smooth-gradcam++", "xgradcam", "layercam")
STEPS = ("iou_pointing_mean_of_boxes", "iou_top_pointing_mean_of_boxes", "iou_top_one_box", "iou_final_one_box",
         "iou_upper_best_box")  # fmt: skip
CLASSES = tuple(f"CorLoc.per_class.{label}" for label in range(10))


def test_every_table_of_the_papers_is_there():
    assert set(known_tables()) == PUBLISHED | {"demo"}


@pytest.mark.parametrize("name", known_tables())
def test_recipes_keys_stages_and_figures_of_a_table_exist_and_it_has_a_source(name):
    table = load_table(name)
    assert "Table" in table.source or name == "demo"
    assert any(value is not None for row in table.rows for value in row.published)
    cells = [cell for _, _, cell in table.cells()]
    check_recipes(cells)
    registry = load_registry(None)
    for cell in cells:
        if cell.kind == "absent":
            continue
        assert cell.dataset in known_facts()
        assert cell.figure in (*FIGURES, *STEPS, *CLASSES) or cell.kind == "range"
        named = [f"stage={cell.stage}"] if cell.stage else []
        config, _ = build_config([*named, *as_words(cell.stages), *as_words(cell.words)], registry, also=scoring.KEYS)
        for stage, params in config.params.items():
            registry.params(stage, params)
    for own in table.annotators.values():
        config, _ = build_config(as_words(own), registry)
        for stage, params in config.params.items():
            registry.params(stage, params)


@pytest.mark.parametrize("name", known_tables())
def test_no_row_that_a_recipe_or_a_stage_makes_is_said_to_be_of_another_paper(name):
    known = {*(recipe.replace("_", "-") for recipe in known_recipes()), *ACTIVATIONS}
    for row in load_table(name).rows:
        own = row.name.lower().replace(" ", "-")
        assert row.absent != "method" or own not in known, row.name


ON_OTHER_BACKBONES = [
    (table, row.name, row.backbone)
    for table in ("2.3", "molt-1")
    for row in load_table(table).rows
    if row.fit and row.backbone in ("VGG16", "MobileNetV1", "InceptionV3")
]


@pytest.mark.parametrize(("table", "name", "backbone"), ON_OTHER_BACKBONES)
def test_rows_on_other_backbones_than_resnet_build_and_give_maps(table, name, backbone):
    (row,) = (row for row in load_table(table).rows if (row.name, row.backbone) == (name, backbone))
    cell = Cell.over(row, load_table(table).columns[0])
    recipe = load_recipe(cell.fit, dataset=cell.dataset, changes=cell.changes())
    with torch.no_grad():
        found = build_bare(recipe, 5, "cpu").predict(torch.zeros(1, 3, 224, 224))
    assert found.maps.shape == (1, 14, 14)


SELF_SUPERVISED = {"DINO": (7, 14, 14), "EsViT": (25, 7, 7), "MoCo v3": (13, 14, 14), "SimMIM": (13, 14, 14)}


@pytest.mark.parametrize("name", SELF_SUPERVISED)
def test_self_supervised_rows_of_table_2_4_name_models_whose_maps_can_be_made(tmp_path, name):
    (row,) = (row for row in load_table("2.4").rows if row.name == name)
    assert row.stage == "cls_maps"
    assert bool(row.weights_of) == (name != "DINO")
    words = [*(f"{key}={value}" for key, value in row.stages.items()), "cls_maps.weights=random:0"]
    folder = tmp_path / "images/class0"
    folder.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)).save(folder / "a.png")
    (tmp_path / "d.yaml").write_text("name: d\nlayout: folder\nroot: images\nsplit: test\n")
    site = [f"dataset={tmp_path}/d.yaml", f"store={tmp_path}/s", "threads=1", "device=cpu"]
    done = CliRunner().invoke(run.command, ["stage=cls_maps", *site, *words])
    assert done.exit_code == 0, done.output
    maps = open_store(f"{tmp_path}/s")["d"]["test"]["cls_maps"]["maps"]
    assert maps.shape == (1, *SELF_SUPERVISED[name])


@pytest.mark.parametrize("name", ["4.7", "4.8"])
def test_v2_of_the_protocol_is_the_mean_of_its_levels(name):
    """A check of the transcription: the published mean beside the three published levels, in every cell."""
    table = load_table(name)
    for row in table.rows:
        for start in range(0, len(table.columns), 4):
            *levels, mean = row.published[start : start + 4]
            if mean is not None:
                assert sum(levels) / 3 == pytest.approx(mean, abs=0.022), (row.name, table.columns[start].title)


def test_the_figures_that_two_tables_share_agree_but_for_those_that_a_note_names():
    large = load_table("4.2")
    levels = {"4.7": range(5), "4.8": range(5, 10)}
    for name, columns in levels.items():
        detailed = load_table(name)
        rows = {row.name: row for row in large.rows}
        for row in detailed.rows:
            shared = [rows[row.name].published[column] for column in columns]
            if row.name == "TS-CAM BT-TT" and name == "4.8":
                assert any("TS-CAM" in note for note in detailed.notes)
                shared[0] = 6.476
            assert [row.published[place] for place in range(1, 20, 4)] == shared, row.name


def test_the_name_of_the_oracle_threshold_is_that_of_the_protocol():
    assert paper_tables.CLS_AT_TRUTH == CLS_AT_TRUTH


CHAPTER_4 = ("cam", "has", "acol", "adl", "nl_ccam", "ts_cam", "scm", "sat", "dips")
SHARED = ("lr", "weight_decay", "lr_gamma", "lr_step")


@pytest.mark.parametrize(("dataset", "steps"), [("cub", range(5, 46)), ("ilsvrc", range(2, 10))])
def test_each_method_of_chapter_4_has_180_configurations_whose_shared_keys_are_those_of_all(dataset, steps):
    """Table 4.4 of the thesis: log-uniform rates, decay and gamma, uniform steps, and each method's own keys."""
    expected = None
    for recipe in CHAPTER_4:
        drawn = [keys for _, keys in shared_configurations(load_ranges(recipe, dataset=dataset, changes={}), 180)]
        assert len({str(keys) for keys in drawn}) == 180
        shared = [[keys[name] for name in SHARED] for keys in drawn]
        expected = expected or shared
        assert shared == expected, recipe
    rates, decays, gammas, found = zip(*expected, strict=True)
    for values in (rates, decays, gammas):
        assert 1e-5 <= min(values) < 1e-4 < 0.1 < max(values) <= 1
        assert sum(value < 10**-2.5 for value in values) in range(60, 121)  # log-uniform: half of them
    assert set(found) <= set(steps)
    assert (min(found), max(found)) == (steps[0], steps[-1])


def test_ranges_of_few_values_are_not_drawn_twice_and_run_out_in_words():
    ranges = {"lr": Range(choices=[0.1, 0.01]), "pixels.n_fg": Range(choices=[1, 10])}
    drawn = [keys for _, keys in shared_configurations(ranges, 2, 2)]
    assert len({str(keys) for keys in drawn}) == 4
    assert [keys["lr"] for keys in drawn[::2]] == [keys["lr"] for keys in drawn[1::2]]
    with pytest.raises(ConfigError, match="hold 4 different configurations, and 5 are wanted"):
        list(shared_configurations(ranges, 5))
    assert draw(ranges, 3, seed=1) == draw(ranges, 3, seed=1)


def test_table_4_4_is_that_of_the_recipes(tmp_path):
    table = load_table("4.4")
    request = Request(
        table=table, rows=tuple(range(len(table.rows))), columns=(0, 1), out=tmp_path, store=str(tmp_path),
        datasets={}, words=(), changes={}, by="gt", threshold="best", configurations=0, device="cpu", site=Site(),
    )  # fmt: skip
    found = Reproduction(request).run()
    for (row, column), cell in found.items():
        published = table.rows[row].published[column]
        assert cell.value == published, (table.rows[row].name, cell)


GOOD = """
title: t
source: a source of figures
columns: [{title: A, dataset: demo, figure: MaxBoxAcc}]
rows: [{name: r, fit: cam, published: [1.0]}]
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("published: [1.0]", "published: [1.0, 2.0]", "row r has 2 figures for 1 columns"),
        ("fit: cam, ", "", "one of absent, fit, stage, search, range, complexity, labels must make it, not none"),
        ("fit: cam", "fit: cam, stage: cams", "must make it, not fit, stage"),
        ("dataset: demo, ", "", "it names no data set"),
        ("source: a source of figures", "source: x", "source: 'x' does not say where the figures were published"),
        ("fit: cam", "fitt: cam", "fitt: unknown key"),
        ("fit: cam", "search: cam", "select and an annotator of"),
    ],
)
def test_a_table_that_is_not_well_formed_is_one_line(tmp_path, old, new, message):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    load_table(str(path))
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError, match=message) as refused:
        load_table(str(path))
    assert "\n" not in refused.value.message


def test_a_recipe_or_key_that_there_is_not_is_refused(tmp_path):
    path = Path(tmp_path / "mine.yaml")
    for old, new, message in (
        ("fit: cam", "fit: camm", "unknown recipe 'camm'; did you mean 'cam'"),
        ("fit: cam", "fit: cam, keys: {epoch: 3}", "unknown key 'epoch'; did you mean 'epochs'"),
        ("figure: MaxBoxAcc}]\nrows: [{name: r, fit: cam", "figure: lrr}]\nrows: [{name: r, range: cam",
         "unknown searched key of recipe cam 'lrr'"),
    ):  # fmt: skip
        path.write_text(GOOD.replace(old, new))
        with pytest.raises(ConfigError, match=message):
            check_recipes(cell for _, _, cell in load_table(str(path)).cells())


def test_an_unknown_table_names_the_nearest_and_an_unknown_data_set_how_to_describe_it():
    with pytest.raises(ConfigError, match=r"unknown table '2\.11'; did you mean '2\.1'"):
        load_table("2.11")
    assert "data/folder.yaml" in facts_of("birds").get
