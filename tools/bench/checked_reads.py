"""Cost of verifying every object before its first use for eval, the trainer's stream, plan and plain reads.

Each is timed beside the same work where objects are believed unseen: in a first process, which hashes every object that
it reads, and in a second one, which finds the notes of the first (`wsolpipe.contract.verified`). Shown besides: whole
shards read by zarr, which verifies nothing. Both of each pair in turns, by the CPU time of this process.

    python tools/bench/checked_reads.py [--rows 8192] [--repeat 5]
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import ab  # noqa: E402 - after the thread count
from figures import Figure, report  # noqa: E402
from prepare import read_options  # noqa: E402

from stores import DATASET, TinyStore, build_store  # noqa: E402
from wsolpipe import open_store  # noqa: E402
from wsolpipe.cli.main import cli  # noqa: E402
from wsolpipe.contract.backends import filesystem  # noqa: E402
from wsolpipe.contract.verified import Verified  # noqa: E402
from wsoltrain.stream import ItemConfig, Labelling, Stream  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIRST, SECOND = 0.9, 0.97
SHARD_ROWS = 4096
# factors on --rows and --repeat where a row takes a hundred times as long, or as short
ROWS = {"eval of maps": 1 / 32, "eval of boxes": 4}
REPEAT = {"eval of maps": 5, "eval of boxes": 6, "plan": 6}
ARRAYS = {"cls_maps": ("maps", "range"), "proposals": ("boxes", "scores", "count")}


def believe(self: Verified, name: str, stored: object, hashed: object) -> None:  # noqa: ARG001
    """Stand in for `Verified._verify`: take every object for what its record says."""
    head = self.backend.head(name)
    assert head is not None
    self._known[name] = head


def read(store: TinyStore) -> None:
    """Every array, a shard at a time."""
    split = open_store(store.url)[DATASET]["train"]
    for stage, names in ARRAYS.items():
        for name in names:
            list(split[stage][name])


def read_by_zarr(store: TinyStore) -> None:
    """The same, unverified."""
    import zarr

    split = open_store(store.url)[DATASET]["train"]
    for stage, names in ARRAYS.items():
        for name in names:
            array = zarr.open_array(f"{store.url}/{split[stage].folder}/data.zarr/{name}", mode="r")
            for start in range(0, array.shape[0], SHARD_ROWS):
                array[start : start + SHARD_ROWS]


def stream(store: TinyStore) -> None:
    """One epoch of maps and boxes in a trainer's order, without images and with nothing kept in memory."""
    config = ItemConfig(Labelling(store.url, DATASET), root=None, size=64, resize=72, memory=0)
    for batch in Stream(config, batch_size=32):
        del batch


def command(store: TinyStore, *words: str) -> None:
    """A command in this process, silent."""
    place = [f"dataset={Path(store.url).parent / 'tiny.yaml'}", f"store={store.url}", "split=train"]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            cli.main([*words, *place], standalone_mode=False)
    except SystemExit as error:
        if error.code not in {None, 0, 2}:  # 2: work is pending
            raise


WORK: dict[str, Callable[[TinyStore], None]] = {
    "eval of maps": lambda store: command(store, "eval", "stage=cls_maps"),
    "eval of boxes": lambda store: command(store, "eval", "stage=proposals"),
    "stream": stream,
    "plan": lambda store: command(store, "plan", "stage=cls_maps", "cls_maps.weights=random:0"),
}


def main() -> int:
    """Print the figures and return 1 if one is below its limit."""
    options = read_options(__doc__, rows=8192, repeat=5)
    with tempfile.TemporaryDirectory(prefix="checked-") as folder, mock.patch.object(filesystem, "SETTLED", -1):
        return report(figures(Path(folder), options.rows, options.repeat))


def figures(folder: Path, rows: int, repeat: int) -> Iterator[Figure]:
    """Every kind of work in a store of as many rows as it needs, then whole shards beside zarr."""
    notes = folder / "cache"
    os.environ["WSOLPIPE_CACHE"] = str(notes)
    for name, work in {**WORK, "whole shards": read}.items():
        store = prepare(folder / name.replace(" ", "_"), int(rows * ROWS.get(name, 1)))
        yield from measured(name, partial(work, store), notes, repeat * REPEAT.get(name, 1), judged=name in WORK)
    by_zarr = ab.compare(lambda: read_by_zarr(store), lambda: read(store), repetitions=repeat)
    yield by_zarr.figure("whole shards, verified before / by zarr, unverified", "cpu")


def prepare(folder: Path, rows: int) -> TinyStore:
    """Build the store and its data set's file."""
    folder.mkdir()
    store = build_store(folder, rows=rows, shard_rows=min(SHARD_ROWS, rows // 2), n_maps=7, n_boxes=10, images=False)
    (folder / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\nsplit: train\n")
    return store


def measured(name: str, work: Callable[[], None], notes: Path, repeat: int, *, judged: bool) -> Iterator[Figure]:
    """Throughput of `work` in a first and a second process, as a share of that of a process that verifies nothing."""

    def unverified() -> None:
        with mock.patch.object(Verified, "_verify", believe), mock.patch.object(Verified, "judge"):
            work()

    def first() -> None:
        shutil.rmtree(notes, ignore_errors=True)
        work()

    unverified()
    one = ab.compare(unverified, first, repetitions=repeat)
    yield one.figure(f"{name}, first call / unverified", "cpu", limit=FIRST if judged else None)
    other = ab.compare(unverified, work, repetitions=repeat)
    yield other.figure(f"{name}, second call / unverified", "cpu", limit=SECOND if judged else None)


if __name__ == "__main__":
    sys.exit(main())
