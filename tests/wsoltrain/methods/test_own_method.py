"""A method of another package: declared by an entry point, trained, evaluated, exported and used as any other."""

from __future__ import annotations

import json
import os

import pytest

from e2e.toy import Toy

RECIPE = "method: hiding\nsize: 64\nepochs: 3\nbatch: 16\noptimiser: adamw\nlr: 0.01\nschedule: cosine\n"


@pytest.fixture
def call(outside, tmp_path):
    """Run a program, with the packages of tests/outside installed, and return what it printed."""
    toy = Toy(tmp_path, {"PYTHONPATH": os.pathsep.join(filter(None, [str(outside), os.environ.get("PYTHONPATH")]))})

    def run(program, *words):
        done = toy.command_line(list(words), program=program)
        assert done.code == 0, done.err
        return done.out

    return run


@pytest.mark.slow
def test_a_method_of_another_package_trains_on_the_demo_is_evaluated_and_exported(call, tmp_path):
    (tmp_path / "hiding.yaml").write_text(RECIPE)
    store, out = f"store={tmp_path / 'store'}", tmp_path / "run"
    call("wsolpipe", "run", "stage=index", "dataset=demo", "split=train,val", store)
    fit = ["fit", f"recipe={tmp_path / 'hiding.yaml'}"]
    assert "Channels of the first layer" in call("wsoltrain", *fit, "--help")
    words = ["dataset=demo", store, "workers=0", "device=cpu"]
    trained = json.loads(call("wsoltrain", *fit, *words, "by=gt", f"out={out}", "--json"))
    assert trained["steps"] == 3 * (288 // 16)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [line["classes"] for line in lines if line["kind"] == "step"]
    assert sum(losses[-10:]) < 0.97 * sum(losses[:10])
    scoring = ["eval", f"checkpoint={out}", *words, "split=val", "beside=none", "--json"]
    scores = json.loads(call("wsoltrain", *scoring))["localizer"]
    assert scores["MaxBoxAcc"] == pytest.approx(trained["best"]["gt"], abs=1.0)
    exported = json.loads(call("wsoltrain", "export", f"checkpoint={out}", "formats=torch", "--json"))
    assert exported["outputs"] == {"map": ["batch", 8, 8], "classes": ["batch", 8]}
