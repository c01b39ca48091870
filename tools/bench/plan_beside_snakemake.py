"""`wsolpipe plan` of 5,000 shards beside `snakemake -n` of the same graph: one rule, half of its outputs made.

Both run as processes of their own, in turns, and the best of each counts. Needs .venv-bench (`make bench` makes it).

    python tools/bench/plan_beside_snakemake.py [--shards 5000] [--repeat 3]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from figures import Figure, report
from null_stage import command, dataset_words, environment, write_stages
from prepare import peer, read_options

from wsolpipe.contract.layout import commit_name, digest, stage_folder
from wsolpipe.contract.manifest import CommitRecord, IndexManifest, StoredObject
from wsolpipe.contract.schema import INDEX_COLUMNS, ArraySpec
from wsolpipe.engine.commit import object_name
from wsolpipe.engine.config import build_config
from wsolpipe.engine.graph import node_manifest, resolve
from wsolpipe.engine.session import Session
from wsolpipe.engine.zarr_metadata import all_arrays
from wsolpipe.stages.registry import load_registry

LIMIT = 10.0
ARRAYS = {"value": ArraySpec(dtype="uint8")}
SNAKEFILE = """
rule all:
    input: expand("made/{{shard}}", shard=range({shards}))

rule make:
    input: "index"
    output: "made/{{shard}}"
    shell: "touch {{output}}"
"""


def plan_words(folder: Path) -> list[str]:
    """Words of `plan`."""
    return ["stage=nothing", f"store={folder / 'store'}", "shard_rows=1", "nothing.folder=."]


def build(folder: Path, shards: int) -> None:
    """A store with half of `shards` shards made, and what Snakemake makes of the same."""
    write_stages(folder)
    (folder / "images").mkdir()
    config, _ = build_config([*dataset_words(folder), *plan_words(folder)], load_registry(str(folder / "stages.yaml")))
    session = Session.open(config, need_root=False)
    index = IndexManifest(
        dataset="nothing", split="train", key="1" * 16, fingerprint="1" * 64, rows=shards, quarantined=0,
        shard_rows=4096, digests={column: digest(column) for column in INDEX_COLUMNS}, label_counts={"0": shards},
        created="2025-01-01T00:00:00+00:00",
    )  # fmt: skip
    session.backend.create(f"{stage_folder('nothing', 'train', 'index', index.key)}/manifest.json", index.to_bytes())
    (node,) = resolve(session).nodes
    session.backend.create(f"{node.folder}/manifest.json", node_manifest(session, node, arrays=ARRAYS).to_bytes())
    (folder / "Snakefile").write_text(SNAKEFILE.format(shards=shards))
    (folder / "index").touch()
    (folder / "made").mkdir()
    for shard in range(0, shards, 2):
        names = {name: object_name(node.folder, ARRAYS, name, shard) for name in all_arrays(ARRAYS)}
        stored = {name: StoredObject(sha256=digest([name, shard]), bytes=1) for name in names}
        record = CommitRecord(
            shard=shard, start=shard, stop=shard + 1, objects=stored, ok=1, seconds=0.1, rows_per_second=10.0
        )
        for name in names.values():
            session.backend.create(name, b"x", sync=False)
        session.backend.create(commit_name(node.folder, shard), record.to_bytes(), sync=False)
        (folder / "made" / str(shard)).touch()


def plan(folder: Path, shards: int) -> float:
    """Seconds of `wsolpipe plan`."""
    words = command("plan", folder, *plan_words(folder))
    began = time.perf_counter()
    done = subprocess.run(words, env=environment(), cwd=folder, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    line = next(line for line in json.loads(done.stdout)["stages"] if line["stage"] == "nothing")
    if (line["shards"], line["shards_done"]) != (shards, -(-shards // 2)):
        raise RuntimeError(done.stdout)
    return seconds


def dry_run(snakemake: Path, folder: Path, shards: int) -> float:
    """Seconds of `snakemake -n`, which is asked for no more than the list of jobs by rule."""
    words = [str(snakemake), "-n", "--quiet", "rules", "--cores", "1"]
    began = time.perf_counter()
    own = {**environment(), "HOME": str(folder)}
    done = subprocess.run(words, env=own, cwd=folder, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    if f"{shards // 2}" not in done.stdout + done.stderr:
        raise RuntimeError(done.stdout + done.stderr)
    return seconds


def main() -> int:
    """Measure and print; 1 if `plan` is not that much faster."""
    options = read_options(__doc__, shards=5000, repeat=3)
    snakemake = peer("snakemake")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        build(folder, options.shards)
        runs = [
            (plan(folder, options.shards), dry_run(snakemake, folder, options.shards)) for _ in range(options.repeat)
        ]
    ours, theirs = (median(seconds) for seconds in zip(*runs, strict=True))
    ratios = [theirs / ours for ours, theirs in runs]
    print(f"{options.shards:,} shards, half of them made: wsolpipe plan {ours:.2f} s, snakemake -n {theirs:.2f} s")
    return report([Figure.of("wsolpipe plan / snakemake -n", ratios, limit=LIMIT)])


if __name__ == "__main__":
    sys.exit(main())
