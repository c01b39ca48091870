"""Cells of a paper's table that are read from a search's stored curves, and from the masks of an annotator."""

from __future__ import annotations

import numpy as np
import pytest

from stores import build_store, write_masks, write_stage
from wsolpipe.contract.schema import ArraySpec, boxes_spec
from wsolpipe.evaluate.evaluation import Options, evaluate
from wsolpipe.evaluate.results import StoreResults
from wsolpipe.evaluate.scored import Threshold
from wsolpipe.metrics import protocol
from wsolpipe.metrics.protocol_tables import full_table
from wsoltrain.papers.table import Cell, PaperTable
from wsoltrain.papers.work import Reproduction, Request
from wsoltrain.runs.many import Site
from wsoltrain.training.annotators import read_annotators

COLUMNS = ("cls", "GT", "RPN")


def table_of(**cells):
    rows = [{"name": name, "published": [1.0] * len(COLUMNS), **cell} for name, cell in cells.items()]
    return PaperTable.model_validate(
        {
            "title": "t",
            "source": "a source of figures",
            "annotators": {"cls": {}, "GT": {}, "RPN": {"val_boxes.annotator": "rpn", "regions.method": "rpn"}},
            "columns": [
                {"title": name, "dataset": "demo", "figure": "MaxBoxAcc", "annotator": name} for name in COLUMNS
            ],
            "rows": rows,
        }
    )


def work_on(table, folder, **more):
    given = {
        "table": table, "rows": tuple(range(len(table.rows))), "columns": tuple(range(len(table.columns))),
        "out": folder / "out", "store": str(folder / "store"), "datasets": {}, "words": (), "changes": {}, "by": "gt",
        "threshold": "best", "configurations": 3, "device": "cpu", "site": Site(),
    } | more  # fmt: skip
    return Reproduction(Request(**given))


def tent(peak, height):
    counts = [max(0, height - 5 * abs(place - peak)) for place in range(10)]
    levels = {"30": counts, "50": counts, "70": [count // 2 for count in counts]}
    return {"rows": 100, "largest": {"50": counts}, "all": levels, "iou": [count / 200 for count in counts]}


def write_search(folder):
    """Two configurations of one epoch each: ground truth likes the second, rpn the first; rpn's threshold is wrong."""
    for name, height, liked in (("c000", 50, {"gt": 40, "rpn": 60}), ("c001", 80, {"gt": 70, "rpn": 20})):
        validation = {"accuracy": float(height), "gt": tent(5, liked["gt"]), "rpn": tent(3, liked["rpn"])}
        test = {"gt": tent(5, height), "otsu": protocol.figures_of_ious([0.6] * 30 + [0.1] * 70)}
        protocol.write_run(folder / name / "runs", protocol.Run(name, 1, validation, test))
        (folder / name / protocol.RUN_FILE).write_text("{}")  # as each training leaves it
    return protocol.read_runs(folder)


def test_cells_of_a_search_are_those_of_the_protocols_table(tmp_path):
    rows = {"oracle": {"search": "cam", "select": ["BT", "TT"]}, "honest": {"search": "cam", "select": ["BV", "VT"]}}
    work = work_on(table_of(**rows), tmp_path)
    cells = list(work.request.cells())
    assert "no configuration of cam was trained" in work._find(cells[0][2]).note
    runs = write_search(tmp_path / "out" / work.name_of(cells[0][2]))
    found = {(row, COLUMNS[column]): work._find(cell) for row, column, cell in cells}
    assert found[0, "GT"].value == found[0, "RPN"].value == 80
    assert found[1, "GT"].value == 80
    assert found[1, "RPN"].value == 40  # its own run, ten points below at its own threshold
    assert found[0, "cls"].value == found[1, "cls"].value == 30  # at each image's own threshold
    assert found[0, "cls"].low < 30 < found[0, "cls"].high
    lines = {(line["annotator"], line["model"], line["threshold"]): line for line in full_table(runs)}
    iou = cells[4][2].over(Cell()).model_copy(update={"figure": "IoU"})
    assert work._find(iou).value == pytest.approx(100 * lines["gt", "BV", "VT"]["iou"])
    late = cells[4][2].model_copy(update={"annotator": "CLIP"})
    assert "hold no clip, BV-VT" in work._find(late).note
    assert work._find(cells[4][2].model_copy(update={"figure": "PxAP"})).note == "gt has no PxAP: it gives no threshold"


def test_annotators_of_a_search_are_the_stages_that_were_made_for_them(tmp_path):
    work = work_on(table_of(r={"search": "cam", "select": ["BT", "TT"]}), tmp_path)
    (_, _, cell), *_ = work.request.cells()
    assert work._annotators(cell) == ["gt", "cls", "rpn:val_boxes"]
    names = [name for name, _ in work.stage_runs(cell)]
    assert "demoRPN" in names
    work._keys["demoRPN"] = {"regions": "aa11", "val_boxes": "3f2e"}
    words = work._annotators(cell)
    assert words == ["gt", "cls", "rpn:val_boxes@3f2e"]
    assert [(each.name, each.word) for each in read_annotators(words)][2] == ("rpn", "val_boxes:3f2e")


def write_maps_and_boxes(folder):
    """A store whose stage cams holds maps, with pseudo-boxes of val that are too large; rows of test and their YAML."""
    for split, seed in (("val", 0), ("test", 1)):
        store = build_store(folder, rows=30, sizes=(40, 80), split=split, seed=seed)
        spec = ArraySpec(dtype="uint8", shape=store.maps.shape[1:])
        write_stage(
            store.url, "cams", "1f2e000011112222", {"maps": (spec, store.maps)}, status=store.status, split=split
        )
        large = (store.objects + np.float32([-6, -6, 6, 6])).clip(0, None)[:, None]
        boxes = {"boxes": (boxes_spec(1, "too large"), large)}
        write_stage(store.url, "val_boxes", "3a4b000011112222", boxes, status=store.status, split=split)
    (folder / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\nsplit: {val: ., test: .}\n")
    return store


def test_a_stage_of_maps_takes_the_threshold_of_validation_whatever_its_name_and_boxes_take_none(tmp_path):
    """Figures of reproduce are those of eval; a threshold that saw the scored images is called an oracle."""
    store = write_maps_and_boxes(tmp_path)
    rows = [
        {"name": name, "stage": stage, "published": [None, None]}
        for name, stage in (("CAM", "cams"), ("attention", "cls_maps"), ("boxes", "val_boxes"))
    ]
    columns = [{"title": name, "dataset": "tiny", "figure": name} for name in ("MaxBoxAcc", "MaxBoxAccV2")]
    table = PaperTable.model_validate({"title": "t", "source": "a source of figures", "columns": columns, "rows": rows})
    given = {"store": store.url, "datasets": {"tiny": str(tmp_path / "tiny.yaml")}, "by": "val_boxes"}
    own = work_on(table, tmp_path, threshold="validation", **given)
    best = work_on(table, tmp_path, threshold="best", **given)
    results = StoreResults(store.url, "tiny")
    for row, stage in enumerate(("cams", "cls_maps")):
        chosen = evaluate(results, stage, "test", Options(tau_from="val_boxes")).figures
        oracle = evaluate(results, stage, "test", Options()).figures
        for column, place in enumerate((lambda found: found["MaxBoxAcc"], lambda found: found["MaxBoxAccV2"]["mean"])):
            cell = Cell.over(table.rows[row], table.columns[column])
            found, seen = own._find(cell), best._find(cell)
            assert (found.value, seen.value) == (place(chosen), place(oracle))
            assert found.value < seen.value
            by = "pseudo-boxes of val_boxes 3a4b000011112222 of val"
            assert found.threshold == Threshold(chosen["tau"], by, rows=30, metric="MaxBoxAcc")
            assert (seen.threshold.oracle, oracle["oracle"], chosen["oracle"]) == (True, True, False)
    figures = evaluate(results, "val_boxes", "test", Options()).figures
    cells = [Cell.over(table.rows[2], column) for column in table.columns]
    assert [own._find(cell).value for cell in cells] == [
        100 * figures["recall50_top1"], 100 * figures["box_maxboxacc_v2"],
    ]  # fmt: skip
    assert own._find(cells[0]).threshold == Threshold()


def test_rows_that_ask_a_classifier_make_it_first(tmp_path):
    row = {"stage": "cls_maps", "words": {"select": "classifier"}}
    work = work_on(table_of(chosen=row, mean={"stage": "cls_maps"}), tmp_path)
    cells = [cell for _, column, cell in work.request.cells() if column == 0]
    assert [[words[0] for _, words in work.stage_runs(cell)] for cell in cells] == [
        ["stage=classifier", "stage=cls_maps"], ["stage=cls_maps"],
    ]  # fmt: skip


def test_a_column_of_mask_errors_holds_the_masks_of_each_rows_annotator_against_the_truth(tmp_path):
    store = build_store(tmp_path, rows=9, sizes=(60, 90), split="val")
    write_masks(tmp_path, store, range(9))
    (tmp_path / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\nmasks: masks\nsplit: {val: .}\n")
    table = PaperTable.model_validate(
        {
            "title": "t",
            "source": "a source of figures",
            "columns": [{"title": "error", "dataset": "tiny", "figure": "mask error", "labels": "val"}],
            "rows": [
                {"name": "eroded", "by": "noisy:20", "published": [9.22]},
                {"name": "truth", "published": [None]},
                {"name": "pseudo", "by": "val_masks", "published": [46.54]},
            ],
        }
    )
    work = work_on(table, tmp_path, store=store.url, datasets={"tiny": str(tmp_path / "tiny.yaml")})
    eroded, truth, pseudo = (work._find(cell) for _, _, cell in work.request.cells())
    assert eroded.value == pytest.approx(10, abs=0.5)
    assert truth.value == 0
    assert "val_masks" in pseudo.note
    stages = [[words[0] for _, words in work.stage_runs(cell)] for _, _, cell in work.request.cells()]
    assert stages == [["stage=index"], ["stage=index"], ["stage=index", "stage=val_masks"]]
