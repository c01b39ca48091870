"""Findings of a bench: figures with their limits, each printed as one line that people and `run_all` read alike.

    figure: stage / bare forward = 1.034 (1.022 … 1.083), wanted >= 0.9, goal 0.97: pass
    figure: images a second of the stage = 41.2 images/s (40.1 … 42.6): shown
    figure: ms to sort: skip, no Chromium here

A bench hands all of its figures to `report`, whose result is its exit code. A limit is written in the bench alone.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable

NUMBER = r"-?(?:[0-9.]+(?:e[+-]?[0-9]+)?|inf|nan)"
LINE = re.compile(
    rf"(?m)^figure: (?P<name>.+?)(?: = (?P<value>{NUMBER})(?: (?P<unit>[^ (,:]+))?"
    rf"(?: \((?P<low>{NUMBER}) … (?P<high>{NUMBER})\))?(?:, wanted (?P<sign>[<>]=) (?P<limit>{NUMBER}))?"
    rf"(?:, goal (?P<goal>{NUMBER}))?: (?:pass|FAIL|shown)|: skip, (?P<reason>.+))$"
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a bench.

    Attributes
    ----------
    name : str
        In a ratio ``A / B``, more is better for A, unless `at_most`.
    value : float or None
        None where it could not be measured here.
    reason : str
        Why not.
    unit : str
        One word, as ``ms``; empty for a ratio.
    limit : float or None
        What fails the bench where it is missed; None where the figure is shown and not judged.
    goal : float or None
        What is aimed at, where that is more than the limit.
    at_most : bool
        Whether limit and goal are upper bounds.
    spread : tuple of float, optional
        Lowest and highest of the pairs or runs that the value is of.
    """

    name: str
    value: float | None = None
    reason: str = ""
    unit: str = ""
    limit: float | None = None
    goal: float | None = None
    at_most: bool = False
    spread: tuple[float, float] | None = None

    @classmethod
    def of(cls, name: str, values: Iterable[float], **more: Any) -> Figure:
        """Make the figure of several runs: their median, lowest and highest; `more` are other attributes."""
        found = list(values)
        return cls(name=name, value=median(found), spread=(min(found), max(found)), **more)

    @property
    def verdict(self) -> str:
        """``pass``, ``FAIL``, ``shown`` without a limit, or ``skip``; judged is the value as it is printed."""
        if self.value is None:
            return "skip"
        if self.limit is None:
            return "shown"
        value = float(shown(self.value))
        return "pass" if (value <= self.limit if self.at_most else value >= self.limit) else "FAIL"

    @property
    def measured(self) -> str:
        """Value and unit."""
        return "" if self.value is None else f"{shown(self.value)} {self.unit}".rstrip()

    @property
    def range(self) -> str:
        """Lowest and highest."""
        return " … ".join(map(shown, self.spread or ()))

    def __str__(self) -> str:
        """Return the line that is printed."""
        if self.value is None:
            return f"figure: {self.name}: skip, {self.reason}"
        spread = f" ({self.range})" if self.spread else ""
        limit = "" if self.limit is None else f", wanted {'<=' if self.at_most else '>='} {self.limit:g}"
        goal = "" if self.goal is None else f", goal {self.goal:g}"
        return f"figure: {self.name} = {self.measured}{spread}{limit}{goal}: {self.verdict}"


def shown(value: float) -> str:
    """A number with four digits, or all digits before the point."""
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"


def report(figures: Iterable[Figure]) -> int:
    """Print each figure as soon as it is measured; the exit code of the bench: 1 if a limit is missed."""
    missed = False
    for figure in figures:
        print(figure, flush=True)
        missed |= figure.verdict == "FAIL"
    return int(missed)


def skip(reason: str) -> NoReturn:
    """End a bench that cannot measure anything here."""
    sys.exit(report([Figure(name="all", reason=reason)]))


def read_figures(printed: str) -> list[Figure]:
    """Figures in what a bench printed, as `report` was given them, to four digits."""
    return [_read(found) for found in LINE.finditer(printed)]


def _read(found: re.Match[str]) -> Figure:
    number = {name: None if found[name] is None else float(found[name]) for name in ("value", "limit", "goal")}
    return Figure(
        name=found["name"],
        **number,
        reason=found["reason"] or "",
        unit=found["unit"] or "",
        at_most=found["sign"] == "<=",
        spread=None if found["low"] is None else (float(found["low"]), float(found["high"])),
    )
