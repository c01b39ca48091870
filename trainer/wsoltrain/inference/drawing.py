"""Items drawn as a sheet of pictures, for ``wsoltrain preview`` and for trackers that show pictures.

Of each item: the crop with its boxes, a map over the crop, and every map in the colour of its boxes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from wsolpipe.contract.errors import WsolError
from wsolpipe.evaluate.otsu_scores import OtsuScores, otsu_box
from wsolpipe.pages.pictures import HEAT_ANCHORS
from wsoltrain.data.items import Item, Items
from wsoltrain.data.order import Pick
from wsoltrain.data.views import maps_to_view

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from wsolpipe.evaluate.truth import Truth
    from wsoltrain.training.loop import Trainer
    from wsoltrain.training.tracker import PictureTracker

#: Pixels of a picture's side on the sheet.
PANEL = 224
GAP, CAPTION, MARGIN = 6, 34, 14
SHOWN_MAPS = 8
INK, PAPER, FAINT = (28, 30, 34), (250, 250, 248), (120, 124, 130)
#: One a map, bright enough on photographs.
COLOURS = (
    (255, 214, 10), (64, 224, 255), (255, 92, 205), (124, 255, 92), (255, 128, 48), (150, 140, 255), (255, 70, 70),
    (80, 255, 190),
)  # fmt: skip
#: Of a box over a map; no map has it. With a dark rim it is seen on anything.
BOX = (255, 90, 46)
_RAMP = np.array(HEAT_ANCHORS, np.float32)


def draw_sheet(
    items: Sequence[Item], captions: Sequence[tuple[str, str]], *, title: str = "", columns: int | None = None
) -> Image.Image:
    """Draw items on one sheet.

    Parameters
    ----------
    items : sequence of Item
        Each with ``rgb``; ``maps`` and ``boxes`` are drawn where there are any.
    captions : sequence of (str, str)
        Two lines below each item.
    title : str
        One line above all.
    columns : int, optional
        Items side by side; about square by default.

    Returns
    -------
    PIL image, RGB
    """
    cells = [_draw_cell(item, caption) for item, caption in zip(items, captions, strict=True)]
    width, height = (max(cell.size[axis] for cell in cells) for axis in (0, 1))
    columns = columns or max(1, round((len(cells) * height / width * 1.6) ** 0.5))
    columns = min(columns, len(cells))
    lines = -(-len(cells) // columns)
    head = 2 * MARGIN if title else MARGIN
    sheet = Image.new("RGB", (columns * (width + MARGIN) + MARGIN, lines * (height + MARGIN) + head), PAPER)
    font = ImageFont.load_default(13)
    ImageDraw.Draw(sheet).text((MARGIN, 7), _fit(title, font, sheet.size[0] - 2 * MARGIN), fill=FAINT, font=font)
    for number, cell in enumerate(cells):
        line, column = divmod(number, columns)
        sheet.paste(cell, (MARGIN + column * (width + MARGIN), head + line * (height + MARGIN)))
    return sheet


def draw_found(rgb: NDArray[np.uint8], scores: NDArray[np.float32], box: NDArray[np.floating] | None) -> Image.Image:
    """Draw a picture under its map, stretched to its own range, with its box.

    Parameters
    ----------
    rgb : uint8 array [H, W, 3]
    scores : float32 array [h, w]
        Map of the whole picture.
    box : float array [4] or None
        xyxy, half-open, pixels of the picture.

    Returns
    -------
    PIL image, RGB
        Of the picture's size.
    """
    height, width = rgb.shape[:2]
    values = np.asarray(Image.fromarray(scores).resize((width, height), Image.Resampling.BILINEAR))
    low, high = float(values.min()), float(values.max())
    stretched = (values - low) / (high - low) if high > low else np.zeros_like(values)
    drawn = Image.fromarray(overlay(rgb, stretched))
    if box is not None:
        x0, y0, x1, y1 = (round(float(edge)) for edge in box)
        corners = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
        width = max(2, min(height, width) // 100)
        pen = ImageDraw.Draw(drawn)
        pen.rectangle(corners, outline=INK, width=width + 2)
        left, top, right, bottom = corners
        pen.rectangle((left + 1, top + 1, max(left + 1, right - 1), max(top + 1, bottom - 1)), outline=BOX, width=width)
    return drawn


def _draw_cell(item: Item, caption: tuple[str, str]) -> Image.Image:
    rgb = item["rgb"].permute(1, 2, 0).numpy()
    size = rgb.shape[0]
    panels = [_draw_boxes(rgb, item)]
    maps = _view_of_maps(item, size)
    if maps is not None:
        panels.append(_shrink(overlay(rgb, maps[0]), PANEL))
    width = len(panels) * (PANEL + GAP) - GAP
    thumb = (width + GAP) // SHOWN_MAPS - GAP
    strip = thumb + GAP if maps is not None else 0
    cell = Image.new("RGB", (width, PANEL + strip + CAPTION), PAPER)
    for number, panel in enumerate(panels):
        cell.paste(panel, (number * (PANEL + GAP), 0))
    pen = ImageDraw.Draw(cell)
    for number, values in enumerate(() if maps is None else maps[:SHOWN_MAPS]):
        left, top = number * (thumb + GAP), PANEL + GAP
        cell.paste(_shrink(_ramp(values), thumb), (left, top))
        pen.rectangle((left, top, left + thumb - 1, top + thumb - 1), outline=COLOURS[number % len(COLOURS)], width=2)
    for line, (words, ink, points) in enumerate(((caption[0], INK, 13), (caption[1], FAINT, 11))):
        font = ImageFont.load_default(points)
        pen.text((0, PANEL + strip + 3 + 16 * line), _fit(words, font, width), fill=ink, font=font)
    return cell


def _draw_boxes(rgb: NDArray[np.uint8], item: Item) -> Image.Image:
    """The crop with its boxes, the first one last and thickest."""
    panel = _shrink(rgb, PANEL)
    if "boxes" not in item:
        return panel
    pen = ImageDraw.Draw(panel)
    scale = PANEL / rgb.shape[0]
    for number in reversed(range(len(item["boxes"]))):
        x0, y0, x1, y1 = (value * scale for value in item["boxes"][number].tolist())
        if x1 <= x0 or y1 <= y0:
            continue
        corners = (round(x0), round(y0), max(round(x0), round(x1) - 1), max(round(y0), round(y1) - 1))
        halo = (corners[0] - 1, corners[1] - 1, corners[2] + 1, corners[3] + 1)
        pen.rectangle(halo, outline=INK)
        colour = COLOURS[int(item["box_map"][number]) % len(COLOURS)]
        pen.rectangle(corners, outline=colour, width=4 if number == 0 else 2)
    return panel


def _view_of_maps(item: Item, size: int) -> NDArray[np.float32] | None:
    """Maps [M, S, S] stretched to 0..1 each, whatever the item holds."""
    if "maps" not in item:
        return None
    maps = item["maps"]
    if maps.shape[-1] != size:
        maps = maps_to_view(maps, item["window"], size, grid_hw=item.get("grid_hw"))
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    stretched: NDArray[np.float32] = ((maps - low) / (high - low).clamp_min(1e-9)).numpy()
    return stretched


def _ramp(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    at = values * (len(_RAMP) - 1)
    low = np.minimum(at.astype(np.int64), len(_RAMP) - 2)
    share = (at - low)[..., None]
    return np.asarray((1 - share) * _RAMP[low] + share * _RAMP[low + 1]).astype(np.uint8)


def overlay(rgb: NDArray[np.uint8], values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Pixels uint8 [H, W, 3] under the colours of a map [H, W] in 0..1; low values leave the picture as it is.

    Even where the map is 1 the picture shows through: a map of two values alone would hide the object that it found.
    """
    share = (0.05 + 0.4 * values)[..., None]
    return np.asarray((1 - share) * rgb + share * _ramp(values)).astype(np.uint8)


def _shrink(pixels: NDArray[np.uint8], side: int) -> Image.Image:
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)


def _fit(words: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    """`words`, its end cut off where it is wider than `width` pixels."""
    if font.getlength(words) <= width:
        return words
    while words and font.getlength(words + "…") > width:
        words = words[:-1]
    return words + "…"


#: Rows of the sheet of what steps see, evenly over the split.
STEP_ROWS = 8
#: Best rows of a validation, and as many worst ones.
RANKED_ROWS = 4


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
