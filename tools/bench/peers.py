"""Where the packages are that some benches compare with: an environment of their own, which `make bench` makes."""

from __future__ import annotations

from pathlib import Path

from figures import skip

PROGRAMS = Path(__file__).resolve().parents[2] / ".venv-bench" / "bin"


def peer(name: str) -> Path:
    """A program of that environment; ends the bench as skipped where there is none."""
    if not (PROGRAMS / name).exists():
        skip(f"no {PROGRAMS / name} (make bench makes it)")
    return PROGRAMS / name
