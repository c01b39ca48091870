"""Boxes of other tools as lines of a split's images: which row a name means, which class, and edges in its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import Status
from wsolpipe.images.label_lines import LabelBox, LabelledImage
from wsolpipe.images.listing import Problems
from wsolpipe.share.exporting import Chosen, labelled
from wsolpipe.share.formats.base import Found, class_name, flat_name, stem_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from wsolpipe.contract.reader import StageView
    from wsolpipe.evaluate.map_sources import RowTable


#: Pixels by which an edge may differ after a format rounded it.
ROUNDING = 0.51


class Names:
    """Rows by what other tools call them: image id or path, whole, without ending, or as the end of a longer one."""

    def __init__(self, rows: RowTable, paths: list[str]) -> None:
        flat = {stem_of(flat_name(name)): row for row, name in enumerate(paths)}  # as readers of one folder need them
        self.whole = flat | {name: row for row, name in enumerate(paths)} | rows.places
        self.by_last: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
        for row, names in enumerate(zip(rows.ids, paths, strict=True)):
            for name in dict.fromkeys(stem_of(name) for name in names):
                parts = tuple(name.split("/"))
                self.by_last.setdefault(parts[-1], []).append((row, parts))

    def find(self, name: str) -> int | str | None:
        """Row of a name; None if there is none, or a text that names two rows that it may mean."""
        if name in self.whole:
            return self.whole[name]
        plain = name.replace("\\", "/").rpartition("?d=")[2].lstrip("/")
        for stem in dict.fromkeys((plain, stem_of(plain))):
            asked = tuple(stem.split("/"))
            fitting = [
                (row, min(len(asked), len(parts)))
                for row, parts in self.by_last.get(asked[-1], ())
                if asked[-len(parts) :] == parts or parts[-len(asked) :] == asked
            ]
            longest = max((length for _, length in fitting), default=0)
            found = sorted({row for row, length in fitting if length == longest})
            if len(found) == 1:
                return found[0]
            if found:
                return f"rows {found[0]} and {found[1]}"
        return None


@dataclass(frozen=True)
class Taken:
    """Images of a split with their boxes, in row order, and counts.

    Attributes
    ----------
    images : list of LabelledImage
    boxes : int
        That were read.
    clipped : int
        That reached over an edge of their image.
    elsewhere : int
        Images of the file that are not of this split.
    """

    images: list[LabelledImage]
    boxes: int
    clipped: int
    elsewhere: int


@dataclass(frozen=True)
class Reference:
    """Boxes that a file held before a person looked at it: those of a stage, as they were exported.

    Attributes
    ----------
    view : StageView
    top : int or None
        Boxes of an image that were exported for training.
    min_score, nms : float or None
        As `Chosen` has them.
    certain : bool
        Whether the file was exported from this stage; else an image that the file lists without a box is a change.
    """

    view: StageView
    top: int | None = None
    min_score: float | None = None
    nms: float | None = None
    certain: bool = True

    def boxes(self, rows: RowTable) -> dict[int, tuple[LabelBox, ...]]:
        """Boxes by row."""
        chosen = Chosen(np.ones(len(rows), np.bool_), min_score=self.min_score, nms=self.nms)
        return {image.row: image.boxes for image in labelled(self.view, rows, chosen)}


def is_untouched(own: Sequence[LabelBox], before: Sequence[LabelBox], top: int | None) -> bool:
    """Whether boxes are those that were exported, within the rounding of a format: all of them or the first `top`.

    Examples
    --------
    >>> is_untouched([LabelBox((1, 2, 30, 40))], [LabelBox((1.3, 2.2, 29.7, 40.1)), LabelBox((5, 5, 9, 9))], 1)
    True
    """
    if len(own) not in {len(before), min(len(before), top or len(before))}:
        return False
    left = list(before)
    for box in own:
        same = (
            item
            for item in left
            if max(abs(a - b) for a, b in zip(box.edges, item.edges, strict=True)) <= ROUNDING
            and (box.label is None or item.label is None or box.label == item.label)
        )
        found = next(same, None)
        if found is None:
            return False
        left.remove(found)
    return True


def take_in(
    found: Iterable[Found],
    rows: RowTable,
    *,
    subject: str,
    over: StageView | None = None,
    reference: Reference | None = None,
    listed: bool = False,
) -> Taken:
    """Images of a split from what a file holds.

    Parameters
    ----------
    found : iterable of Found
        As the format read them.
    rows : RowTable
        Of the split, from its index.
    subject : str
        What is read, for messages.
    over : StageView, optional
        A stage whose first box stands for the rows that the file does not list; of earlier drawn boxes, all of them.
    reference : Reference, optional
        What the file held when it was exported: rows whose boxes did not change since do not count as drawn.
    listed : bool
        Whether every image that the file lists counts as drawn.

    Raises
    ------
    DataError
        For up to twenty of: a name that means two rows, an image listed twice, a class that is not one, a box wholly
        outside its image.
    ConfigError
        If the file holds no image of the split.
    """
    assert rows.index is not None
    names = {int(label): name for label, name in rows.index.manifest.class_names.items()}
    labels = {name: label for label, name in names.items()}
    table = Names(rows, rows.index.table(["path"]).column("path").to_pylist())
    problems, images, elsewhere = Problems(subject), dict[int, LabelledImage](), 0
    before = reference.boxes(rows) if reference else {}
    boxes = clipped = 0
    example = ""
    for item in found:
        row = table.find(item.name)
        if row is None:
            elsewhere, example = elsewhere + 1, example or item.name
            continue
        if isinstance(row, str):
            problems.add(item.where, f"{item.name!r} may be either of {row}: give longer paths")
            continue
        if row in images:
            problems.add(item.where, f"{rows.ids[row]!r} is listed twice")
            continue
        own, over_edge = _fitted(item, rows, row, labels, names, problems)
        boxes, clipped = boxes + len(own), clipped + over_edge
        width, height = (int(side) for side in rows.sizes[row])
        drawn = True if listed else item.drawn
        if drawn is None:
            known = reference is not None and row in before and (reference.certain or bool(own))
            drawn = not (known and is_untouched(own, before[row], reference.top if reference else None))
        images[row] = LabelledImage(row, rows.ids[row], "", width, height, (), own, drawn)
    problems.settle()
    if not images:
        others = f", but {elsewhere} others, such as {example!r}" if elsewhere else ""
        msg = f"{subject} holds no image of {rows.split}{others}"
        raise ConfigError(msg, hint=f"image ids of {rows.split} look like {rows.ids[0]}" if rows.ids else None)
    for image in _kept(over, rows, set(images)):
        images[image.row] = image
    return Taken([images[row] for row in sorted(images)], boxes, clipped, elsewhere)


def _fitted(
    item: Found, rows: RowTable, row: int, labels: dict[str, int], names: dict[int, str], problems: Problems
) -> tuple[tuple[LabelBox, ...], int]:
    """Boxes of an image in its pixels, clipped to it, by falling score where all have one; and how many were cut."""
    width, height = (float(side) for side in rows.sizes[row])
    own, over = [], 0
    for box in item.boxes:
        x0, y0, x1, y1 = box.edges
        if item.relative:
            x0, y0, x1, y1 = x0 * width, y0 * height, x1 * width, y1 * height
        if width <= 0 or x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
            problems.add(item.where, f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) lies wholly outside {rows.ids[row]}, "
                                     f"{width:g}x{height:g} pixels")  # fmt: skip
            continue
        inside = (max(x0, 0.0), max(y0, 0.0), min(x1, width), min(y1, height))
        over += max(abs(a - b) for a, b in zip(inside, (x0, y0, x1, y1), strict=True)) > 0.01  # more than rounding
        label = box.label if not box.name else _label(box.name, labels, names)
        if box.name and label is None and box.name != class_name(names, None):
            problems.add(item.where, f"class {box.name!r} is not one of the data set")
        own.append(LabelBox(inside, "" if label is None else class_name(names, label), label, box.score, box.source))
    if own and all(box.score is not None for box in own):
        own.sort(key=lambda box: -(box.score or 0.0))
    return tuple(own), over


def _label(name: str, labels: dict[str, int], names: dict[int, str]) -> int | None:
    """Label of a class by its name, or by its number where the class has no name."""
    if name in labels:
        return labels[name]
    return int(name) if name.isdecimal() and len(name) < 9 and int(name) not in names else None


def _kept(over: StageView | None, rows: RowTable, drawn: set[int]) -> Iterator[LabelledImage]:
    """Images of the rows that the file does not list: all boxes that people drew before, else the first box."""
    if over is None:
        return
    wanted = np.ones(len(rows), np.bool_)
    wanted[sorted(drawn)] = False
    wanted &= over.status() == Status.OK
    before = over["drawn"][:] == 1 if "drawn" in over.manifest.arrays else np.zeros(len(rows), np.bool_)
    for chosen, earlier in ((Chosen(wanted & before), True), (Chosen(wanted & ~before, top=1), False)):
        for image in labelled(over, rows, chosen):
            yield LabelledImage(image.row, image.image_id, "", image.width, image.height, (), image.boxes, earlier)
