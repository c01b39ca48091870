"""Search: seeded, shared by processes, gone on with after a kill, cut short where others did better."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner

from trained import SMALL, settings
from wsolpipe.contract.errors import ConfigError
from wsoltrain.cli import search as searching
from wsoltrain.runs.search import FOLDER, GOES_ON, STARTUP, TrialTracker, open_study, run
from wsoltrain.training.annotators import Annotator

RANGES = {"lr": {"low": 0.001, "high": 0.1, "log": True}, "pixels.n_fg": {"choices": [5, 20]}}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("search") / "small.yaml"
    small = {**SMALL, "model": "dips", "epochs": 1, "head_epochs": 0, "search": RANGES}
    path.write_text(yaml.safe_dump(small))
    return path


KILLED = """
import json, os, signal, sys, time
from pathlib import Path
from types import SimpleNamespace

import numcodecs, optuna, pandas, timm, torch, wsoltrain.methods.dips  # what each child would import again
import numpy as np
from trained import settings
from wsolpipe.metrics import iou_curves
from wsoltrain.runs.search import run

given = json.loads(sys.argv[1])
torch.set_num_threads(1)
for contours in ("largest", "all"):  # what is compiled is loaded once, and not by each child
    iou_curves(np.eye(9)[None], [np.array([[0, 0, 4, 4.0]])], contours=contours, threads=1)
store = SimpleNamespace(url=given["url"], root=given["root"])


def fork(out, worker=0):
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert sum(not name.startswith("jemalloc") for name in threads) == 1  # pyarrow's, which provides for forks
    child = os.fork()
    if not child:
        run(given["recipe"], {}, settings(store, Path(out)), trials=4, seed=5, worker=worker)
        os._exit(0)
    return child


def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


assert ended(fork(given["whole"])) == 0
child = fork(given["broken"])
second = Path(given["broken"], "trials/0001/metrics.jsonl")
while not (second.exists() and second.read_text().count("step") >= 2):
    time.sleep(0.005)
os.kill(child, signal.SIGKILL)
assert ended(child) == -signal.SIGKILL
assert ended(fork(given["broken"])) == 0
both = [fork(given["shared"], worker) for worker in (0, 1)]
assert [ended(child) for child in both] == [0, 0]
"""


@pytest.mark.slow
def test_search_is_seeded_shared_and_survives_a_kill(repo, trainable, recipe, tmp_path):
    given = {name: str(tmp_path / name) for name in ("whole", "broken", "shared")}
    given |= {"url": trainable.url, "root": trainable.root, "recipe": str(recipe)}
    found = [str(repo / "tests"), os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, found))}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(given)], env=environment,
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {}
    for name in ("whole", "broken", "shared"):
        study = run(str(recipe), {}, settings(trainable, tmp_path / name), trials=4, seed=5)
        trials = [each for each in study.get_trials() if each.state.name == "COMPLETE"]
        found[name] = {each.user_attrs[FOLDER]: (each.params, each.value) for each in trials}
        assert set(found[name]) == {"0000", "0001", "0002", "0003"}
        if name == "broken":
            assert [each.user_attrs[FOLDER] for each in trials if GOES_ON in each.user_attrs] == ["0001"]
    assert found["broken"] == found["whole"]  # the killed trial went on to the same figure
    assert len({params["lr"] for params, _ in found["shared"].values()}) == 4  # no two processes drew the same


def test_command_searches_and_names_the_fit(trainable, recipe, tmp_path):
    words = [
        f"recipe={recipe}", f"dataset={trainable.root}/../tiny.yaml", f"store={trainable.url}", f"out={tmp_path}",
        "workers=0", "trials=2", "device=cpu", "lr=0.02", "epochs=1",
    ]  # fmt: skip
    done = CliRunner().invoke(searching.command, words, catch_exceptions=False)
    assert "2 complete; best" in done.output
    assert "wsoltrain fit recipe=" in done.output
    assert "lr=0.02 epochs=1 pixels.n_fg=" in done.output
    told = json.loads(CliRunner().invoke(searching.command, [*words, "--json"], catch_exceptions=False).stdout)
    assert told["trials"] == {"complete": 2}
    assert set(told["settings"]) == {"pixels.n_fg"}
    figures = (tmp_path / "trials" / told["trial"] / "metrics.jsonl").read_text()
    assert '"annotator": "proposals"' in figures
    assert '"annotator": "gt"' not in figures
    with pytest.raises(ConfigError, match="search of another recipe and ranges"):
        CliRunner().invoke(searching.command, [word for word in words if word != "lr=0.02"], catch_exceptions=False)


def test_shared_configurations_are_trained_and_shown_in_one_table(trainable, recipe, tmp_path):
    words = [
        f"recipe={recipe}", f"dataset={trainable.root}/../tiny.yaml", f"store={trainable.url}", f"out={tmp_path}",
        "workers=0", "device=cpu", "shared=1", "each=2", "by=gt,noisy:10", "test=val", "outcomes=true",
    ]  # fmt: skip
    told = json.loads(CliRunner().invoke(searching.command, [*words, "--json"], catch_exceptions=False).stdout)
    first, second = told["runs"]
    assert [first["configuration"], second["configuration"]] == ["c000-00", "c000-01"]
    assert first["lr"] == second["lr"]  # of the configuration; pixels.n_fg is the method's own
    assert {path.name for path in tmp_path.glob("c*/outcomes/*")} == {"0000.npz"}
    assert first["test"] is not None
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("best-*")}
    shown = CliRunner().invoke(searching.command, words, catch_exceptions=False).output
    assert shown.splitlines()[0].split()[:3] == ["configuration", "lr", "pixels.n_fg"]
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("best-*")}  # nothing is trained twice
    with pytest.raises(ConfigError, match="cluster=dask-local runs trainings that are drawn beforehand"):
        CliRunner().invoke(searching.command, [*words[:6], "cluster=dask-local"], catch_exceptions=False)


def test_trials_worse_than_the_others_are_cut_short(tmp_path):
    import optuna

    study = open_study(tmp_path, {"ranges": {}}, prune=True, take_up=True)

    def told(*scores: float) -> optuna.Trial:
        trial = study.ask()
        trainer = SimpleNamespace(settings=SimpleNamespace(first=Annotator("proposals", "proposals")), best={})
        tracker = TrialTracker(trial, trainer)
        for epoch, score in enumerate(scores):
            trainer.best["proposals"] = score
            tracker.write("val", epoch, {"annotator": "proposals", "epoch": epoch})
        return trial

    for number in range(STARTUP):
        study.tell(told(40 + number, 60), 60)
    told(50, 70)
    with pytest.raises(optuna.TrialPruned):
        told(10)
