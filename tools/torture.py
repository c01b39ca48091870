"""Kills and attacks what a user runs, and compares the final stores and weights byte by byte.

    python tools/torture.py [--kills 200] [--attacks 500] [--seed 0] [--no-s3] [--out FILE]

First `kills`: `run`, `push` and `pull` are killed until they get through. Then `attack`: files of finished stores and
of trainings are damaged in every way of `damage`, and what `attack_scenes` knows besides. Prints a tally of each, and
keeps that of the attacks in FILE; exit code 1 if anything is lost, wrong, wedged or ends in a traceback.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import attack
import kills


def main() -> int:
    """Torture and print the tally; 1 if anything was lost or differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--attacks", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-s3", dest="s3", action="store_false", help="only stores in folders")
    parser.add_argument("--out", type=Path, help="file that keeps the tally of the attacks, written after each one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            if options.kills:
                kills.show(kills.run(Path(scratch) / "kills", kills=options.kills, seed=options.seed, s3=options.s3))
            with kills.begin(Path(scratch) / "attacks", seed=options.seed, s3=False) as torture:
                failures = attack.show(attack.run(torture, options.attacks, options.out)) if options.attacks else 0
        except AssertionError as error:
            print(f"FAILED (seed {options.seed}): {error}", file=sys.stderr)
            return 1
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
