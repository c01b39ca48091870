"""Every figure that is printed is explained, and printed in one convention."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import wsolpipe
from wsolpipe.evaluate.glossary import GLOSSARY, format_figure, kind_of, shown_name
from wsolpipe.metrics.accumulate import MaxBoxEvaluation
from wsolpipe.metrics.boxes import BoxEvaluation
from wsolpipe.metrics.pixels import PixelEvaluation

WORDS = {"tau_from", "labels", "convention", "thresholds"}  # not figures
NAMES = {entry.name for entry in GLOSSARY}


def figures() -> dict[str, object]:
    boxes = MaxBoxEvaluation()
    found = {**boxes.result(), **BoxEvaluation().result(), **PixelEvaluation().result()}
    return {name: value for name, value in found.items() if name not in WORDS}


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
    assert {name for name in NAMES if name not in words and not name.startswith("box_maxboxacc_")} <= {"rows"}


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
    ],
)
def test_figures_are_printed_in_one_convention(name, value, told):
    assert format_figure(name, value) == told


def test_names_of_tables_are_words():
    assert shown_name("iou_upper") == "IoU, best of all"
    assert shown_name("MaxBoxAccV2 30") == "MaxBoxAccV2 30"
    assert shown_name("of_no_entry") == "of_no_entry"
    assert kind_of("of_no_entry") is None
