"""Figures of a report are those of `eval`, and its sample is what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stores import DATASET
from wsolpipe import open_store
from wsolpipe.contract.schema import Status
from wsolpipe.evaluate.figures import Frame
from wsolpipe.evaluate.map_scores import KeptIous, score_maps
from wsolpipe.evaluate.map_sources import StageMaps
from wsolpipe.evaluate.otsu_scores import otsu_box
from wsolpipe.metrics.boxes import BoxEvaluation, iou_per_box
from wsolpipe.report.material import gather
from wsolpipe.report.page import compose
from wsolpipe.report.quality import choose, cut_ious


def test_means_are_those_of_the_box_evaluation(example):
    material = gather(example.config)
    view = open_store(example.tiny.url)[DATASET]["train"]["proposals"]
    score, otsu, quality = BoxEvaluation(), [], material.quality
    for row in np.flatnonzero(view.status() == Status.OK):
        truth = quality.truth_of(row)
        height, width = example.tiny.sizes[row]
        score.add(view["boxes"][int(row)], truth, size=(width, height))
        if len(truth):
            otsu.append(iou_per_box(otsu_box(material.maps["maps"][int(row)][0], width, height), truth).max())
    wanted, means = score.result(), quality.means()
    assert score.rows_without_box > 0
    for name in ("top1", "best5", "candidates", "centre"):
        assert means[name] == pytest.approx(wanted[f"iou_{name}"], abs=1e-9), name
    assert means["otsu"] == pytest.approx(np.mean(otsu), abs=1e-9)
    assert quality.recall("top1") == pytest.approx(wanted["recall50_top1"])
    assert int(quality.scored.sum()) == wanted["rows_scored"]


def test_quarantined_and_unfinished_rows_are_outside_the_denominators(make_example):
    example = make_example(quarantined={4: "broken"}, missing={"proposals": (1,)})
    quality = gather(example.config).quality
    assert not quality.scored[4]
    assert not quality.scored[16:32].any()
    assert quality.scored[[0, 2, 6, 32, 38]].all()


def test_sample_holds_best_median_and_worst_and_a_seeded_random_part():
    values = np.linspace(0, 1, 101)
    values[50] = np.nan
    eligible = np.arange(101)
    picks = choose(values, eligible, n=24, seed=3)
    rows = {
        group: [pick.row for pick in picks if pick.group == group] for group in ("best", "median", "worst", "random")
    }
    assert rows["best"] == [100, 99, 98, 97, 96, 95]
    assert rows["worst"] == [0, 1, 2, 3, 4, 5]
    assert all(46 <= row <= 54 for row in rows["median"])
    assert len(rows["random"]) == 6
    assert len({pick.row for pick in picks}) == 24
    assert choose(values, eligible, n=24, seed=3) == picks
    assert choose(values, eligible, n=24, seed=4) != picks


@pytest.mark.parametrize(("rows", "n"), [(0, 24), (1, 24), (3, 24), (5, 4), (10, 1), (10, 0), (40, 24)])
def test_sample_never_asks_for_more_rows_than_there_are(rows: int, n: int):
    picks = choose(np.linspace(0, 1, max(rows, 1)), np.arange(rows), n=n, seed=0)
    assert len(picks) == len({pick.row for pick in picks}) == min(rows, n)


def test_rows_without_rank_are_still_drawn():
    picks = choose(np.full(10, np.nan), np.arange(10), n=4, seed=0)
    assert {pick.group for pick in picks} == {"random"}
    assert len(picks) == 4


def test_ious_are_kept_in_a_fraction_of_the_room_and_are_the_same(example):
    material = gather(replace(example.config, stage=("cls_maps",)))
    source, truth = StageMaps(material.maps, 0, material.quality.truth.rows), material.quality.truth
    whole = score_maps(source, truth, Frame(), keep=True, details=False).kept
    scores = score_maps(source, truth, Frame(), keep=KeptIous, details=False)
    rows, curves = whole.get("iou")
    for tau in (0.0, 0.123, 0.5, 0.999):
        assert np.array_equal(cut_ious(scores, tau, 40)[rows], curves[:, round(1000 * tau)])

    def room(kept) -> int:
        return sum(part.nbytes for parts in kept.values.values() for part in parts) / len(rows)

    assert room(scores.kept) < 2000 < room(whole) / 3


@pytest.mark.slow
def test_every_row_of_a_large_split_is_scored(make_example):
    """One row more than 2,000 with ground truth; the page says its figures, not that there is no truth."""
    example = make_example(rows=2001, n_maps=1, n_boxes=1, shard_rows=256, images=False)
    example.write_truth(np.arange(2001), example.tiny.objects.astype(float))
    material = gather(replace(example.config, stage=("cls_maps",), root=None), n=8)
    html = compose(material).html
    assert int(material.quality.scored.sum()) == 2001
    assert material.quality.lead == "cut"
    assert "No ground truth boxes" not in html
    assert "over 2\u202f001 rows" in html
