"""How long ``wsolpipe --help`` takes beside an empty Python, in turns, so that a slow machine slows both.

Exit code 1 if help takes more than 0.3 s.

    python tools/bench/help_time.py [--repeat 11]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from figures import Figure, report

LIMIT_SECONDS = 0.3


def seconds(arguments: list[str]) -> float:
    """Wall seconds of one process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> int:
    """Measure, print; 1 if the limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=11)
    repeat = parser.parse_args().repeat
    pairs = [(seconds(["-c", "pass"]), seconds(["-m", "wsolpipe.cli.main", "--help"])) for _ in range(repeat)]
    shown = [help_seconds for _, help_seconds in pairs]
    ratios = [help_seconds / empty for empty, help_seconds in pairs]
    return report(
        [
            Figure(
                name="wsolpipe --help", value=statistics.median(shown), unit="s", limit=LIMIT_SECONDS, at_most=True,
                spread=(min(shown), max(shown)),
            ),
            Figure(
                name="wsolpipe --help / an empty Python, cost", value=statistics.median(ratios), at_most=True,
                spread=(min(ratios), max(ratios)),
            ),
        ]
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
