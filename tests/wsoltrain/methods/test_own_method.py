"""A method of another package: declared by an entry point, trained, evaluated, exported and used as any other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("own_method.py")
RECIPE = "method: hiding\nsize: 64\nepochs: 4\nbatch: 16\noptimiser: adamw\nlr: 0.01\nschedule: cosine\n"


@pytest.fixture
def package(tmp_path):
    """An installed package that holds the method, in a folder of its own."""
    site = tmp_path / "site"
    info = site / "hiding-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "hiding.py").write_text(SOURCE.read_text())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hiding\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[wsoltrain.methods]\nhiding = hiding:Hiding\n")
    (tmp_path / "hiding.yaml").write_text(RECIPE)
    return site


def call(package, *words):
    paths = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *words], env=environment, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_method_of_another_package_is_at_most_sixty_lines():
    assert len(SOURCE.read_text().splitlines()) <= 60


@pytest.mark.slow
def test_a_method_of_another_package_trains_on_the_demo_is_evaluated_and_exported(package, tmp_path):
    store, out = f"store={tmp_path / 'store'}", tmp_path / "run"
    for split in ("train", "val"):
        call(package, "wsolpipe.cli.main", "run", "stage=index", "dataset=demo", f"split={split}", store)
    fit = ["fit", f"recipe={tmp_path / 'hiding.yaml'}"]
    assert "Channels of the first layer" in call(package, "wsoltrain", *fit, "--help")
    words = ["dataset=demo", store, "workers=0", "device=cpu"]
    trained = json.loads(call(package, "wsoltrain", *fit, *words, "by=gt", f"out={out}", "--json"))
    assert trained["steps"] == 4 * (288 // 16)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [line["classes"] for line in lines if line["kind"] == "step"]
    assert sum(losses[-10:]) < 0.97 * sum(losses[:10])
    scoring = ["eval", f"checkpoint={out}", *words, "split=val", "beside=none", "--json"]
    scores = json.loads(call(package, "wsoltrain", *scoring))["localizer"]
    assert scores["MaxBoxAcc"] == pytest.approx(trained["best"]["gt"], abs=1.0)
    exported = json.loads(call(package, "wsoltrain", "export", f"checkpoint={out}", "formats=torch", "--json"))
    assert exported["outputs"] == {"map": ["batch", 8, 8], "classes": ["batch", 8]}
