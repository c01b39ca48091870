"""Rows of a finished run: its boxes on validation, and the pixels on which it was trained."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wsolpipe.contract.errors import ConfigError, WsolError
from wsolpipe.evaluate.map_sources import rows_of_index
from wsolpipe.evaluate.results import StoreResults
from wsolpipe.metrics.protocol import RUN_FILE
from wsolpipe.pages.cards import Box, Card, Layer, Map
from wsolpipe.pages.pictures import drawn_picture, heat
from wsoltrain.data.config import ItemConfig, Labelling
from wsoltrain.data.stream import Stream
from wsoltrain.data.views import maps_to_view
from wsoltrain.inference.shown import Shown, pick_rows, show
from wsoltrain.pages.method_cards import HEAT, in_image, make_cards, method_gallery
from wsoltrain.pseudo.samplers import BACKGROUND, FOREGROUND, DrawsPixels
from wsoltrain.training.annotators import read_annotators
from wsoltrain.training.run_folder import read_record
from wsoltrain.training.scoreboard import NetworkMaps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wsolpipe.contract.reader import Index
    from wsolpipe.evaluate.truth import Truth
    from wsolpipe.pages.document import Gallery
    from wsoltrain.methods.base import Method
    from wsoltrain.training.recipe import Recipe

Array = np.ndarray[Any, Any]
NAME = "localizer"
DRAWN = "drawn"
#: Before the rows of training in addresses of the page.
PART = "t"


@dataclass(frozen=True)
class Place:
    """Where a run read: its training split and stages, its validation split, and the folder of its images."""

    labelling: Labelling
    val: str
    root: Path


def find_place(folder: Path, recipe: Recipe, root: str | None = None) -> Place:
    """The place that a run left in its record.

    Parameters
    ----------
    folder : Path
        Of the run.
    root : str, optional
        Folder of the images instead of that of the training.

    Raises
    ------
    ConfigError
        If the record is missing, or was written before it named the splits.
    """
    record = read_record(folder / RUN_FILE)
    missing = [name for name in ("store", "dataset", "split", "val", "root") if name not in record]
    if missing:
        msg = f"{folder / RUN_FILE} does not say where the run read ({', '.join(missing)})"
        raise ConfigError(msg, hint="the same wsoltrain fit command again writes it; nothing is trained twice")
    reads, split, keys = recipe.reads(), record["split"], record["keys"]
    labelling = Labelling(
        record["store"], record["dataset"], split, maps=reads.maps, boxes=reads.boxes,
        maps_key=keys.get(f"{reads.maps} of {split}"), boxes_key=keys.get(f"{reads.boxes} of {split}"),
        images=record.get("images"), images_key=keys.get(f"{record.get('images')} of {split}"),
    )  # fmt: skip
    return Place(labelling, record["val"], Path(root or record["root"]))


def run_gallery(
    model: Method[Any], recipe: Recipe, tau: float | None, place: Place, *, by: str, count: int, device: torch.device
) -> Gallery:
    """Cards of `count` rows of validation and as many of training.

    Parameters
    ----------
    model : Method
        With its best weights.
    tau : float or None
        Threshold of its boxes; each map's own, by Otsu, where None.
    by : str
        Annotator whose boxes are laid beside those of the model on validation.

    Raises
    ------
    WsolError
        If the store or the images are not where they were.
    """
    val_index, validation = _validation(model, recipe, tau, place, by, count, device)
    train_index, training = _training(model, recipe, tau, place, count, device)
    layers = [
        Layer("beside", f"validation: pseudo-box of {by}"),
        Layer("other", f"training: boxes of {place.labelling.boxes}"),
        Layer(DRAWN, "training: pixels drawn (yellow foreground, blue background)"),
    ]
    titles = {"validation": f"validation ({place.val})", "training": f"training ({place.labelling.split})"}
    stage = place.labelling.maps
    return method_gallery(
        [*validation, *training], [NAME], tau=tau, indexes={"": val_index, PART: train_index}, titles=titles,
        layers=layers, more_maps=[stage] if stage else [],
    )  # fmt: skip


def _open(recipe: Recipe, labelling: Labelling, root: Path, *, need_label: bool) -> Stream:
    """Whole images of a split, without any change."""
    return Stream(
        ItemConfig(
            labelling, root=str(root), size=recipe.size, mean=recipe.mean, std=recipe.std, train=False,
            need_label=need_label, neighbours=recipe.reads().neighbours, seed=recipe.seed,
        ),
        batch_size=recipe.batch,
    )  # fmt: skip


def _see(model: Method[Any], stream: Stream, tau: float | None, device: torch.device) -> dict[int, Shown]:
    source = NetworkMaps(model, stream, device, NAME)
    frame = source.frame()
    return {
        row: show(raw, frame, tau)
        for batch in source.batches()
        for row, raw in zip(batch.rows.tolist(), batch.maps, strict=True)
        if raw is not None
    }


def _validation(
    model: Method[Any], recipe: Recipe, tau: float | None, place: Place, by: str, count: int, device: torch.device
) -> tuple[Index, list[Card]]:
    plain = replace(place.labelling, split=place.val, maps=None, boxes=None, images_key=None, where=None, drawn=None)
    stream = _open(recipe, plain, place.root, need_label=False)
    stored = stream.items.rows
    table, results = rows_of_index(stored.index), StoreResults(plain.store, plain.dataset, None)

    def find(word: str) -> Truth | None:
        with suppress(WsolError):  # no such boxes, or no longer
            return read_annotators([word])[0].find(results, table)
        return None

    truth = find("gt")
    rows = pick_rows(truth, count) if truth is not None and truth.found else _evenly(stream.rows, count)
    stream.keep(rows)
    cards = make_cards(stored, place.root, {NAME: _see(model, stream, tau, device)}, truth, group="validation")
    beside = None if by in ("gt", "cls") else find(by)
    if beside is not None:
        cards = [
            replace(card, boxes=card.boxes | {"beside": [Box.of(box) for box in beside.boxes(card.row)]})
            for card in cards
        ]
    return stored.index, cards


def _training(
    model: Method[Any], recipe: Recipe, tau: float | None, place: Place, count: int, device: torch.device
) -> tuple[Index, list[Card]]:
    stream = _open(recipe, place.labelling, place.root, need_label=True)
    stream.keep(_evenly(stream.rows, count))
    seen = {NAME: _see(model, stream, tau, device)}
    cards = make_cards(stream.items.rows, place.root, seen, group="training", part=PART)
    extras = dict(_extras(model, recipe, stream))
    stage = place.labelling.maps or ""
    return stream.items.rows.index, [_with_extras(card, extras.get(card.row, {}), stage) for card in cards]


def _extras(model: Method[Any], recipe: Recipe, stream: Stream) -> Iterator[tuple[int, dict[str, Array]]]:
    """By row, the pseudo-labels of the whole image as the method gets them: map, boxes, and the pixels of epoch 0."""
    stream.set_epoch(0)
    for batch in stream:
        found: dict[str, Array] = {}
        on = {name: value.to(model.task.device) for name, value in batch.items()}
        if "maps" in batch:
            maps = maps_to_view(batch["maps"], batch["window"], recipe.size, grid_hw=batch.get("grid_hw"))
            found["map"] = maps.mean(1).numpy()
        if "boxes" in batch:
            found["boxes"] = batch["boxes"].numpy() / recipe.size
        if isinstance(model, DrawsPixels):
            with torch.no_grad():
                found["labels"] = model.draw_pixels(on, 0).labels.cpu().numpy()
        for place, row in enumerate(batch["row"].tolist()):
            yield row, {name: values[place] for name, values in found.items()}


def _with_extras(card: Card, extra: dict[str, Array], stage: str) -> Card:
    size, boxes, overlays, maps = (card.width, card.height), dict(card.boxes), {}, list(card.maps)
    if "boxes" in extra:
        there = (extra["boxes"][:, 2:] > extra["boxes"][:, :2]).all(1)
        boxes["other"] = [Box.of(in_image(box, size, 1)) for box in extra["boxes"][there]]
    if "labels" in extra:
        overlays[DRAWN] = drawn_picture(extra["labels"] == FOREGROUND, extra["labels"] == BACKGROUND)
    if "map" in extra:
        maps.append(Map(1, stage, heat(extra["map"], side=HEAT)))
    return replace(card, boxes=boxes, overlays=overlays, maps=maps)


def _evenly(rows: Array, count: int) -> Sequence[int]:
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
    return [int(rows[place]) for place in places]
