"""Top-1 and Top-5 localization: the rank of the label, and the label's own map."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from stores import DATASET, INDEX_KEY, build_store, write_stage
from wsolpipe.contract.schema import ArraySpec, Status
from wsolpipe.evaluate.figures import Frame
from wsolpipe.evaluate.map_scores import score_against, score_maps
from wsolpipe.evaluate.map_sources import MapBatch, StageMaps
from wsolpipe.evaluate.results import StoreResults
from wsolpipe.evaluate.truth import find_truth
from wsolpipe.metrics import iou_curves, standard_boxes, standard_maps

ROWS, CLASSES, KEY = 32, 7, "eeee000011112222"


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """A store whose stage ``cams`` holds maps of five likely classes by two methods; only the label's one fits."""
    folder = tmp_path_factory.mktemp("ranked")
    tiny = build_store(folder, rows=ROWS, classes=CLASSES, split="val", quarantined={5: "truncated"})
    rng = np.random.default_rng(0)
    classes = np.stack([rng.permutation(CLASSES)[:5] for _ in range(ROWS)]).astype(np.int32)
    maps = rng.integers(0, 256, (ROWS, 2, 5, 14, 14), dtype=np.uint8)
    hit = classes == np.array(tiny.labels)[:, None]
    for row, rank in zip(*np.nonzero(hit), strict=True):
        maps[row, 1, rank] = tiny.maps[row, 0]
    arrays = {
        "maps": (ArraySpec(dtype="uint8", shape=(10, 14, 14)), maps.reshape(ROWS, 10, 14, 14)),
        "class_ids": (ArraySpec(dtype="int32", shape=(10,), fill=-1), np.tile(classes, 2)),
    }
    write_stage(tiny.url, "cams", KEY, arrays, status=tiny.status, split="val")
    path = folder / "store" / DATASET / "val" / "cams" / KEY / "manifest.json"
    params = {"target": "top5", "methods": ["cam", "layercam"]}
    path.write_text(json.dumps({**json.loads(path.read_text()), "params": params}))
    return tiny, classes, maps


def test_top5_of_a_stage_takes_the_map_of_the_label_wherever_it_ranks(ranked):
    tiny, classes, maps = ranked
    results = StoreResults(tiny.url, DATASET)
    rows = results.rows("val")
    assert rows.index.key == INDEX_KEY
    source = StageMaps(results.view("cams", "val"), 5, rows)  # the first class of the second method
    figures = score_maps(source, find_truth(results, rows, "gt"), Frame(), threads=1).result()
    usable = [row for row in range(ROWS) if tiny.status[row] != Status.QUARANTINED]
    curves = {"first": [], "label": []}
    ranks = []
    for row in usable:
        rank = np.flatnonzero(classes[row] == tiny.labels[row])
        ranks.append(int(rank[0]) if len(rank) else CLASSES)
        own = maps[row, 1, rank[0] if len(rank) else 0]
        boxes = [standard_boxes(tiny.objects[row : row + 1], tiny.sizes[row][::-1])]
        for name, levels in (("first", maps[row, 1, 0]), ("label", own)):
            curves[name].append(iou_curves(standard_maps(levels.astype(np.float32))[None], boxes, threads=1)[0])
    ranks = np.array(ranks)
    right = {name: np.stack(values) >= 0.5 for name, values in curves.items()}
    assert 0 < (ranks == 0).sum() < (ranks < 5).sum() < len(usable)
    assert figures["labels"] == "predicted"
    assert figures["MaxBoxAcc"] == pytest.approx(100 * right["first"].mean(axis=0).max())
    assert figures["top1_loc"] == pytest.approx(100 * (right["label"] & (ranks == 0)[:, None]).mean(axis=0).max())
    top5 = 100 * (right["label"] & (ranks < 5)[:, None]).mean(axis=0).max()
    assert figures["top5_loc"] == pytest.approx(top5)
    # The map of the first prediction, which was scored before, is noise wherever the label ranks second to fifth.
    assert top5 > 100 * (right["first"] & (ranks < 5)[:, None]).mean(axis=0).max() + 20
    assert figures["accuracy_top5"] == pytest.approx(100 * (ranks < 5).mean())


class Given:
    """Maps of the labels of every row, as a network gives them."""

    labels, quarantined = "true", 0

    def __init__(self, maps, predicted):
        self.maps, self.predicted = maps, predicted

    def batches(self):
        yield MapBatch(np.arange(len(self.maps)), list(self.maps), self.predicted)


def test_maps_of_the_true_class_take_the_rank_of_the_label_from_class_scores(ranked):
    tiny, classes, _ = ranked
    results = StoreResults(tiny.url, DATASET)
    truth = find_truth(results, results.rows("val"), "gt")
    maps = tiny.maps[:, 0].astype(np.float32) / 255
    scores = score_maps(Given(maps, classes), truth, Frame(), threads=1)
    figures, hit = scores.result(tau=scores.best_tau()), classes == np.array(tiny.labels)[:, None]
    assert (figures["labels"], figures["accuracy_top1"]) == ("true", pytest.approx(100 * hit[:, 0].mean()))
    assert figures["MaxBoxAcc"] == 100  # every object is found, so that only the rank decides
    assert figures["top1_loc"] == pytest.approx(100 * hit[:, 0].mean())
    assert figures["top5_loc"] == pytest.approx(100 * hit.any(axis=1).mean())
    alone = score_maps(Given(maps, None), truth, Frame(), threads=1).result()
    assert (alone["top1_loc"], alone["top5_loc"], alone["accuracy_top1"]) == (None, None, None)


def test_one_pass_against_several_truths_equals_a_pass_each(ranked):
    tiny, classes, _ = ranked
    results = StoreResults(tiny.url, DATASET)
    rows = results.rows("val")
    truths = {name: find_truth(results, rows, name) for name in ("gt", "proposals")}
    truths |= {"noisy": truths["gt"].disturbed(0.3, 0), "few": replace(truths["gt"], found={1: truths["gt"].boxes(1)})}
    noise = np.random.default_rng(0).random(tiny.maps[:, 0].shape)
    maps = (tiny.maps[:, 0] / 255 + noise).astype(np.float32)  # many regions, holes among them
    maps[1], maps[2, 0, 0] = 0.5, np.nan
    source = Given(maps, classes)
    together = score_against(source, truths, Frame(), threads=1)
    for name, truth in truths.items():
        alone = score_maps(source, truth, Frame(), threads=1)
        assert together[name].result() == alone.result()
        assert together[name].entry() == alone.entry()
        assert (
            together[name].boxes.counts["rows_unusable"]
            == alone.boxes.counts["rows_unusable"]
            == (1 if name == "few" else 2)
        )
    assert len({str(each.entry()["all"]) for each in together.values()}) == 4
