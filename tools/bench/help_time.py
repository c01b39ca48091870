"""How long ``wsolpipe --help`` takes beside an empty Python, in turns, so that a slow machine slows both.

Exit code 1 if help takes more than 0.3 s.

    python tools/bench/help_time.py [--repeat 11]
"""

from __future__ import annotations

import subprocess
import sys

from ab import compare
from figures import Figure, report
from prepare import read_options

LIMIT_SECONDS = 0.3


def run(*words: str) -> None:
    """Run Python."""
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)


def main() -> int:
    """Measure, print; 1 if the limit is exceeded."""
    repeat = read_options(__doc__, repeat=11).repeat
    result = compare(
        lambda: run("-c", "pass"), lambda: run("-m", "wsolpipe.cli.main", "--help"), repetitions=repeat, warmup=0
    )
    seconds = [timing.wall for timing in result.b]
    return report(
        [
            Figure.of("wsolpipe --help", seconds, unit="s", limit=LIMIT_SECONDS, at_most=True),
            result.figure("wsolpipe --help / an empty Python, cost", "wall", cost=True),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
