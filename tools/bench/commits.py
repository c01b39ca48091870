"""This checkout beside another one: the same commands of both in turns, so that a slow machine slows both alike.

    git worktree add ../before COMMIT
    python tools/bench/commits.py --before ../before [--only NAME …] [--pairs 5] [--store FOLDER]

Compares the processor time of ``wsolpipe --help``, ``import wsoltrain``, ``plan`` and ``status`` (a store of 1.28
million rows), and what each checkout's own benches print of shards, the sweep of thresholds, the stream and a training
step. A ratio is the throughput of this checkout as a share of the other's: the median over pairs that ran next to each
other, the first of each pair alternating. Wanted: `LIMIT` each. Exit code 1 if one is below. Training steps need
``--store``, with the demo's proposals made by the other checkout; both train on the other's data, with the same keys,
since a recipe's own values may have changed.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HERE = Path(__file__).resolve().parents[2]
LIMIT = 0.97
PLACES = re.compile("STORE|BEFORE|SCALE")
NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
VIT = (
    "backbone=vit_tiny_patch16_224", "weights=data:demo/weights/demo_vit.safetensors", "mean=[.5,.5,.5]",
    'model_args={"patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4, "qk_norm": true}',
    "std=[.25,.25,.25]", "size=96", "batch=20", "lr=0.1", "crf_weight=4e-6", "crf_sigma_xy=43",
)  # fmt: skip
CNN = (
    "backbone=resnet10t", "weights=data:demo/weights/demo_cnn.safetensors", "mean=[.5,.5,.5]", "std=[.5,.5,.5]",
    'model_args={"channels": [32, 48, 96, 160], "stem_width": 16, "out_indices": [0, 1]}',
    "size=64", "batch=20", "lr=0.02", "crf_weight=2e-5", "crf_sigma_xy=28", "cls_weight=0",
)  # fmt: skip
PLAN = (
    "stage=proposals", "dataset=SCALE/scale.yaml", "store=SCALE/store", "cls_maps.weights=random:0",
    "classifier.start=random:0", "cls_maps.mean=0.5", "cls_maps.std=0.5",
)  # fmt: skip
PIXELS = 'pixels={"n_fg": 100, "n_bg": 200, "fg_share": 0.3, "bg_share": 0.9, "top_n": 1}'


@dataclass(frozen=True)
class Case:
    """A command that both checkouts can run.

    Attributes
    ----------
    command : tuple of str
        Arguments of Python in the root of a checkout.
    figure : str
        Pattern of the figure in what it prints; empty: processor time of the process and its children.
    larger_is_better : bool
    pairs : int
        Pairs for each one asked for: short commands are run more often.
    store : bool
        Whether it needs ``--store``.
    scale : bool
        Whether it reads a large store, which each checkout's ``plan_scale.py`` makes.
    """

    command: tuple[str, ...]
    figure: str = ""
    larger_is_better: bool = False
    pairs: int = 1
    store: bool = False
    scale: bool = False


def steps(recipe: str, keys: tuple[str, ...]) -> Case:
    """A training step of a recipe, in milliseconds."""
    words = ("tools/bench/train_step.py", "--store", "STORE", "--dataset", "BEFORE/data/demo.yaml")
    given = ("--recipe", recipe, "--epochs", "2", "--workers", "1", *keys, PIXELS, "maps=cls_maps")
    return Case((*words, *given), rf"(?m)^step +{NUMBER} ms", store=True)


CASES = {
    "help": Case(("-m", "wsolpipe.cli.main", "--help"), pairs=4),
    "import wsoltrain": Case(("-c", "import wsoltrain"), pairs=4),
    "null_stage": Case(
        ("tools/bench/null_stage.py", "--shards", "1500", "--processes", "1"), f" 1 +[0-9.]+ +{NUMBER} "
    ),
    "plan": Case(("-m", "wsolpipe.cli.main", "plan", *PLAN), pairs=3, scale=True),
    "status": Case(("-m", "wsolpipe.cli.main", "status", "store=SCALE/store"), pairs=3, scale=True),
    "sweep, largest contour": Case(
        ("tools/bench/metrics_sweep.py", "--images", "12"), rf"largest(?:: | contour = ){NUMBER}", larger_is_better=True
    ),
    "sweep, all contours": Case(
        ("tools/bench/metrics_sweep.py", "--images", "12"), rf"all(?:: | contours = ){NUMBER}", larger_is_better=True
    ),
    "stream": Case(
        ("tools/bench/stream.py", "--rows", "128", "--repeats", "3", "--workers", "1"),
        rf"one process:(?s:.*?)\n  ratio +{NUMBER}",
        larger_is_better=True,
    ),
    "step of dips_workshop": steps("dips_workshop", CNN),
    "step of dips": steps("dips", VIT),
}


def measure(case: Case, root: Path, folders: Mapping[str, Path]) -> float:
    """Run a case once in a checkout: seconds, milliseconds or a ratio, as its figure is."""
    began = _processor_seconds()
    printed = run(
        [PLACES.sub(lambda found: str(folders[found[0]]), word) for word in case.command], root, bench=bool(case.figure)
    )
    seconds = _processor_seconds() - began
    if not case.figure:
        return seconds
    found = re.search(case.figure, printed)
    if found is None:
        msg = f"{root}: {' '.join(case.command)} printed no figure: {printed[-200:]}"
        raise SystemExit(msg)
    return float(found[1])


def run(command: Sequence[str], root: Path, *, bench: bool = False) -> str:
    """Run Python in the root of a checkout, on its code; what it prints."""
    given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    given |= {"PYTHONPATH": f"{root / 'pipeline'}:{root / 'trainer'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=root, env=given, capture_output=True, text=True, check=False)
    if done.returncode not in ((0, 1) if bench else (0,)):  # 1: something is too slow for the bench's own limit
        msg = f"{root}: {' '.join(command)} ended with {done.returncode}: {done.stderr[-300:]}"
        raise SystemExit(msg)
    return done.stdout


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(case: Case, before: Path, folders: Mapping[Path, Mapping[str, Path]], pairs: int) -> list[float]:
    """Throughput of this checkout as a share of the other's, of each pair."""
    ratios = []
    for turn in range(pairs + 1):
        sides = (before, HERE) if turn % 2 else (HERE, before)
        value = {root: measure(case, root, folders[root]) for root in sides}
        if turn:  # the first pair fills caches
            ratios.append(value[HERE] / value[before] if case.larger_is_better else value[before] / value[HERE])
    return ratios


def main() -> int:
    """Print a line a case; 1 if a median is below `LIMIT`, 3 for an unknown name or a missing store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--before", type=Path, required=True, metavar="DIR")
    parser.add_argument("--only", action="append", metavar="NAME", help="may be given several times")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--store", type=Path)
    given = parser.parse_args()
    before = given.before.resolve()
    for name in set(given.only or ()) - set(CASES):
        print(f"no case {name!r}; known: {', '.join(CASES)}", file=sys.stderr)
        return 3
    chosen = {name: case for name, case in CASES.items() if name in (given.only or CASES)}
    if given.store is None and any(case.store for case in chosen.values()):
        print("training steps need --store; --only names cases that do not", file=sys.stderr)
        return 3
    good = True
    with tempfile.TemporaryDirectory() as scratch:
        folders = {}
        for side, root in (("before", before), ("here", HERE)):
            folders[root] = {"BEFORE": before, "STORE": (given.store or Path()).resolve(), "SCALE": Path(scratch, side)}
            if any(case.scale for case in chosen.values()):
                run(
                    ["tools/bench/plan_scale.py", "--repeat", "1", "--folder", str(Path(scratch, side))],
                    root,
                    bench=True,
                )
        for name, case in chosen.items():
            ratios = compare(case, before, folders, given.pairs * case.pairs)
            middle = statistics.median(ratios)
            good &= middle >= LIMIT
            print(
                f"{name:<24} {middle:6.3f} (pairs {min(ratios):.3f} … {max(ratios):.3f}, {len(ratios)}, wanted {LIMIT})"
                f" {'ok' if middle >= LIMIT else 'SLOWER'}",
                flush=True,
            )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
