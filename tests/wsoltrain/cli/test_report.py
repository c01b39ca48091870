"""``wsoltrain report``: the page says what `select` says, and names of runs stay text."""

from __future__ import annotations

import json

import numpy as np
import pytest

from wsolpipe.metrics.protocol import Run, write_run
from wsoltrain.cli.main import main

EVIL = "<script>alert(1)</script>"


def call(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


def entry(height: float) -> dict[str, object]:
    curve = np.round(200 * height * np.exp(-((np.arange(100) / 100 - 0.4) ** 2) / 0.05)).astype(int)
    levels = {"30": curve.tolist(), "50": (curve // 2).tolist(), "70": (curve // 4).tolist()}
    return {"rows": 200, "largest": {"50": (curve // 2).tolist()}, "all": levels, "iou": (curve / 250).tolist()}


@pytest.fixture
def finished(tmp_path):
    """Two runs of three epochs, the second of a hostile name, with losses and a test split."""
    steps = [{"kind": "step", "step": step, "pixels": 1 / step, "epoch": 0, "phase": "maps"} for step in (1, 2, 3)]
    for place, name in enumerate(("dips", EVIL)):
        folder = tmp_path / f"run{place}"
        for epoch in range(3):
            height = 0.5 + 0.1 * epoch - 0.05 * place
            validation = {"proposals": entry(height), "gt": entry(height - 0.1)}
            write_run(folder / "runs", Run(name.replace("/", "-"), epoch, validation, {"gt": entry(0.4)}))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps))
    (tmp_path / "run0").rename(tmp_path / "dips")
    return tmp_path


def test_page_shows_the_choice_of_select_and_the_table_of_what_it_cost(finished, capsys):
    code, told, errors = call(capsys, "report", f"runs={finished}", "by=proposals", "--json")
    assert code == 0, errors
    found = json.loads(told)
    _, chosen, _ = call(capsys, "select", f"runs={finished}", "by=proposals", "--json")
    wanted = json.loads(chosen)
    assert (found["run"], found["epoch"], found["tau"]) == (wanted["run"], wanted["epoch"], wanted["tau"])
    page = (finished / "report.html").read_text()
    assert f"<b>{wanted['score']:.1f}</b> MaxBoxAcc" in page
    for cell in wanted["table"]:
        assert f">{cell['MaxBoxAcc']:.1f}</td>" in page
        assert f">{100 * cell['iou']:.1f}</td>" in page
    assert "pixels (highest 1)" in page
    assert page.count("<script") == 1  # its own
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["runs=nowhere"], "nowhere"),
        (["by=ss"], "ss"),
        (["metric=acc"], "did you mean 'MaxBoxAcc'"),
        (["outt=x"], "did you mean 'out'"),
        ([], "runs="),
    ],
)
def test_wrong_words_are_said(finished, capsys, words, told):
    given = words if not words or words[0].startswith("runs") else [f"runs={finished}", *words]
    code, _, errors = call(capsys, "report", *given)
    assert code in (3, 4, 1)
    assert told in errors
    assert "Traceback" not in errors
