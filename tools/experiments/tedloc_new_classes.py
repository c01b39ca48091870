"""TeD-Loc names classes that it was not trained on: two of the demo's eight left out in turn, all eight named.

    python tools/experiments/tedloc_new_classes.py --store FOLDER [--epochs 6] [--orthogonal auto]

Trains as ``tedloc_demo.py`` does, without the rows of two classes and with anchors of the other six, then names the
test images among all eight as ``predict anchors=FILE`` does. Printed are shares of the images of the six and of the two
that are named right, and, of the two, those whose name is right when only the two are asked for.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from safetensors.torch import save
from tedloc_demo import Remembered, encoded_views

from wsolpipe.images.dataset import load_dataset
from wsoltrain.data.config import Labelling
from wsoltrain.methods.base import Task
from wsoltrain.networks.class_anchors import NEW, ClassAnchors, parse_anchors
from wsoltrain.training.loop import Trainer
from wsoltrain.training.recipe_file import load_recipe
from wsoltrain.training.scoreboard import Evaluator
from wsoltrain.training.settings import Settings

if TYPE_CHECKING:
    from wsoltrain.methods.tedloc import TedLoc
    from wsoltrain.training.recipe import Recipe

HELD_OUT = ((0, 1), (2, 3), (4, 5), (6, 7))


def files(found: ClassAnchors, labels: list[int], stage: str) -> dict[str, bytes]:
    """The artifact of some of the classes."""
    plain = found.plain[labels]
    about = {"names": [found.names[k] for k in labels], "labels": list(range(len(labels))), "orthogonal": "none"}
    tensors = save({"plain": plain, "anchors": plain.clone()})
    return {f"{stage}/anchors.safetensors": tensors, f"{stage}/anchors.json": json.dumps(about).encode()}


def build(recipe: Recipe, classes: int, artifacts: dict[str, bytes]) -> TedLoc:
    """The method for some classes."""
    model = cast("TedLoc", recipe.build(Task(classes, recipe.size, artifacts=artifacts)))
    setattr(model, "encoder", Remembered(model.encoder))  # noqa: B010 - of another type
    return model


def train(model: TedLoc, views: list[dict[str, torch.Tensor]], recipe: Recipe, labels: list[int]) -> None:
    """SGD with the recipe's rate, falling as a cosine."""
    kept = torch.tensor([row for row, label in enumerate(views[0]["label"].tolist()) if label in labels])
    optimiser = torch.optim.SGD(
        model.phases()[0].parameters, lr=recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
    )
    steps = len(kept) // recipe.batch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.epochs * steps)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(recipe.epochs):
        order = kept[torch.randperm(len(kept), generator=generator)]
        for step in range(steps):
            at = order[step * recipe.batch : (step + 1) * recipe.batch]
            batch = {name: value[at] for name, value in views[epoch % len(views)].items()}
            batch["label"] = torch.tensor([labels.index(label) for label in batch["label"].tolist()])
            optimiser.zero_grad()
            torch.stack(list(model.train().losses(batch, "maps", epoch).parts.values())).sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()


def main() -> None:
    """Print a line for each two classes, and means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--store", required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--orthogonal", default="auto")
    given = parser.parse_args()
    root = str(load_dataset("demo").image_root())
    changes = {"epochs": given.epochs, "orthogonal": given.orthogonal}
    recipe = load_recipe("tedloc", dataset="demo", changes=changes)
    labelling = Labelling(given.store, "demo", "train", maps=recipe.reads().maps)
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(recipe, Settings(labelling, root=root, out=Path(out), workers=0), [])
    views, whole = encoded_views(trainer), parse_anchors(*trainer.artifacts.files.values())
    test = Evaluator(recipe, Labelling(given.store, "demo", "test"), root, ["gt"], 0).stream
    sums = []
    for two in HELD_OUT:
        six = [label for label in range(8) if label not in two]
        own = files(whole, six, "text_anchors")
        model = build(recipe, 6, own)
        train(model, views, recipe, six)
        asked = build(recipe, 8, own | files(whole, list(range(8)), NEW)).eval()
        asked.restore(model.saved())
        right: dict[str, list[bool]] = {"six": [], "two": [], "two of two": []}
        test.set_epoch(0)
        for batch in test:
            with torch.no_grad():
                scores = asked.predict(batch["image"]).scores
            assert scores is not None  # noqa: S101 - TeD-Loc classifies
            for label, each in zip(batch["label"].tolist(), scores, strict=True):
                right["two" if label in two else "six"].append(int(each.argmax()) == label)
                if label in two:
                    right["two of two"].append(two[int(each[list(two)].argmax())] == label)
        sums.append({name: 100 * sum(hits) / len(hits) for name, hits in right.items()})
        print(
            "without", ", ".join(whole.names[k] for k in two), {k: round(v, 1) for k, v in sums[-1].items()}, flush=True
        )
    print("mean", {name: round(sum(line[name] for line in sums) / len(sums), 1) for name in sums[0]})


if __name__ == "__main__":
    main()
