"""Two ways of doing the same, timed in turns, so that a machine that slows down slows both."""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from figures import Figure

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Timing:
    """Seconds of one repetition.

    Attributes
    ----------
    wall : float
        By the clock.
    cpu : float
        Of all threads of the process.
    waited : float
        Mean over the threads of the time waited in the queue of a core: what other processes took.
        Waiting for a lock, a file or another thread is not in it.
    """

    wall: float
    cpu: float
    waited: float = 0.0

    def seconds(self, clock: str) -> float:
        """Seconds by ``wall``, ``cpu``, or ``alone``: the clock without `waited`, as on a machine of one's own."""
        return {"wall": self.wall, "cpu": self.cpu, "alone": self.wall - self.waited}[clock]


class Queue:
    """Adds up how long threads wait in the queue of a core while they do some work (Linux's schedstat).

    >>> queue = Queue()
    >>> work = queue.watch(sum)
    >>> work([1, 2])
    3
    >>> queue.take() >= 0.0
    True
    """

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def watch(self, work: Callable[P, R]) -> Callable[P, R]:
        """The same function, watched in whatever thread it runs."""

        def watched(*arguments: P.args, **options: P.kwargs) -> R:
            before = self._now()
            try:
                return work(*arguments, **options)
            finally:
                self._seconds.append(self._now() - before)

        return watched

    def take(self) -> float:
        """Seconds of all threads since the last call, and reset."""
        seconds, self._seconds = sum(self._seconds), []
        return seconds

    def _now(self) -> float:
        """Seconds that this thread has waited in the queue; 0 if the system does not report it."""
        try:
            return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0


@dataclass(frozen=True)
class Comparison:
    """Repetitions of A and of B, in pairs that ran next to each other."""

    a: tuple[Timing, ...]
    b: tuple[Timing, ...]

    def ratios(self, clock: str) -> list[float]:
        """A's seconds to B's, B's throughput as a share of A's, of each pair. `clock`: see `Timing`."""
        return [a.seconds(clock) / b.seconds(clock) for a, b in zip(self.a, self.b, strict=True)]

    def ratio(self, clock: str) -> float:
        """Median of `ratios`."""
        return statistics.median(self.ratios(clock))

    def figure(
        self,
        name: str,
        *clocks: str,
        limit: float | None = None,
        goal: float | None = None,
        cost: bool = False,
        times: float = 1.0,
    ) -> Figure:
        """Median and spread of the pairs.

        Parameters
        ----------
        name : str
        clocks : str
            Of several, the one by which B is worst. See `Timing`.
        limit, goal : float, optional
            Of the figure; upper bounds where it is a cost.
        cost : bool
            What B costs in A's seconds, instead of its throughput as a share of A's.
        times : float
            Factor, such as one over the cores that B has.
        """
        pairs = self.ratios(min(clocks, key=self.ratio))
        values = [times / ratio if cost else times * ratio for ratio in pairs]
        return Figure(
            name=name,
            value=statistics.median(values),
            limit=limit,
            goal=goal,
            at_most=cost,
            spread=(min(values), max(values)),
        )

    def rates(self, *, a: str, b: str, items: int, unit: str = "images/s") -> list[Figure]:
        """Items a second of both sides by the clock, which are shown and not judged: they hold on this machine."""
        found = []
        for name, side in ((a, self.a), (b, self.b)):
            rates = [items / timing.wall for timing in side]
            spread = min(rates), max(rates)
            found.append(Figure(name=name, value=statistics.median(rates), unit=unit, spread=spread))
        return found

    def median(self, side: str, clock: str) -> float:
        """Median seconds of side ``a`` or ``b``."""
        return statistics.median(timing.seconds(clock) for timing in (self.a if side == "a" else self.b))

    def lines(self, *, a: str, b: str, items: int, unit: str = "images") -> list[str]:
        """Table of both sides, to be printed; `items` is what one repetition handles."""
        out = [f"{len(self.a)} interleaved repetitions of {items} {unit}; load {os.getloadavg()[0]:.1f}"]
        for name, side in ((a, "a"), (b, "b")):
            wall, cpu = self.median(side, "wall"), self.median(side, "cpu")
            rates = f"{items / wall:9.1f} {unit}/s {cpu:8.3f} s cpu {1e3 * cpu / items:8.2f} ms each"
            out.append(f"  {name:<24} {wall:8.3f} s wall {rates}")
        walls = self.ratios("wall")
        out.append(
            f"  {b} / {a} throughput: wall {self.ratio('wall'):.3f} "
            f"(pairs {min(walls):.3f} … {max(walls):.3f}), cpu {self.ratio('cpu'):.3f}"
        )
        return out


def measure(work: Callable[[], object], *, calls: int = 1) -> Timing:
    """Time some calls, as one of them; work done in another process returns its own `Timing`."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        result = work()
    if isinstance(result, Timing):
        return result
    return Timing((time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls)


def compare(
    a: Callable[[], object],
    b: Callable[[], object],
    *,
    repetitions: int = 5,
    warmup: int = 1,
    shortest: float = 0.0,
) -> Comparison:
    """Run A and B in turns, the first of each pair alternating.

    Parameters
    ----------
    a, b : callable
        Each does the whole of its work, and waits for the device where there is one.
    repetitions : int
        Pairs that count.
    warmup : int
        Pairs before them that do not.
    shortest : float
        Seconds that a repetition takes at least: quicker work is called several times in it, A and B as often.
    """
    for _ in range(warmup):
        a()
        b()
    calls = 1
    if shortest:
        calls = max(1, math.ceil(shortest / min(measure(a).wall, measure(b).wall)))
    timed: tuple[list[Timing], list[Timing]] = ([], [])
    for repetition in range(repetitions):
        order = (0, 1) if repetition % 2 == 0 else (1, 0)
        for side in order:
            timed[side].append(measure((a, b)[side], calls=calls))
    return Comparison(tuple(timed[0]), tuple(timed[1]))
