"""``wsoltrain reproduce``: plan, cells beside the published ones, what is missing, and resuming."""

from __future__ import annotations

import csv
import json
import re

import pytest

from wsoltrain.cli.main import main
from wsoltrain.papers import bare
from wsoltrain.papers.bare import build_bare

TABLE = """
title: A small table of 50 %
source: a source of published figures
notes: [the second figure was never published]
columns:
  - {title: MaxBoxAcc, dataset: demo, figure: MaxBoxAcc}
  - {title: MaxBoxAccV2, dataset: demo, figure: MaxBoxAccV2}
rows:
  - {name: CAM, backbone: small, fit: cam, keys: {size: 32, lr: 0.02}, published: [61.5, null]}
  - {name: elsewhere, absent: a method of another paper, published: [70.0, 71.0]}
  - {name: unreleased, dataset: teldrone, fit: dips, published: [92.4, null]}
"""
KEYS = ("device=cpu", "workers=0", "epochs=1", "batch=32")


def call(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", *words])
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reproduce")
    (folder / "small.yaml").write_text(TABLE)
    return folder, (f"table={folder}/small.yaml", f"store={folder}/store", f"out={folder}/out", *KEYS)


def test_plan_then_cells_then_nothing_is_made_twice(words, capsys):
    folder, given = words
    code, text, _ = call(capsys, *given, "plan=true", "--json")
    assert code == 0
    plan = json.loads(text)
    states = {each["what"].split(" ")[0]: each["state"] for each in plan["work"]}
    assert states == {"stage": "missing", "training": "to train", "data": "missing"}
    (training,) = [each for each in plan["work"] if each["what"].startswith("training demo-cam")]
    assert (training["rows"], training["epochs"]) == (288, 1)
    assert 0 < training["hours"] < 1
    assert "3 forward passes on cpu" in training["note"]
    assert not (folder / "out").exists()

    code, text, _ = call(capsys, *given)
    assert code == 0
    assert re.search(r"^CAM, small +61\.5 \| [\d.]+\* ± [\d.]+ \| [-+][\d.]+ +– \| [\d.]+\* ± [\d.]+ \| –$", text, re.M)
    assert "here with epochs=1, batch=32, not as published" in text
    assert "epochs chosen by gt" in text
    assert "thresholds: its best on these images (oracle)" in text
    assert "* oracle: the truth of the scored images chose the threshold" in text
    assert "note: the second figure was never published" in text
    assert "note: elsewhere: a method of another paper" in text
    assert "note: unreleased: the data set teldrone is not described here" in text
    assert "TelDrone belongs to Ericsson" in text
    with (folder / "out" / "table.csv").open() as file:
        cells = list(csv.DictReader(file))
    first, second, *others = cells
    assert (first["oracle"], first["tau"], first["threshold"]) == ("True", "", "these images")
    assert float(first["difference"]) == pytest.approx(float(first["here"]) - 61.5)
    assert float(first["low"]) < float(first["here"]) < float(first["high"])
    assert float(second["low"]) < float(second["here"]) < float(second["high"])
    assert second["published"] == second["difference"] == ""
    assert all(cell["here"] == "" and cell["note"] for cell in others)
    latex = (folder / "out" / "table.tex").read_text()
    assert r"A small table of 50 \%" in latex
    assert r"61.5 & " in latex
    assert latex.count(r"\\") == latex.count("\n") - 10
    assert r"\textsuperscript{*}" in latex

    (run,) = (folder / "out").glob("demo-cam-*")
    with pytest.raises(SystemExit):
        main(["eval", f"checkpoint={run}", "dataset=demo", f"store={folder}/store", "device=cpu", "workers=0",
              "beside=none", "tau=0.5", "--json"])  # fmt: skip
    scored = json.loads(capsys.readouterr().out)["localizer"]
    kept = json.loads((run / "best-gt-test-best.figures").read_text())["figures"]
    assert kept["MaxBoxAcc"] == float(first["here"]) >= scored["MaxBoxAcc"]
    assert kept["accuracy_top1"] == scored["accuracy_top1"]

    before = [line for line in (run / "metrics.jsonl").read_text().splitlines() if '"step"' in line]
    code, text, _ = call(capsys, *given, "--json")
    again = json.loads(text)["cells"]
    assert again[0]["value"] == float(first["here"])
    assert [line for line in (run / "metrics.jsonl").read_text().splitlines() if '"step"' in line] == before
    code, text, _ = call(capsys, *given, "row=CAM", "plan=true", "--json")
    assert {each["state"] for each in json.loads(text)["work"]} == {"done"}


def test_tables_whose_names_hold_a_dot_keep_a_folder_and_a_caption_each(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WSOLPIPE_CUB_ROOT", raising=False)
    for name in ("4.1", "4.4"):
        assert call(capsys, f"table={name}", "dataset=cub", "store=store")[0] == 0
        assert f"Table {name}: " in (tmp_path / "reproduce" / name / "table.tex").read_text()


@pytest.mark.parametrize(("table", "row"), [("2.1", "F-CAM + LayerCAM"), ("3.5", "with orthogonalization")])
def test_the_plan_measures_networks_whose_parts_the_store_does_not_hold_yet(tmp_path, capsys, monkeypatch, table, row):
    monkeypatch.setattr(bare, "build_bare", lambda recipe, *given: build_bare(smaller(recipe), *given))
    place = (f"out={tmp_path}/out", f"store={tmp_path}/store", "device=cpu")
    code, text, errors = call(capsys, f"table={table}", f"row={row}", "dataset=cub", *place, "plan=true", "--json")
    assert (code, errors) == (0, "")
    (training,) = [each for each in json.loads(text)["work"] if each["what"].startswith("training")]
    assert training["hours"] > 0
    assert "3 forward passes on cpu" in training["note"]


def smaller(recipe):
    """The recipe with an encoder of the demo's size, whose forward pass takes milliseconds."""
    vit = {"img_size": recipe.size, "patch_size": 14, "embed_dim": 96, "depth": 2, "num_heads": 2}
    own = {"backbone": "vit_tiny_patch16_224", "encoder": "vit_tiny_patch16_224", "model_args": vit}
    return recipe.model_copy(update={key: value for key, value in own.items() if key in type(recipe).model_fields})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["table=2.66"], "unknown table '2.66'; did you mean '2.6'"),
        (["table=2.6", "row=pixel pseudolabels"], "did you mean 'pixel pseudo-labels'"),
        (["table=2.6", "dataset=demo"], "unknown data set of table 2.6 'demo'"),
        (["table=2.6", "threshold=test"], "unknown threshold 'test'"),
        (["table=2.6", "epoch=3"], "unknown key 'epoch'; did you mean 'epochs'"),
        (["row=CAM"], "reproduce needs table="),
        (["table=2.4", "weights.esvt=a.pth"], "unknown key 'weights.esvt'; did you mean 'weights.esvit'"),
        (["table=2.4", "weights.esvit=nowhere.pth"], "weights.esvit=nowhere.pth: no such file"),
        (["table=2.6", "configurations=0"], "expected integer, at least 1"),
    ],
)
def test_wrong_words_are_one_line_before_anything_is_made(tmp_path, capsys, more, message):
    code, _, errors = call(capsys, *more, f"out={tmp_path}/out")
    assert code == 3
    assert message in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


def test_without_the_data_every_row_says_what_to_put_where(tmp_path, capsys, monkeypatch):
    for name in ("CUB", "ILSVRC", "OPENIMAGES"):
        monkeypatch.delenv(f"WSOLPIPE_{name}_ROOT", raising=False)
    code, text, _ = call(capsys, "table=2.6", f"out={tmp_path}/out", f"store={tmp_path}/store")
    assert code == 0
    assert "89.2 | – | –" in text
    assert "export WSOLPIPE_CUB_ROOT=FOLDER" in text
    assert "vision.caltech.edu" in text
