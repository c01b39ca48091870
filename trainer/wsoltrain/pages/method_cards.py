"""Rows under trained localizers as cards of a page: photograph, map and box of each method, ground truth, IoU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.metrics.boxes import best_iou
from wsolpipe.metrics.scaling import SIDE, standard_boxes
from wsolpipe.pages.cards import COLUMNS, Box, Card, Layer, Map, encode_cuts, make_card
from wsolpipe.pages.charts import Curve, Plot, draw_figure
from wsolpipe.pages.document import Gallery, compose_page, render, render_gallery, write_page
from wsolpipe.pages.pictures import Photo, heat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wsolpipe.contract.reader import Index
    from wsolpipe.evaluate.truth import Truth
    from wsoltrain.data.stored_rows import StoredRows
    from wsoltrain.inference.shown import Compared, Shown
    from wsoltrain.training.scoreboard import Evaluator


Array = np.ndarray[Any, Any]
PHOTO, HEAT = Photo(360, 72, "WEBP"), 48
#: Told apart by colour-blind eyes on photographs (Okabe and Ito).
COLOURS = ("#f0e442", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#ffffff")
DASHES = ("none", "9 3", "3 3", "9 3 2 3")
#: Methods whose boxes are drawn before anything is switched; more hide the image.
AT_FIRST = 3


def make_cards(
    stored: StoredRows,
    root: Path,
    methods: Mapping[str, Mapping[int, Shown]],
    truth: Truth | None = None,
    *,
    group: str = "",
    part: str = "",
) -> list[Card]:
    """A card for each row that the first method has a map of.

    Parameters
    ----------
    stored : StoredRows
        Where the rows' names, labels and sizes are.
    root : Path
        Folder of the image files.
    methods : mapping of str to mapping of int to Shown
        Maps and boxes by method and row. IoU and headline are those of the first, the difference is to the second.
    truth : Truth, optional
        Boxes by which IoU is measured, as the standard evaluator counts.
    group, part : str
        As of `wsolpipe.pages.cards.Card`.
    """
    rows = sorted(next(iter(methods.values())))
    if not rows:
        return []
    table = stored.index.table(list(COLUMNS), start=rows[0], stop=rows[-1] + 1)
    names = stored.index.manifest.class_names
    words, cards = method_layers(list(methods)), []
    for row, info in zip(rows, table.take([row - rows[0] for row in rows]).to_pylist(), strict=True):
        size = max(int(info["width"] or 0), 1), max(int(info["height"] or 0), 1)
        own = truth.boxes(row) if truth is not None else np.zeros((0, 4))
        maps, boxes, ious = [], {}, dict[str, float]()
        for slot, ((name, seen), word) in enumerate(zip(methods.items(), words, strict=True)):
            if row not in seen:
                continue
            shown = seen[row]
            cuts = encode_cuts(np.clip(shown.map, 0, 1)) if shown.map.shape == (SIDE, SIDE) else ""
            maps.append(Map(slot, name, heat(shown.map, side=HEAT), cuts))
            if len(own):
                ious[name] = frame_iou(shown.box, own, size, len(shown.map))
            if shown.box is not None:
                box = in_image(shown.box, size, len(shown.map))
                boxes[word] = [Box.of(box, source=slot, source_name=name, iou=ious.get(name))]
        both = [ious.get(name) for name in methods][:2]
        cards.append(
            make_card(
                info, row, root=root, how=PHOTO, class_name=lambda label: names.get(str(label), ""),
                truth=_outlines(truth, row, own, size), group=group, part=part, boxes=boxes, maps=maps, iou=both[0],
                beside=both[1] if len(both) > 1 else None, listing=words if len(words) > 1 else (),
            )
        )  # fmt: skip
    return cards


def method_layers(names: Sequence[str]) -> list[str]:
    """Word of CSS for the boxes of each method."""
    others = ["of-" + "".join(sign if sign.isalnum() else "-" for sign in name) for name in names]
    return ["top", "beside", *others[2:]][: len(names)]


def line_of(number: int) -> tuple[str, str]:
    """Colour and dashes of the boxes of the n-th method after the second; no two of 24 are alike."""
    return COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]


def method_gallery(
    cards: Sequence[Card],
    names: Sequence[str],
    *,
    tau: float | None,
    indexes: Mapping[str, Index],
    titles: Mapping[str, str] | None = None,
    layers: Sequence[Layer] = (),
    more_maps: Sequence[str] = (),
) -> Gallery:
    """Cards with the switches of their methods.

    Parameters
    ----------
    names : sequence of str
        Of the methods.
    tau : float or None
        Threshold at which the page opens its cut box, of the first method's map.
    indexes : mapping of str to Index
        By the cards' `part`: of which split they are.
    titles : mapping of str to str, optional
        Names of the groups of cards.
    layers : sequence of Layer
        What else is drawn.
    more_maps : sequence of str
        Maps after those of the methods.
    """
    shown = [
        Layer(word, f"box of {name}", shown=number < AT_FIRST, line=("", "") if number < 2 else line_of(number - 2))
        for number, (word, name) in enumerate(zip(method_layers(names), names, strict=True))
    ]
    if any(card.truth for card in cards):
        shown.append(Layer("truth", "ground truth"))
    present = {name for card in cards for name in (*card.boxes, *card.overlays)}
    shown += [layer for layer in layers if layer.name in present]
    shown.append(Layer("cut", "cut box of the map", shown=False))
    return Gallery(
        cards, shown, dict(titles or {}), lead=names[0], beside=names[1] if len(names) > 1 else "",
        map_names=dict(enumerate([*names, *more_maps])), cut=(0, 0.5 if tau is None else tau), indexes=indexes,
    )  # fmt: skip


def _outlines(truth: Truth | None, row: int, boxes: Array, size: tuple[int, int]) -> Array:
    """The true boxes [M, 4] of a row; of a row with only a mask, the box around it."""
    mask = None if truth is None or len(boxes) else truth.mask(row, SIDE)
    if mask is None or not mask[0].any():
        return boxes
    down, across = (np.flatnonzero(mask[0].any(axis=axis)) for axis in (1, 0))
    edges = np.array([[across[0], down[0], across[-1] + 1, down[-1] + 1]])
    return np.asarray(edges * np.tile(size, 2) / SIDE)


def frame_iou(box: Array | None, truth: Array, size: tuple[int, int], side: int) -> float:
    """Best IoU of a half-open box of the frame with true boxes of the image, as the standard evaluator counts."""
    if box is None:
        return 0.0
    inclusive = np.minimum(np.asarray(box, np.float64), side - 1)[None]
    return best_iou(inclusive, standard_boxes(truth, size, side=side), inclusive=True)


def in_image(box: Array, size: tuple[int, int], side: float) -> Array:
    """A box [4] of a square frame in pixels of the image (width, height)."""
    return np.asarray(box, np.float64) * np.tile(np.asarray(size, np.float64) / side, 2)


TEMPLATES = Path(__file__).parent / "templates"
#: Charts against the threshold: stem of the file, title, curve of `MaxBoxEvaluation`.
BY_THRESHOLD = (
    ("maxboxacc", "MaxBoxAcc against the threshold", "largest 0.5"),
    ("iou", "Mean IoU against the threshold", "largest iou"),
)


def page_plots(compared: Sequence[Compared]) -> dict[str, Plot]:
    """Every chart of the page by the stem of its file: figures of boxes by threshold, precision and recall of masks."""
    drawn = {}
    for stem, title, name in BY_THRESHOLD if compared[0].scores.boxes.rows_scored else ():
        heights = {each.name: each.scores.boxes.curve(name) for each in compared}
        curves = [Curve(label, shares, np.arange(len(shares)) / len(shares)) for label, shares in heights.items()]
        drawn[f"compare-{stem}"] = Plot(title, "threshold", curves)
    found = {each.name: each.scores.pixels.curves() for each in compared if each.scores.pixels is not None}
    lines = [Curve(name, each["precision"], 100 * each["recall"]) for name, each in found.items()]
    if lines:
        drawn["compare-precision"] = Plot("Precision against recall", "recall, per cent", lines, far=100)
    return drawn


def write_compare_page(
    path: Path,
    compared: Sequence[Compared],
    evaluator: Evaluator,
    root: Path,
    table: Sequence[Sequence[str]],
    *,
    title: str,
    plots: Mapping[str, Plot],
    below: Sequence[str] = (),
    labels: str = "",
) -> None:
    """Write a page that needs no other file.

    Parameters
    ----------
    path : Path
        HTML file.
    compared : sequence of Compared
        Methods with the maps of some rows; IoU is that of the first, differences are to the second.
    evaluator : Evaluator
        Whose truth ``gt`` the rows have.
    root : Path
        Folder of the image files.
    table : sequence of sequence of str
        Lines of figures, the first are titles.
    plots : mapping of str to Plot
        Of `page_plots`.
    below : sequence of str
        Methods below a centred box.
    labels : str
        Command that shows the labels that they learned from.

    Raises
    ------
    ConfigError
        If jinja2 is not installed.
    """
    titles = [each if place == 0 else f"#{each}" for place, each in enumerate(table[0])]
    figures = [draw_figure(plot) for plot in plots.values()]
    head = render(
        "compare", "", TEMPLATES, title=title, titles=titles, lines=table[1:], below=below, labels=labels,
        figures=figures,
    )  # fmt: skip
    rows, shown = evaluator.stream.items.rows, {each.name: each.shown for each in compared}
    cards = make_cards(rows, root, shown, evaluator.truths["gt"])
    gallery = render_gallery(
        method_gallery(cards, list(shown), tau=compared[0].scored.threshold.tau, indexes={"": rows.index})
    )
    write_page(path, compose_page(f"{title} – wsoltrain compare", [head, gallery]))
