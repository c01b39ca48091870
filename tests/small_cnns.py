"""A CNN small enough for tests of methods, a batch of random images, and one epoch of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trained import build, settings
from wsoltrain.inference.model import load_trained
from wsoltrain.pseudo.draws import RowDraws
from wsoltrain.training.loop import Trainer
from wsoltrain.training.recipe_file import load_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from stores import TinyStore
    from wsoltrain.methods.base import Method, Prediction

SMALL = {"channels": [8, 8, 16, 16], "stem_width": 8}
CLASSES = 5


def made(method: str, *, size: int = 64, backbone: str = "resnet10t", args: Any = SMALL, **keys: Any) -> Method[Any]:
    return build(method, backbone, weights=None, size=size, classes=CLASSES, model_args=args, **keys)


def batch(count: int = 4, size: int = 64, first: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(first)
    return {
        "image": torch.randn(count, 3, size, size, generator=generator),
        "label": torch.arange(count) % CLASSES,
        "row": torch.arange(first, first + count),
    }


def draws(rows: torch.Tensor, *, seed: int = 0, epoch: int = 0) -> RowDraws:
    return RowDraws(seed, epoch, rows)


def train_and_load(method: str, store: TinyStore, out: Path, **keys: Any) -> tuple[Prediction, dict[str, float]]:
    """Train one epoch on a tiny store, load the best weights and return what they predict, and the run's best."""
    given = {"backbone": "resnet10t", "model_args": SMALL, "weights": None, "size": 32, "batch": 8, "epochs": 1, **keys}
    recipe = load_recipe(method, dataset="tiny", changes={**given, "mean": [0.5] * 3, "std": [0.5] * 3})
    best = Trainer(recipe, settings(store, out, maps=None), []).fit()["best"]
    trained = load_trained(str(out), device=torch.device("cpu"))
    with torch.no_grad():
        return trained.model.predict(torch.rand(2, 3, 32, 32), torch.tensor([0, 3])), best
