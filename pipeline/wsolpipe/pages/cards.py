"""Cards of rows: image, layers over it, maps that can be cut, figures."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wsolpipe.contract.errors import BadImageError
from wsolpipe.metrics.boxes import best_iou, centred_box
from wsolpipe.metrics.maxbox import Convention, largest_boxes
from wsolpipe.metrics.scaling import SIDE
from wsolpipe.pages.pictures import Photo, photo

Array = np.ndarray[Any, Any]
THRESHOLDS = 1000
#: Thresholds as the evaluator cuts, boxes half-open; its own box is this one with the far edges clipped to 223.
HALF_OPEN = Convention("half-open", eight_bit=True, inclusive=False, clip=False, holes=False)


@dataclass(frozen=True)
class Box:
    """A rectangle to draw, in pixels of the image."""

    x: float
    y: float
    width: float
    height: float
    score: float | None = None
    source: int = -1
    source_name: str = ""
    iou: float | None = None

    @classmethod
    def of(cls, edges: Array | Sequence[float], **more: Any) -> Box:
        """The rectangle of half-open edges x0, y0, x1, y1."""
        x0, y0, x1, y1 = (float(edge) for edge in edges)
        return cls(x0, y0, x1 - x0, y1 - y0, **more)

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1."""
        return self.x, self.y, self.x + self.width, self.y + self.height


@dataclass(frozen=True)
class Layer:
    """A switch that shows and hides something on every card.

    Attributes
    ----------
    name : str
        Word of a–z, part of CSS selectors.
    title : str
        Beside the switch.
    shown : bool
        Before anything is switched.
    line : (str, str)
        Colour and dashes (CSS) of its boxes; empty where the page's style knows the name.
    """

    name: str
    title: str
    shown: bool = True
    line: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Map:
    """A map of a card.

    Attributes
    ----------
    slot : int
        Number among all maps of the page; the same on every card.
    name : str
    picture : str
        Data URI, stretched over the image.
    cuts : str
        Of `encode_cuts`; empty where it cannot be cut on the page.
    """

    slot: int
    name: str
    picture: str
    cuts: str = ""


@dataclass(frozen=True)
class Card:
    """A row.

    Attributes
    ----------
    boxes : dict of str to list of Box
        By layer.
    overlays : dict of str to str
        Pictures by layer: masks, segments, sampled pixels; data URIs stretched over the image.
    status : str
        ``ok``, ``no object``, ``quarantined`` or ``not made``.
    stage, reason : str
        Where and why it was quarantined.
    iou, centre, score, beside : float or None
        Fractions; `beside` is the IoU of the result that it is compared with.
    size : float or None
        Share of the image that its largest object takes.
    agreement, spread : float or None
        Mean IoU of each pair of its boxes by different stages and maps; entropy of its first map over the largest one
        that a map of its size could have.
    predicted : int or None
        Class that a stage found likeliest.
    part : str
        Word of a–z before its address on the page, where rows of several splits have the same numbers.
    listing : sequence of str
        Layers whose boxes its table lists.
    """

    row: int
    group: str
    image_id: str
    width: int
    height: int
    image: str | None = None
    missing: str = ""
    classes: Sequence[tuple[int, str]] = ()
    truth: Sequence[Box] = ()
    boxes: dict[str, list[Box]] = field(default_factory=dict)
    overlays: dict[str, str] = field(default_factory=dict)
    maps: Sequence[Map] = ()
    status: str = "ok"
    stage: str = ""
    reason: str = ""
    iou: float | None = None
    centre: float | None = None
    score: float | None = None
    beside: float | None = None
    size: float | None = None
    agreement: float | None = None
    spread: float | None = None
    predicted: int | None = None
    part: str = ""
    listing: Sequence[str] = ("top", "other")

    @property
    def difference(self) -> float | None:
        """IoU minus that of the result beside it."""
        return None if self.iou is None or self.beside is None else self.iou - self.beside

    @property
    def listed(self) -> list[Box]:
        """Boxes of its table."""
        return [box for layer in self.listing for box in self.boxes.get(layer, ())]

    @property
    def address(self) -> str:
        """Its anchor on the page."""
        return f"{self.part}r{self.row}"

    def cut_box(self, slot: int, tau: float) -> Box | None:
        """Box of a map at a threshold."""
        cuts = next((each.cuts for each in self.maps if each.slot == slot and each.cuts), None)
        return None if cuts is None else Box.of(decode_cut(cuts, tau) * np.tile((self.width, self.height), 2))


#: Columns of an index that `make_card` reads.
COLUMNS = ("image_id", "path", "labels", "width", "height", "orientation", "sha256")


def make_card(
    info: Mapping[str, Any],
    row: int,
    *,
    root: Path | None,
    how: Photo,
    class_name: Callable[[int], str],
    truth: Array | None = None,
    **more: Any,
) -> Card:
    """A card with the photograph, classes and true boxes of a row of an index.

    Parameters
    ----------
    info : mapping
        `COLUMNS` of the row.
    root : Path or None
        Folder of the images; None leaves an empty frame.
    truth : float [M, 4], optional
        True boxes, xyxy in pixels of the image.
    more
        Further fields of `Card`.
    """
    width, height = (max(int(info[side] or 0), 1) for side in ("width", "height"))
    own = np.zeros((0, 4)) if truth is None else truth
    image, missing = None, ""
    if root is not None and info["path"]:
        try:
            image = photo(root, info["path"], orientation=info["orientation"], sha256=info["sha256"] or None, how=how)
        except BadImageError as error:
            missing = error.message
    given: dict[str, Any] = {
        "group": "", "image": image, "missing": missing, "truth": [Box.of(box) for box in own],
        "classes": [(int(label), class_name(int(label))) for label in info["labels"] or []],
    }  # fmt: skip
    if len(own):
        given["centre"] = best_iou(centred_box(width, height), own)
        given["size"] = float((own[:, 2:] - own[:, :2]).prod(1).max() / (width * height))
    return Card(row=row, image_id=info["image_id"], width=width, height=height, **{**given, **more})


def encode_cuts(framed: Array) -> str:
    """Boxes of the largest contour at the thresholds 0, 0.001 … of a map: the slider draws the measured boxes.

    Parameters
    ----------
    framed : float [224, 224]
        In the evaluator's frame, in 0..1.

    Returns
    -------
    str
        Base64 of six bytes for each box that differs from the one before: number of the first threshold (little
        endian), x0, y0, x1, y1 in pixels of the frame.

    Raises
    ------
    DataError
        If the map holds NaN or leaves 0..1.
    """
    boxes = largest_boxes(framed, thresholds=THRESHOLDS, convention=HALF_OPEN).astype(np.int64)
    starts = np.concatenate([[0], np.flatnonzero((boxes[1:] != boxes[:-1]).any(axis=1)) + 1])
    runs = np.concatenate([starts[:, None] % 256, starts[:, None] // 256, boxes[starts]], axis=1)
    return base64.b64encode(runs.astype(np.uint8).tobytes()).decode("ascii")


def decode_cut(cuts: str, tau: float) -> Array:
    """The box [4] of `encode_cuts` at the threshold next to `tau`, as shares of both sides; zeros for an empty one."""
    runs = np.frombuffer(base64.b64decode(cuts), np.uint8).reshape(-1, 6).astype(np.int64)
    starts = runs[:, 0] + 256 * runs[:, 1]
    place = np.searchsorted(starts, min(round(tau * THRESHOLDS), THRESHOLDS - 1), side="right") - 1
    return np.asarray(runs[place, 2:] / SIDE)
