"""What is said where results are below a centred box: by `eval` as by the report, and advice that can be followed."""

from __future__ import annotations

import re

import numpy as np
import pytest
from click.testing import CliRunner

from stores import MAPS_KEY, build_store, write_stage, write_table
from wsolpipe.cli.eval import command
from wsolpipe.contract.manifest import StageManifest
from wsolpipe.contract.reader import open_store
from wsolpipe.contract.schema import boxes_spec
from wsolpipe.engine.config import build_config
from wsolpipe.report.material import gather
from wsolpipe.report.page import compose
from wsolpipe.stages.alarm import alarm_of, raise_alarm
from wsolpipe.stages.registry import load_registry

REGISTRY = load_registry()
ROWS = [name for name, entry in REGISTRY.entries.items() if entry.kind == "rows"]
#: Parameters without which a stage advises something else than with its defaults.
OTHERS = {"val_boxes": ({"annotator": "file"}, {"annotator": "clip"}, {"annotator": "human"})}


def own_advice(stage, **stored):
    return REGISTRY.load(stage).advice(REGISTRY.stored_params(stage, stored))


@pytest.mark.parametrize("stage", ROWS)
def test_advice_can_be_followed_as_it_stands_and_is_not_repeated_once_it_is(stage):
    for stored in ({}, *OTHERS.get(stage, ())):
        for words, why in own_advice(stage, **stored):
            assert why
            if words.startswith(("wsolpipe ", "wsoltrain ", "stage=")) or "…" in words or words.endswith("=FILE"):
                continue
            config, _ = build_config(["dataset=demo", f"stage={stage}", *words.split()], REGISTRY)
            if stage not in config.params:
                continue
            followed = REGISTRY.params(stage, stored, config.params[stage]).model_dump(mode="json")
            assert words not in [again for again, _ in own_advice(stage, **followed)]


def test_maps_that_were_made_as_advised_are_told_something_else():
    both, scale = own_advice("cls_maps")[0], own_advice("cls_maps", blocks="8-11")[0]
    assert both[0] == "cls_maps.blocks=8-11 cls_maps.scale=log"
    assert scale[0] == "cls_maps.scale=log"
    assert own_advice("cls_maps", model_args={"depth": 4})[0][0].startswith("cls_maps.blocks=2-3 ")
    assert [words for words, _ in own_advice("cls_maps", blocks=[0, 3], scale="log")] == ["cls_maps.model=…"]
    assert own_advice("cams", methods=["layercam"])[0][0] == "cams.methods=[gradcam++]"
    assert own_advice("cams", methods=["layercam", "gradcam++"]) == ()


@pytest.fixture
def low(tmp_path):
    """A store whose maps and proposals are far below a centred box, which is the truth."""
    tiny = build_store(tmp_path, rows=12, shard_rows=6)
    tiny.objects[:] = np.tile(np.array(tiny.sizes)[:, ::-1], 2) * [0.1, 0.1, 0.9, 0.9]
    import pyarrow as pa

    edges = {name: tiny.objects[:, side].astype(float) for side, name in enumerate(("x0", "y0", "x1", "y1"))}
    (index,) = (tmp_path / "store" / "tiny" / "train" / "index").iterdir()
    write_table(
        index, "annotations.parquet", pa.table({"row": range(12), "kind": ["box"] * 12, **edges, "path": [""] * 12})
    )
    (tmp_path / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\n")
    one = tiny.boxes[:, :1]
    spec = boxes_spec(1, "of a file")
    for stage, key, params in (("val_boxes", "dddd000011112222", {"annotator": "file"}), ("foreign", "e" * 16, {})):
        write_stage(tiny.url, stage, key, {"boxes": (spec, one)}, status=tiny.status)
        remake(tmp_path, stage, key, params)
    return tmp_path, tiny


def remake(folder, stage, key, params):
    """Give a stage of the store other parameters in its manifest."""
    path = folder / "store" / "tiny" / "train" / stage / key / "manifest.json"
    manifest = StageManifest.model_validate_json(path.read_text())
    path.write_bytes(manifest.model_copy(update={"params": params}).to_bytes())


def words_of(folder):
    return [f"dataset={folder / 'tiny.yaml'}", f"store={folder / 'store'}", "split=train", "threads=1"]


def evaluated(folder, *words):
    done = CliRunner().invoke(command, [*words, *words_of(folder)], catch_exceptions=False)
    assert done.exit_code == 0
    return done


def test_eval_says_as_loudly_as_the_report_that_results_are_below_a_centred_box(low):
    folder, _ = low
    told = evaluated(folder, "stage=cls_maps", "details=true").stdout
    shown = {re.split(r"  +", line.strip())[0]: re.split(r"  +", line.strip())[-1] for line in told.splitlines()}
    assert f"WARNING: cls_maps of train at threshold {shown['threshold τ']}: BELOW A CENTRED BOX" in told
    assert (
        f"mean IoU {shown['IoU at τ']}; a box in the middle of every image, which looks at nothing, has 100.0" in told
    )
    assert "try cls_maps.blocks=8-11 cls_maps.scale=log: " in told
    config, _ = build_config(["stage=cls_maps", *words_of(folder)], REGISTRY)
    page = compose(gather(config)).html
    alarm = page.split('role="alert"')[1].split("</div>")[0]
    assert "<code>cls_maps.blocks=8-11 cls_maps.scale=log</code>" in alarm
    assert f"has mean IoU {shown['IoU at τ']};" in alarm


def test_json_stays_json_and_the_warning_goes_to_standard_error(low):
    folder, _ = low
    done = evaluated(folder, "stage=cls_maps", "--json")
    assert "WARNING" not in done.stdout
    assert "BELOW A CENTRED BOX" in done.stderr


def test_each_stage_gives_its_own_advice_and_then_that_of_what_it_was_made_of(low):
    folder, _ = low
    remake(folder, "cls_maps", MAPS_KEY, {"blocks": "8-11", "scale": "log"})
    told = evaluated(folder, "stage=proposals").stdout
    assert "try wsolpipe eval stage=cls_maps: proposals are regions of these maps" in told
    assert "try cls_maps.model=…: another" in told
    assert "cls_maps.blocks" not in told
    boxes = evaluated(folder, "stage=val_boxes").stdout
    assert "try val_boxes.file=FILE: boxes of these very images" in boxes
    assert "cls_maps" not in boxes


def test_a_stage_that_is_not_installed_here_is_told_to_look_at_its_rows(low):
    folder, _ = low
    view = open_store(str(folder / "store"))["tiny"]["train"]["foreign"]
    alarm = raise_alarm(0.1, 0.5, view, REGISTRY)
    assert alarm.advice == ()
    assert [line for line in alarm.lines("foreign of train") if "try " in line] == []


@pytest.mark.parametrize(
    ("figures", "iou"),
    [
        ({"iou_top1": 0.2, "iou_centre": 0.5}, 0.2),
        ({"mask_iou": 0.3, "mask_iou_centre": 0.5, "pixel_iou": 0.9}, 0.3),
        ({"iou": 0.6, "iou_at_tau": 0.4, "iou_centre": 0.5}, 0.4),
        ({"iou_at_tau": 0.6, "iou_centre": 0.5, "boxes": {"iou_top1": 0.1, "iou_centre": 0.5}}, 0.1),
        ({"iou_at_tau": 0.4, "iou_centre": 0.5, "boxes": {"iou_top1": 0.6, "iou_centre": 0.5}}, None),
        ({"iou_at_tau": None, "iou_centre": None, "PxAP": 40.0}, None),
    ],
)
def test_boxes_masks_and_maps_are_compared_with_the_centred_box_beside_them(figures, iou):
    alarm = alarm_of(figures, None, REGISTRY)
    assert (alarm and alarm.iou) == iou


def test_nothing_is_said_of_results_that_are_above_or_cannot_be_compared(low):
    view = open_store(str(low[0] / "store"))["tiny"]["train"]["cls_maps"]
    assert raise_alarm(0.5, 0.5, view, REGISTRY) is None
    assert raise_alarm(None, 0.5, view, REGISTRY) is None
    assert raise_alarm(0.1, None, None, REGISTRY) is None
