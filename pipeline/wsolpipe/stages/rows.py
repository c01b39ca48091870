"""The rows that a stage works on: a block, its images decoded ahead in batches, and results of other stages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np

from wsolpipe.contract.errors import BadImageError
from wsolpipe.contract.schema import Status
from wsolpipe.images.video import map_ahead
from wsolpipe.networks.saved_state import Parts

T = TypeVar("T")
V = TypeVar("V")
Array = np.ndarray[Any, Any]


class Rows:
    """A run of index rows handed to a stage.

    Parameters
    ----------
    numbers : int64 array [n]
        Row numbers in the index.
    columns : mapping of str to sequence
        Index columns that the stage declared, each of length n. ``labels`` holds lists of int (the first is the label).
    load : callable
        Position in this block -> decoded RGB image, uint8 [H, W, 3], upright as the index says; raises BadImageError.
    status : uint8 array [n], optional
        `Status.QUARANTINED` where the index or an upstream stage already quarantined the row.
    reasons : mapping of int to str, optional
        Why, by position.
    threads : int
        Threads that decode images.
    parts : Parts, optional
        Where a stage keeps what it finished of this block, if a block takes longer than a minute.
    beside : int64 array [n, 2k], optional
        Row numbers of the k frames before and after each row in its group, earliest first, −1 past its ends; k is
        `Stage.frames_beside`.

    Attributes
    ----------
    counts : dict of str to int
        What `process` counted in this block, for the commit record; see `Stage.summary`.
    """

    def __init__(
        self,
        numbers: Array,
        columns: Mapping[str, Sequence[Any]],
        load: Callable[[int], Array],
        *,
        status: Array | None = None,
        reasons: Mapping[int, str] | None = None,
        threads: int = 2,
        parts: Parts | None = None,
        beside: Array | None = None,
    ) -> None:
        self.numbers = numbers
        self.beside = np.empty((len(numbers), 0), np.int64) if beside is None else beside
        self.columns = columns
        self.load = load
        self.status = np.full(len(numbers), Status.OK, np.uint8) if status is None else status.copy()
        self.reasons = dict(reasons or {})
        self.threads = threads
        self.parts = parts or Parts()
        self.counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def labels(self) -> list[int | None]:
        """First label of each row, None where a row has none."""
        return [labels[0] if len(labels) else None for labels in self.columns["labels"]]

    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each upright image, as the index recorded them; (0, 0) where undecodable."""
        return [(int(h or 0), int(w or 0)) for h, w in zip(self.columns["height"], self.columns["width"], strict=True)]

    def usable(self, position: int) -> bool:
        """Whether the row at `position` still takes part."""
        return bool(self.status[position] == Status.OK)

    def quarantine(self, position: int, reason: str) -> None:
        """Leave one row out, with the reason; the run goes on."""
        self.status[position] = Status.QUARANTINED
        self.reasons[position] = reason

    def need_labels(self, reason: str, check: Callable[[int], object]) -> None:
        """Quarantine the usable rows without a label; `check` is called with the first label of each other one."""
        for position, label in enumerate(self.labels()):
            if self.usable(position) and label is None:
                self.quarantine(position, reason)
            elif self.usable(position) and label is not None:
                check(label)

    def mark_objectless(self, labels: Collection[int]) -> None:
        """Mark the usable rows whose first label is one of those without an object: they have no boxes or masks."""
        for position, label in enumerate(self.labels()):
            if self.usable(position) and label is not None and label in labels:
                self.status[position] = Status.NO_OBJECT

    def need(self, upstream: Upstream, reason: str) -> None:
        """Quarantine the usable rows without a result in another stage."""
        for position in np.flatnonzero(upstream.status != Status.OK).tolist():
            if self.usable(position):
                self.quarantine(position, reason)

    def batches(self, size: int, prepare: Callable[[Array, int], T]) -> Iterator[Batch[T]]:
        """Cut the block at multiples of `size` and prepare images ahead in threads.

        Parameters
        ----------
        size : int
            Rows a batch. Cuts do not depend on which rows are usable, so a bad image never moves its neighbours.
        prepare : callable
            (uint8 [H, W, 3] image, position) -> whatever the stage wants of one image; runs in a thread.

        Yields
        ------
        Batch
            `items` has `size` entries; None at rows that are not usable (quarantined here if `prepare` or decoding
            raised BadImageError) and past the end of the block.
        """

        def attempt(position: int) -> T | BadImageError | None:
            if not self.usable(position):
                return None
            try:
                return prepare(self.load(position), position)
            except BadImageError as error:
                return error

        ahead = size * max(2, -(-2 * self.threads // size) + 1)
        results = map_ahead(attempt, range(len(self)), threads=self.threads, ahead=ahead)
        with contextlib.closing(results):
            for start in range(0, len(self), size):
                stop = min(start + size, len(self))
                items: list[T | None] = [None] * size
                for slot, result in enumerate(islice(results, stop - start)):
                    if isinstance(result, BadImageError):
                        self.quarantine(start + slot, result.message)
                    else:
                        items[slot] = result
                yield Batch(start=start, stop=stop, items=items)


@dataclass(frozen=True)
class Batch(Generic[T]):
    """Rows `start` … `stop` − 1 of a block; `items` is padded with None to the batch size."""

    start: int
    stop: int
    items: list[T | None]

    def present(self) -> list[tuple[int, int, T]]:
        """(slot in the batch, position in the block, item) of the rows that take part."""
        return [(slot, self.start + slot, item) for slot, item in enumerate(self.items) if item is not None]

    def pick(self, values: Sequence[V]) -> list[V]:
        """Return for each slot the value of its row, given one value a row of the block; padding repeats the last."""
        return [values[min(self.start + slot, len(values) - 1)] for slot in range(len(self.items))]

    def stack(self: Batch[Array], *shape: int) -> Array:
        """Images of `shape` as one uint8 array [slots, *shape], blank where a row does not take part."""
        pixels = np.zeros((len(self.items), *shape), np.uint8)
        for slot, _, image in self.present():
            pixels[slot] = image
        return pixels


@dataclass(frozen=True)
class Upstream:
    """Arrays of a needed rows stage for the same rows.

    Attributes
    ----------
    arrays : mapping of str to array [n, ...]
        Every array of that stage; rows without a result hold its fill value.
    status : uint8 array [n]
        `Status` of each row there.
    params : mapping
        Resolved parameters with which it was made.
    """

    arrays: Mapping[str, Array]
    status: Array
    params: Mapping[str, Any]
