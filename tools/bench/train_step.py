"""Shares of a training step: wait, copy, forward, losses, CRF, backward, optimiser, and what is kept of it.

    python tools/bench/train_step.py [--store FOLDER] [--dataset demo] [--recipe dips] [--epochs 4] [--workers N]
                                     [--device cpu] [KEY=VALUE …]

Trains the maps of a recipe as ``wsoltrain fit`` does, with one loader process a core, and clocks each part of each
step; the first epoch, in which loader processes start, is left out, and evaluations are outside of the clock. A GPU is
waited for after each part, so that its work is counted where it belongs. Without ``--store`` the demo's labels are made
first. Other words are keys of the recipe. Wanted: of all time between two evaluations, no more than 5 % waiting for
data.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ab import settle
from figures import Figure, report
from prepare import device_here, read_options

from wsolpipe.images.dataset import load_dataset
from wsolpipe.keys.words import parse_value, split_words
from wsoltrain.data.config import Labelling
from wsoltrain.training.loop import Trainer
from wsoltrain.training.recipe_file import load_recipe
from wsoltrain.training.settings import Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

DEVICES = ("cpu", "cuda")
PARTS = ("wait", "copy", "forward", "losses", "crf", "backward", "optimiser", "keeping")
LIMIT = 0.05


class Clocked(Trainer):
    """A trainer that adds up what each part of its steps takes.

    Attributes
    ----------
    spent : dict of str to float
        Seconds by part.
    clocked : int
        Steps that were clocked.
    """

    def __init__(self, *given: Any, **more: Any) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.clocked = 0
        super().__init__(*given, **more)
        self.since = time.perf_counter()

    def lap(self, done: str) -> None:
        """Add the time since the last call to a part."""
        settle(self.device.type)
        now = time.perf_counter()
        if self.stream.epoch > 0:
            self.spent[done] += now - self.since
            self.clocked += done == "keeping"
        self.since = now

    def _evaluate(self, epoch: int) -> None:
        super()._evaluate(epoch)
        self.since = time.perf_counter()


def make_demo(folder: Path) -> str:
    """Make the demo's proposals, as ``make demo`` does."""
    print("making the demo's labels first", file=sys.stderr)
    words = ["run", "stage=proposals", "dataset=demo", f"store={folder}"]
    subprocess.run([sys.executable, "-m", "wsolpipe.cli.main", *words], check=True, stdout=sys.stderr)
    return str(folder)


def measure(store: str, out: Path, given: argparse.Namespace) -> tuple[Mapping[str, float], int]:
    """Milliseconds a step by part, and the number of steps."""
    dataset = load_dataset(given.dataset)
    changes = {name: parse_value(value) for name, value in split_words(given.keys).items()}
    fixed = {"epochs": given.epochs + 1, "head_epochs": 0}
    recipe = load_recipe(given.recipe, dataset=dataset.name, changes={**changes, **fixed})
    reads = recipe.reads()
    labelling = Labelling(store, dataset.name, "train", maps=reads.maps, boxes=reads.boxes)
    settings = Settings(
        labelling,
        root=str(dataset.image_root()),
        out=out,
        workers=given.workers,
        device=given.device,
        thresholds=(50, 50),
    )
    trainer = Clocked(recipe, settings, [])
    trainer.fit()
    return {name: 1e3 * trainer.spent[name] / trainer.clocked for name in PARTS}, trainer.clocked


def main() -> int:
    """Print the shares and the figures; 1 if a step waits too long."""
    given = read_options(
        __doc__, store=str, dataset="demo", recipe="dips", epochs=4, workers=os.cpu_count() or 1, device=device_here(),
        keys=list,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        store = given.store or make_demo(Path(scratch, "store"))
        spent, steps = measure(store, Path(scratch, "run"), given)
    whole = sum(spent.values())
    for name, value in spent.items():
        print(f"{name:<10} {value:9.2f} ms  {100 * value / whole:5.1f} %")
    print(f"{'step':<10} {whole:9.2f} ms, {steps} steps on {given.device}, {given.workers} loader processes")
    return report(
        [
            Figure(name="share of a step that waits", value=spent["wait"] / whole, limit=LIMIT, at_most=True),
            Figure(name=f"step of {given.recipe}", value=whole, unit="ms"),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
