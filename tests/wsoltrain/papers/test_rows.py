"""Every row of every table: planned without a traceback, and printed as the command that it names scores it."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from stores import build_store, write_stage
from trained import settings
from wsolpipe.cli import eval as scoring
from wsolpipe.contract.schema import ArraySpec, boxes_spec
from wsolpipe.images.dataset import known_datasets
from wsoltrain.cli import figures as trained_scoring
from wsoltrain.inference.model import load_trained
from wsoltrain.papers import bare, work
from wsoltrain.papers.bare import build_bare
from wsoltrain.papers.reproduce import reproduce
from wsoltrain.papers.table import FIGURES, Cell, known_tables, load_table
from wsoltrain.papers.work import Reproduction, Request
from wsoltrain.runs.many import Site
from wsoltrain.training.scoreboard import Evaluator

ROWS = 12
SLOTS = {"cams": 6, "clip_cams": 1, "text_maps": 15}
ASKED = ("select", "classifier")
"""Words by which a row asks the scoring classifier, which this store does not hold; other tests ask one."""


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A store with what the tables' stages hold, drawn, in val and test, and the YAML of its data set."""
    folder = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(0)
    for split, seed in (("train", 2), ("val", 0), ("test", 1)):
        store = build_store(folder, rows=ROWS, sizes=(40, 70), split=split, seed=seed)
        for number, (stage, slots) in enumerate(SLOTS.items()):
            noise = rng.integers(0, 120, (ROWS, slots, 14, 14))
            maps = np.maximum(store.maps[:, :1] // (1 + np.arange(slots) % 3)[:, None, None], noise).astype(np.uint8)
            labels = np.array(store.labels, np.int32)
            classes = (labels[:, None] + np.arange(slots) + (rng.random(ROWS) < 0.4)[:, None]) % 5
            arrays = {"maps": (ArraySpec(dtype="uint8", shape=maps.shape[1:]), maps)}
            if slots == 15:  # five classes of three methods
                classes = np.tile(classes[:, :5], 3)
                arrays["class_ids"] = (ArraySpec(dtype="int32", shape=(slots,), fill=-1), classes.astype(np.int32))
            write_stage(store.url, stage, f"{number}f2e000011112222", arrays, status=store.status, split=split)
        boxes = {"boxes": (boxes_spec(1, "large"), (store.objects + np.float32([-5, -5, 5, 5])).clip(0, None)[:, None])}
        write_stage(store.url, "val_boxes", "3a4b000011112222", boxes, status=store.status, split=split)
    text = "name: tiny\nlayout: folder\nroot: images\nsplit: {train: ., val: ., test: .}\n"
    (folder / "tiny.yaml").write_text(text)
    return store, folder


def reproduction(table, folder, store, threshold):
    request = Request(
        table=table, rows=tuple(range(len(table.rows))), columns=tuple(range(len(table.columns))), out=folder / "out",
        store=store.url, datasets={"tiny": str(folder / "tiny.yaml")}, words=(), changes={}, by="val_boxes",
        threshold=threshold, configurations=1, device="cpu", site=Site(),
    )  # fmt: skip
    return Reproduction(request)


def asked_of(cell):
    """What tells the score of a cell from that of others, on this store."""
    words = tuple((name, value) for name, value in cell.words.items() if name not in ASKED)
    return cell.kind, cell.stage, cell.figure, words


def scores_of(command, words):
    done = CliRunner().invoke(command, [*words, "--json"], catch_exceptions=False)
    return json.loads(done.stdout)


def figure_in(found, figure):
    """The figure of a table in a command's JSON, in the published unit; boxes have other names than maps."""
    of_boxes = {
        "MaxBoxAcc": ("recall50_top1", 100.0),
        "MaxBoxAccV2": ("box_maxboxacc_v2", 100.0),
        "IoU": ("iou_top1", 100.0),
    }
    place, factor = FIGURES.get(figure, (figure, 100.0 if figure.startswith("iou") else 1.0))
    if "recall50_top1" in found and figure in of_boxes:
        place, factor = of_boxes[figure], 100.0
    for name in place.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return None if found is None else pytest.approx(factor * found)


@pytest.mark.parametrize("threshold", ["best", "validation"])
def test_every_figure_of_a_stage_is_that_of_eval_with_the_threshold_that_its_cell_names(scored, threshold, monkeypatch):
    """Cells of one line of words differ in the figure that they take of its scores, which are made once here."""
    made_once = functools.cache(lambda *words: work_scores(words))
    work_scores = work.score_stage
    monkeypatch.setattr(work, "score_stage", lambda words: made_once(*words))
    store, folder = scored
    place = [f"dataset={folder}/tiny.yaml", f"store={store.url}", "threads=1"]
    eval_once = functools.cache(lambda *words: scores_of(scoring.command, [*words, *place]))
    walked = {}
    for name in known_tables():
        table = load_table(name)
        own = reproduction(table, folder, store, threshold)
        for row in table.rows:
            for column in table.columns:
                cell = work_cell(row, column)
                if cell.kind != "stage" or asked_of(cell) in walked:
                    continue
                found = walked[asked_of(cell)] = own._find(cell)
                words = [f"stage={cell.stage}", "split=test", *(f"{key}={value}" for key, value in cell.words.items())]
                maps = cell.stage != "val_boxes"
                words += ["tau_from=val_boxes"] if threshold == "validation" and maps else []
                by_class = cell.figure.startswith("CorLoc")
                words += [f"corloc={'class' if threshold == 'best' else 'pooled'}"] if by_class else []
                expected = eval_once(*words)
                assert found.value == figure_in(expected, cell.figure), (name, row.name, column.title)
                if maps and found.value is not None and cell.figure not in ("PxAP", "CL"):
                    assert found.threshold.oracle == (threshold == "best") == expected["oracle"]
                    assert found.threshold.by == expected["tau_from"]
                elif not maps:
                    assert not found.threshold.oracle
    assert len(walked) > 40
    assert sum(found.value is not None for found in walked.values()) > 30


def work_cell(row, column):
    """The cell of a row and a column, of this store's data set and of the stage's newest result."""
    cell = Cell.over(row, column)
    kept = {name: value for name, value in cell.words.items() if name not in ASKED}
    return cell.model_copy(
        update={"dataset": "tiny", "words": kept, "stages": {}, "weights_of": "", "split": "test", "store": ""}
    )


@pytest.mark.parametrize("threshold", ["best", "validation"])
def test_every_figure_of_a_training_is_that_of_eval_at_the_threshold_that_its_cell_names(
    trainable, trained, threshold, monkeypatch
):
    """All rows that train stand on one trained network here: what is tested is how its score becomes a cell."""
    folder = trained.parent
    own = replace(settings(trainable, trained), annotators=["proposals"])
    monkeypatch.setattr(work, "settle_words", lambda _: SimpleNamespace(settings=own))
    place = [f"dataset={trainable.root}/../tiny.yaml", f"store={trainable.url}", "workers=0", "device=cpu"]
    given = [f"checkpoint={trained}", "split=val", "beside=none", "corloc=pooled", *place]
    chosen = scores_of(trained_scoring.eval_command, given)["localizer"]
    loaded = load_trained(str(trained), device="cpu")
    evaluator = Evaluator(loaded.recipe, replace(own.labelling, split="val"), own.root, ["gt"], 0)
    best = evaluator.run(loaded.model, torch.device("cpu"), thresholds=1000)["gt"].result()
    seen = {}
    for name in known_tables():
        table = load_table(name)
        request = reproduction(table, folder, trainable, threshold)
        for row in table.rows:
            for column in table.columns:
                cell = work_cell(row, column).model_copy(update={"split": "val", "then": ""})
                if cell.kind != "fit" or cell.figure in seen:
                    continue
                found = seen[cell.figure] = request._find(cell)
                if threshold == "validation":
                    assert found.value == figure_in(chosen, cell.figure), (name, row.name, column.title)
                elif not cell.figure.startswith(("CorLoc", "LPE", "LME", "MIns")):
                    assert found.value == figure_in(best, cell.figure), (name, row.name, column.title)
                if found.value is not None and cell.figure not in ("PxAP", "CL"):
                    assert found.threshold.oracle == (threshold == "best")
    assert {"MaxBoxAcc", "MaxBoxAccV2", "Top-1", "CorLoc"} <= {name for name, found in seen.items() if found.value}


def smaller(recipe):
    """The recipe with a network of the same kind that is built in milliseconds."""
    patch = 14 if recipe.size % 16 else 16
    vit = {"img_size": recipe.size, "patch_size": patch, "embed_dim": 96, "depth": 4, "num_heads": 2}
    known = type(recipe).model_fields
    if any(
        word in str(getattr(recipe, name, "")) for name in ("backbone", "encoder") for word in ("vit", "deit", "eva")
    ):
        own = {"backbone": "vit_tiny_patch16_224", "encoder": "vit_tiny_patch16_224", "model_args": vit}
        return recipe.model_copy(update={key: value for key, value in own.items() if key in known})
    return recipe.model_copy(update={"size": min(recipe.size, 128)})


BUILT = set()
"""Networks that were built for a plan; the filled store needs them no second time."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("filled", [False, True])
def test_the_plan_of_every_table_ends_without_an_error_in_an_empty_and_in_a_filled_store(tmp_path, monkeypatch, filled):
    """Networks are built for it; that a forward pass gives the hours is tested where one is measured."""

    def build(recipe, *given, **more):
        network = recipe.model_dump_json(include={"method", "backbone", "encoder", "model", "model_args", "size"})
        if network not in BUILT:
            build_bare(smaller(recipe), 5, "cpu", classifier="resnet18")
            BUILT.add(network)
        return SimpleNamespace()

    monkeypatch.setattr(bare, "build_bare", build)
    monkeypatch.setattr(bare, "_forward", lambda *_: 0.01)
    words = []
    if filled:
        root = tmp_path / "images"
        build_store(tmp_path / "other", rows=8, sizes=(30, 40))
        (tmp_path / "other/images").rename(root)
        for name in known_datasets():
            text = f"name: {name}\nlayout: folder\nroot: {root}\nclasses: 5\nsplit: {{train: ., val: ., test: .}}\n"
            (tmp_path / f"{name}.yaml").write_text(text)
            work.run_stage(["stage=index", f"dataset={tmp_path}/{name}.yaml", f"store={tmp_path}/store", "threads=1"])
    for name in known_tables():
        sets = [each for each in load_table(name).datasets if (tmp_path / f"{each}.yaml").exists()]
        words = [f"dataset={','.join(f'{tmp_path}/{each}.yaml' for each in sets)}"] if sets else []
        place = [f"store={tmp_path}/store", f"out={tmp_path}/out", "device=cpu"]
        plan, lines = reproduce([f"table={name}", *place, *words, "plan=true"])
        assert lines[-1].endswith("as far as rates are known"), name
        for each in plan["work"]:
            assert not each["note"].startswith("not measured"), (name, each)
    assert not (tmp_path / "out").exists()


KINDS = """
title: A row of each kind
source: a table of kinds without published figures
configurations: 1
annotators: {cls: {}, GT: {}}
columns:
  - {title: MaxBoxAcc, dataset: demo, figure: MaxBoxAcc}
  - {title: MaxBoxAccV2, dataset: demo, figure: MaxBoxAccV2}
rows:
  - {name: quoted, absent: method, published: [70.0, null]}
  - {name: maps, stage: cams, published: [null, null]}
  - {name: chosen maps, stage: cls_maps, words: {select: classifier}, published: [null, null]}
  - {name: one class, stage: cams, figure: CorLoc.per_class.0, published: [null, null]}
  - {name: boxes, stage: proposals, published: [null, null]}
  - {name: CLIP, stage: clip_cams, figure: Top-5, stages: {clip_cams.target: predicted, clip_cams.slots: 5}, published: [null, null]}
  - {name: own weights, stage: cls_maps, weights_of: mocov3, store: own, published: [null, null]}
  - {name: trained, fit: cam, published: [null, null]}
  - {name: refined, fit: molt, keys: {sizes: [64], size: 64}, then: refine, stages: {refine.w: 0.5, segments.method: felzenszwalb}, published: [null, null]}
  - {name: protocol, search: cam, select: [BT, VT], annotator: GT, published: [null, null]}
  - {name: protocol by accuracy, search: cam, select: [BV, VT], annotator: cls, published: [null, null]}
  - {name: "accuracy, tau of gt", search: cam, select: [BT, TT], annotator: "cls, tau of gt", published: [null, null]}
  - {name: eroded masks, labels: val, by: "noisy:20", figure: mask error, published: [null, null]}
  - {name: chosen by eroded masks, fit: cam, by: "noisy:20", figure: PxAP, published: [null, null]}
  - {name: pseudo-masks, labels: val, by: val_masks, figure: mask error, published: [null, null]}
  - {name: range, range: [cam, ts_cam], figure: lr, published: [log-uniform 1e-05 to 1, null]}
  - {name: cost, complexity: cam, figure: parameters, published: [null, null]}
"""  # noqa: E501


@pytest.fixture(scope="module")
def few(tmp_path_factory, repo):
    """The demo's YAML with sixteen images of each split, and fewer epochs of its classifier."""
    folder, home = tmp_path_factory.mktemp("few"), repo / "data/demo"
    for split in ("train", "val", "test"):
        (folder / "metadata" / split).mkdir(parents=True)
        chosen = (home / "metadata" / split / "image_ids.txt").read_text().splitlines()[:16]
        for path in (home / "metadata" / split).glob("*.txt"):
            lines = path.read_text().splitlines()
            kept = [line for line in lines if path.name == "classes.txt" or line.partition(",")[0] in chosen]
            (folder / "metadata" / split / path.name).write_text("\n".join(kept) + "\n")
    text = (repo / "data/demo.yaml").read_text().replace("demo/metadata", "metadata").replace("epochs: 4", "epochs: 1")
    (folder / "few.yaml").write_text(text.replace(" demo/", f" {home}/"))
    (folder / "kinds.yaml").write_text(KINDS)
    return folder


@pytest.mark.timeout(900)
def test_a_row_of_each_kind_is_run_to_its_figure_and_no_cell_that_can_be_measured_stays_empty(few, repo):
    weights = repo / "data/demo/weights/demo_vit.safetensors"
    words = [f"table={few}/kinds.yaml", f"dataset={few}/few.yaml", f"store={few}/store", f"out={few}/out",
             "device=cpu", "workers=0", "epochs=1", f"weights.mocov3={weights}"]  # fmt: skip
    found, text = reproduce(words)
    quoted, measured = found["cells"][:2], found["cells"][2:]
    assert [(each["value"], each["note"]) for each in measured if each["value"] is None or each["note"]] == []
    assert all(each["value"] is None and each["note"].startswith("a method of another paper") for each in quoted)
    values = {(each["row"], each["column"]): each["value"] for each in measured}
    assert values["eroded masks", "MaxBoxAcc"] == pytest.approx(10, abs=1)
    assert values["range", "MaxBoxAcc"] == "log-uniform 1e-05 to 1"
    assert "epochs chosen by gt, noisy:20" in text
    assert "epochs chosen by each cell's annotator, in 1 configurations of each recipe (as published)" in text
    plan, lines = reproduce([*words, "plan=true"])
    assert {each["state"] for each in plan["work"]} == {"done"}
    assert lines[-1].startswith("0.0 hours")
