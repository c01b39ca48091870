"""What ``wsolpipe eval`` shows first: five figures, a centred box beside them, and how to see the rest."""

from __future__ import annotations

from wsolpipe.cli.figure_tables import show_evaluated
from wsolpipe.evaluate.evaluation import Evaluated

BOXES = {
    "stage": "proposals", "dataset": "d", "split": "val", "key": "0123", "against": "ground truth", "rows": 9,
    "rows_scored": 7, "rows_quarantined": 2, "iou_top1": 0.5, "iou_best5": 0.6, "iou_all": 0.3, "iou_centre": 0.4,
    "recall50_top1": 0.25, "recall50_centre": 0.125, "recall50_candidates": 0.75, "box_maxboxacc_v2": 0.2,
    "box_maxboxacc_v2_centre": 0.1, "box_maxboxacc_50": 0.25,
}  # fmt: skip
MAPS = {
    "stage": "cls_maps", "dataset": "d", "split": "val", "key": "0123", "against": "ground truth", "rows_scored": 7,
    "MaxBoxAcc": 33.0, "MaxBoxAccV2": {"30": 50.0, "50": 33.0, "70": 1.0, "mean": 28.0}, "MaxBoxAccV2_centre": 66.0,
    "iou_at_tau": 0.4, "tau": 0.5, "iou_centre": 0.45, "MaxBoxAcc_centre": 100.0,
}  # fmt: skip


def test_the_first_screen_has_at_most_five_figures_and_a_centred_box(capsys):
    for figures in (BOXES, MAPS):
        show_evaluated([Evaluated(figures)], details=False)
        printed = capsys.readouterr().out
        assert len(printed.splitlines()) <= 12
        assert "centred box" in printed.splitlines()[1]
        assert "7 rows scored" in printed
        assert "details=true shows" in printed
    assert [line.split()[-1] for line in printed.splitlines() if "MaxBoxAcc" in line] == ["100.0", "66.0"]


def test_details_show_every_figure(capsys):
    show_evaluated([Evaluated(BOXES)])
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("IoU, best of five", "IoU, centred box", "rows quarantined"))


def test_rows_that_are_missing_are_counted_below_the_figures(capsys):
    show_evaluated([Evaluated(BOXES)], details=False)
    assert "val: 7 rows scored, 2 quarantined, against ground truth" in capsys.readouterr().out


def test_where_nothing_can_be_scored_the_first_screen_says_so_and_what_can(capsys):
    show_evaluated(
        [Evaluated({**dict.fromkeys(("stage", "key", "split"), "x"), "rows": 4, "rows_scored": 0})], details=False
    )
    printed = capsys.readouterr().out
    assert "none of 4 rows can be scored against ground truth" in printed
    assert "against=val_boxes" in printed
    assert len(printed.splitlines()) == 2


def test_a_threshold_that_saw_the_scored_images_is_called_an_oracle(capsys):
    show_evaluated([Evaluated({**MAPS, "oracle": True})], details=False)
    assert "the threshold is the best on these images (oracle)" in capsys.readouterr().out
    show_evaluated([Evaluated({**MAPS, "oracle": False})], details=False)
    assert "oracle" not in capsys.readouterr().out
