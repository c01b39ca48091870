"""Cost of a stage for any number of images: measured seconds, bytes and files, multiplied."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from click.testing import CliRunner

from wsolpipe.cli.run import command as run
from wsolpipe.cli.run import plan_command as command
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.reader import open_store
from wsolpipe.engine.cost import Cost
from wsolpipe.launch.terminal import show_costs
from wsolpipe.stages.registry import load_registry


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Twelve images of the demo, with their maps."""
    folder = tmp_path_factory.mktemp("cost")
    words = ["stage=cls_maps", "dataset=demo", f"store={folder / 's'}", "split=val", "limit=12", "device=cpu"]
    done = CliRunner().invoke(run, words)
    assert done.exit_code == 0, done.output
    return str(folder / "s")


def costs(store, *words):
    given = ["dataset=demo", f"store={store}", "split=val", "limit=12", "cost=true", *words, "--json"]
    done = CliRunner().invoke(command, given, catch_exceptions=False)
    assert done.exit_code == 0
    return {cost["stage"]: cost for cost in json.loads(done.stdout)["costs"]}


def test_hours_bytes_and_files_are_those_of_the_records_times_the_images(store):
    view = open_store(store)["demo"]["val"]["cls_maps"]
    (record,) = view.committed().values()
    size = sum(item.bytes for item in record.objects.values())
    found = costs(store, "stage=cls_maps", "images=1200000")["cls_maps"]
    assert found["exact"]
    assert (found["measured_rows"], found["device"], found["images"]) == (12, record.device, 1_200_000)
    assert found["hours"] == pytest.approx(record.seconds / 12 * 1_200_000 / 3600)
    assert found["gpu_hours"] == 0
    assert found["rate"] == pytest.approx(12 / record.seconds)
    assert found["bytes"] == round(size / 12 * 1_200_000)
    arrays = len(record.objects)
    assert found["files"] == 293 * (arrays + 1) + arrays + 2  # 293 shards of 4,096 rows
    assert costs(store, "stage=cls_maps")["cls_maps"]["images"] == 12


def test_other_parameters_lend_their_rate_and_a_stage_that_was_never_run_has_none(store):
    found = costs(store, "stage=proposals", "cls_maps.scale=log", "images=1000")
    assert not found["cls_maps"]["exact"]
    assert found["cls_maps"]["hours"] > 0
    assert found["proposals"]["device"] == ""
    assert found["proposals"]["hours"] is None
    given = ["stage=proposals", "dataset=demo", f"store={store}", "split=val", "cls_maps.scale=log", "cost=true"]
    told = CliRunner().invoke(command, given, catch_exceptions=False).stdout
    assert "* measured with other parameters" in told
    assert "make some rows first: wsolpipe run stage=" in told


def test_a_split_that_is_not_indexed_is_priced_by_its_list_alone(store):
    """The demo lists 288 images in train, which the store does not hold."""
    given = ["stage=cls_maps", "dataset=demo", f"store={store}", "split=train"]
    told = json.loads(CliRunner().invoke(command, [*given, "cost=true", "--json"], catch_exceptions=False).stdout)
    cost = {line["stage"]: line for line in told["costs"]}["cls_maps"]
    assert cost["images"] == 288
    assert cost["hours"] == pytest.approx(288 / cost["rate"] / 3600)
    assert cost["files"] > 0
    assert cost["bytes"] > 0
    plan = json.loads(CliRunner().invoke(command, [*given, "--json"], catch_exceptions=False).stdout)
    lines = {line["stage"]: line for line in plan["stages"]}
    assert (lines["index"]["rows"], lines["index"]["reason"]) == (288, "missing")
    assert lines["cls_maps"]["rows"] == 288
    assert lines["cls_maps"]["remaining_seconds"] == pytest.approx(288 / cost["rate"], abs=0.1)
    assert plan["not_looked_at"] == []
    assert plan["pending"]


def test_a_split_whose_list_is_out_of_reach_has_a_rate_and_no_cost(store, tmp_path):
    yaml = tmp_path / "away.yaml"
    yaml.write_text("name: demo\nlayout: folder\nroot: nowhere\nsplit: train\n")
    given = ["stage=cls_maps", f"dataset={yaml}", f"store={store}", "split=train", "cost=true"]
    told = json.loads(CliRunner().invoke(command, [*given, "--json"], catch_exceptions=False).stdout)["costs"]
    cost = {line["stage"]: line for line in told}["cls_maps"]
    assert (cost["images"], cost["hours"], cost["files"], cost["bytes"]) == (None, None, None, None)
    assert cost["rate"] > 0
    said = CliRunner().invoke(command, given, catch_exceptions=False).stdout
    assert "rows are not counted yet: add images=N" in said
    assert "measured on" in said


def test_hours_of_a_gpu_are_gpu_hours(store, tmp_path):
    shutil.copytree(store, tmp_path / "s")
    (path,) = (tmp_path / "s" / "demo" / "val" / "cls_maps").glob("*/commits/*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "device": "cuda", "seconds": 3.0}))
    found = costs(str(tmp_path / "s"), "stage=cls_maps", "images=14400")["cls_maps"]
    assert found["device"] == "cuda"
    assert found["hours"] == found["gpu_hours"] == pytest.approx(1.0)


def test_hours_of_a_trained_artifact_grow_with_the_rows_it_is_trained_on(store, tmp_path):
    shutil.copytree(store, tmp_path / "s")
    words = ["classifier.epochs=1", "classifier.measure=[]"]
    made = [
        "stage=classifier,text_anchors",
        "dataset=demo",
        f"store={tmp_path / 's'}",
        "limit=12",
        "device=cpu",
        *words,
    ]
    assert CliRunner().invoke(run, made, catch_exceptions=False).exit_code == 0
    asked = ["stage=classifier,text_anchors", *words]
    dataset = open_store(str(tmp_path / "s"))["demo"]
    record, anchors = (dataset.artifact(stage).record for stage in ("classifier", "text_anchors"))
    found = costs(str(tmp_path / "s"), *asked, "images=1281167")
    assert found["classifier"]["measured_rows"] == 12
    assert found["classifier"]["hours"] == pytest.approx(record.seconds / 12 * 1_281_167 / 3600)
    assert found["classifier"]["bytes"] == sum(item.bytes for item in record.objects.values())
    assert found["text_anchors"]["hours"] == pytest.approx(anchors.seconds / 3600), "it reads no image"
    assert (found["text_anchors"]["images"], found["text_anchors"]["rate"]) == (None, None)
    assert costs(str(tmp_path / "s"), *asked)["classifier"]["images"] == 12, "of the train split, not of val"
    shutil.rmtree(tmp_path / "s" / "demo" / "train" / "index")
    unknown = costs(str(tmp_path / "s"), *asked, "images=1281167")["classifier"]
    assert (unknown["rate"], unknown["hours"], unknown["measured_rows"]) == (None, None, 0)


def test_a_weight_is_chosen_on_some_rows_however_many_there_are():
    kind, params = load_registry().load("refine_weight"), load_registry().params("refine_weight")
    assert (kind.rows_read(params, 500), kind.rows_read(params, 1_281_167)) == (500, 2000)


@pytest.mark.parametrize("mixed", ["images", "devices", "both"])
def test_the_table_of_costs_fits_80_columns_without_breaking_a_word_or_a_number(monkeypatch, capsys, mixed):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the output for a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    stages = ["cls_maps", "classifier", "clipseg_cams", "val_boxes", "refine_weight", "refine", "regions"]
    found = [
        Cost(stage, "cuda" if number % 2 and mixed != "images" else "cpu", 1_281_167, 1_281_167, 1234.567, 1234.5678,
             0.0, 12_345, 77_367 << 20, exact=False)
        for number, stage in enumerate(stages)
    ]  # fmt: skip
    if mixed != "devices":
        found.append(Cost("proposals", "cpu", 50_000, 50_000, 0.0213, 0.003, 0.0, 1, 5 << 20, exact=True))
    show_costs(found)
    told = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, told.splitlines())) <= 80
    for stage in stages:
        assert f" {stage}* " in told
    assert told.count("1,234.6") == 2 * len(stages)
    assert told.count("77,367.0") == len(stages)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["images=5"], "cost=true"),
        (["cost=true", "images=0"], "images=0"),
        (["cost=true", "sweep.cls_maps.size=112,224"], "one value of each key"),
        (["cost=maybe"], "cost=maybe"),
    ],
)
def test_wrong_words_are_said(store, words, told):
    done = CliRunner().invoke(command, ["stage=cls_maps", "dataset=demo", f"store={store}", *words])
    assert isinstance(done.exception, ConfigError)
    assert told in str(done.exception)
