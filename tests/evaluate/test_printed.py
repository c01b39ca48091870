"""What `eval` prints of every kind of stage with every option: each figure explained, in one unit and one form."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from stores import BOXES_KEY, build_store, write_stage
from wsolpipe.cli.eval import command
from wsolpipe.cli.figure_tables import _flat
from wsolpipe.cli.run import command as run
from wsolpipe.contract.schema import ArraySpec, boxes_spec
from wsolpipe.evaluate.glossary import find_entry, shown_name
from wsolpipe.metrics.protocol import Run, write_run

DECIMALS = {"fraction": 1, "per cent": 1, "threshold": 3, "weight": 2}
#: Told in the head of a table.
HEAD = {"schema_version", "stage", "dataset", "split", "key", "maps", "noise", "plots"}
#: `eval` of a store of the demo, each of another kind of stage or with other options.
EVALS = (
    "stage=cls_maps interval=true corloc=pooled",
    "stage=cls_maps corloc=class noise=boxes tau_from=val_boxes",
    "stage=cls_maps noise=masks beside=cams classifier=classifier",
    "stage=cls_maps select=classifier",
    "stage=cams map=1 against=val_boxes tau=0.4",
    "stage=refine split=val,test",
    "stage=proposals interval=true beside=val_boxes",
    "stage=val_boxes split=val",
    "stage=val_masks interval=true beside=val_masks",
    "stage=classifier",
    "stage=refine_weight",
)  # fmt: skip
#: Parameters with which the stages of that store are made.
MADE = (
    "cams.methods=[cam,layercam]", "classifier.epochs=1", "regions.top_n=8", "val_boxes.slots=8",
    "refine_weight.weights=[0,1]",
)  # fmt: skip


def call(made, *words):
    done = CliRunner().invoke(command, [*words, *made], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A few rows of the demo with every kind of stage: maps, boxes, masks and artifacts."""
    words = ["dataset=demo", f"store={tmp_path_factory.mktemp('printed') / 's'}", "limit=6", "device=cpu", *MADE]
    more = ["stage=proposals,val_boxes,val_masks,refine", "split=val,test"]
    done = CliRunner().invoke(run, [*words, *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return words


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Frames of three clips with a stage that holds maps and boxes, as predictions do."""
    folder = tmp_path_factory.mktemp("clips")
    groups = [f"clip {row // 4}" for row in range(12)]
    tiny = build_store(folder, rows=12, groups=groups, sizes=(30, 50), classes=2)
    (folder / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\n")
    (folder / "own.yaml").write_text(
        "both: {class: wsolpipe.stages.cls_maps:ClsMaps, version: 1, kind: rows, about: maps and boxes}\n"
    )
    spec, boxes = boxes_spec(1, "drawn"), tiny.objects[:, None] + np.float32([3, 0, 9, 0])
    arrays = {
        "maps": (ArraySpec(dtype="uint8", shape=tiny.maps.shape[1:]), tiny.maps),
        "boxes": (spec, boxes.astype(np.float32)),
    }
    write_stage(tiny.url, "both", BOXES_KEY, arrays, status=tiny.status)
    return [f"dataset={folder / 'tiny.yaml'}", f"store={tiny.url}", f"stages={folder / 'own.yaml'}", "split=train"]


def check(told, found):
    """Every figure is explained and printed under its name in its unit."""
    flat = {}
    for result in found if isinstance(found, list) else [found]:
        flat |= _flat({name: value for name, value in result.items() if name not in HEAD})
        for line in result.get("noise", ()):
            flat |= line
    assert [name for name in flat if find_entry(name) is None] == []
    for name, value in flat.items():
        if isinstance(value, float) and find_entry(name).kind == "fraction":
            assert 0 <= value <= 1, name
    lines = told.split("noise, ", maxsplit=1)[0].splitlines()
    for name in flat:
        kind = find_entry(name).kind
        if kind in DECIMALS:
            for line in lines:
                if line.startswith(f" {shown_name(name)}  "):
                    numbers = re.findall(r"(?<!p )\b\d+\.(\d+)", line.removeprefix(f" {shown_name(name)}  "))
                    assert {len(digits) for digits in numbers} <= {DECIMALS[kind]}, line
    assert not re.search(r"\d\.\d{4}", re.sub(r"p \d\.\d{4}", "", told)), "a raw number"


@pytest.mark.parametrize("words", EVALS)
def test_every_figure_that_eval_prints_is_explained_and_in_its_unit(demo, words):
    told, found = call(demo, *words.split()), json.loads(call(demo, *words.split(), "--json"))
    assert "wsolpipe eval glossary=true says what each word means" in told
    if "accuracy" in found:
        assert re.search(r" test +6 +6 +\d+\.\d +\d+\.\d", told)
    elif "curve" in found:
        w, point = found["curve"][0]["w"], found["curve"][0]
        shown = [f"{w:.2f}", f"{point['MaxBoxAcc']:.1f}", f"{point['MaxBoxAccV2']:.1f}", f"{100 * point['iou']:.1f}"]
        assert shown in [line.split() for line in told.splitlines()]
    else:
        check(told, found)


def test_the_same_figure_is_printed_in_the_same_unit_on_every_line(demo):
    told = call(demo, "stage=cls_maps", "details=true")
    found = json.loads(call(demo, "stage=cls_maps", "--json"))
    shown = {line[:26].strip(): line[26:].strip() for line in told.splitlines()}
    assert shown["mean IoU"] == f"{100 * found['iou']:.1f}"
    assert shown["IoU at τ"] == f"{100 * found['iou_at_tau']:.1f}"
    assert shown["threshold τ"] == f"{found['tau']:.3f}"
    assert shown["values inside, ten bins"] == " ".join(f"{100 * share:.1f}" for share in found["values_inside"])
    named = [line.split()[1] for line in told.splitlines() if line.startswith(" errors ")]
    assert sorted(named) == ["LME", "LPE", "MIE", "right", "wrong", "wrong"], "each outcome once"
    assert found["errors"]["part"] == found["errors"]["LPE"]


def test_noise_is_printed_in_per_cent_as_everything_else(demo):
    table = call(demo, "stage=cls_maps", "noise=boxes").split("noise, test")[1].splitlines()
    head = " ".join(table[2].split())
    assert head == ("noise threshold τ MaxBoxAcc by noisy labels mean IoU by noisy labels MaxBoxAcc at τ IoU at τ")
    assert all(re.fullmatch(r" *\d+\.0 +0\.\d{3}( +\d+\.\d){4} *", line) for line in table[4:14])


def test_the_map_is_told_by_its_method_or_head(demo):
    assert re.search(r"^ map +layercam *$", call(demo, "stage=cams", "map=1", "details=true"), re.MULTILINE)
    assert re.search(r"^ map +mean *$", call(demo, "stage=cls_maps", "details=true"), re.MULTILINE)
    assert re.search(r"^ map +head 1 *$", call(demo, "stage=cls_maps", "map=2", "details=true"), re.MULTILINE)
    assert json.loads(call(demo, "stage=cls_maps", "map=2", "--json"))["map"] == 2


def test_boxes_beside_maps_and_figures_of_clips_are_explained_and_in_per_cent(clips):
    told, found = call(clips, "stage=both", "details=true"), json.loads(call(clips, "stage=both", "--json"))
    check(told, found)
    shown = {re.split(r"  +", line.strip())[0]: re.split(r"  +", line.strip())[-1] for line in told.splitlines()}
    assert shown["boxes IoU, first box"] == f"{100 * found['boxes']['iou_top1']:.1f}"
    assert shown["boxes first box right"] == f"{100 * found['boxes']['recall50_top1']:.1f}"
    assert shown["video stability"] == f"{100 * found['video']['stability']:.1f}"
    assert shown["video CorLoc, mean of clips"] == f"{found['video']['CorLoc_of_groups']:.1f}"


def test_tables_of_runs_print_intervals_and_levels_in_the_same_form(tmp_path):
    counts = {str(level): [1, 2, 1] for level in (30, 50, 70)}
    entry = {"rows": 3, "largest": {"50": counts["50"]}, "all": counts, "iou": [0.1, 0.6543219, 0.3]}
    write_run(tmp_path / "runs", Run("a", 1, {"accuracy": 10.0, "gt": entry}, {"gt": entry}))
    told = call([], f"runs={tmp_path / 'runs'}", "metric=all")
    assert "66.7" in told
    assert "65.4" in told
    assert not re.search(r"\d+\.\d{2}(?!\d)|\d\.\d{4}", told)
    assert {len(digits) for digits in re.findall(r"\b[1-9]\d*\.(\d+)", told)} == {1}
