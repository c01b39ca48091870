"""The stream: batches of training items from a store and image files, the same for any number of loader processes.

The order of an epoch is planned up front from (seed, epoch), and loader processes only carry the plan out. So an epoch
can be entered anywhere, nothing that a process had read ahead is lost with it, and torch's own map-style loader keeps
the batches in order. An iterable data set, in which each process walks shards of its own, would give an order that
changes with the number of processes.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from wsolpipe.contract.errors import ConfigError, WsolError
from wsolpipe.contract.layout import sha256_bytes
from wsoltrain.data.config import ItemConfig, Labelling
from wsoltrain.data.items import Item, Items, Made
from wsoltrain.data.order import BatchOrder, Shuffle, Uneven, draw_frames, epoch_order, rank_share

__all__ = ["ItemConfig", "Labelling", "Shuffle", "Stream"]

#: Imported once by the server that loader processes are forked from. The only thread they start is that of OpenBLAS,
#: which stops it before a fork; pyarrow starts one that it does not stop, so each process imports that itself.
PRELOADED = ("wsoltrain.data.items", "zarr")

_log = logging.getLogger(__name__)


class Stream(IterableDataset[Any]):
    """Batches of one rank, epoch after epoch.

    Each ``iter(stream)`` goes through what is left of the current epoch, or through the next one where nothing is left:
    loops that end with the iterator and loops of ``len(stream)`` steps see the same epochs. All ranks get equally many
    items. ``DataLoader(stream, batch_size=None)`` passes batches on. A batch is a dict of stacked tensors, an item the
    same without the batch axis:

    ============ ==================================================================================================
    ``image``    float32 [3, S, S], normalised
    ``rgb``      uint8 [3, S, S], the same pixels
    ``maps``     float32 [M, h, w] over the whole image (``resolution="grid"``) or [M, S, S] (``"view"``)
    ``boxes``    float32 [K, 4] xyxy in pixels of the crop, clipped to it; all zero = lost: cut away, not stored, or
                 made of a map beyond M
    ``box_map``  int64 [K], index in ``maps`` of the map that a box came from; −1 where the box is lost or has none
    ``label``    int64, −1 where there is none
    ``row``      int64, row of the index
    ``window``   int64 [4] (left, top, side, flip): the image squashed to side², cut at (left, top), mirrored if 1
    ``grid_hw``  int64 [2], only of stages with padded grids: the part of the grid that lies on the image
    ``rgb_beside`` uint8 [n, 3, S, S], with a window of images: those beside, in the same crop; 0 where there is none
    ``beside``   bool [n], which of them there are
    ============ ==================================================================================================

    Parameters
    ----------
    config : ItemConfig
        Store, images, and what an item is.
    batch_size : int or None
        Items a batch; None gives single items.
    workers : int
        Loader processes; 0 loads in this process.
    rank, world : int
        Which of how many training processes this is.
    drop_last : bool
        Leave out a last batch that is not full.
    uneven : "drop" or "pad", optional
        Where the number of rows is not a multiple of `world`: leave the last ones out (default in training; others
        next time), or repeat the first ones (default in evaluation; recognise them by ``row``).
    pin_memory : bool
        Page-locked batches, for copying to a GPU beside other work.
    read_ahead : int
        Batches that each loader process makes ahead.

    Attributes
    ----------
    counts : dict of str to int
        Rows of the split: ``rows`` = ``streamed`` + ``quarantined`` + ``no_object`` + ``absent`` + ``unlabelled``;
        ``broken``: images met so far that could not be read, each counted and logged once.

    Raises
    ------
    StoreError
        If stages or shards are missing, with the command that makes them.
    ConfigError
        If the configuration does not fit the store, a label is outside the classes, or the images are not there.
    """

    def __init__(
        self,
        config: ItemConfig,
        *,
        batch_size: int | None = 32,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = False,
        uneven: Uneven | None = None,
        pin_memory: bool = False,
        read_ahead: int = 2,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            msg = f"batch_size={batch_size} must be at least 1"
            raise ConfigError(msg)
        self.config = config
        self.rank, self.world = rank, world
        self.uneven: Uneven = uneven or ("drop" if config.train else "pad")
        self.items = Items(config)
        self.items.arrays()  # raises where they do not fit the configuration
        self.rows, self.counts = self.items.rows.usable(
            classes=config.classes, need_label=config.need_label, per_class=config.rows_per_class
        )
        self.items.check_images(int(self.rows[0]))
        self.counts["broken"] = 0
        self._broken: set[int] = set()
        self._single = batch_size is None
        self._order = BatchOrder(batch_size=batch_size or config.shuffle.unit, drop_last=drop_last)
        self._loader = self._make_loader(workers, pin_memory=pin_memory, read_ahead=read_ahead)
        self._enter(0, 0)

    @property
    def epoch(self) -> int:
        """Current epoch; the next one becomes current when iteration ends, or begins with nothing left."""
        return self._order.epoch

    @property
    def position(self) -> int:
        """Items of this epoch that this rank has been given."""
        return self._order.position

    def __len__(self) -> int:
        """Batches (or single items) of a whole epoch."""
        return len(self._order.rows) if self._single else self._order.batches(0)

    @property
    def left(self) -> int:
        """Batches (or single items) that are left of the current epoch."""
        return len(self._order.rows) - self.position if self._single else len(self._order)

    def __iter__(self) -> Iterator[Any]:
        if get_worker_info() is not None:
            msg = "a stream has loader processes of its own and cannot run in those of another DataLoader"
            raise ConfigError(
                msg, hint="Stream(workers=N), and DataLoader(stream, batch_size=None) without num_workers"
            )
        order = self._order
        if not self.left:
            self._enter(order.epoch + 1, 0)
        for loaded in self._loader:
            if isinstance(loaded, WsolError):
                raise loaded
            self._note(loaded.broken)
            if self._single:
                for item in loaded.items:
                    order.position += 1
                    if item is not None:
                        yield item
                continue
            order.position += loaded.planned
            if loaded.batch:
                yield loaded.batch
        self._enter(order.epoch + 1, 0)

    def keep(self, rows: Sequence[int]) -> None:
        """Stream these rows alone, from the beginning of an epoch; those that cannot be used are left out."""
        self.rows = np.intersect1d(self.rows, np.asarray(rows, np.int64))
        self._enter(0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        self._enter(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, after the last item that the consumer was given; plain JSON."""
        place = {"epoch": self.epoch, "position": self.position - self._skipped, "rank": self.rank, "world": self.world}
        return {**place, "unit": self._unit, "before": self._before, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, by any rank: the same items remain, in the same order.

        Where the number of ranks has changed, they share the rows that are left of the epoch.

        Raises
        ------
        ConfigError
            If rows, seed, order or crops are not those of the stream that was saved; names what differs.
        """
        own = self._identity()
        changed = [name for name in own if state.get(name) != own[name]]
        if changed:
            differences = ", ".join(f"{name} was {state.get(name)}, is {own[name]}" for name in changed)
            msg = f"this stream is not the one that was saved: {differences}"
            raise ConfigError(msg, hint="resume with the settings of the first run, or start again")
        epoch, position, before = int(state["epoch"]), int(state["position"]), state.get("before", [])
        sharing = [int(state["world"]), int(state.get("unit", self._unit))]
        if sharing == [self.world, self._unit] or sharing[0] == self.world == 1:
            self._enter(epoch, position, before)
        else:
            self._enter(epoch, 0, [*before, [*sharing, position]])

    def _identity(self) -> dict[str, Any]:
        """Return what must be equal for a position to mean the same."""
        config = self.config
        views = self.items.rows.views
        shuffle = config.shuffle
        return {
            "rows": sha256_bytes(self.rows.tobytes())[:16],
            "stages": {view.stage: view.key for view in views},
            "seed": config.seed,
            "uneven": self.uneven,
            "one_per_group": config.one_per_group,
            **({"frames_per_group": config.frames_per_group} if config.frames_per_group else {}),
            **({"window": asdict(config.neighbours)} if config.neighbours.size else {}),
            "order": [shuffle.run_rows, shuffle.lane_runs, shuffle.lanes, shuffle.unit] if config.train else [],
            "view": [config.size, config.side, config.flip if config.train else 0.0],
        }

    @property
    def _unit(self) -> int:
        """Items that a rank takes in its turn: a batch."""
        return self.config.shuffle.unit if self._single else self._order.batch_size

    def _enter(self, epoch: int, position: int, before: Sequence[Sequence[int]] = ()) -> None:
        """Go to a position of this rank's share of an epoch, or of what other numbers of ranks left of it.

        `before` holds for each of these the number of ranks, their unit, and the position of each.
        """
        config, order = self.config, self._order
        rows = self.rows
        if config.drawn is not None:
            groups = self.items.rows.groups[rows]
            rows = draw_frames(rows, groups, seed=config.seed, epoch=epoch, count=config.drawn)
        shuffle = config.shuffle if config.train else None
        whole = epoch_order(rows, seed=config.seed, epoch=epoch, shuffle=shuffle)
        rest = whole
        for world, unit, seen in before:
            shares = [rank_share(rest, rank=n, world=world, unit=unit, uneven=self.uneven)[:seen] for n in range(world)]
            rest = rest[~np.isin(rest, np.concatenate(shares))]
        self._before, self._skipped = [list(each) for each in before], (len(whole) - len(rest)) // self.world
        share = rest[:0]
        if len(rest) >= self.world or not before:
            share = rank_share(rest, rank=self.rank, world=self.world, unit=self._unit, uneven=self.uneven)
        order.rows = np.concatenate([whole[: self._skipped], share])
        order.epoch, order.position = epoch, self._skipped + position

    def _note(self, broken: list[tuple[int, str]]) -> None:
        """Count images that could not be read, and log each once."""
        for row, reason in broken:
            if row not in self._broken:
                self._broken.add(row)
                self.counts["broken"] += 1
                _log.warning("row %d (%s) is left out: %s", row, self.items.rows.name(row), reason)

    def _make_loader(self, workers: int, *, pin_memory: bool, read_ahead: int) -> DataLoader[Any]:
        settings: dict[str, Any] = {}
        if workers:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(list(PRELOADED))
            settings = {
                "multiprocessing_context": context,
                "persistent_workers": True,
                "prefetch_factor": read_ahead,
                "worker_init_fn": functools.partial(_settle_worker, os.getpid()),
            }
        return DataLoader(
            self.items,  # type: ignore[arg-type]
            batch_sampler=self._order,
            num_workers=workers,
            collate_fn=_keep if self._single else _collate,
            pin_memory=pin_memory,
            generator=torch.Generator().manual_seed(self.config.seed),  # else each epoch draws from the global one
            **settings,
        )


class Loaded(NamedTuple):
    """Result of a loader process: `planned` items, stacked or one by one, and images that could not be read."""

    planned: int
    broken: list[tuple[int, str]]
    batch: dict[str, Tensor]
    items: list[Item | None]


def _collate(made: Made | WsolError) -> Loaded | WsolError:
    if isinstance(made, WsolError):
        return made
    items = [item for item, _ in made if item is not None]
    batch = default_collate(items) if items else {}  # stacks straight into shared memory in a loader process
    return Loaded(len(made), _broken_of(made), batch, [])


def _keep(made: Made | WsolError) -> Loaded | WsolError:
    if isinstance(made, WsolError):
        return made
    return Loaded(len(made), _broken_of(made), {}, [item for item, _ in made])


def _broken_of(made: Made) -> list[tuple[int, str]]:
    return [pair for _, broken in made for pair in broken]


def _settle_worker(trainer: int, number: int) -> None:
    """One loader process among many: few threads of its own, and an interrupt is the parent's to handle.

    Its parent is the fork server, so torch's own check of the parent does not notice that the trainer was killed.
    """
    import zarr

    del number
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    zarr.config.set({"async.concurrency": 4, "threading.max_workers": 2})
    threading.Thread(target=_end_with, args=(trainer,), name="follow-trainer", daemon=True).start()


def _end_with(trainer: int) -> None:
    """End this process once the trainer's is gone."""
    while True:
        time.sleep(2.0)
        try:
            os.kill(trainer, 0)
        except ProcessLookupError:
            os._exit(1)
