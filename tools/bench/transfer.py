"""Push and pull of many small shards beside plain copies of the same objects, on S3 or between folders, in one run.

    python tools/bench/transfer.py [--shards 600] [--turns 3] [--folders]

Prints the best times, what a second push moves after one shard in a hundred was made again, and the throughput of a
transfer as a share of that of plain copies; exit code 1 if one is below 0.8. The S3 server is that of the tests, in a
process of its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from figures import Figure, report
from prepare import read_options

from s3 import serve_s3
from wsolpipe.contract.backends.opening import open_backend
from wsolpipe.contract.layout import Shards, commit_name, sha256_bytes, shard_object, stage_folder
from wsolpipe.contract.manifest import CommitRecord, StageManifest, StoredObject
from wsolpipe.contract.schema import CHECKSUM, ArraySpec
from wsolpipe.engine.zarr_metadata import all_arrays, encode_shard, prepare_folder
from wsolpipe.share.selection import Selection
from wsolpipe.share.transfer import pull, push

if TYPE_CHECKING:
    from wsolpipe.contract.backends.base import Backend

JOBS, WANTED = 8, 0.8
SHARD_ROWS = 64
SPECS = {
    "maps": ArraySpec(dtype="uint8", shape=(5, 16, 16)),
    "range": ArraySpec(dtype="float32", shape=(5, 2)),
}
FINGERPRINT = "ab" * 32
FOLDER = stage_folder("bench", "train", "cls_maps", FINGERPRINT[:16])


def manifest_of(shards: Shards) -> StageManifest:
    """Manifest of the stage that is moved."""
    return StageManifest(
        kind="rows", dataset="bench", split="train", stage="cls_maps", key=FINGERPRINT[:16], version=1, params={},
        fingerprint=FINGERPRINT, columns={}, upstream={}, artifacts={}, basis=FINGERPRINT, rows=shards.rows,
        shard_rows=shards.shard_rows, arrays=SPECS, checksum=CHECKSUM, created="2025-01-01T00:00:00Z",
    )  # fmt: skip


def write_shard(store: Backend, shards: Shards, shard: int, *, generation: int = 1) -> None:
    """One shard of random maps, as a run leaves it."""
    rng = np.random.default_rng([shard, generation])
    start, stop = shards.span(shard)
    values: dict[str, np.ndarray[Any, Any]] = {
        "maps": rng.integers(0, 255, (stop - start, 5, 16, 16), dtype=np.uint8),
        "range": rng.random((stop - start, 5, 2), dtype=np.float32),
        "status": np.ones(stop - start, np.uint8),
    }
    stored = {}
    for name, spec in all_arrays(SPECS).items():
        data = encode_shard(spec, shards, shard, values[name], CHECKSUM)
        store.replace(shard_object(FOLDER, name, shard, 1 + len(spec.shape)), data)
        stored[name] = StoredObject(sha256=sha256_bytes(data), bytes=len(data))
    record = CommitRecord(
        shard=shard, start=start, stop=stop, objects=stored, ok=stop - start, generation=generation, seconds=1.0
    )
    store.replace(commit_name(FOLDER, shard), record.to_bytes())


def copy_plainly(source: Backend, target: Backend) -> float:
    """Seconds for every object to be read and put, with as many at a time as the transfer has; nothing is checked."""
    names = [name for name, _ in source.walk("")]

    def copy(name: str) -> None:
        target.create(name, source.get(name))

    began = time.perf_counter()
    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(copy, names))
    return time.perf_counter() - began


def moved_by(act: Any, *where: str) -> tuple[float, int]:
    """Seconds and shards moved."""
    began = time.perf_counter()
    moved = act(*where, Selection(), jobs=JOBS, emit=lambda event: None, stop=threading.Event())
    assert not moved.refused, moved.refused[:3]
    return time.perf_counter() - began, sum(line.moved for line in moved.lines)


def measure(folder: Path, count: int, remote: str | None, turns: int) -> dict[str, Any]:
    """Time everything in turn."""
    base = remote or str(folder)
    local = str(folder / "source")
    source = open_backend(local)
    shards = Shards(count * SHARD_ROWS, SHARD_ROWS)
    prepare_folder(source, FOLDER, manifest_of(shards), shards)
    for shard in range(count):
        write_shard(source, shards, shard)
    times: dict[str, list[float]] = {"copy out": [], "push": [], "copy in": [], "pull": []}
    for turn in range(turns):  # in turns, so that both meet the same machine
        times["copy out"].append(copy_plainly(source, open_backend(f"{base}/plain{turn}")))
        seconds, moved = moved_by(push, local, f"{base}/pushed{turn}")
        assert moved == count
        times["push"].append(seconds)
        times["copy in"].append(
            copy_plainly(open_backend(f"{base}/plain{turn}"), open_backend(str(folder / f"in{turn}")))
        )
        seconds, moved = moved_by(pull, f"{base}/pushed{turn}", str(folder / f"pulled{turn}"))
        assert moved == count
        times["pull"].append(seconds)
    changed = max(1, count // 100)
    for shard in range(0, count, 100)[:changed]:
        write_shard(source, shards, shard, generation=2)
    again, moved = moved_by(push, local, f"{base}/pushed0")
    best = {name: min(values) for name, values in times.items()}
    ratios = {
        f"{way} ratios": [round(plain / ours, 4) for plain, ours in zip(times[copy], times[way], strict=True)]
        for way, copy in (("push", "copy out"), ("pull", "copy in"))
    }
    return {
        "store": "s3" if remote else "folder", "shards": count, "objects": 4 * count,
        "megabytes": round(sum(size for _, size in source.walk("")) / 1e6, 1),
        **{f"{name} s": round(value, 2) for name, value in best.items()},
        **ratios,
        "changed": changed, "moved again": moved, "again s": round(again, 2),
    }  # fmt: skip


def show(found: dict[str, Any]) -> int:
    """Print what was measured, and the figures."""
    for name, value in found.items():
        print(f"{name:<12} {value}")
    return report(Figure.of(f"{way} / plain copies", found[f"{way} ratios"], limit=WANTED) for way in ("push", "pull"))


def main() -> int:
    """Measure and print; 1 if a transfer is slower than it must be."""
    given = read_options(__doc__, shards=600, turns=3, folders=False)
    os.environ["WSOLPIPE_CACHE_GB"] = "0"
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if given.folders:
            return show(measure(Path(folder), given.shards, None, given.turns))
        server = stack.enter_context(serve_s3())
        os.environ.update(server.environment)
        return show(measure(Path(folder), given.shards, server.store(), given.turns))


if __name__ == "__main__":
    sys.exit(main())
