"""Trackers: the same figures, pictures and hyper-parameters wherever they go, and names that are not known."""

from __future__ import annotations

import json
import struct
import sys
import time

import pytest
from PIL import Image

from trained import words
from wsolpipe.contract.errors import ConfigError
from wsoltrain.cli.main import cli
from wsoltrain.training.tracker import PictureTracker, open_trackers

FIGURES = {"pixels": 0.5, "count no box": 2, "phase": "maps", "epoch": 1}
NAMES = {"step/pixels", "step/count_no_box", "step/epoch", "val/noisy_10/MaxBoxAcc"}
RECIPE = {"lr": 0.1, "pixels": {"n_fg": 20}, "weights": None}


def give(trackers):
    """A step, a validation and a picture, to all of them."""
    for tracker in trackers:
        tracker.write("step", 3, FIGURES)
        tracker.write("val", 3, {"annotator": "noisy:10", "MaxBoxAcc": 71.5})
        if isinstance(tracker, PictureTracker):
            tracker.show("rows/best", 3, Image.new("RGB", (8, 6), "red"))


def test_figures_reach_lines_and_tensorboard(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    with open_trackers("jsonl,tensorboard", tmp_path, RECIPE) as trackers:
        give(trackers)
    told = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert told[0] == {"kind": "step", "step": 3, **FIGURES}
    kept = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(kept.Tags()["scalars"]) == NAMES
    (scalar,) = kept.Scalars("val/noisy_10/MaxBoxAcc")
    assert (scalar.step, scalar.value) == (3, pytest.approx(71.5))
    (picture,) = kept.Images("rows/best")
    assert (picture.step, picture.width, picture.height) == (3, 8, 6)
    pages = kept.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    given = plugin_data_pb2.HParamsPluginData.FromString(pages).session_start_info.hparams
    assert {name: value.number_value for name, value in given.items() if name != "weights"} == {
        "lr": 0.1, "pixels.n_fg": 20
    }  # fmt: skip
    page = plugin_data_pb2.HParamsPluginData.FromString(
        kept.SummaryMetadata("_hparams_/experiment").plugin_data.content
    )
    assert [each.name.tag for each in page.experiment.metric_infos] == ["val/noisy_10/MaxBoxAcc"]


def finished(path):
    """Records of a ``.wandb`` file once its last one is there: wandb writes on after `finish` has returned."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = list(records(path.read_bytes()))
        if found and found[-1].HasField("exit"):
            return found
        time.sleep(0.05)
    pytest.fail(f"{path} has no end")


def records(data):
    """Records of a ``.wandb`` file: a log of blocks of 32 KiB, in which a record may lie in several pieces."""
    from wandb.proto.wandb_internal_pb2 import Record

    at, parts = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if at + 7 + length > len(data):
            return
        parts, at = parts + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(parts)
            parts = b""


def test_wandb_keeps_runs_on_disk_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # whoever asks the network fails
    for _ in range(2):  # a run that goes on keeps its id
        with open_trackers("wandb", tmp_path / "run", RECIPE) as trackers:
            give(trackers)
    files = sorted((tmp_path / "run/wandb").glob("offline-run-*/*.wandb"))
    assert files
    assert len({file.stem for file in files}) == 1
    for file in files:
        told, settings = {}, {}
        for record in finished(file):
            for item in record.history.item:
                told["/".join(item.nested_key)] = json.loads(item.value_json)
            settings |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        assert {name for name in told if name.startswith(("step/", "val/"))} == NAMES
        assert (told["val/noisy_10/MaxBoxAcc"], told["step"], settings["lr"]) == (71.5, 3, 0.1)
        assert (told["rows/best/width"], told["rows/best/height"]) == (8, 6)


def test_mlflow_keeps_runs_in_files_and_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="needs mlflow")
    from mlflow import MlflowClient

    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "one's run"
    for _ in range(2):
        with open_trackers("mlflow", folder, RECIPE) as trackers:
            give(trackers)
    client = MlflowClient((folder / "mlflow").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("wsoltrain").experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "one's run")
    assert run.data.params == {"lr": "0.1", "pixels.n_fg": "20", "weights": "null"}
    assert set(run.data.metrics) == NAMES
    assert [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, "step/pixels")] == [
        (3, 0.5)
    ] * 2
    (kept,) = client.list_artifacts(run.info.run_id, "rows/best")
    assert Image.open(client.download_artifacts(run.info.run_id, kept.path)).size == (8, 6)


def test_a_training_shows_what_its_steps_see_and_its_best_and_worst_rows(trainable, tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    given = [*words(trainable, epochs=1, head_epochs=0), "workers=0", "val=val", "by=gt", "ema=0.9"]
    for track in ("jsonl", "tensorboard"):
        cli.main([*given, f"out={tmp_path / track}", f"track={track}"], standalone_mode=False)
    kept = EventAccumulator(str(tmp_path / "tensorboard/tensorboard")).Reload()
    assert set(kept.Tags()["images"]) == {"items", "rows/best", "rows/worst"}
    best, worst = (kept.Images(f"rows/{name}")[0] for name in ("best", "worst"))
    assert best.encoded_image_string != worst.encoded_image_string
    weights = [(tmp_path / track / "best-gt.safetensors").read_bytes() for track in ("jsonl", "tensorboard")]
    assert weights[0] == weights[1]  # pictures change nothing


def test_unknown_and_missing_trackers_are_named(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="did you mean 'wandb'"), open_trackers("wand", tmp_path, {}):
        pass
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="needs the package wandb"), open_trackers("wandb", tmp_path, {}):
        pass
