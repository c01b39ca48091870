"""Every bench of this folder, one process each, one after the other: a line a figure, as each bench judges its own.

    python tools/bench/run_all.py [--only NAME …] [--list] [--timeout 1800] [--write docs/benchmarks.md] [--gpu]

A bench is a script that hands its figures to `figures.report`; nothing about it is written here. Where it can run on a
GPU it says so by ``DEVICES = ("cpu", "cuda")`` and takes ``--device``. What it lacks, such as the shared folder of
images or the packages that it compares with, it says itself, and is skipped.

Benches compare two things timed in turns in one run, so ratios hold on any machine that is not wildly busy; run this
alone. ``--write`` replaces the page's part of this kind of device, with ``--only`` the lines of those benches alone.
Exit code 1 if one fails.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
import time
from pathlib import Path

from figures import read_figures
from results_page import Line, other_machine, stamp, write_page

FOLDER = Path(__file__).resolve().parent


def devices_of(script: Path) -> tuple[str, ...]:
    """Kinds of device that a bench runs on, read and not imported; none for a script that is no bench."""
    body = ast.parse(script.read_text(encoding="utf-8")).body
    imported = [node for node in body if isinstance(node, ast.ImportFrom) and node.module == "figures"]
    if not any(name.name == "report" for node in imported for name in node.names):
        return ()
    for node in body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DEVICES":
            return tuple(ast.literal_eval(node.value))
    return ("cpu",)


def find_benches(device: str) -> list[str]:
    """Names of the benches that run on a kind of device, in order."""
    return sorted(script.stem for script in FOLDER.glob("*.py") if device in devices_of(script))


def run(name: str, *, timeout: float, device: str = "cpu") -> list[Line]:
    """Run one bench to its end; a line a figure, and one for its failure where no missed limit explains it."""
    script = FOLDER / f"{name}.py"
    chosen = ["--device", device] if "cuda" in devices_of(script) else []
    try:
        done = subprocess.run(
            [sys.executable, str(script), *chosen], capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return [Line(name, verdict=f"FAIL: not done after {timeout:g} s", stamp=stamp())]
    now = stamp()
    lines = [Line.of(name, figure, now) for figure in read_figures(done.stdout)]
    if done.returncode and not any(line.failed for line in lines):
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        lines.append(Line(name, verdict=f"FAIL: exit code {done.returncode}: {''.join(last)}", stamp=now))
    return lines or [Line(name, verdict="FAIL: printed no figure", stamp=now)]


def print_lines(lines: list[Line], seconds: float) -> None:
    """A line a figure."""
    for line in lines:
        limit = f"{line.limit}{f', goal {line.goal}' if line.goal else ''}"
        cells = f"{line.bench:<22} {line.figure:<44} {line.measured:>16} {line.spread:>19} {limit:>22}"
        print(f"{cells}  {line.verdict}", flush=True)
    print(f"{'':<22} {seconds:.0f} s", flush=True)


def main() -> int:
    """Run what is asked for; 1 if something fails, 3 for an unknown name or a page of another machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", action="append", metavar="NAME", help="may be given several times")
    parser.add_argument("--list", action="store_true", help="names, and nothing else")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds a bench")
    parser.add_argument("--write", type=Path, metavar="FILE", help="page to write, as docs/benchmarks.md")
    parser.add_argument("--gpu", action="store_true", help="the benches that run on a GPU, there")
    options = parser.parse_args()
    device, kind = ("cuda", "GPU") if options.gpu else ("cpu", "CPU")
    names = find_benches(device)
    unknown = sorted(set(options.only or ()) - set(names))
    if unknown:
        print(f"no bench {', '.join(unknown)} on a {kind}; there is: {', '.join(names)}", file=sys.stderr)
        return 3
    if options.list:
        print("\n".join(names))
        return 0
    before = other_machine(options.write, kind) if options.write and options.only else ""
    if before:
        print(f"{options.write} was measured on {before}\nits lines cannot stay: run without --only", file=sys.stderr)
        return 3
    lines: list[Line] = []
    for name in options.only or names:
        began = time.perf_counter()
        found = run(name, timeout=options.timeout, device=device)
        print_lines(found, time.perf_counter() - began)
        lines += found
    if options.write:
        write_page(options.write, lines, kind=kind, keep=bool(options.only))
    return int(any(line.failed for line in lines))


if __name__ == "__main__":
    sys.exit(main())
