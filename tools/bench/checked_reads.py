"""What checking every read costs: the reader and the trainer's stream on chunks with a checksum and without.

A: a store without checksums whose shards count as checked, so that nothing is hashed. B: the same rows with a checksum
in each chunk, checked at every read. C: a store without checksums, whose shards are hashed at their first use in a
process; it is shown and not judged, since it is paid once. Z: zarr's own reading of A's arrays. In turns, by the CPU
time of this process.

    python tools/bench/checked_reads.py [--rows 8192] [--repeat 15] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import ab  # noqa: E402 - after the thread count

from stores import DATASET, TinyStore, build_store  # noqa: E402
from wsolpipe.contract.reader import StageView, open_store  # noqa: E402
from wsoltrain.stream import ItemConfig, Labelling, Stream  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

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


def exhaust(stream: Stream) -> None:
    """One epoch."""
    for batch in stream:
        del batch


def main() -> int:
    """Print the ratios and return 1 if one is below the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="checked-") as folder:
        made: dict[str, TinyStore] = {
            checksum: build_store(
                Path(folder) / (checksum or "none"), rows=options.rows, shard_rows=SHARD_ROWS, n_maps=7, n_boxes=10,
                images=False, checksum=checksum,
            )
            for checksum in ("", "crc32c")
        }  # fmt: skip
        plain, checked = views(made[""], trusted=True), views(made["crc32c"], trusted=True)
        ratios: dict[str, Any] = {}
        for name, rows in (("whole shards", SHARD_ROWS), (f"runs of {RUN} rows", RUN)):
            done = ab.compare(
                lambda r=rows: read(plain, r), lambda r=rows: read(checked, r), repetitions=options.repeat
            )
            ratios[f"read {name}"] = done.ratio("cpu")
        first = ab.compare(
            lambda: read(plain, SHARD_ROWS), lambda: read(views(made[""], trusted=False), SHARD_ROWS), repetitions=5
        )
        zarrs = ab.compare(lambda: read_by_zarr(plain), lambda: read(checked, SHARD_ROWS), repetitions=options.repeat)
        streams = {checksum: stream_of(store) for checksum, store in made.items()}
        epochs: dict[str, Callable[[], None]] = {key: (lambda s=stream: exhaust(s)) for key, stream in streams.items()}
        done = ab.compare(epochs[""], epochs["crc32c"], repetitions=max(3, options.repeat // 3))
        ratios["stream"] = done.ratio("cpu")
    if options.json:
        print(
            json.dumps(
                {
                    "ratios": ratios,
                    "limit": LIMIT,
                    "first use without checksums": first.ratio("cpu"),
                    "zarr": zarrs.ratio("cpu"),
                }
            )
        )
    else:
        for name, ratio in ratios.items():
            print(f"{name:<22} with checksums / without: {ratio:.3f} (wanted {LIMIT:g})")
        print(f"{'whole shards':<22} hashed at first use / not: {first.ratio('cpu'):.3f}")
        print(f"{'whole shards':<22} checked / by zarr, unchecked: {zarrs.ratio('cpu'):.3f}")
        print(f"lowest ratio {min(ratios.values()):.3f}")
    return int(min(ratios.values()) < LIMIT)


if __name__ == "__main__":
    sys.exit(main())
