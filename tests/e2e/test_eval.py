"""`wsolpipe eval` on reference maps, real masks and a folder of runs whose right answer is known."""

from __future__ import annotations

import contextlib
import csv
import json

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from wsolpipe.cli.eval import command
from wsolpipe.contract.errors import ConfigError
from wsolpipe.metrics.protocol import Run, write_run

SUBSET = ("image_ids", "class_labels", "image_sizes", "localization")


def answer(*words):
    done = CliRunner().invoke(command, [*words, "--json"], catch_exceptions=False)
    return json.loads(done.stdout)


def call(*words, folder):
    with contextlib.chdir(folder):
        return answer(*words, "threads=1", f"store={folder / 'none'}")


def write_dataset(folder, source, ids, extra=""):
    """Metadata of some images of a folder in the field's layout, and a YAML beside it."""
    wanted = set(ids)
    for name in SUBSET:
        lines = [line for line in (source / f"{name}.txt").read_text().splitlines() if line.split(",")[0] in wanted]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    yaml = folder / "part.yaml"
    yaml.write_text(
        f"name: part\nlayout: metadata\nroot: {source / 'images'}\nmetadata: .\nsplit: val\n"
        f"files: {{classes: null}}\n{extra}"
    )
    return yaml


def save_maps(folder, ids, maps):
    for name, values in zip(ids, maps, strict=True):
        path = folder / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values)


def test_reference_maps_give_the_reference_counts_at_every_threshold(shared, tmp_path):
    packed = np.load(shared / "data" / "golden" / "ilsvrc_val_maps.npz")
    want = json.loads((shared / "data" / "golden" / "ilsvrc_val_scores.json").read_text())
    ids = [str(name) for name in packed["ids"][::4]]
    yaml = write_dataset(tmp_path, shared / "data" / "ilsvrc_val_acuity", ids)
    for name, maps in (("cam", packed["cam"][::4]), ("attn_mean", packed["attn"][::4].mean(axis=1))):
        save_maps(tmp_path / name, ids, maps)
        found = call(f"maps={name}", f"dataset={yaml}", f"csv={name}.csv", folder=tmp_path)
        assert found["rows_scored"] == 195
        assert found["MaxBoxAcc"] == pytest.approx(want[name]["MaxBoxAcc"][0], abs=1e-9)
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            curves = list(csv.DictReader(file))
        columns = {"largest 0.5": want[name]["MaxBoxAcc_counts"]["50"]}
        columns |= {f"all 0.{level}": want[name]["MaxBoxAccV2_counts"][f"{level}0"] for level in (3, 5, 7)}
        for column, counts in columns.items():
            assert [round(195 * float(row[column])) for row in curves] == counts, (name, column)


def test_pxap_of_real_masks_is_the_definition_in_float64(shared, tmp_path):
    source = shared / "data" / "ecssd_masks"
    ids = (source / "image_ids.txt").read_text().split()[::8]
    yaml = write_dataset(tmp_path, source, ids, extra=f"masks: {source / 'masks'}\n")
    rng, scores, truth = np.random.default_rng(0), [], []
    for name in ids:
        mask = cv2.imread(str(source / "masks" / f"{name[:-4]}.png"), cv2.IMREAD_GRAYSCALE)
        truth.append(cv2.resize(mask, (224, 224), interpolation=cv2.INTER_NEAREST) > 0)
        score = rng.random((224, 224)) + 0.3 * truth[-1]
        scores.append((score - score.min()) / (score.max() - score.min()))
    save_maps(tmp_path / "maps", ids, scores)
    found = call("maps=maps", f"dataset={yaml}", folder=tmp_path)
    pooled, flags = np.concatenate([part.ravel() for part in scores]), np.concatenate([part.ravel() for part in truth])
    edges = np.append(np.arange(1000) / 1000, [1, 2, 3])
    true, false = (np.histogram(pooled[part], edges)[0][::-1].cumsum().astype(np.float64) for part in (flags, ~flags))
    with np.errstate(invalid="ignore"):
        area = 100 * np.nansum(np.diff(true / true[-1]) * (true / (true + false))[1:])
    assert 30 < area < 99.9
    assert found["PxAP"] == pytest.approx(area, abs=1e-9)
    save_maps(tmp_path / "perfect", ids, [part.astype(np.float64) for part in truth])
    assert call("maps=perfect", f"dataset={yaml}", folder=tmp_path)["PxAP"] == pytest.approx(100, abs=1e-9)
    save_maps(tmp_path / "constant", ids, [np.ones((7, 7))] * len(ids))
    constant = call("maps=constant", f"dataset={yaml}", folder=tmp_path)
    # A constant map is zero after min-max: all pixels fall into the lowest bin, which adds the share of foreground.
    assert constant["PxAP"] == pytest.approx(100 * flags.mean(), abs=1e-9)
    assert constant["rows_unusable"] == len(ids)


def entry(best, at, rows=100):
    """Figures that peak with `best` correct images at threshold number `at` of ten."""
    counts = [max(best - 10 * abs(at - place), 0) for place in range(10)]
    every = {"30": counts, "50": counts, "70": counts}
    return {"rows": rows, "largest": {"50": counts}, "all": every, "iou": [count / rows for count in counts]}


def test_the_protocol_table_names_the_model_and_threshold_that_each_annotator_would_choose(tmp_path):
    # Run a is best on test, run b by pseudo-boxes, run c by accuracy; thresholds differ between the splits.
    runs = {
        "a": ({"accuracy": 10.0, "gt": entry(90, 4), "ss": entry(50, 6)}, {"gt": entry(80, 5)}),
        "b": ({"accuracy": 20.0, "gt": entry(60, 3), "ss": entry(70, 2)}, {"gt": entry(75, 3)}),
        "c": ({"accuracy": 30.0, "gt": entry(50, 1), "ss": entry(40, 1)}, {"gt": entry(60, 4), "otsu": entry(55, 0)}),
    }
    for name, (validation, test) in runs.items():
        write_run(tmp_path / "runs", Run(name, 1, validation, test))
    table = answer(f"runs={tmp_path / 'runs'}")["table"]
    cells = {
        (cell["annotator"], cell["model"] + cell["threshold"]): (cell["run"], cell["tau"], cell["MaxBoxAcc"])
        for cell in table
    }
    assert cells == {
        ("cls", "BTTT"): ("c", "otsu", 55), ("cls", "BTVT"): ("c", "otsu", 55),
        ("cls", "BVTT"): ("c", "otsu", 55), ("cls", "BVVT"): ("c", "otsu", 55),
        ("gt", "BTTT"): ("a", 0.5, 80), ("gt", "BTVT"): ("b", 0.3, 75),
        ("gt", "BVTT"): ("a", 0.5, 80), ("gt", "BVVT"): ("a", 0.4, 70),
        ("ss", "BTTT"): ("a", 0.5, 80), ("ss", "BTVT"): ("a", 0.6, 70),
        ("ss", "BVTT"): ("b", 0.3, 75), ("ss", "BVVT"): ("b", 0.2, 65),
    }  # fmt: skip
    realistic = {(cell["annotator"], cell["model"] + cell["threshold"]) for cell in table if not cell["oracle"]}
    assert realistic == {("cls", "BVTT"), *((name, "BVVT") for name in ("cls", "gt", "ss"))}
    assert all("iou" in cell for cell in table)


def test_words_that_contradict_each_other_are_refused_before_anything_is_read():
    for words, text in (
        (["stage=cls_maps", "dataset=demo", "tau=0.2", "tau_from=val_boxes"], "both say where the threshold is from"),
        (["stage=cls_maps", "dataset=demo", "select=classifier", "map=1"], "both say which map"),
        (["stage=cls_maps", "maps=.", "dataset=demo"], "one stage, or one folder of maps"),
        (["stage=cls_maps", "dataset=demo", "metric=MaxBoxAc"], "did you mean 'MaxBoxAcc'"),
    ):
        with pytest.raises(ConfigError, match=text):
            CliRunner().invoke(command, words, catch_exceptions=False)
