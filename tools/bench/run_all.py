"""Every bench of this folder, one process each, one after the other: ratio, limit, pass.

    python tools/bench/run_all.py [--only NAME …] [--list] [--timeout 1800] [--write docs/benchmarks.md] [--gpu]

Benches compare two things timed in turns in one run, so ratios hold on any machine that is not wildly busy; run this
alone. A bench that needs the shared folder of images (``WSOLPIPE_SHARED``, default beside the checkout) is skipped
where there is none. A script that is not described in `BENCHES` is judged by its exit code. Exit code 1 if one fails.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from photographs import shared_folder
from results_page import Measured, read_spread, write_page

FOLDER = Path(__file__).resolve().parent
NOT_BENCHES = ("ab", "commits", "peer_cams", "peer_streams", "photographs", "results_page", "run_all")
#: Environment of packages that are there only to be compared with.
PEERS = FOLDER.parents[1] / ".venv-bench" / "bin" / "python"
#: Benches that take --device: those of networks.
ON_GPU = ("cls_maps", "proposals", "train_step")
NUMBER = r"([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)"


@dataclass(frozen=True)
class Figure:
    """A figure in what a bench prints.

    Attributes
    ----------
    name : str
    pattern : str
        Regular expression whose only group is the number.
    limit : float or None
        None where it is shown and not judged.
    at_least : bool
        Whether the limit is a lower bound.
    """

    name: str
    pattern: str
    limit: float | None = None
    at_least: bool = True

    def read(self, text: str) -> float | None:
        """Its last value in a text."""
        found = re.findall(self.pattern.replace("#", NUMBER), text)
        return float(found[-1]) if found else None

    def holds(self, value: float) -> bool:
        """Whether the limit is kept."""
        return self.limit is None or (value >= self.limit if self.at_least else value <= self.limit)

    def bound(self) -> str:
        """The limit in words."""
        return "" if self.limit is None else f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass(frozen=True)
class Bench:
    """What is known of a bench.

    Attributes
    ----------
    figures : tuple of Figure
    shared : bool
        Whether it reads the shared folder.
    arguments : tuple of str
    peers : bool
        Whether it compares with packages that live in an environment of their own.
    """

    figures: tuple[Figure, ...] = ()
    shared: bool = False
    arguments: tuple[str, ...] = ()
    peers: bool = False


BENCHES = {
    "annotators": Bench((Figure("five annotators / one", "five / one #,", 1.2, at_least=False),), shared=True),
    "cams": Bench((Figure("stage / bare forward-backward", "(?:ok|TOO SLOW): #, wanted", 0.8),), shared=True),
    "cams_beside_grad_cam": Bench(
        (Figure("stage / grad-cam", "(?:ok|TOO SLOW): # times", 3),), shared=True, peers=True
    ),
    "checked_reads": Bench((Figure("reads with checksums / without", "lowest ratio #", 0.95),)),
    "cls_maps": Bench((Figure("stage / bare forward", "(?:ok|TOO SLOW): #, wanted", 0.9),), shared=True),
    "clip_cams": Bench(
        (
            Figure("maps / bare forward", "(?:ok|TOO SLOW): # of the bare", 0.85),
            Figure("maps / loop over images", "# times the loop", 1.05),
        )
    ),
    "crf": Bench((Figure("filter / numpy kernel", r'"ratio": #', 0.16, at_least=False),), True, arguments=("--json",)),
    "help_time": Bench((Figure("seconds of --help", r"--help # s", 0.3, at_least=False),)),
    "metrics_sweep": Bench(
        (
            Figure("sweep, largest contour / plain", r"largest: # x plain", 25),
            Figure("sweep, all contours / plain", r"all: # x plain", 35),
        ),
        shared=True,
    ),
    "methods": Bench(
        tuple(
            Figure(f"{name}, bare step / step", rf"(?m)^{name} .*bare / step #", 0.9)
            for name in ("cam", "has", "cutmix", "adl", "ts_cam", "sat")
        )
    ),
    "null_stage": Bench(
        (
            Figure("ms a shard, 1 process", r" 1 +[0-9.]+ +# ", 10, at_least=False),
            Figure("ms a shard, 4 processes", r" 4 +[0-9.]+ +# ", 10, at_least=False),
            Figure("ms a shard, 16 processes", r" 16 +[0-9.]+ +# ", 10, at_least=False),
        )
    ),
    "plan_beside_snakemake": Bench((Figure("snakemake -n / plan", r"ratio #, wanted", 10),), peers=True),
    "plan_scale": Bench(
        (
            Figure("seconds of plan", r"plan +# s", 2, at_least=False),
            Figure("seconds of status", r"status +# s", 2, at_least=False),
        )
    ),
    "proposals": Bench((Figure("stage / bare forward", "(?:ok|TOO SLOW): #, wanted", 0.85),), shared=True),
    "pxap": Bench((Figure("PxAP / numpy", r'"ratio": #', 5),), True, arguments=("--json",)),
    "report_page": Bench(
        (
            Figure("a row among 5,000 / among 500", r"ratio +#", 1.2, at_least=False),
            Figure("ms to filter 5,000 rows", r"ms to filter +#"),
        )
    ),
    "segments": Bench(
        (
            Figure("refine / numpy", "refine / numpy #,", 5),
            Figure("felzenszwalb, stage / library", "felzenszwalb: stage / library #,", 0.95),
            Figure("slic, stage / library", "slic: stage / library #,", 0.95),
            Figure("felzenszwalb, bytes a row", "felzenszwalb: .* # bytes a row", 4096, at_least=False),
            Figure("slic, bytes a row", "slic: .* # bytes a row", 4096, at_least=False),
            Figure("dic, many / one", "one at a time #"),
        ),
        shared=True,
    ),
    "selective_search": Bench((Figure("stage / one thread a core", "(?:ok|TOO SLOW): # of", 0.95),), shared=True),
    "stream": Bench((Figure("stream / plain loop", r'"ratio": #'),), arguments=("json=true",)),
    "train_step": Bench(
        (Figure("share of a step that waits", r'"wait": #, "step_ms"', 0.05, at_least=False),), arguments=("--json",)
    ),
    "transfer": Bench(
        (Figure("push / copies", r'"push ratio": #', 0.8), Figure("pull / copies", r'"pull ratio": #', 0.8))
    ),
    "video_frames": Bench(
        (
            Figure("rows of a stage / PyAV alone", r"reading #", 0.9),
            Figure("predict on a film / forward alone", r"predicting #", 0.9),
        )
    ),
}


@dataclass(frozen=True)
class Outcome:
    """How a bench went: ``pass``, ``FAIL`` or ``skip``, one (name, value, limit) a figure, a reason, and its spread."""

    verdict: str
    figures: tuple[tuple[str, str, str], ...] = ()
    reason: str = ""
    spread: str = ""


def run(name: str, *, timeout: float, device: str | None = None) -> Outcome:
    """Run one bench to its end."""
    bench = BENCHES.get(name, Bench())
    if bench.shared and not (shared_folder() / "data").is_dir():
        return Outcome("skip", reason=f"no shared images at {shared_folder()} (set WSOLPIPE_SHARED)")
    if bench.peers and not PEERS.exists():
        return Outcome("skip", reason=f"no {PEERS} (make bench makes it)")
    command = [sys.executable, str(FOLDER / f"{name}.py"), *bench.arguments, *(["--device", device] if device else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return Outcome("FAIL", reason=f"not done after {timeout:g} s")
    values = [(figure, figure.read(done.stdout)) for figure in bench.figures]
    shown = tuple((figure.name, "–" if value is None else f"{value:.3g}", figure.bound()) for figure, value in values)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        return Outcome("FAIL", shown, f"exit code {done.returncode}: {''.join(last)}")
    if any(value is None for _, value in values):
        return Outcome("FAIL", shown, "printed no figure where one was expected")
    good = all(value is not None and figure.holds(value) for figure, value in values)
    return Outcome("pass" if good else "FAIL", shown, spread=read_spread(done.stdout))


def print_outcome(name: str, outcome: Outcome, seconds: float) -> None:
    """One line a figure."""
    for label, value, limit in outcome.figures or (("", "", ""),):
        print(f"{name:<20} {label:<32} {value:>8} {limit:>8}  {outcome.verdict:<5} {seconds:6.0f} s", flush=True)
    if outcome.reason:
        print(f"{'':<20} {outcome.reason}", flush=True)


def main() -> int:
    """Run what is asked for; 1 if something fails, 3 for an unknown name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", action="append", metavar="NAME", help="may be given several times")
    parser.add_argument("--list", action="store_true", help="names, and nothing else")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds a bench")
    parser.add_argument("--write", type=Path, metavar="FILE", help="page to write, as docs/benchmarks.md")
    parser.add_argument("--gpu", action="store_true", help="the benches of networks alone, on the GPU")
    options = parser.parse_args()
    names = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NOT_BENCHES)
    unknown = sorted(set(options.only or ()) - set(names))
    if unknown:
        print(f"no bench {', '.join(unknown)}; there is: {', '.join(names)}", file=sys.stderr)
        return 3
    if options.list:
        print("\n".join(names))
        return 0
    print(f"{'bench':<20} {'figure':<32} {'value':>8} {'limit':>8}", flush=True)
    failed = False
    lines: list[Measured] = []
    for name in options.only or (ON_GPU if options.gpu else names):
        began = time.perf_counter()
        outcome = run(name, timeout=options.timeout, device="cuda" if options.gpu else None)
        print_outcome(name, outcome, time.perf_counter() - began)
        failed = failed or outcome.verdict == "FAIL"
        for figure in outcome.figures or (("", "", ""),):
            lines.append(Measured(name, *figure, outcome.spread, outcome.verdict, outcome.reason))
    if options.write:
        write_page(options.write, lines, kind="GPU" if options.gpu else "CPU")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
