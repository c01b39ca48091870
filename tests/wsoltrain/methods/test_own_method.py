"""A method of another package: declared by an entry point, trained, evaluated, exported and used as any other."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

RECIPE = "method: hiding\nsize: 64\nepochs: 4\nbatch: 16\noptimiser: adamw\nlr: 0.01\nschedule: cosine\n"


def call(package, *words):
    paths = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *words], env=environment, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_method_of_another_package_trains_on_the_demo_is_evaluated_and_exported(outside, tmp_path):
    (tmp_path / "hiding.yaml").write_text(RECIPE)
    store, out = f"store={tmp_path / 'store'}", tmp_path / "run"
    for split in ("train", "val"):
        call(outside, "wsolpipe.cli.main", "run", "stage=index", "dataset=demo", f"split={split}", store)
    fit = ["fit", f"recipe={tmp_path / 'hiding.yaml'}"]
    assert "Channels of the first layer" in call(outside, "wsoltrain", *fit, "--help")
    words = ["dataset=demo", store, "workers=2", "device=cpu"]
    trained = json.loads(call(outside, "wsoltrain", *fit, *words, "by=gt", f"out={out}", "--json"))
    assert trained["steps"] == 4 * (288 // 16)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [line["classes"] for line in lines if line["kind"] == "step"]
    assert sum(losses[-10:]) < 0.97 * sum(losses[:10])
    scoring = ["eval", f"checkpoint={out}", *words, "split=val", "beside=none", "--json"]
    scores = json.loads(call(outside, "wsoltrain", *scoring))["localizer"]
    assert scores["MaxBoxAcc"] == pytest.approx(trained["best"]["gt"], abs=1.0)
    exported = json.loads(call(outside, "wsoltrain", "export", f"checkpoint={out}", "formats=torch", "--json"))
    assert exported["outputs"] == {"map": ["batch", 8, 8], "classes": ["batch", 8]}
