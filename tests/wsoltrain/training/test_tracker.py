"""Trackers: the same figures wherever they go, W&B without a network, and names that are not known."""

from __future__ import annotations

import json
import sys

import pytest

from wsolpipe.contract.errors import ConfigError
from wsoltrain.training.tracker import open_trackers

FIGURES = {"pixels": 0.5, "phase": "maps", "epoch": 1}


def test_figures_reach_lines_and_tensorboard(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_trackers("jsonl,tensorboard", tmp_path, {}) as trackers:
        for tracker in trackers:
            tracker.write("step", 3, FIGURES)
            tracker.write("val", 3, {"annotator": "proposals", "MaxBoxAcc": 71.5})
    told = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert told[0] == {"kind": "step", "step": 3, **FIGURES}
    kept = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(kept.Tags()["scalars"]) == {"step/pixels", "step/epoch", "val/proposals/MaxBoxAcc"}
    (scalar,) = kept.Scalars("val/proposals/MaxBoxAcc")
    assert (scalar.step, scalar.value) == (3, pytest.approx(71.5))


def test_wandb_keeps_runs_on_disk_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # whoever asks the network fails
    for _ in range(2):  # a run that goes on keeps its id
        with open_trackers("wandb", tmp_path / "run", {"lr": 0.1}) as trackers:
            for tracker in trackers:
                tracker.write("step", 1, FIGURES)
    records = sorted((tmp_path / "run/wandb").glob("offline-run-*/*.wandb"))
    assert records
    assert len({record.stem for record in records}) == 1
    assert all(b"step/pixels" in record.read_bytes() for record in records)


def test_unknown_and_missing_trackers_are_named(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="did you mean 'wandb'"), open_trackers("wand", tmp_path, {}):
        pass
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="needs the package wandb"), open_trackers("wandb", tmp_path, {}):
        pass
