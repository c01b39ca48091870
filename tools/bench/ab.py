"""Two ways of doing the same, timed in turns, so that a machine that slows down slows both."""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

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

    def figure(self, name: str, *clocks: str, cost: bool = False, times: float = 1.0, **more: Any) -> Figure:
        """Median and spread of the pairs.

        Parameters
        ----------
        name : str
        clocks : str
            Of several, the one by which B is worst. See `Timing`.
        cost : bool
            What B costs in A's seconds, instead of its throughput as a share of A's.
        times : float
            Factor, such as one over the cores that B has.
        more
            ``limit`` and ``goal`` of the figure; upper bounds where it is a cost.
        """
        pairs = self.ratios(min(clocks, key=self.ratio))
        values = [times / ratio if cost else times * ratio for ratio in pairs]
        return Figure.of(name, values, at_most=cost, **more)

    def rates(self, *, a: str, b: str, items: int, unit: str = "images/s") -> list[Figure]:
        """Items a second of both sides by the clock, which are shown and not judged: they hold on this machine."""
        sides = ((a, self.a), (b, self.b))
        return [Figure.of(name, [items / timing.wall for timing in side], unit=unit) for name, side in sides]

    def median(self, side: str, clock: str) -> float:
        """Median seconds of side ``a`` or ``b``."""
        return statistics.median(timing.seconds(clock) for timing in (self.a if side == "a" else self.b))

    def show(self, *, a: str, b: str, items: int, unit: str = "images") -> None:
        """Print both sides; `items` is what one repetition handles."""
        print(f"{len(self.a)} interleaved repetitions of {items} {unit}; load {os.getloadavg()[0]:.1f}")
        for name, side in ((a, "a"), (b, "b")):
            wall, cpu = self.median(side, "wall"), self.median(side, "cpu")
            rates = f"{items / wall:9.1f} {unit}/s {cpu:8.3f} s cpu {1e3 * cpu / items:8.2f} ms each"
            print(f"  {name:<24} {wall:8.3f} s wall {rates}")


def settle(device: str) -> None:
    """Wait until a GPU is done."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def measure(work: Callable[[], object], *, calls: int = 1, device: str = "cpu") -> Timing:
    """Time some calls, as one of them; work done in another process returns its own `Timing`."""
    gc.collect()
    settle(device)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        result = work()
    settle(device)
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
    device: str = "cpu",
) -> Comparison:
    """Run A and B in turns, the first of each pair alternating.

    Parameters
    ----------
    a, b : callable
        Each does the whole of its work.
    repetitions : int
        Pairs that count.
    warmup : int
        Pairs before them that do not.
    shortest : float
        Seconds that a repetition takes at least: quicker work is called several times in it, A and B as often.
    device : str
        Where a GPU works, it is waited for.
    """
    sides = a, b
    for _ in range(warmup):
        a()
        b()
    calls = 1
    if shortest:
        calls = max(1, math.ceil(shortest / min(measure(a, device=device).wall, measure(b, device=device).wall)))
    timed: tuple[list[Timing], list[Timing]] = ([], [])
    for repetition in range(repetitions):
        order = (0, 1) if repetition % 2 == 0 else (1, 0)
        for side in order:
            timed[side].append(measure(sides[side], calls=calls, device=device))
    return Comparison(tuple(timed[0]), tuple(timed[1]))
