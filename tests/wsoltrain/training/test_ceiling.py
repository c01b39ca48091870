"""``wsoltrain ceiling``: trained on ground truth, shown beside labels, and refused where something is chosen."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.evaluate.results import StoreResults
from wsolpipe.evaluate.truth import find_truth
from wsoltrain.cli import figures
from wsoltrain.training import ceiling as training
from wsoltrain.training.ceiling import true_mask

SMALL = [
    "backbone=vit_tiny_patch16_224", 'model_args={"patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 4}',
    "weights=null", "size=48", "batch=8", "lr=0.05", "schedule=cosine", "temperature=1",
]  # fmt: skip


def measure(store, out, *more):
    words = [f"store={store.url}", f"dataset={store.root}/../tiny.yaml", "test=val", "workers=0", "device=cpu"]
    given = {word.split("=")[0] for word in more}
    small = [word for word in SMALL if word.split("=")[0] not in given]
    words = ["recipe=dips", *words, f"out={out}", *small, *more, "--json"]
    return json.loads(CliRunner().invoke(figures.ceiling_command, words, catch_exceptions=False).output)


def test_ceiling_rises_with_training_and_stands_beside_labels(trainable, tmp_path):
    early, late = (measure(trainable, tmp_path / str(epochs), f"epochs={epochs}") for epochs in (1, 12))
    names = [line["name"] for line in late["table"]]
    assert names == ["centred box", "cls_maps", "cls_maps", "proposals", "ceiling"]
    assert late["table"][-1]["iou"] > early["table"][-1]["iou"] + 0.05
    assert late["table"][-1]["iou"] > late["table"][0]["iou"] + 0.1
    assert late["table"][-1]["threshold"].endswith("by ground truth of val")


def test_a_rate_at_which_nothing_is_learned_gives_way_to_a_lower_one(trainable, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(training._log, "warning", lambda text, *rates: said.append(rates))
    monkeypatch.setattr(training, "LOWER", (0.5, 1e-9, 1e-14))
    found = measure(trainable, tmp_path, "epochs=12", "lr=5e7")
    assert said == [(5e7, 0.05)]
    assert found["table"][-1]["iou"] > found["table"][0]["iou"] + 0.1  # as with 0.05 at once


def test_nothing_is_selected_by_a_ceiling_and_no_weights_are_kept(trainable, tmp_path):
    measure(trainable, tmp_path, "epochs=1")
    assert [path.name for path in tmp_path.rglob("*")] == ["ceiling.json"]
    with pytest.raises(DataError, match="trained on ground truth"):
        CliRunner().invoke(figures.select_command, [f"runs={tmp_path}"], catch_exceptions=False)


def test_a_method_whose_maps_are_no_probabilities_is_refused(trainable, tmp_path):
    words = [f"store={trainable.url}", f"dataset={trainable.root}/../tiny.yaml", "test=val", "workers=0", "device=cpu"]
    words += ["recipe=cam", "backbone=test_resnet.r160_in1k", "weights=null", "size=64", "batch=8", "epochs=1"]
    with pytest.raises(ConfigError, match="not probabilities"):
        CliRunner().invoke(figures.ceiling_command, [*words, f"out={tmp_path}"], catch_exceptions=False)


def test_boxes_are_filled_where_there_are_no_masks(trainable):
    results = StoreResults(trainable.url, "tiny", None)
    truth = find_truth(results, results.rows("train"), "gt")
    for row in (0, 7):
        mask, (width, height) = true_mask(truth, row, 64), truth.rows.sizes[row]
        (x0, y0, x1, y1), *others = truth.boxes(row)
        assert not others
        assert mask.mean() == pytest.approx((x1 - x0) * (y1 - y0) / width / height, abs=0.05)
        ys, xs = np.nonzero(mask)
        assert xs.min() / 64 * width == pytest.approx(x0, abs=1)
        assert (ys.max() + 1) / 64 * height == pytest.approx(y1, abs=1)
