"""The suite of figures of maps.

A figure is tested by a subclass that names its class::

    class TestPointing(FigureTests):
        figure = Pointing
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from wsolpipe.evaluate.figures import Frame, FramedBatch, MapFigure
from wsolpipe.evaluate.glossary import PRINTED, find_entry
from wsolpipe.evaluate.map_sources import RowTable
from wsolpipe.evaluate.truth import Truth

Array = np.ndarray[Any, Any]
SIDE, ROWS = 64, 12
#: Rows that a figure must live with: one without ground truth, one of a class without an object, one without a map.
NOT_COUNTED = {3: "no box", 5: "no object", 7: "no map"}


def example_truth() -> Truth:
    """Return boxes of twelve images of 80 x 48 pixels and of four classes, the last one without an object."""
    labels = [[3] if row == 5 else [row % 3] for row in range(ROWS)]
    sizes, upright = np.tile([80, 48], (ROWS, 1)), np.ones(ROWS, np.int64)
    names = [f"image{row}" for row in range(ROWS)]
    table = RowTable("test", names, labels, sizes, upright, frozenset({3}), np.zeros(ROWS, np.bool_))
    left, top = 4 * np.arange(ROWS), 2 * np.arange(ROWS)
    found = {row: np.array([[left[row], top[row], left[row] + 30, top[row] + 20]], np.float64) for row in range(ROWS)}
    return Truth("boxes", table, {row: boxes for row, boxes in found.items() if row not in (3, 5)})


def example_batch(truth: Truth, rows: Sequence[int]) -> FramedBatch:
    """Return maps of some rows that are high where the object is, as an evaluation gives them to a figure."""
    frame, raw = Frame(side=SIDE), []
    for row in rows:
        rng = np.random.default_rng(row)
        score = rng.random((12, 20)).astype(np.float32) * 0.4
        x0, y0, x1, y1 = (truth.boxes(row)[0] / 4).astype(int) if len(truth.boxes(row)) else (2, 2, 6, 6)
        score[y0:y1, x0:x1] += 0.6
        raw.append(None if row == 7 else score)
    labels = np.array([truth.rows.label(row) for row in rows], np.int64)
    return FramedBatch(
        rows=np.array(rows, np.int64), raw=raw,
        framed=[None if score is None else frame.map(score, str(row)) for row, score in zip(rows, raw, strict=True)],
        labels=labels, objectless=np.array([truth.rows.objectless(row) for row in rows], np.bool_),
        predicted=np.stack([labels, (labels + 1) % 3], axis=1), of_label={},
    )  # fmt: skip


def numbers_of(value: Any) -> Iterable[float]:
    """Yield every number of a nested result."""
    if isinstance(value, dict):
        for each in value.values():
            yield from numbers_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from numbers_of(each)
    elif isinstance(value, (int, float)):
        yield float(value)


class FigureTests:
    """Tests that every figure of maps passes."""

    figure: ClassVar[type[MapFigure]]

    @pytest.fixture
    def truth(self) -> Truth:
        """Boxes of twelve rows."""
        return example_truth()

    def counted(self, truth: Truth, batches: Iterable[Sequence[int]], tau: float | None = None) -> dict[str, Any]:
        """Count rows batch by batch; the figures."""
        figure = self.figure()
        for rows in batches:
            figure.add(example_batch(truth, rows), truth)
        return figure.result(tau)

    def test_is_a_figure_and_holds_json(self, truth: Truth) -> None:
        assert issubclass(self.figure, MapFigure)
        found = self.counted(truth, [range(ROWS)])
        assert found
        assert json.loads(json.dumps(found)) == found
        assert all(math.isfinite(number) for number in numbers_of(found))

    def test_every_figure_is_explained_in_the_glossary_or_by_the_class(self, truth: Truth) -> None:
        for name in self.counted(truth, [range(ROWS)]):
            own = self.figure.explained.get(name)
            assert own is not None or find_entry(name) is not None, name
            if own is not None:
                assert set(own) == {"shown", "kind", "meaning"}, name
                assert own["kind"] in (*PRINTED, "count", "text"), name

    def test_neither_batches_nor_their_order_change_a_figure(self, truth: Truth) -> None:
        whole = list(numbers_of(self.counted(truth, [range(ROWS)])))
        for batches in ([range(5), range(5, ROWS)], [range(8, ROWS), range(8)], [[row] for row in range(ROWS)]):
            assert list(numbers_of(self.counted(truth, batches))) == pytest.approx(whole, nan_ok=True)

    @pytest.mark.parametrize("tau", [None, 0.0, 0.3, 0.999])
    def test_names_do_not_depend_on_the_threshold(self, truth: Truth, tau: float | None) -> None:
        assert self.counted(truth, [range(ROWS)], tau).keys() == self.counted(truth, [range(ROWS)]).keys()

    def test_without_a_row_nothing_is_claimed(self, truth: Truth) -> None:
        for batches in ([], [[3]], [[5]]):
            assert not list(numbers_of(self.counted(truth, batches))), batches
            self.counted(truth, batches, 0.5)

    def test_maps_and_boxes_are_left_as_they_are(self, truth: Truth) -> None:
        batch = example_batch(truth, range(ROWS))
        maps = [None if score is None else score.copy() for score in batch.framed]
        boxes = {row: own.copy() for row, own in truth.found.items()}
        self.figure().add(batch, truth)
        for before, after in zip(maps, batch.framed, strict=True):
            assert before is after is None or np.array_equal(np.asarray(before), np.asarray(after))
        assert all(np.array_equal(own, truth.found[row]) for row, own in boxes.items())
