"""A figure of another package: how much brighter maps are in the middle of the image than at its border."""

from typing import ClassVar

from wsolpipe.evaluate.figures import MapFigure


class Contrast(MapFigure):
    """Mean of the maps' middle quarter less that of the whole map."""

    explained: ClassVar = {
        "contrast": {
            "shown": "contrast",
            "kind": "fraction",
            "meaning": "Mean value of the maps' middle quarter, less that of the whole map.",
        }
    }

    def __init__(self):
        self.total, self.rows = 0.0, 0

    def add(self, batch, truth):
        for score, row, silent in zip(batch.framed, batch.rows, batch.objectless, strict=True):
            if score is not None and len(truth.boxes(int(row))) and not silent:
                quarter = len(score) // 4
                self.total += score[quarter:-quarter, quarter:-quarter].mean() - score.mean()
                self.rows += 1

    def result(self, tau):
        return {"contrast": self.total / self.rows if self.rows else None}
