"""The page of figures: what a run of all benches measured, with limits, spread, machine and commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "numpy", "zarr", "numba", "opencv-contrib-python-headless", "timm")
KINDS = ("CPU", "GPU")
SPREAD = re.compile(r"pairs ([0-9.]+) … ([0-9.]+)")


@dataclass(frozen=True)
class Measured:
    """A line of the page.

    Attributes
    ----------
    bench, figure : str
    value, limit : str
        As they are shown; – and empty where there is none.
    spread : str
        Lowest and highest of the interleaved pairs; empty where the bench does not print them.
    verdict : str
        ``pass``, ``FAIL`` or ``skip``.
    note : str
        Why, where it is not a pass.
    """

    bench: str
    figure: str
    value: str
    limit: str
    spread: str
    verdict: str
    note: str = ""


def read_spread(text: str) -> str:
    """Spread of the last comparison that a bench printed."""
    found = SPREAD.findall(text)
    return " … ".join(found[-1]) if found else ""


def write_page(path: Path, lines: list[Measured], *, kind: str) -> None:
    """Write the page's part of one kind of device, CPU or GPU; the other part stays as it was."""
    parts = _parts(path)
    parts[kind] = _part(kind, lines)
    text = [
        "# Figures",
        "Written by `make bench`. Each figure is a ratio of two things timed in turns in one run: it holds on another "
        "machine, absolute times do not.",
        *(parts[each] for each in KINDS if each in parts),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(text) + "\n", encoding="utf-8")


def _parts(path: Path) -> dict[str, str]:
    """Parts of an earlier page by kind."""
    if not path.is_file():
        return {}
    found = re.split(r"(?m)^## (CPU|GPU)$", path.read_text(encoding="utf-8"))
    return {kind: f"## {kind}{body.rstrip()}" for kind, body in zip(found[1::2], found[2::2], strict=True)}


def _part(kind: str, lines: list[Measured]) -> str:
    rows = [
        f"| {line.bench} | {line.figure or '–'} | {line.value or '–'} | {line.limit or '–'} | {line.spread or '–'} |"
        f" {line.verdict}{f': {line.note}' if line.note else ''} |"
        for line in lines
    ]
    head = ["| bench | figure | measured | limit | pairs of its last comparison | |", "|---|---|---|---|---|---|"]
    return "\n".join([f"## {kind}", "", _machine(kind), "", *head, *(row.replace("\n", " ") for row in rows)])


def _machine(kind: str) -> str:
    """Machine, date, commit and versions in a sentence."""
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
        f"{device}{processor}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, "
        f"load {os.getloadavg()[0]:.1f} at the end; Python {platform.python_version()}, {', '.join(known)}; "
        f"commit {_commit()}; "
        f"{datetime.now(UTC).strftime('%Y-%m-%d')}."
    )


def _gpus() -> str:
    import torch

    return ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))


def _commit() -> str:
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
