"""Pictures of a training for the trackers that show any: what its steps see, and its best and worst rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wsolpipe.contract.errors import WsolError
from wsolpipe.evaluate.otsu_scores import OtsuScores, otsu_box
from wsoltrain.data.items import Items
from wsoltrain.data.order import Pick
from wsoltrain.inference.drawing import draw_sheet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL import Image

    from wsolpipe.evaluate.truth import Truth
    from wsoltrain.data.items import Item
    from wsoltrain.training.loop import Trainer
    from wsoltrain.training.tracker import PictureTracker

STEP_ROWS = 8
"""Rows of the sheet of what steps see, evenly over the split."""
RANKED_ROWS = 4
"""Best rows of a validation, and as many worst ones."""


class Panels:
    """A tracker that gives pictures to other trackers; a training that no tracker shows pictures of needs none.

    At the start, rows as steps of the first epoch see them: crop, map and boxes (``items``). After each validation,
    the rows whose Otsu box overlaps most and least with the box of the first annotator that has boxes
    (``rows/best``, ``rows/worst``), each with its map, its box and the annotator's.

    Parameters
    ----------
    trainer : Trainer
        In the first process, before its first step.
    trackers : sequence of PictureTracker
    """

    def __init__(self, trainer: Trainer, trackers: Sequence[PictureTracker]) -> None:
        assert trainer.scoreboard is not None  # noqa: S101 - the first process has it
        self.trainer, self.trackers, self.scoreboard = trainer, trackers, trainer.scoreboard
        self.evaluator = trainer.scoreboard.evaluators["val"]
        self.judge = next((name for name, truth in self.evaluator.truths.items() if truth.found), None)
        self.items = Items(self.evaluator.stream.config)
        self._show("items", self._draw_items())

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Show the best and worst rows after a validation."""
        if kind != "val" or self.judge is None or figures["annotator"] != self.judge:
            return
        counted = self.scoreboard.latest[self.judge].more["otsu"]
        assert isinstance(counted, OtsuScores)  # noqa: S101 - the scoreboard asks for it
        rows, ious = counted.ranked()
        for name, places in (("best", slice(None, -RANKED_ROWS - 1, -1)), ("worst", slice(RANKED_ROWS))):
            mean = float(ious[places].mean()) if len(ious) else 0.0
            title = f"mean IoU {mean:.2f}; yellow: the map's Otsu box"
            self._show(f"rows/{name}", self._draw_rows(rows[places].tolist(), title))

    def close(self) -> None:
        """Do nothing: the trackers close themselves."""

    def _show(self, name: str, picture: Image.Image | None) -> None:
        if picture is None:
            return
        for tracker in self.trackers:
            tracker.show(name, self.trainer.step, picture)

    def _draw_items(self) -> Image.Image | None:
        stream = self.trainer.stream
        places = np.linspace(0, len(stream.rows) - 1, min(STEP_ROWS, len(stream.rows))).round().astype(int)
        items = _make(Items(stream.config), np.asarray(stream.rows)[places].tolist())
        return draw_sheet(items, _captions(items, stream.items)) if items else None

    def _draw_rows(self, rows: Sequence[int], title: str) -> Image.Image | None:
        """Rows under their maps, with the Otsu box of each and the annotator's boxes."""
        trainer, truth = self.trainer, self._truth()
        items = _make(self.items, rows)
        if not items:
            return None
        model = trainer.shown.eval()
        images, labels = (torch.stack([item[name] for item in items]).to(trainer.device) for name in ("image", "label"))
        with torch.no_grad():
            found = model.predict(images, labels)
        maps, scaled = found.maps.float().cpu().numpy(), found.scaled().cpu()
        drawn: list[Item] = []
        for item, raw, heat in zip(items, maps, scaled, strict=True):
            side, row = item["rgb"].shape[-1], int(item["row"])
            own, given = otsu_box(raw, side, side), truth.boxes(row) / np.tile(truth.rows.sizes[row], 2) * side
            boxes = torch.from_numpy(np.concatenate([own, given]).astype(np.float32))
            sources = torch.tensor([0] * len(own) + [1] * len(given))
            drawn.append({**item, "maps": heat[None], "boxes": boxes, "box_map": sources})
        return draw_sheet(drawn, _captions(items, self.items), title=title)

    def _truth(self) -> Truth:
        assert self.judge is not None  # noqa: S101 - asked before
        return self.evaluator.truths[self.judge]


def _make(items: Items, rows: Sequence[int]) -> list[Item]:
    """Items of rows as the first epoch sees them; those that cannot be read are left out."""
    made = items.__getitems__([Pick(0, row) for row in rows])
    return [] if isinstance(made, WsolError) else [item for item, _ in made if item is not None]


def _captions(items: list[Item], source: Items) -> list[tuple[str, str]]:
    """Class and path of each item."""
    rows = source.rows
    return [
        (rows.class_name(int(item["label"])) if item["label"] >= 0 else "no label", rows.name(int(item["row"])))
        for item in items
    ]
