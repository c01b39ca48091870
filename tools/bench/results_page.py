"""The page of figures: what runs of the benches measured, with limits, spreads, machine and commits."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from figures import Figure

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "numpy", "zarr", "numba", "opencv-contrib-python-headless", "timm")
KINDS = ("CPU", "GPU")
COLUMNS = ("bench", "figure", "measured", "lowest … highest", "limit", "goal", "verdict", "commit, day, load")
HEAD = (
    "Written by `make bench`; the part of a GPU by `python tools/bench/run_all.py --gpu --write docs/benchmarks.md`. A "
    "figure without a unit is a ratio of two things timed in turns in one run, A / B being the throughput of A as a "
    "share of B's unless it is called a cost: it holds on another machine, absolute times do not. Lowest and highest "
    "are those of the figure's own pairs or runs. A missed limit fails a bench; a goal is what is aimed at beyond it."
)


@dataclass(frozen=True)
class Line:
    """A line of the page, cell by cell; a cell is empty where there is nothing to say.

    Attributes
    ----------
    bench, figure, measured, spread, limit, goal : str
        As they are shown.
    verdict : str
        ``pass``, ``FAIL``, ``shown`` or ``skip``, and why.
    stamp : str
        Commit and day of the measurement, and the machine's load after it.
    """

    bench: str
    figure: str = ""
    measured: str = ""
    spread: str = ""
    limit: str = ""
    goal: str = ""
    verdict: str = ""
    stamp: str = ""

    @classmethod
    def of(cls, bench: str, figure: Figure, stamp: str) -> Line:
        """A figure of a bench."""
        sign = "≤" if figure.at_most else "≥"
        limit, goal = ("" if value is None else f"{sign} {value:g}" for value in (figure.limit, figure.goal))
        verdict = f"skip: {figure.reason}" if figure.value is None else figure.verdict
        return cls(bench, figure.name, figure.measured, figure.range, limit, goal, verdict, stamp)

    @property
    def failed(self) -> bool:
        """Whether a limit is missed, or the bench did not get so far."""
        return self.verdict.startswith("FAIL")

    def row(self) -> str:
        """The line as the page has it."""
        cells = (" ".join(cell.replace("|", "/").split()) or "–" for cell in astuple(self))
        return f"| {' | '.join(cells)} |"

    @classmethod
    def read(cls, row: str) -> Line:
        """A line of an earlier page."""
        return cls(*("" if cell == "–" else cell for cell in row.strip("| ").split(" | ")))


def write_page(path: Path, lines: list[Line], *, kind: str, keep: bool = False) -> None:
    """Write the page's part of one kind of device, CPU or GPU; the other part stays as it was.

    Parameters
    ----------
    path : Path
    lines : list of Line
    kind : str
    keep : bool
        Keep the lines of other benches in this part, which `other_machine` must allow.
    """
    parts = _parts(path)
    measured = {line.bench for line in lines}
    kept = [line for line in lines_of(path, kind) if line.bench not in measured] if keep else []
    parts[kind] = _part(kind, sorted([*kept, *lines], key=lambda line: line.bench))
    text = ["# Figures", HEAD, *(parts[each] for each in KINDS if each in parts)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(text) + "\n", encoding="utf-8")


def lines_of(path: Path, kind: str) -> list[Line]:
    """Lines of a part of a page."""
    rows = [row for row in _parts(path).get(kind, "").splitlines() if row.startswith("|")]
    return [Line.read(row) for row in rows[2:]]


def other_machine(path: Path, kind: str) -> str:
    """Name the machine and versions of a part of a page where they are not those of here; else return an empty text."""
    part = _parts(path).get(kind)
    before = part.splitlines()[2] if part else ""
    return "" if before in ("", _machine(kind)) else before


def stamp() -> str:
    """Commit, day and load of this moment."""
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return f"{done.stdout.strip() or 'unknown'}, {datetime.now(UTC):%Y-%m-%d}, {os.getloadavg()[0]:.1f}"


def _parts(path: Path) -> dict[str, str]:
    """Parts of an earlier page by kind."""
    if not path.is_file():
        return {}
    found = re.split(r"(?m)^## (CPU|GPU)$", path.read_text(encoding="utf-8"))
    return {kind: f"## {kind}{body.rstrip()}" for kind, body in zip(found[1::2], found[2::2], strict=True)}


def _part(kind: str, lines: list[Line]) -> str:
    head = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    return "\n".join([f"## {kind}", "", _machine(kind), "", *head, *(line.row() for line in lines)])


def _machine(kind: str) -> str:
    """Machine and versions in a sentence."""
    known = []
    for name in PACKAGES:
        try:
            known.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    processor = next(
        (
            line.split(":", 1)[1].strip()
            for line in _text("/proc/cpuinfo").splitlines()
            if line.startswith("model name")
        ),
        platform.processor() or platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    device = f"{_gpus()}; " if kind == "GPU" else ""
    return (
        f"{device}{processor}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB; "
        f"Python {platform.python_version()}, {', '.join(known)}."
    )


def _gpus() -> str:
    import torch

    return ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
