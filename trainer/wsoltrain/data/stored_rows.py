"""Rows of a store that can be trained on, with a reason for the others, and their arrays read by whole chunks."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError, NotFoundError, TornShardError
from wsolpipe.contract.layout import shard_object
from wsolpipe.contract.reader import Index, Split, StageView, open_store
from wsolpipe.contract.schema import RETIRED, Status
from wsolpipe.keys.run_keys import read_row_list

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from wsolpipe.contract.arrays import ArrayView
    from wsolpipe.contract.manifest import CommitRecord
    from wsoltrain.data.config import Labelling

    Array = NDArray[Any]

#: Rows or shards that a message lists.
SHOWN = 8


class StoredRows:
    """The rows of one split, which of them can be trained on, and why the others cannot.

    Parameters
    ----------
    labelling : Labelling
        What to open.

    Raises
    ------
    NotFoundError
        If the store, data set, split, stage or some of its shards are missing; names the shards and the command.
    ConfigError
        If boxes and maps were not made of the same images.
    """

    def __init__(self, labelling: Labelling) -> None:
        self.labelling = labelling
        split = open_store(labelling.store)[labelling.dataset][labelling.split]
        self.boxes = self._stage(split, labelling.boxes, labelling.boxes_key)
        key = labelling.maps_key or self._maps_of_boxes(split)
        self.maps = self._stage(split, labelling.maps, key)
        self.images = self._stage(split, labelling.images, labelling.images_key)
        drawn, _, key = (labelling.drawn or "").partition(":")
        self.drawn = self._stage(split, drawn or None, key or None)
        if self.drawn is not None and "drawn" not in self.drawn.manifest.arrays:
            msg = f"drawn={labelling.drawn}: that stage does not record which rows were reviewed"
            raise ConfigError(msg, hint="drawn=human_boxes, which wsolpipe import makes")
        views = [view for view in (self.boxes, self.maps, self.images, self.drawn) if view is not None]
        self.index: Index = views[0].index() if views else split.index()
        self.views = views
        self._check_same_rows()

    def _stage(self, split: Split, stage: str | None, key: str | None) -> StageView | None:
        return None if stage is None else split.stage(stage, key)

    def _check_same_rows(self) -> None:
        """Refuse stages of different images; another index is fine where the columns that they read are equal."""
        for one, other in itertools.combinations([view.manifest for view in self.views], 2):
            shared = set(one.columns) & set(other.columns)
            changed = [name for name in sorted(shared) if one.columns[name] != other.columns[name]]
            if changed or one.rows != other.rows:
                what = ", ".join(changed) or "the number of rows"
                named = " and ".join(f"{item.stage} {item.key} ({item.rows} rows)" for item in (one, other))
                msg = f"{named} were made of different images: {what} of the index changed in between"
                raise ConfigError(msg, hint=self.labelling.command(f"{one.stage},{other.stage}"))

    def _maps_of_boxes(self, split: Split) -> str | None:
        """Key of the maps from which the boxes were made, since their ``source`` counts those maps."""
        if self.boxes is None or self.labelling.maps is None:
            return None
        upstream = self.boxes.manifest.upstream.get(self.labelling.maps)
        keys = [key for key in split.keys(self.labelling.maps) if upstream is not None and upstream.startswith(key)]
        return keys[0] if keys else None

    @cached_property
    def paths(self) -> Any:
        """Path of each row's file relative to the data set's root, an Arrow column."""
        return self.index.table(["path"]).column("path").combine_chunks()

    @cached_property
    def sizes(self) -> Array:
        """Width and height of each upright image, int64 [N, 2]; 0 where unknown."""
        table = self.index.table(["width", "height"])
        columns = [table.column(name).fill_null(0).to_numpy() for name in ("width", "height")]
        return np.stack(columns, axis=1).astype(np.int64)

    @cached_property
    def orientations(self) -> Array:
        """EXIF orientation to apply, int64 [N]; 1 is upright."""
        column: Array = self.index.table(["orientation"]).column(0).fill_null(1).to_numpy()
        return column.astype(np.int64)

    @cached_property
    def labels(self) -> Array:
        """First label of each row, int64 [N]; −1 where it has none."""
        lists = self.index.table(["labels"]).column(0).combine_chunks()
        lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
        flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
        first = np.full(len(lengths), -1, np.int64)
        first[lengths > 0] = flat[starts[lengths > 0]]
        return first

    @cached_property
    def groups(self) -> Array:
        """Number of each row's group, int64 [N]; −1 for plain images."""
        column = self.index.table(["group"]).column(0).combine_chunks().fill_null("").dictionary_encode()
        codes = column.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        plain = np.array([name == "" for name in column.dictionary.to_pylist()], bool)
        return np.where(plain[codes], -1, codes) if len(plain) else codes

    @cached_property
    def frames(self) -> Array:
        """Position of each row in its group, int64 [N]; −1 where it has none."""
        column: Array = self.index.table(["frame"]).column(0).fill_null(-1).to_numpy(zero_copy_only=False)
        return column.astype(np.int64)

    @property
    def classes(self) -> int | None:
        """Number of classes, where the data set says."""
        return self.index.manifest.classes

    def class_name(self, label: int) -> str:
        """Name of a class, or its number."""
        return self.index.manifest.class_names.get(str(label), str(label))

    def name(self, row: int) -> str:
        """Path of one row's file."""
        return str(self.paths[row].as_py())

    def check_shards(self) -> None:
        """Make sure that every shard of every stage exists and has its size.

        Raises
        ------
        NotFoundError
            If shards are missing; TornShardError if their objects are.
        """
        for view, records in self.records:
            missing = [shard for shard in range(len(view.shards)) if shard not in records]
            hint = self.labelling.command(view.stage)
            if missing:
                what = f"shards {_listed(missing)} of {len(view.shards)}"
                msg = f"{view.folder} in store {self.labelling.store} is unfinished: {what} are missing"
                raise NotFoundError(msg, hint=hint)
            backend = view.store.backend
            ndim = {name: 1 + len(spec.shape) for name, spec in view.manifest.arrays.items()} | {"status": 1}
            torn = [
                shard
                for shard, record in records.items()
                for name, stored in record.objects.items()
                if name in ndim and backend.size(shard_object(view.folder, name, shard, ndim[name])) != stored.bytes
            ]
            if torn:
                msg = f"{view.folder} in store {self.labelling.store} is damaged: shards {_listed(sorted(set(torn)))}"
                raise TornShardError(msg, hint=f"wsolpipe repair store={self.labelling.store}, then {hint}")

    @cached_property
    def records(self) -> list[tuple[StageView, dict[int, CommitRecord]]]:
        """Each stage with the commit records of its shards."""
        return [(view, view.committed()) for view in self.views]

    def status(self) -> Array:
        """Status of each row over all the stages that are read, uint8 [N]; the worst of them counts.

        Only the shards whose record counts anything else than good rows are read.
        """
        reasons = self.index.table(["reason"]).column(0).fill_null("").to_numpy(zero_copy_only=False)
        found = np.where(reasons != "", Status.QUARANTINED, Status.OK).astype(np.uint8)
        for view, records in self.records:
            array = view["status"]
            for record in records.values():
                if record.ok == record.stop - record.start:
                    continue
                here, theirs = found[record.start : record.stop], array[record.start : record.stop]
                for status in (Status.ABSENT, Status.NO_OBJECT, Status.QUARANTINED):
                    here[(theirs == status) & (here != Status.QUARANTINED)] = status
        found[reasons == RETIRED] = Status.ABSENT
        return found

    def usable(
        self, *, classes: int | None, need_label: bool, per_class: int | None = None
    ) -> tuple[NDArray[np.int64], dict[str, int]]:
        """Rows that can be trained on, and how many cannot.

        Parameters
        ----------
        classes : int or None
            Number of classes that labels must stay below; that of the data set where None.
        need_label : bool
            Whether rows without a label are left out.
        per_class : int, optional
            Only as many rows of each class, the first ones; rows without a label count as a class.

        Returns
        -------
        rows : int64 [n]
            Ascending.
        counts : dict of str to int
            Rows that are streamed, quarantined, no_object, absent, unlabelled, with `per_class` beyond, and where the
            labelling lists rows not_chosen; they add up to rows.

        Raises
        ------
        ConfigError
            If a label is outside the classes, or no row is left.
        """
        self.check_shards()
        status = self.status()
        chosen = self._chosen(len(status))
        self._check_labels(self.classes if classes is None else classes, status)
        unlabelled = (status == Status.OK) & (self.labels < 0) & need_label
        rows = every = np.flatnonzero((status == Status.OK) & ~unlabelled & chosen)
        if per_class is not None:
            first = [every[self.labels[every] == label][:per_class] for label in np.unique(self.labels[every])]
            rows = np.sort(np.concatenate([every[:0], *first]))
        counts = {
            "rows": len(status),
            "streamed": len(rows),
            "quarantined": int((chosen & (status == Status.QUARANTINED)).sum()),
            "no_object": int((chosen & (status == Status.NO_OBJECT)).sum()),
            "absent": int((chosen & (status == Status.ABSENT)).sum()),
            "unlabelled": int((chosen & unlabelled).sum()),
            **({} if chosen.all() else {"not_chosen": int((~chosen).sum())}),
            **({} if per_class is None else {"beyond": len(every) - len(rows)}),
        }
        if len(rows) == 0:
            listed = ", ".join(f"{value} {name}" for name, value in counts.items() if name not in {"rows", "streamed"})
            msg = f"split {self.labelling.split} of {self.labelling.dataset} has no row to stream: {listed}"
            raise ConfigError(msg, hint=f"wsolpipe quarantine list dataset={self.labelling.dataset} …")
        return rows, counts

    def _chosen(self, rows: int) -> NDArray[np.bool_]:
        """Rows that the labelling's list names; all without one."""
        where = self.labelling.where
        if where is None:
            return np.ones(rows, np.bool_)
        chosen, ids = np.zeros(rows, np.bool_), self.index.table(["image_id"]).column("image_id").to_pylist()
        chosen[read_row_list(where).find(ids, dataset=self.labelling.dataset, split=self.labelling.split)] = True
        return chosen

    def _check_labels(self, classes: int | None, status: Array) -> None:
        if classes is None:
            return
        bad = np.flatnonzero((self.labels >= classes) & (status != Status.QUARANTINED))
        if len(bad):
            row = int(bad[0])
            msg = (
                f"{len(bad)} rows have a label outside the {classes} classes, first row {row} ({self.name(row)}): "
                f"label {self.labels[row]}"
            )
            raise ConfigError(msg, hint="set classes= to the number of classes of the data set")


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN]))
    return shown if len(numbers) <= SHOWN else f"{shown} … ({len(numbers)})"


class ChunkCache:
    """Arrays of single rows, read a run of rows at a time, the runs used last kept in memory.

    A store that fits into `budget` is read once and then held.

    Parameters
    ----------
    arrays : mapping of str to ArrayView
        What to read, under which name.
    run_rows : int
        Rows a run; a multiple of the inner chunk reads no chunk twice.
    least_runs : int
        Runs that are kept whatever they weigh: those which the order visits in turns.
    budget : int
        Bytes to keep.
    """

    def __init__(self, arrays: dict[str, ArrayView], *, run_rows: int, least_runs: int, budget: int) -> None:
        self.arrays = arrays
        self.run_rows = run_rows
        row_bytes = sum(array.dtype.itemsize * int(np.prod(array.shape[1:])) for array in arrays.values())
        self.capacity = max(least_runs, budget // max(1, row_bytes * run_rows))
        self.runs: OrderedDict[int, dict[str, Array]] = OrderedDict()
        self.reads = 0

    def fetch(self, rows: Iterable[int]) -> dict[int, dict[str, Array]]:
        """Arrays by row, then by name; each run is read at most once."""
        return {row: {name: run[row % self.run_rows] for name, run in self._run(row).items()} for row in rows}

    def _run(self, row: int) -> dict[str, Array]:
        number = row // self.run_rows
        if number in self.runs:
            self.runs.move_to_end(number)
        else:
            span = slice(number * self.run_rows, (number + 1) * self.run_rows)
            self.runs[number] = {name: array[span] for name, array in self.arrays.items()}
            self.reads += 1
            if len(self.runs) > self.capacity:
                self.runs.popitem(last=False)
        return self.runs[number]
