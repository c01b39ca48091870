"""Order in which an epoch visits its rows: seeded, local enough to read whole chunks, equal for any number of loaders.

The order of all ranks together is fixed by (seed, epoch) alone. Rows are taken in runs of one inner chunk each, so that
a chunk is read once; runs come in random order, and a window of `Shuffle.window_runs` of them is mixed row by row. In a
data set larger than that window, the window is made of lanes which take turns, `Shuffle.unit` rows each: with `lanes`
loader processes every process meets the chunks of one lane only, and with fewer it meets several whole lanes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import INNER_CHUNK_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

Uneven = Literal["drop", "pad"]


class Purpose(IntEnum):
    """Uses of random numbers: the draws of one never repeat another's."""

    ORDER = 1
    FRAMES = 2
    CROP = 3
    SPARE = 4
    TURN = 5
    COLOURS = 6


@dataclass(frozen=True)
class Shuffle:
    """How far rows are mixed.

    Attributes
    ----------
    run_rows : int
        Rows read at once; best a multiple of the store's inner chunk.
    lane_runs : int
        Runs that one lane mixes.
    lanes : int
        Lanes that take turns.
    unit : int
        Rows that a lane gives in its turn; best the batch size, or a divisor of it.
    """

    run_rows: int = INNER_CHUNK_ROWS
    lane_runs: int = 64
    lanes: int = 8
    unit: int = 32

    def __post_init__(self) -> None:
        low = [name for name in ("run_rows", "lane_runs", "lanes", "unit") if getattr(self, name) < 1]
        if low:
            msg = f"shuffle: {', '.join(low)} must be at least 1"
            raise ConfigError(msg)

    @property
    def window_runs(self) -> int:
        """Runs that are open at once."""
        return self.lanes * self.lane_runs


def generator(seed: int, epoch: int, purpose: Purpose, *more: int) -> np.random.Generator:
    """Random numbers of one purpose in one epoch, and of one row where `more` says which."""
    return np.random.default_rng([seed, epoch, purpose, *more])


def draw_frames(rows: Rows, groups: NDArray[np.int64], *, seed: int, epoch: int, count: int = 1) -> Rows:
    """A few rows a group, drawn anew each epoch.

    Parameters
    ----------
    rows : int64 [n]
        Row numbers, ascending.
    groups : int64 [n]
        Group (video shot, patient) of each row; −1 is a group of its own.
    count : int
        Rows a group; all of a smaller one.

    Returns
    -------
    int64 [m]
        Row numbers, ascending; every frame of a group is equally likely, and none comes twice.
    """
    alone = rows[groups < 0]
    rows, groups = rows[groups >= 0], groups[groups >= 0]
    order = np.lexsort((generator(seed, epoch, Purpose.FRAMES).random(len(rows)), groups))
    first = np.ones(len(rows), bool)
    first[1:] = np.diff(groups[order]) != 0
    starts = np.flatnonzero(first)
    place = np.arange(len(rows)) - np.repeat(starts, np.diff([*starts, len(rows)]))
    return np.sort(np.concatenate([alone, rows[order][place < count]]))


@dataclass(frozen=True)
class Neighbours:
    """Frames beside each frame of a video whose maps are taken with its own (TCAM: temporal max-pooling).

    Attributes
    ----------
    before, after : int
        Frames on either side, of the same group.
    heat : float
        h: maps become ``exp(h · (map + 1e-6))`` over its own greatest value; 0 leaves them as they are.
    images : bool
        Whether items hold the pixels of these frames too.
    """

    before: int = 0
    after: int = 0
    heat: float = 0.0
    images: bool = False

    @property
    def size(self) -> int:
        """Frames beside each."""
        return self.before + self.after


def epoch_order(rows: Rows, *, seed: int, epoch: int, shuffle: Shuffle | None) -> Rows:
    """Order in which all ranks together visit `rows` in one epoch.

    Parameters
    ----------
    rows : int64 [n]
        Row numbers, ascending.
    shuffle : Shuffle or None
        None keeps the rows as they are.

    Returns
    -------
    int64 [n]
        A permutation of `rows`.
    """
    if shuffle is None or len(rows) == 0:
        return rows
    rng = generator(seed, epoch, Purpose.ORDER)
    starts_run = np.ones(len(rows), bool)
    starts_run[1:] = np.diff(rows // shuffle.run_rows) != 0
    run = np.cumsum(starts_run) - 1
    runs = int(run[-1]) + 1
    mixed = rows[np.argsort(rng.permutation(runs)[run], kind="stable")]
    # Where only some rows of each run take part, a lane holds fewer rows: what is bounded is the chunks open at once.
    units = max(1, round(shuffle.lane_runs * len(rows) / runs / shuffle.unit))
    window = shuffle.lanes * units * shuffle.unit
    whole = len(mixed) // window * window
    lanes = rng.permuted(mixed[:whole].reshape(-1, units * shuffle.unit), axis=1)
    turns = lanes.reshape(-1, shuffle.lanes, units, shuffle.unit).transpose(0, 2, 1, 3)
    return np.concatenate([turns.reshape(-1), rng.permutation(mixed[whole:])])


def rank_share(order: NDArray[Any], *, rank: int, world: int, unit: int, uneven: Uneven) -> NDArray[Any]:
    """Part of an epoch's order that one rank visits; equally many for each rank.

    Ranks take turns by `unit`, the batch of one of them, so that a step of all ranks covers what a single process with
    the same global batch covers in that step. The remainder is cut evenly.

    Parameters
    ----------
    order : array [n]
        `epoch_order`.
    uneven : "drop" or "pad"
        Where n is not a multiple of `world`: leave out the last n mod `world` (others the next epoch), or repeat the
        first ones, so that nothing is left out and at most `world` − 1 come twice.

    Raises
    ------
    ConfigError
        If a rank would get nothing.
    """
    if not 0 <= rank < world:
        msg = f"rank {rank} of {world}: ranks are 0 … {world - 1}"
        raise ConfigError(msg)
    extra = -len(order) % world
    if extra and uneven == "pad" and len(order):
        order = np.concatenate([order, np.resize(order, extra)])
    count = len(order) // world * world
    if count == 0:
        msg = f"{len(order)} rows cannot be shared among {world} ranks"
        raise ConfigError(msg, hint="use fewer processes, or uneven='pad'")
    turns = count // (world * unit) * world * unit
    tail = order[turns:count].reshape(world, -1)[rank]
    return np.concatenate([order[:turns].reshape(-1, world, unit)[:, rank].reshape(-1), tail])


class Pick(NamedTuple):
    """Request to a loader process for an item: the row, and the epoch of its random draws."""

    epoch: int
    row: int


class BatchOrder:
    """Batches of one rank's epoch, from any position on: the ``batch_sampler`` of a DataLoader.

    Attributes
    ----------
    epoch : int
        Epoch of the next iteration.
    position : int
        Items of that epoch that are skipped, since they were seen before an interruption.
    """

    def __init__(self, *, batch_size: int, drop_last: bool) -> None:
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.epoch = 0
        self.position = 0
        self.rows: Rows = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return self.batches(self.position)

    def batches(self, position: int) -> int:
        """Batches from a position to the end of the epoch."""
        left = len(self.rows) - position
        return max(0, left // self.batch_size if self.drop_last else -(-left // self.batch_size))

    def __iter__(self) -> Iterator[list[Pick]]:
        epoch, start, rows = self.epoch, self.position, self.rows
        for number in range(len(self)):
            first = start + number * self.batch_size
            yield [Pick(epoch, int(row)) for row in rows[first : first + self.batch_size]]
