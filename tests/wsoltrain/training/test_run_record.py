"""What a run leaves about itself, and that what it read is found in use."""

from __future__ import annotations

import json
from importlib import metadata
from types import SimpleNamespace

from trained import words
from wsolpipe import open_store
from wsolpipe.metrics.protocol import RUN_FILE
from wsolpipe.share.selection import keys_of_runs
from wsoltrain.cli.main import cli
from wsoltrain.training.run_folder import RunRecord


def test_hours_grow_over_the_starts_of_a_run_and_a_damaged_file_is_written_anew(tmp_path, monkeypatch):
    clock = iter([0.0, 0.0, 3600.0, 7200.0, 0.0, 0.0, 1800.0, 5.0, 5.0])
    monkeypatch.setattr("wsoltrain.training.run_folder.time", SimpleNamespace(monotonic=lambda: next(clock)))
    first = RunRecord(tmp_path, {"keys": {}}, gpus=2)
    first.write("step", 1, {})  # reads no clock
    first.write("speed", 1, {})
    first.close()
    second = RunRecord(tmp_path, {"keys": {}}, gpus=2)
    second.close()
    told = json.loads((tmp_path / RUN_FILE).read_text())
    assert (told["hours"], told["gpu_hours"], told["starts"]) == (2.5, 5.0, 2)
    assert told["begun"] <= told["date"]
    (tmp_path / RUN_FILE).write_text("{")
    RunRecord(tmp_path, {"keys": {}}, gpus=0)
    assert json.loads((tmp_path / RUN_FILE).read_text())["starts"] == 1


def test_a_training_names_what_it_reads_and_where_it_ran(trainable, tmp_path, monkeypatch):
    out = tmp_path / "runs" / "one"
    given = [*words(trainable, epochs=1, head_epochs=0), f"out={out}", "workers=0", "val=val"]
    monkeypatch.setattr("sys.argv", ["wsoltrain", *given])
    cli.main(given, standalone_mode=False)
    told = json.loads((out / RUN_FILE).read_text())
    split = open_store(trainable.url)["tiny"]["train"]
    used = {split[stage].key for stage in ("proposals", "cls_maps")} | {split.index().key}
    assert used <= set(told["keys"].values())
    assert told["command"].startswith("wsoltrain fit recipe=")
    assert told["versions"]["torch"] == metadata.version("torch")
    assert (told["device"], told["gpu_hours"], told["processes"], told["starts"]) == ("cpu", 0.0, 1, 1)
    assert told["hours"] > 0
    assert keys_of_runs([str(tmp_path / "runs")])[split["proposals"].key] == [str(out)]
