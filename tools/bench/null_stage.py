"""Cost of the engine itself: thousands of shards of a stage that does nothing, shared by 1, 4 and 16 processes.

Overhead is (wall × min(processes, cores)) / shards less what the stage itself took, from the moment at which every
process stands ready with a shard in its hands to the last commit record. Nobody may starve, and next to nothing may be
made twice. Exit code 1 if a limit is exceeded.

    python tools/bench/null_stage.py [--shards 5000] [--processes 1,4,16] [--folder DIR]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from figures import Figure, report
from prepare import read_options

from wsolpipe.contract.schema import ArraySpec
from wsolpipe.stages.base import Rows, Stage, StageParams, Upstream
from wsolpipe.stages.marks import ExecutionOnly

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT_MS, LIMIT_TWICE, LEAST_SHARE = 10.0, 0.01, 0.5
PATIENCE = 300.0
STAGES = """
nothing:
  class: null_stage:Null
  version: 1
  kind: rows
  columns: []
  params: {folder: "", pause: 0.0}
  outputs: {value: nothing}
"""


class NullParams(StageParams):
    """`folder` is where the stage notes what it does and where the gate opens; `pause` is its work in seconds."""

    folder: Annotated[str, ExecutionOnly()] = ""
    pause: Annotated[float, ExecutionOnly()] = 0.0


class Null(Stage[NullParams]):
    """The row's own number, so that no shard is like another, and a note of who made it."""

    def setup(self) -> None:
        """Say that this process is ready, and wait until all are."""
        folder = Path(self.params.folder)
        (folder / f"ready-{os.getpid()}").touch()
        deadline = time.monotonic() + PATIENCE
        while not (folder / "gate").exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    def arrays(self) -> dict[str, ArraySpec]:
        """One small number a row."""
        return {"value": ArraySpec(dtype="int32")}

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, np.ndarray[Any, Any]]:  # noqa: ARG002
        """Nothing, for `pause` seconds."""
        began = time.perf_counter()
        if self.params.pause:
            time.sleep(self.params.pause)
        seconds = time.perf_counter() - began
        note = {"pid": os.getpid(), "first": int(rows.numbers[0]), "seconds": seconds, "cpu": time.process_time()}
        with Path(self.params.folder, "log.jsonl").open("a") as file:
            file.write(json.dumps(note) + "\n")
        return {"value": rows.numbers.astype(np.int32)}


@dataclass(frozen=True)
class Shared:
    """How a run was shared.

    Attributes
    ----------
    wall, work, cpu : float
        Seconds from the open gate to the last commit, of all calls of the stage together, and of all processors
        between each process's first call and its last.
    made : Counter
        Calls of the stage by process.
    """

    shards: int
    processes: int
    wall: float
    work: float
    cpu: float
    made: Counter[int]

    @property
    def overhead_ms(self) -> float:
        """Milliseconds of a core that a shard cost beside the stage's own work."""
        cores = min(self.processes, os.cpu_count() or 1)
        return 1000 * (self.wall * cores - self.work) / self.shards

    @property
    def twice(self) -> float:
        """Share of the shards that were made once more than needed."""
        return (sum(self.made.values()) - self.shards) / self.shards

    @property
    def least_share(self) -> float:
        """Return the least part that a process made, as a share of an equal part; 0 if one made nothing."""
        if len(self.made) < self.processes:
            return 0.0
        return min(self.made.values()) * self.processes / self.shards


def prepare(folder: Path, shards: int) -> None:
    """A data set of one small image a shard, and what describes it and the stage."""
    from PIL import Image

    images = folder / "images"
    images.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "one.png")
    data = (folder / "one.png").read_bytes()
    for row in range(shards):
        (images / f"{row:06d}.png").write_bytes(data)
    write_stages(folder)


def write_stages(folder: Path) -> None:
    """The data set's YAML, and the stage's."""
    (folder / "null.yaml").write_text("name: nothing\nlayout: folder\nroot: images\nsplit: train\n")
    (folder / "stages.yaml").write_text(STAGES)


def dataset_words(folder: Path) -> list[str]:
    """Words that name what `prepare` wrote."""
    return [f"dataset={folder / 'null.yaml'}", f"stages={folder / 'stages.yaml'}", "device=cpu", "threads=1"]


def command(name: str, folder: Path, *words: str) -> list[str]:
    """Command line of wsolpipe on what `prepare` wrote."""
    return [sys.executable, "-m", "wsolpipe.cli.main", name, *dataset_words(folder), *words, "--json"]


def environment() -> dict[str, str]:
    """This process's own, with this module importable, one thread a process, and byte code kept as installers do."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}


def share(folder: Path, shards: int, processes: int, *words: str) -> Shared:
    """Make all shards by that many processes in a store of its own."""
    place = folder / f"by{processes}"
    place.mkdir()
    store = [f"store={place / 'store'}", "shard_rows=1"]
    quiet: dict[str, Any] = {"env": environment(), "cwd": folder, "stdout": subprocess.DEVNULL}
    subprocess.run(command("run", folder, "stage=index", *store), **quiet, stderr=subprocess.DEVNULL, check=True)
    with (place / "stderr.txt").open("w") as errors:
        process = subprocess.Popen(
            command("run", folder, "stage=nothing", f"workers={processes}", f"nothing.folder={place}", *store, *words),
            **quiet, stderr=errors,
        )  # fmt: skip
        while len(list(place.glob("ready-*"))) < processes and process.poll() is None:
            time.sleep(0.02)
        opened = time.time()
        (place / "gate").touch()
        code = process.wait()
    if code:
        raise RuntimeError((place / "stderr.txt").read_text())
    commits = list(place.glob("store/nothing/train/nothing/*/commits/*.json"))
    if len(commits) != shards:
        msg = f"{len(commits)} of {shards} shards were committed"
        raise RuntimeError(msg)
    calls = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
    cpu: dict[int, list[float]] = {}
    for call in calls:
        cpu.setdefault(call["pid"], []).append(call["cpu"])
    return Shared(
        shards=shards, processes=processes, wall=max(path.stat().st_mtime for path in commits) - opened,
        work=sum(call["seconds"] for call in calls), cpu=sum(max(of) - min(of) for of in cpu.values()),
        made=Counter(call["pid"] for call in calls),
    )  # fmt: skip


def main() -> int:
    """Measure and print; 1 if a limit is exceeded."""
    options = read_options(__doc__, shards=5000, processes="1,4,16", folder=Path)
    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)).absolute()
        prepare(folder, options.shards)
        print(f"{options.shards:,} shards, {os.cpu_count()} cores; limit {LIMIT_MS:g} ms a shard")
        print(f"{'processes':>9} {'wall s':>8} {'ms a shard':>11} {'cpu ms':>7} {'twice':>7} {'least share':>12}")
        for processes in map(int, options.processes.split(",")):
            found = share(folder, options.shards, processes)
            print(
                f"{processes:>9} {found.wall:>8.1f} {found.overhead_ms:>11.2f} "
                f"{1000 * found.cpu / options.shards:>7.2f} {found.twice:>7.2%} "
                f"{found.least_share:>12.2f}",
                flush=True,
            )
            figures += judge(found)
    return report(figures)


def judge(found: Shared) -> list[Figure]:
    """Figures of a run; what processes share is no question where there is one."""
    by = f"{found.processes} process{'es' if found.processes > 1 else ''}"
    figures = [
        Figure(name=f"engine, a shard by {by}", value=found.overhead_ms, unit="ms", limit=LIMIT_MS, at_most=True),
        Figure(name=f"share made twice by {by}", value=found.twice, limit=LIMIT_TWICE, at_most=True),
        Figure(name=f"least part of a fair share, {by}", value=found.least_share, limit=LEAST_SHARE),
    ]
    return figures if found.processes > 1 else figures[:2]


if __name__ == "__main__":
    sys.exit(main())
