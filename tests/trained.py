"""A network small enough to train in a second, and what tests of training and of what was trained need around it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from wsoltrain.data.config import Labelling
from wsoltrain.methods.base import Task
from wsoltrain.training.loop import Trainer
from wsoltrain.training.recipe import recipe_type
from wsoltrain.training.recipe_file import load_recipe
from wsoltrain.training.settings import Settings
from wsoltrain.training.tracker import JsonLines

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from stores import TinyStore
    from wsoltrain.methods.base import Method
    from wsoltrain.training.recipe import Recipe

VIT = {"patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
SMALL: dict[str, Any] = {
    "backbone": "vit_tiny_patch16_224", "model_args": VIT, "weights": None, "size": 32, "resize": 36, "batch": 8,
    "epochs": 2, "head_epochs": 1, "pixels": {"n_fg": 20, "n_bg": 20},
}  # fmt: skip

PAIR = """
import os, sys
from socket import socket

import timm, torch, wsolpipe.metrics.sweep, wsoltrain.inference.model, wsoltrain.training.loop
import wsoltrain.methods.dips, wsoltrain.methods.tedloc
from wsoltrain.cli.main import main

with socket() as free:
    free.bind(("127.0.0.1", 0))
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
children = []
for rank in "01":
    children.append(os.fork())
    if not children[-1]:
        os.environ |= {"RANK": rank, "LOCAL_RANK": rank}
        code = 1
        try:
            main(sys.argv[1:])
        except SystemExit as ended:
            code = ended.code
        sys.stderr.flush()
        os._exit(code)  # taking down what the parent imported takes as long as the training
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""
"""Two processes as torchrun starts them, of which one alone imports."""


def build(method: str, backbone: str, *, weights: str | None, size: int, classes: int, **keys: Any) -> Method[Any]:
    """A method's network on its own, without a store."""
    given = {"method": method, "backbone": backbone, "weights": weights, "size": size, **keys}
    return recipe_type(method).model_validate(given).build(Task(classes, size))


def settings(
    store: TinyStore, out: Path, *, maps: str | None = "cls_maps", boxes: str | None = "proposals", **more: Any
) -> Settings:
    labelling = Labelling(store.url, "tiny", "train", maps=maps, boxes=boxes if maps else None)
    given = {"workers": 0, "save_every": 1, "thresholds": (50, 50), **more}
    return Settings(labelling, root=store.root, out=out, **given)


def recipe(**more: Any) -> Recipe:
    return load_recipe("dips", dataset="tiny", changes={**SMALL, **more})


def trainer(store: TinyStore, out: Path, *, more: dict[str, Any] | None = None, **changes: Any) -> Trainer:
    return Trainer(recipe(**changes), settings(store, out, **(more or {})), [JsonLines(out / "metrics.jsonl")])


def words(store: TinyStore, **changes: Any) -> list[str]:
    """Words of ``wsoltrain fit`` for the same run."""
    keys = {**SMALL, **changes}
    return [
        "fit", "recipe=dips", f"store={store.url}", f"dataset={store.root}/../tiny.yaml", "device=cpu",
        *(f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in keys.items()),
    ]  # fmt: skip


def lines(out: Path, kind: str) -> list[dict[str, Any]]:
    return [told for told in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()) if told["kind"] == kind]


def tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def run_pair(given: list[str]) -> subprocess.CompletedProcess[str]:
    """Run words of wsoltrain in two processes that train together."""
    return subprocess.run(
        [sys.executable, "-c", PAIR, *given], env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
