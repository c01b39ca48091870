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
    empty, shown = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"python -c pass {empty:.3f} s, wsolpipe --help {shown:.3f} s (limit {LIMIT_SECONDS:g}), ratio {ratio:.1f}")
    return 0 if shown <= LIMIT_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
