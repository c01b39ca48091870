"""Every figure that is printed is explained, and printed in one convention."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import wsolpipe
from wsolpipe.evaluate.glossary import ENDINGS, find_entry, format_figure, read_glossary, shown_name
from wsolpipe.metrics.accumulate import MaxBoxEvaluation
from wsolpipe.metrics.boxes import BoxEvaluation
from wsolpipe.metrics.pixels import PixelEvaluation

NAMES = set(read_glossary())


def figures() -> dict[str, object]:
    boxes = MaxBoxEvaluation()
    return {**boxes.result(), **BoxEvaluation().result(), **PixelEvaluation().result()}


@pytest.mark.parametrize("name", sorted(figures()))
def test_every_figure_of_the_evaluations_is_in_the_glossary(name):
    assert name in NAMES


def test_no_entry_stands_for_nothing():
    """A name that no module writes any more would explain what nobody sees."""
    source = Path(wsolpipe.__file__).parent
    texts = [path.read_text() for path in source.rglob("*.py") if path.name != "glossary.py"]
    words = {
        node.value
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    composed = ("box_maxboxacc_", "IoU-", "rows_pointing", "rows_top", "rows_fallback_", "*_")  # of parts
    assert {name for name in NAMES if name not in words and not name.startswith(composed)} == set()
    assert {name.removeprefix("*") for name in NAMES if name.startswith("*")} <= ENDINGS.keys()


def test_true_negatives_of_pixels_are_a_share_of_background_pixels():
    """The figure and its explanation say the same."""
    pixels = PixelEvaluation(thresholds=10)
    score, mask = np.zeros((4, 5)), np.zeros((4, 5))
    mask[0] = 1
    score[0], score[1] = 1.0, 0.8  # 5 of 15 background pixels are above the threshold
    pixels.add(score, mask)
    assert pixels.result(tau=0.5)["true_negative_rate"] == pytest.approx(10 / 15)
    assert "background pixels" in read_glossary()["true_negative_rate"].meaning


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("iou_top1", 0.7865384615384615, "78.7"),
        ("MaxBoxAcc", 78.65384615384615, "78.7"),
        ("MaxBoxAccV2 mean", 61.25, "61.2"),
        ("iou_pointing_mean_of_boxes", 0.5, "50.0"),
        ("tau", 0.3125, "0.312"),
        ("CorLoc tau", 0.25, "0.250"),
        ("beside iou", 0.25, "25.0"),
        ("rows", 96, 96),
        ("labels", "true", "true"),
        ("iou", None, None),
        ("iou_at_tau", 0.6153, "61.5"),
        ("MaxBoxAcc_at_tau", 61.53, "61.5"),
        ("pixel_iou_by_noisy", 0.384, "38.4"),
        ("boxes iou_top1", 0.611, "61.1"),
        ("boxes recall50_top1", 0.7604, "76.0"),
        ("video stability", 0.788123456, "78.8"),
        ("video CorLoc_of_groups", 80.9027777, "80.9"),
        ("intervals MaxBoxAccV2_50", 26.6667, "26.7"),
        ("CorLoc tau 3", 0.25, "0.250"),
        ("values_inside", [0.016541180910379122, 0.5], "1.7 50.0"),
        ("CorLoc oracle", True, "yes"),
        ("w", 0.4, "0.40"),
        ("level", 0.05, "5.0"),
    ],
)
def test_figures_are_printed_in_one_convention(name, value, told):
    assert format_figure(name, value) == told


def test_names_of_tables_are_words():
    assert shown_name("iou_upper") == "IoU, best of all"
    assert shown_name("MaxBoxAccV2 30") == "MaxBoxAccV2 30"
    assert shown_name("of_no_entry") == "of_no_entry"
    assert shown_name("video CorLoc_of_groups") == "video CorLoc, mean of clips"
    assert find_entry("of_no_entry") is None
