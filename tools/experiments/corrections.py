"""Gain of a training by twenty corrected rows: those that rank first beside as many at random.

    python tools/experiments/corrections.py out=FOLDER store=STORE [dataset=demo] [recipes=dips,trcam] [seeds=0,1,2,3,4]
        [rows=20] [weight=5] [KEY=VALUE …]

The person is played by the ground truth of the training split: ``wsolpipe export rows=doubtful:N`` says which rows to
correct (it reads no ground truth), their true boxes enter the store by ``wsolpipe import``, and ``wsoltrain fit
drawn=human_boxes:KEY drawn_weight=W`` learns from them beside the pseudo-labels. At random, every seed draws rows
of its own. Epoch and threshold are chosen by val_boxes; figures are of the test split. Other words go to ``wsoltrain
fit``. Called again, the script goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from wsolpipe import open_store
from wsolpipe.evaluate.truth import truth_of_index

OWN = ("out", "store", "dataset", "recipes", "seeds", "rows", "weight")
FIGURES = ("MaxBoxAcc", "MaxBoxAccV2", "iou")


def call(program: str, *words: str) -> dict[str, Any]:
    """JSON that a command prints, run in this process: starting one for each costs more than a short training."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        importlib.import_module(f"{program}.cli.main").cli.main([*words, "--json"], standalone_mode=False)
    return dict(json.loads(output.getvalue()))


def correct(values: dict[str, str], name: str, rows: list[int]) -> str:
    """Key of human_boxes with the true boxes of some training rows."""
    index = open_store(values["store"])[values["dataset"]]["train"].index()
    ids, truth = index.table(["image_id"]).column("image_id").to_pylist(), truth_of_index(index)
    path = Path(values["out"]) / f"{name}.jsonl"
    lines = [{"image_id": ids[row], "boxes": [{"box": box} for box in truth.boxes(row).tolist()]} for row in rows]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    place = (f"dataset={values['dataset']}", f"store={values['store']}", "split=train")
    return str(call("wsolpipe", "import", "format=jsonl", f"in={path}", "drawn=listed", *place)["key"])


def chosen_rows(values: dict[str, str], seed: int | None) -> list[int]:
    """The rows that rank first, or with a seed as many at random."""
    count = int(values["rows"])
    index = open_store(values["store"])[values["dataset"]]["train"].index()
    if seed is not None:
        return sorted(np.random.default_rng(seed).choice(index.manifest.rows, count, replace=False).tolist())
    out = Path(values["out"]) / "doubtful"
    place = (f"dataset={values['dataset']}", f"store={values['store']}", "split=train", f"out={out}")
    call("wsolpipe", "export", "stage=proposals", "format=jsonl", f"rows=doubtful:{count}", *place)
    (path,) = [path for path in out.rglob("*.jsonl")]
    return sorted(json.loads(line)["row"] for line in path.read_text().splitlines())


def _mean(value: Any) -> float:
    """A figure, or the mean of one that has several levels."""
    return float(value["mean"] if isinstance(value, dict) else value)


def main() -> None:
    """Train all that is not trained yet, and print the table."""
    values = dict(word.split("=", 1) for word in sys.argv[1:])
    defaults = {"dataset": "demo", "recipes": "dips,trcam", "seeds": "0,1,2,3,4", "rows": "20", "weight": "5"}
    values = {**defaults, **values}
    extra = [f"{name}={value}" for name, value in values.items() if name not in OWN]
    out = Path(values["out"])
    out.mkdir(parents=True, exist_ok=True)
    results = out / "results.json"
    found: dict[str, dict[str, float]] = json.loads(results.read_text()) if results.exists() else {}
    ranked = correct(values, "ranked", chosen_rows(values, None))
    for seed in values["seeds"].split(","):
        drawn = correct(values, f"random-{seed}", chosen_rows(values, int(seed)))
        for recipe in values["recipes"].split(","):
            for arm, key in (("none", ""), ("ranked", ranked), ("random", drawn)):
                name = f"{recipe} {arm} {seed}"
                if name in found:
                    continue
                run = out / name.replace(" ", "-")
                own = [f"drawn=human_boxes:{key}", f"drawn_weight={values['weight']}"] if key else []
                place = (f"dataset={values['dataset']}", f"store={values['store']}")
                words = (f"recipe={recipe}", f"out={run}", f"seed={seed}", "by=val_boxes", "workers=0", *own, *extra)
                call("wsoltrain", "fit", *place, *words)
                scored = call(
                    "wsoltrain", "eval", f"checkpoint={run / 'best-val_boxes.safetensors'}", *place, "workers=0"
                )
                own_figures = {figure: scored["localizer"][figure] for figure in FIGURES}
                found[name] = {figure: _mean(value) for figure, value in own_figures.items()}
                results.write_text(json.dumps(found, indent=1))
    for recipe in values["recipes"].split(","):
        for figure in FIGURES:
            arms = {
                arm: np.array([_mean(found[f"{recipe} {arm} {seed}"][figure]) for seed in values["seeds"].split(",")])
                for arm in ("none", "ranked", "random")
            }
            gains = [f"{arm} {(arms[arm] - arms['none']).mean():+.2f} ± {(arms[arm] - arms['none']).std(ddof=1):.2f}"
                     for arm in ("ranked", "random")]  # fmt: skip
            print(f"{recipe} {figure}: none {arms['none'].mean():.2f}, {', '.join(gains)}")


if __name__ == "__main__":
    main()
