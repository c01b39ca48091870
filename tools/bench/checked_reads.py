"""What checking every read costs: the reader and the trainer's stream on chunks with a checksum and without.

Judged are the checked reader beside zarr's own reading of a store without checksums (whole shards: how it was read
before), and chunks with a checksum beside chunks without in runs of rows and in the stream. Shown besides: what the
checksums cost of whole shards, and what it costs to hash the shards of a store without them at their first use in a
process. Both of each pair in turns, by the CPU time of this process.

    python tools/bench/checked_reads.py [--rows 8192] [--repeat 15]
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import deque
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from ab import compare  # noqa: E402 - after the thread count
from figures import report  # noqa: E402
from prepare import read_options  # noqa: E402

from stores import DATASET, TinyStore, build_store  # noqa: E402
from wsolpipe.contract.reader import StageView, open_store  # noqa: E402
from wsoltrain.stream import ItemConfig, Labelling, Stream  # noqa: E402

LIMIT = 0.95
SHARD_ROWS, RUN = 4096, 256
ARRAYS = {"cls_maps": ("maps", "range"), "proposals": ("boxes", "scores", "count")}


def views(store: TinyStore, *, trusted: bool) -> list[StageView]:
    """Both stages, opened anew; `trusted` skips what is done at the first use of a shard."""
    split = open_store(store.url)[DATASET]["train"]
    found = [split[stage] for stage in ARRAYS]
    if trusted:
        for view in found:
            view[ARRAYS[view.stage][0]][0]
            names = [name for name, _ in view.backend.walk(f"{view.folder}/data.zarr")]
            view.seen.update(names)
    return found


def read(found: list[StageView], rows: int) -> None:
    """Every array, `rows` rows at a time."""
    for view in found:
        for name in ARRAYS[view.stage]:
            array = view[name]
            for start in range(0, len(array), rows):
                array[start : start + rows]


def read_by_zarr(found: list[StageView]) -> None:
    """Every array, a shard at a time, unchecked."""
    for view in found:
        for name in ARRAYS[view.stage]:
            array = view[name].zarr
            for start in range(0, array.shape[0], SHARD_ROWS):
                array[start : start + SHARD_ROWS]


def stream_of(store: TinyStore) -> Stream:
    """Maps and boxes in a trainer's order, without images and with nothing kept in memory."""
    config = ItemConfig(Labelling(store.url, DATASET), root=None, size=64, resize=72, memory=0)
    return Stream(config, batch_size=32)


def main() -> int:
    """Print the figures and return 1 if one is below the limit."""
    options = read_options(__doc__, rows=8192, repeat=15)
    with tempfile.TemporaryDirectory(prefix="checked-") as folder:
        made: dict[str, TinyStore] = {
            checksum: build_store(
                Path(folder) / (checksum or "none"), rows=options.rows, shard_rows=SHARD_ROWS, n_maps=7, n_boxes=10,
                images=False, checksum=checksum,
            )
            for checksum in ("", "crc32c")
        }  # fmt: skip
        plain, checked = views(made[""], trusted=True), views(made["crc32c"], trusted=True)
        unchecked, many = partial(read, plain, SHARD_ROWS), options.repeat
        by_zarr = compare(partial(read_by_zarr, plain), partial(read, checked, SHARD_ROWS), repetitions=many)
        runs = compare(partial(read, plain, RUN), partial(read, checked, RUN), repetitions=many)
        whole = compare(unchecked, partial(read, checked, SHARD_ROWS), repetitions=many)
        first = compare(unchecked, lambda: read(views(made[""], trusted=False), SHARD_ROWS), repetitions=5)
        without, with_checksums = (stream_of(store) for store in made.values())
        streamed = compare(lambda: deque(without, 0), lambda: deque(with_checksums, 0), repetitions=max(3, many // 3))
    return report(
        [
            by_zarr.figure("whole shards, checked / by zarr, unchecked", "cpu", limit=LIMIT),
            runs.figure(f"runs of {RUN} rows, with checksums / without", "cpu", limit=LIMIT),
            streamed.figure("stream, with checksums / without", "cpu", limit=LIMIT),
            whole.figure("whole shards, with checksums / without", "cpu"),
            first.figure("whole shards, hashed at first use / not", "cpu"),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
