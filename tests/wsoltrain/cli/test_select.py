"""``wsoltrain select`` on runs whose right answer is known by construction."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from wsolpipe.contract.errors import ConfigError
from wsolpipe.metrics.protocol import Run, write_run
from wsoltrain.cli.figures import select_command


def entry(height, *, best=(4,), v2=0):
    half = [height if place in best else height // 2 for place in range(10)]
    counts = {"30": half, "50": half, "70": [v2] * 10}
    return {"rows": 100, "largest": {"50": half}, "all": counts, "iou": [share / 200 for share in half]}


def choose(*words):
    result = CliRunner().invoke(select_command, [*words, "--json"], catch_exceptions=False)
    return json.loads(result.output)


def test_a_run_scored_by_val_boxes_is_chosen_by_them_without_being_asked(tmp_path):
    for epoch, (pseudo, truth) in enumerate([(50, 10), (60, 20), (40, 90)]):
        write_run(tmp_path, Run("a", epoch, {"val_boxes": entry(pseudo), "gt": entry(truth)}))
    chosen = choose(f"runs={tmp_path}")
    assert (chosen["by"], chosen["epoch"], chosen["score"]) == ("val_boxes", 1, 60.0)
    assert choose(f"runs={tmp_path}", "by=gt")["epoch"] == 2


def test_runs_of_different_annotators_must_be_asked_for_one(tmp_path):
    write_run(tmp_path, Run("a", 0, {"val_boxes": entry(50), "gt": entry(1)}))
    write_run(tmp_path, Run("b", 0, {"proposals": entry(50), "gt": entry(2)}))
    with pytest.raises(ConfigError, match="run a, epoch 0 by val_boxes, run b, epoch 0 by proposals"):
        choose(f"runs={tmp_path}")
    assert choose(f"runs={tmp_path}", "by=gt")["run"] == "b"


def test_ties_and_flat_curves_are_reported_beside_the_choice(tmp_path):
    for epoch, v2 in enumerate((10, 30, 20)):
        write_run(tmp_path, Run("a", epoch, {"proposals": entry(80, best=(3, 4, 5), v2=v2)}))
    chosen = choose(f"runs={tmp_path}")
    assert (chosen["epoch"], chosen["tau"]) == (1, 0.4)
    assert [text.split(":")[0] for text in chosen["doubts"]] == ["3 of 3 epochs tie at 80.00", "flat curve"]
    shown = CliRunner().invoke(select_command, [f"runs={tmp_path}"]).output
    assert "note: 3 of 3 epochs tie" in shown
