"""`plan` and `status` on a store of 1.28 million rows: seconds, memory and number of files.

Writes manifests, commit records and empty objects of the right sizes for 313 shards of maps and proposals; no table
and no image, since neither command may read one. Exit code 1 if a limit is exceeded.

    python tools/bench/plan_scale.py [--rows 1281167] [--repeat 3] [--folder DIR]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from figures import Figure, report
from prepare import read_options

from wsolpipe.contract.layout import Shards, commit_name, digest, stage_folder
from wsolpipe.contract.manifest import CommitRecord, IndexManifest, Quarantined, StoredObject
from wsolpipe.contract.schema import INDEX_COLUMNS, ArraySpec, boxes_spec
from wsolpipe.engine.commit import object_name
from wsolpipe.engine.config import build_config
from wsolpipe.engine.graph import Node, node_manifest, resolve
from wsolpipe.engine.indexing import SCAN_ROWS
from wsolpipe.engine.listed import stamp_of
from wsolpipe.engine.plan import upstream_contents
from wsolpipe.engine.session import Session
from wsolpipe.engine.zarr_metadata import all_arrays
from wsolpipe.stages.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Mapping

ROWS = 1_281_167
CLASSES = 1000
LIMIT_SECONDS, LIMIT_MIB, LIMIT_FILES = 2.0, 300.0, 5000
DATASET = "scale"

MAPS = {
    "maps": ArraySpec(dtype="uint8", shape=(7, 14, 14)),
    "range": ArraySpec(dtype="float32", shape=(7, 2), fill="nan"),
}
BOXES = {
    "boxes": boxes_spec(10, "candidates"),
    "scores": ArraySpec(dtype="float32", shape=(10,), fill="nan"),
    "source": ArraySpec(dtype="int8", shape=(10,), fill=-1),
    "count": ArraySpec(dtype="uint8"),
}

BETWEEN = """
import os, resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
seconds = time.perf_counter() - began
print(done.returncode, seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@dataclass(frozen=True)
class Measured:
    """One command: wall seconds and peak memory in MiB."""

    command: str
    seconds: float
    mib: float


def words(folder: Path) -> list[str]:
    """The words of `plan` on the synthetic store."""
    return [
        "stage=proposals", f"dataset={folder / 'scale.yaml'}", f"store={folder / 'store'}", "cls_maps.weights=random:0",
        "classifier.start=random:0", "cls_maps.mean=0.5", "cls_maps.std=0.5",
    ]  # fmt: skip


def build(folder: Path, rows: int = ROWS) -> int:
    """Write the store under `folder`; return the number of files that a real one would have."""
    (folder / "scale.yaml").write_text(
        f"name: {DATASET}\nlayout: folder\nroot: images\nsplit: train\nclasses: {CLASSES}\n"
    )
    (folder / "images").mkdir(exist_ok=True)
    session = _session(folder)
    manifest = IndexManifest(
        dataset=DATASET, split="train", key="1" * 16, fingerprint="1" * 64, rows=rows, quarantined=0,
        shard_rows=SCAN_ROWS,
        digests={column: digest(column) for column in INDEX_COLUMNS}, classes=CLASSES,
        label_counts={str(label): rows // CLASSES for label in range(CLASSES)},
        class_names={str(label): f"n{label:08d}" for label in range(CLASSES)}, created="2025-01-01T00:00:00+00:00",
    )  # fmt: skip
    index_folder = stage_folder(DATASET, "train", "index", manifest.key)
    session.backend.create(f"{index_folder}/manifest.json", manifest.to_bytes())
    seen = {"stamp": stamp_of(session, "train"), "time": manifest.created}
    session.backend.create(f"{index_folder}/seen.json", json.dumps(seen).encode())
    for stage, arrays in (("cls_maps", MAPS), ("classifier", None), ("proposals", BOXES)):
        session = _session(folder)
        node = next(node for node in resolve(session).nodes if node.stage == stage)
        if arrays is None:
            _write_artifact(session, node)
        else:
            _write_rows_stage(session, node, arrays)
    real_index = 2 * len(Shards(rows, SCAN_ROWS)) + 6  # scans with their records, the listing and the tables
    metadata = len(all_arrays(MAPS)) + len(all_arrays(BOXES)) + 2  # and a group each
    return sum(1 for path in (folder / "store").rglob("*") if path.is_file()) + real_index + metadata


def _session(folder: Path) -> Session:
    return Session.open(build_config(words(folder), load_registry())[0], need_root=False)


def _write_artifact(session: Session, node: Node) -> None:
    session.backend.create(f"{node.folder}/manifest.json", node_manifest(session, node).to_bytes())
    session.backend.create(f"{node.folder}/files/model.safetensors", b"x")
    stored = {"model.safetensors": StoredObject(sha256=digest("x"), bytes=1)}
    record = CommitRecord(shard=None, objects=stored)
    session.backend.create(commit_name(node.folder, None), record.to_bytes())


def _write_rows_stage(session: Session, node: Node, arrays: Mapping[str, ArraySpec]) -> None:
    """Manifest, records and empty objects; one row in a thousand is quarantined."""
    session.backend.create(f"{node.folder}/manifest.json", node_manifest(session, node, arrays=arrays).to_bytes())
    for shard in range(len(node.shards)):
        start, stop = node.shards.span(shard)
        stored = {}
        for name, spec in all_arrays(arrays).items():
            size = (stop - start) * int(spec.empty(1).nbytes)
            stored[name] = StoredObject(sha256=digest([node.stage, name, shard]), bytes=size)
            path = Path(session.config.store, object_name(node.folder, arrays, name, shard))
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.truncate(size)
        bad = tuple(
            Quarantined(row=row, image_id=f"{row}.jpg", path=f"{row}.jpg", reason="truncated file")
            for row in range(start, stop, 1000)
        )
        record = CommitRecord(
            shard=shard, start=start, stop=stop, rows_digest=digest(shard), objects=stored, quarantined=bad,
            upstream=upstream_contents(session, node, shard), ok=stop - start - len(bad), seconds=12.5,
            rows_per_second=327.7, device="cpu", batch=32, host="host", time="2025-01-01T00:00:00+00:00",
        )  # fmt: skip
        path = Path(session.config.store, commit_name(node.folder, shard))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.to_bytes())


def measure(command: str, arguments: list[str], folder: Path) -> Measured:
    """Run one command as a process of its own.

    A small process stands between, since the peak of a child counts that of its parent before the command was loaded.
    """
    words = [sys.executable, "-m", "wsolpipe.cli.main", command, *arguments, "--json"]
    done = subprocess.run(
        [sys.executable, "-c", BETWEEN, *words], env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=folder,
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    code, seconds, kib = done.stdout.split()
    if code != "0":
        msg = f"wsolpipe {command} ended with {code}"
        raise RuntimeError(msg)
    return Measured(command, float(seconds), float(kib) / 1024)


def main() -> int:
    """Build, measure, print; 1 if a limit is exceeded."""
    options = read_options(__doc__, rows=ROWS, repeat=3, folder=Path)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        files = build(folder, options.rows)
        print(f"{options.rows:,} rows, {files:,} files")
        figures = [Figure(name="a store", value=files, unit="files", limit=LIMIT_FILES, at_most=True)]
        for command, arguments in (("plan", words(folder)), ("status", [f"store={folder / 'store'}"])):
            runs = [measure(command, arguments, folder) for _ in range(options.repeat)]
            seconds, mib = [run.seconds for run in runs], max(run.mib for run in runs)
            spread = min(seconds), max(seconds)
            figures += [
                Figure(name=f"{command}, best run", value=min(seconds), unit="s", limit=LIMIT_SECONDS, at_most=True,
                       spread=spread),
                Figure(name=f"{command}, most memory", value=mib, unit="MiB", limit=LIMIT_MIB, at_most=True),
            ]  # fmt: skip
    return report(figures)


if __name__ == "__main__":
    sys.exit(main())
