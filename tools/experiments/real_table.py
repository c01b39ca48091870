"""Show the figures of runs on one data set: mean and spread over seeds, and what choosing by pseudo-boxes costs.

    python tools/experiments/real_table.py runs=FOLDER dataset=NAME store=STORE [split=test]

`runs` holds a folder a run, named ``<setting>-<seed>``, each the out= of ``wsoltrain fit … gt=true test=test``. Epoch
and threshold of each run are chosen on the validation split, by pseudo-boxes and by ground truth; figures are of the
test split. Beside them stand the proposals and CAMs of the store, and a centred box.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from wsolpipe.evaluate.frame import Frame
from wsolpipe.evaluate.map_sources import StageMaps
from wsolpipe.evaluate.results import StoreResults
from wsolpipe.evaluate.tables import baselines
from wsolpipe.evaluate.tau import Chooser
from wsolpipe.evaluate.truth import find_truth
from wsolpipe.metrics.protocol import read_runs
from wsolpipe.metrics.protocol_tables import protocol_table

NAMES = ("MaxBoxAcc", "MaxBoxAccV2", "iou")
ANNOTATORS = ("proposals", "gt")


def numbers(cell: dict[str, Any]) -> list[float]:
    """MaxBoxAcc, MaxBoxAccV2 and mean IoU of figures of maps."""
    v2 = cell["MaxBoxAccV2"]
    return [cell["MaxBoxAcc"], v2["mean"] if isinstance(v2, dict) else v2, cell["iou"]]


def beside(store: str, dataset: str, split: str) -> dict[str, list[float]]:
    """The three figures of a centred box, of CAMs and of the first proposals, by what they are."""
    results = StoreResults(store, dataset)
    here, val = (results.rows(name) for name in (split, "val"))
    cams = Chooser(StageMaps(results.view("cams", "val"), 0, val), find_truth(results, val, "proposals"), Frame())
    truth = find_truth(results, here, "gt")
    boxes, maps = results.view("proposals", split), results.view("cams", split)
    lines = baselines(truth, boxes=[boxes], maps=maps, chooser=cams)
    return {
        f"{line.name} {line.threshold}".strip(): [float(value or 0) for value in (line.accuracy, line.v2, line.iou)]
        for line in lines
    }


def chosen(runs: Path) -> dict[tuple[str, str], list[list[float]]]:
    """(setting, annotator) -> the three figures of each seed, epoch and threshold chosen on validation."""
    found = defaultdict(list)
    for folder in sorted(path for path in runs.iterdir() if (path / "runs").is_dir()):
        setting = folder.name.rpartition("-")[0]
        for cell in protocol_table(read_runs(folder / "runs"), annotators=list(ANNOTATORS), metric="MaxBoxAcc"):
            if (cell["model"], cell["threshold"]) == ("BV", "VT"):
                found[setting, cell["annotator"]].append(numbers(cell))
    return dict(found)


def main(words: list[str]) -> int:
    """Print the table."""
    values = {"split": "test", **dict(word.split("=", 1) for word in words)}
    print(f"{'':36}{''.join(f'{name:>16}' for name in NAMES)}")
    for name, figures in beside(values["store"], values["dataset"], values["split"]).items():
        print(f"{name:36}{''.join(f'{value:16.3f}' for value in figures)}")
    found = chosen(Path(values["runs"]))
    for (setting, annotator), seeds in found.items():
        mean, spread = np.mean(seeds, 0), np.std(seeds, 0, ddof=1) if len(seeds) > 1 else np.zeros(3)
        shown = "".join(f"{f'{m:.3f} ± {s:.3f}':>16}" for m, s in zip(mean, spread, strict=True))
        print(f"{f'{setting}, chosen by {annotator}, {len(seeds)} seeds':36}{shown}")
    for setting in {setting for setting, _ in found}:
        differences = np.mean(found[setting, "gt"], 0) - np.mean(found[setting, "proposals"], 0)
        print(f"{f'{setting}, gt minus proposals':36}{''.join(f'{value:+16.3f}' for value in differences)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
