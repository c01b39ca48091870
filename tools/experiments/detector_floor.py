"""The objectness below which a detector's regions take no part in pseudo-boxes: chosen on halves, shown on the others.

    python tools/experiments/detector_floor.py packs=FOLDER weights=FOLDER out=work [rows=120]

Of ImageNet and of five classes one part of the rows chooses; the other parts, and all rows of ten species of CUB, show.
The classifier judges the forty best regions of each row, a fifth of the default 200, once; every floor is then a choice
among them, made by the product's own functions. Prints mean IoU and the share of rows with IoU of 0.5 and more.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from real_data import write_set
from refine_table import write_halves, wsolpipe

from wsolpipe.contract.schema import Status
from wsolpipe.evaluate.map_sources import rows_of_index
from wsolpipe.evaluate.results import StoreResults
from wsolpipe.evaluate.truth import find_truth
from wsolpipe.metrics.boxes import best_iou
from wsolpipe.ops.box_choice import best_finalist, shortlist

Array = np.ndarray[Any, Any]
FLOORS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
SHARES = {"train": 0.4, "val": 0.2, "test": 0.2}
JUDGED = 40
WORDS = (
    "stage=val_boxes", "val_boxes.annotator=rpn", "val_boxes.top_by=classifier", "val_boxes.keep=1",
    f"val_boxes.slots={JUDGED}", f"regions.top_n={JUDGED}",
)  # fmt: skip
PARTS = {
    "choose": (("ilsvrc_val_acuity", "val"), ("fewclass5", "val")),
    "show": (("ilsvrc_val_acuity", "test"), ("fewclass5", "test"), ("cub10", "val"), ("cub10", "test")),
}


def describe(packs: Path, weights: Path, out: Path, rows: int) -> dict[str, Path]:
    """YAML files of the three sets, with a detector each."""
    made = {"ilsvrc_val_acuity": write_halves(packs / "ilsvrc_val_acuity", weights, out, rows)}
    for name in ("fewclass5", "cub10"):
        made[name] = write_set(packs / name, weights, out, SHARES)
        about = yaml.safe_load(made[name].read_text())
        about["stages"]["regions"] = {"method": "onnx", "weights": str((weights / "yolox_nano_coco.onnx").resolve())}
        made[name].write_text(yaml.safe_dump(about, sort_keys=False))
    return made


def judged(dataset: Path, split: str, store: str) -> list[dict[str, Array]]:
    """Regions, objectness, posteriors, peak and true boxes of each row."""
    common = (f"dataset={dataset}", f"store={store}", f"split={split}")
    wsolpipe("run", *WORDS, *common)
    key = wsolpipe("eval", *WORDS, *common)["key"]
    results = StoreResults(store, dataset.stem)
    view = results.view("val_boxes", split, key)
    truth = find_truth(results, rows_of_index(results.index_of(view)), "truth")
    rows = []
    for row in sorted(truth.found):
        if view["status"][row] == Status.OK:
            found = {name: view[name][row] for name in ("candidates", "objectness", "posterior", "peak")}
            count = int((~np.isnan(found["objectness"])).sum())
            cut = {name: values[:count] for name, values in found.items() if name != "peak"}
            rows.append({**cut, "peak": found["peak"], "truth": truth.boxes(row)})
    return rows


def choose(row: dict[str, Array], floor: float, final: str) -> float:
    """IoU of the box that a row gets."""
    score, scale = row["objectness"], row["posterior"]
    peak = None if np.isnan(row["peak"]).any() else row["peak"]
    found = shortlist(row["candidates"], score, peak, keep=1.0, order="filter-first", enough=score >= floor)
    best, _ = best_finalist(found, scale * score if final == "product" else scale, score)
    return float(best_iou(row["candidates"][best][None], row["truth"]))


def main(words: list[str]) -> int:
    """Print a table of floors for each part."""
    values = {"rows": "120", **dict(word.split("=", 1) for word in words)}
    out = Path(values["out"])
    sets = describe(Path(values["packs"]), Path(values["weights"]), out, int(values["rows"]))
    for part, members in PARTS.items():
        seen = {f"{name} {split}": judged(sets[name], split, str(out / "store")) for name, split in members}
        print(f"\n{part}: mean IoU, share of IoU >= 0.5\n")
        print("| floor, last score |", " | ".join(f"{name} ({len(rows)})" for name, rows in seen.items()), "| mean |")
        print("|---|" + "---|" * (len(seen) + 1))
        for final in ("classifier", "product"):
            for floor in FLOORS:
                ious = [np.array([choose(row, floor, final) for row in rows]) for rows in seen.values()]
                cells = [f"{100 * own.mean():.1f}, {100 * (own >= 0.5).mean():.0f}" for own in ious]
                mean = 100 * np.mean([own.mean() for own in ious])
                print(f"| {floor:g}, {final} |", " | ".join(cells), f"| {mean:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
