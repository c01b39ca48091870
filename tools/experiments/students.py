"""Train recipes over seeds and show each beside what it learned from: mean, spread and interval of test figures.

    python tools/experiments/students.py dataset=NAME store=STORE out=FOLDER recipes=dips,trcam [seeds=0,1,2]
        [name=NAME] [by=proposals] [ceiling=true] [gt=true] [KEY=VALUE …]

Other words go to ``wsoltrain fit``. A run's folder is ``<recipe or name>-<seed>`` below `out`; called again, the script
goes on where it stopped, and without ``recipes=`` it only shows the table of what is there. Epoch and threshold are
chosen on the validation split by the first boxes of `by`, a line for each word of it; an epoch that accuracy chose
(``cls``) is scored at each map's own threshold by Otsu's rule. With ``gt=true`` a line more shows what ground truth
would have chosen. Figures are of the test split: mean and standard deviation over seeds, and in brackets the 95 %
interval of that mean over images (bootstrap). ``ceiling=true`` adds the recipe's network trained on ground truth, one
seed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsolpipe.evaluate.glossary import shown_name
from wsolpipe.evaluate.results import StoreResults
from wsolpipe.evaluate.scored import BEST, OTSU, score_beside
from wsolpipe.evaluate.truth import find_truth
from wsolpipe.images.dataset import load_dataset
from wsolpipe.metrics.confidence import interval
from wsoltrain.data.config import Labelling
from wsoltrain.runs.score import choose_by, open_run
from wsoltrain.training.annotators import CLS

FIGURES = ("MaxBoxAcc", "MaxBoxAccV2", "iou")
SCORES = "scores.json"


def train(values: dict[str, str], recipe: str, seed: str, extra: list[str]) -> Path:
    """Train a recipe with one seed, or go on with it; the run's folder."""
    out = Path(values["out"]) / f"{values.get('name', Path(recipe).stem)}-{seed}"
    if not (out / SCORES).is_file():
        own = [f"{key}={values[key]}" for key in ("dataset", "store", "by", "gt")]
        run("fit", f"recipe={recipe}", f"out={out}", f"seed={seed}", "workers=0", *own, *extra)
    return out


def run(*words: str) -> None:
    """Run a command of the trainer."""
    subprocess.run([sys.executable, "-m", "wsoltrain", *words], check=True)


def score(values: dict[str, str], weights: Path) -> dict[str, Any]:
    """What each test row adds to the three figures, by the weights and the threshold that a run chose; classes."""
    dataset = load_dataset(values["dataset"])
    place = Labelling(values["store"], dataset.name, "test"), str(dataset.image_root())
    opened = open_run(weights, *place, device=torch.device("cpu"), workers=0, masks=None)
    scored = opened.score(opened.rule(), keep=True, details=False).scored
    trained, found, added = opened.trained, scored.figures(), scored.values()
    reads = trained.recipe.reads()
    about = {"tau": trained.tau, "epoch": trained.epoch, "maps": reads.maps, "boxes": reads.boxes}
    about |= {"accuracy": found.get("accuracy_top1"), "top1": found.get("top1_loc")}
    return about | {name: added[name][1].astype(float).round(6).tolist() for name in FIGURES}


def beside(values: dict[str, str], maps: str | None, boxes: str | None, by: str) -> dict[str, list[float]]:
    """The three figures of a centred box and of what a student learned from."""
    results = StoreResults(values["store"], load_dataset(values["dataset"]).name)
    views = [] if boxes is None else [results.view(boxes, "test")]
    shown = None if maps is None else results.view(maps, "test")
    rules = [OTSU] if by == CLS else [] if shown is None else [choose_by(results, shown, by, "val")]
    found = score_beside(find_truth(results, results.rows("test"), "gt"), boxes=views, maps=shown, rules=(*rules, BEST))
    lines = [each.line() for each in found]
    return {
        f"{line.name} {line.threshold}".strip(): [float(each or 0) for each in (line.accuracy, line.v2, line.iou)]
        for line in lines
    }


def show(name: str, cells: list[str]) -> None:
    """One line of the table, as Markdown."""
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def per_cent(figure: str, values: Any) -> Any:
    """Values of a figure in per cent."""
    return 100 * values if figure == "iou" else values


def student_cells(seeds: list[dict[str, Any]]) -> list[str]:
    """Mean, spread over seeds and interval over images of each figure."""
    cells = []
    for figure in FIGURES:
        rows = per_cent(figure, np.array([each[figure] for each in seeds]))
        found = interval(rows.mean(0))
        spread = rows.mean(1).std(ddof=1) if len(rows) > 1 else 0.0
        cells.append(f"{found.value:.1f} ± {spread:.1f} [{found.low:.1f}, {found.high:.1f}]")
    return cells


def table(values: dict[str, str]) -> None:
    """Print a line for each setting below the folder of runs, and for what it learned from."""
    show("", [shown_name(figure) for figure in FIGURES])
    show("---", ["---"] * len(FIGURES))
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(Path(values["out"]).glob(f"*/{SCORES}")):
        for annotator, scores in json.loads(path.read_text(encoding="utf-8")).items():
            found[path.parent.name.rpartition("-")[0], annotator].append(scores)
    said: set[tuple[Any, ...]] = set()
    for (setting, annotator), seeds in found.items():
        labels = seeds[0]["maps"], seeds[0]["boxes"], annotator
        if annotator != "gt" and labels not in said:
            said.add(labels)
            for name, figures in beside(values, *labels).items():
                show(name, [f"{per_cent(each, value):.1f}" for each, value in zip(FIGURES, figures, strict=True)])
        show(f"**{setting}**, chosen by {annotator}, {len(seeds)} seeds", student_cells(seeds))
        alone = "; ".join(
            " / ".join(f"{per_cent(figure, np.mean(each[figure])):.1f}" for figure in FIGURES) for each in seeds
        )
        classes = [np.mean([each[key] for each in seeds]) for key in ("accuracy", "top1") if seeds[0][key] is not None]
        print(f"    each: {alone}" + "".join(f"; {value:.1f}" for value in classes))
    for path in sorted(Path(values["out"]).glob("*/ceiling.json")):
        (line,) = (line for line in json.loads(path.read_text(encoding="utf-8"))["table"] if line["name"] == "ceiling")
        show(path.parent.name, [f"{per_cent(key, line[key]):.1f}" for key in ("accuracy", "v2", "iou")])


def main(words: list[str]) -> int:
    """Train, score and show."""
    values = {"recipes": "", "seeds": "0,1,2", "by": "proposals", "ceiling": "false", "gt": "false"}
    values |= dict(word.split("=", 1) for word in words)
    known = {"dataset", "store", "out", "recipes", "seeds", "name", "by", "ceiling", "gt"}
    extra = [f"{key}={value}" for key, value in values.items() if key not in known]
    for recipe in filter(None, values["recipes"].split(",")):
        for seed in values["seeds"].split(","):
            out = train(values, recipe, seed, extra)
            if not (out / SCORES).is_file():
                files = {path.stem.removeprefix("best-"): path for path in sorted(out.glob("best-*.safetensors"))}
                scores = {name: score(values, path) for name, path in files.items()}
                (out / SCORES).write_text(json.dumps(scores), encoding="utf-8")
        ceiling = Path(values["out"]) / f"{values.get('name', Path(recipe).stem)}_ceiling"
        if values["ceiling"] == "true" and not (ceiling / "ceiling.json").is_file():
            own = [f"{key}={values[key]}" for key in ("dataset", "store")]
            run("ceiling", f"recipe={recipe}", f"out={ceiling}", "workers=0", *own, *extra)
    table(values)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
