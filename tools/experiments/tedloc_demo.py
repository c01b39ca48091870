"""TeD-Loc on the demo: ablations of losses and anchors over seeds, beside the clip_cams that it learned from.

    python tools/experiments/tedloc_demo.py --store FOLDER [--seeds 3] [--variants 'all, qr;kd, qr'] [KEY=VALUE …]

Steps and scores are those of ``wsoltrain fit`` and ``wsoltrain eval``, but epochs take turns in four views of each
image, the crops and flips of the first four epochs of seed 0, so that the frozen encoder runs once a view and not once
a step. The last epoch is scored on the test split at its best threshold, as MaxBoxAcc is defined, and at the one that
proposals choose on the validation split. The store needs index, clip_cams, text_anchors and, of val, proposals.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import yaml
from torch import Tensor, nn

from wsolpipe.evaluate.figures import Frame
from wsolpipe.evaluate.map_scores import score_maps
from wsolpipe.evaluate.map_sources import StageMaps, rows_of_index
from wsolpipe.evaluate.results import StoreResults
from wsolpipe.evaluate.truth import find_truth
from wsolpipe.images.dataset import load_dataset
from wsoltrain.data.config import Labelling
from wsoltrain.training.loop import Trainer
from wsoltrain.training.optimisation import Moment
from wsoltrain.training.recipe_file import load_recipe
from wsoltrain.training.scoreboard import Evaluator
from wsoltrain.training.settings import Settings

if TYPE_CHECKING:
    from wsolpipe.evaluate.map_scores import MapScores
    from wsoltrain.training.recipe import Recipe

VARIANTS: dict[str, dict[str, Any]] = {
    "all, qr": {},
    "all, no orthogonalisation": {"orthogonal": "none"},
    "kd+pcl, qr": {"losses": "kd+pcl"},
    "kd, qr": {"losses": "kd"},
}
FIGURES = ("MaxBoxAcc", "V2", "iou", "accuracy", "top1", "top5")


class Remembered(nn.Module):
    """An encoder that takes images and remembers their tokens, or takes tokens."""

    tokens: ClassVar[dict[bytes, Tensor]] = {}

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[1] != 3:
            return image
        names = [sha256(each.numpy().tobytes()).digest() for each in image]
        new = [at for at, name in enumerate(names) if name not in self.tokens]
        if new:
            self.tokens.update(zip([names[at] for at in new], self.encoder(image[new]), strict=True))
        return torch.stack([self.tokens[name] for name in names])


def encoded_views(trainer: Trainer, count: int = 4) -> list[dict[str, Tensor]]:
    """All rows, in their order, as the first epochs crop and mirror them, with tokens in place of images."""
    model: Any = trainer.model
    views = []
    for epoch in range(count):
        trainer.stream.set_epoch(epoch)
        parts: dict[str, list[Tensor]] = {}
        for batch in trainer.stream:
            for name in ("maps", "window", "label", "row"):
                parts.setdefault(name, []).append(batch[name])
            parts.setdefault("image", []).append(model.encoder(batch["image"]))
        whole = {name: torch.cat(values) for name, values in parts.items()}
        order = whole["row"].argsort()
        views.append({name: values[order] for name, values in whole.items()})
    return views


def train(trainer: Trainer, views: list[dict[str, Tensor]], recipe: Recipe) -> None:
    """Take the steps of all epochs."""
    rows, running = len(views[0]["row"]), trainer.phases["maps"]
    steps = rows // recipe.batch
    for epoch in range(recipe.epochs):
        view = views[(epoch + recipe.seed) % len(views)]
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(1000 * recipe.seed + epoch))
        for step in range(steps):
            at = order[step * recipe.batch : (step + 1) * recipe.batch]
            trainer.learn([{name: value[at] for name, value in view.items()}], running, Moment(epoch, step, steps))
            trainer.step += 1


def figures(result: dict[str, Any]) -> dict[str, float | None]:
    """Of an evaluator's result, those of the table."""
    localization = {"top1": result.get("top1_loc"), "top5": result.get("top5_loc")}
    return {
        "MaxBoxAcc": result["MaxBoxAcc"], "V2": result["MaxBoxAccV2"]["mean"], "iou": result["iou"],
        "accuracy": result.get("accuracy_top1"), **localization,
    }  # fmt: skip


def both(scores: dict[str, MapScores]) -> dict[str, dict[str, Any]]:
    """Results on test at the best threshold, and at that of validation."""
    return {"best": scores["test"].result(), "chosen": scores["test"].result(tau=scores["val"].choose_tau())}


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--store", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", default=";".join(VARIANTS))
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE")
    given = parser.parse_args()
    common = {key: yaml.safe_load(value) for key, value in (word.split("=", 1) for word in given.keys)}
    dataset = load_dataset("demo")
    root = str(dataset.image_root())
    found: dict[str, list[dict[str, Any]]] = {}
    print_seeds(given.store)
    views: list[dict[str, Tensor]] = []
    for name in given.variants.split(";"):
        changes = common | VARIANTS[name]
        for seed in range(given.seeds):
            recipe = load_recipe("tedloc", dataset="demo", changes={"seed": seed, **changes})
            labelling = Labelling(given.store, "demo", "train", maps=recipe.reads().maps)
            with tempfile.TemporaryDirectory() as out:
                trainer = Trainer(recipe, Settings(labelling, root=root, out=Path(out), workers=0), [])
            views = views or encoded_views(trainer)
            model: Any = trainer.model
            model.encoder = Remembered(model.encoder)
            train(trainer, views, recipe)
            for shown in ("g", "text") if changes.get("losses") != "kd" else ("text",):
                model.keys = recipe.model_copy(update={"map": shown})
                scores = {}
                for split, by in (("val", "proposals"), ("test", "gt")):
                    judge = Evaluator(recipe, Labelling(given.store, "demo", split), root, [by], 0)
                    scores[split] = judge.run(trainer.model, trainer.device, thresholds=200)[by]
                for how, result in both(scores).items():
                    found.setdefault(f"{name}, map {shown}, {how}", []).append(figures(result))
                print(seed, name, shown, json.dumps({how: figures(it) for how, it in both(scores).items()}), flush=True)
    print("\n| | " + " | ".join(FIGURES) + " |\n|---|" + "---|" * len(FIGURES))
    for name, runs in found.items():
        columns = [[run[figure] for run in runs if run[figure] is not None] for figure in FIGURES]
        spreads = [statistics.stdev(each) if len(each) > 1 else 0 for each in columns]
        cells = [f"{statistics.mean(e):.3g} ± {s:.2g}" if e else "" for e, s in zip(columns, spreads, strict=True)]
        print(f"| {name} | " + " | ".join(cells) + " |")


def print_seeds(store: str) -> None:
    """The line of clip_cams, at the threshold chosen in the same way."""
    results, scores = StoreResults(store, "demo", None), {}
    for split, by in (("val", "proposals"), ("test", "gt")):
        view = results.view("clip_cams", split)
        rows = rows_of_index(results.index_of(view))
        scores[split] = score_maps(StageMaps(view, 0, rows), find_truth(results, rows, by), Frame(side=256))
    print("clip_cams", json.dumps({how: figures(result) for how, result in both(scores).items()}), flush=True)


if __name__ == "__main__":
    main()
