"""A training step and a map of each method, beside the bare backbone on the same batch, and peak memory.

    python tools/bench/methods.py [--methods cam,has,…] [--dataset demo] [--batch 16] [--rounds 7] [--device cpu]

Every recipe is taken as it stands for the data set (cub on a GPU, where the demo's networks are too small to tell),
with random images and no store; weights are random but for the demo. ``step``: augmentation, losses and backward of the
method; ``bare``: forward of its backbone, a mean of its features, backward. ``map``: prediction; ``forward``: of the
backbone. Ratios are throughputs, so 1 is no cost; both are timed in turns, on processor time without a GPU. Wanted:
0.95 of a step for has, adl and sat, 0.9 for cam, cutmix and ts_cam; what others are below that is their own branches.
On a GPU all of it runs in mixed precision, beside which a step in float32 is timed too; memory is the peak of a step.
MOLT's ``bare`` runs each of its networks at its own size, on images that were resized beforehand.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from ab import compare
from figures import Figure, report
from prepare import device_here, read_options

from wsoltrain.methods.base import Task
from wsoltrain.methods.ts_cam import Molt
from wsoltrain.pseudo.draws import RowDraws
from wsoltrain.training.parallel import Group
from wsoltrain.training.recipe_file import load_recipe

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from wsoltrain.methods.base import Method

DEVICES = ("cpu", "cuda")
METHODS = ("cam", "has", "cutmix", "adl", "acol", "spg", "nl_ccam", "ts_cam", "sat", "scm", "molt")
WANTED = {"has": 0.95, "adl": 0.95, "sat": 0.95, "cam": 0.9, "cutmix": 0.9, "ts_cam": 0.9}
CLASSES = 8
SHORTEST = 0.3  # seconds of a repetition: a step of the demo's networks is too short to time
ALONE = Group()


def backbones_of(model: Method[Any], image: torch.Tensor) -> list[tuple[Any, torch.Tensor]]:
    """The networks that the method is built on, and the image as each sees it."""
    if isinstance(model, Molt):
        return model.levels(image)
    net: Any = model.net
    return [(net, image)]


def works(model: Method[Any], batch: dict[str, torch.Tensor], amp: bool) -> dict[str, Callable[[], None]]:
    """Return what is timed, by name."""
    nets = backbones_of(model, batch["image"])
    (phase,) = model.phases()
    mixed = torch.autocast("cuda", torch.bfloat16) if amp else nullcontext()

    def step() -> None:
        model.train()
        augmented = model.augment(batch, RowDraws(0, 0, batch["row"]))
        loss = torch.stack(list(model.losses(augmented, phase.name, 0).parts.values())).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        model.zero_grad()

    def bare() -> None:
        for net, image in nets:
            net.train()
            with mixed:
                features = net.forward_features(image)
            features.float().mean().backward()
            net.zero_grad()

    @torch.no_grad()
    def find() -> None:
        model.eval()
        model.predict(batch["image"], batch["label"])

    @torch.no_grad()
    def forward() -> None:
        for net, image in nets:
            net.eval()
            net.forward_features(image)

    return {"step": step, "bare": bare, "map": find, "forward": forward}


def build(name: str, given: argparse.Namespace, *, amp: bool, group: Group = ALONE) -> tuple[Method[Any], int]:
    """A method on a device, and the side of its images."""
    changes = {} if given.dataset == "demo" else {"weights": None}
    recipe = load_recipe(name, dataset=given.dataset, changes=changes)
    device = torch.device(given.device)
    mixed = lambda: torch.autocast(device.type, torch.bfloat16, enabled=amp)  # noqa: E731
    task = Task(CLASSES, recipe.size, device=device, processes=group, autocast=mixed)
    return recipe.build(task).to(device), recipe.size


def batch_of(size: int, given: argparse.Namespace) -> dict[str, torch.Tensor]:
    """Random images with labels."""
    generator = torch.Generator().manual_seed(0)
    made = {
        "image": torch.randn(given.batch, 3, size, size, generator=generator),
        "label": torch.arange(given.batch) % CLASSES,
        "row": torch.arange(given.batch),
    }
    return {name: value.to(given.device) for name, value in made.items()}


def measure(name: str, given: argparse.Namespace) -> list[Figure]:
    """Print times of one method; its figures."""
    gpu = given.device.startswith("cuda")
    clock = "wall" if gpu else "cpu"
    model, size = build(name, given, amp=gpu)
    batch = batch_of(size, given)
    work = works(model, batch, gpu)
    turns: dict[str, Any] = {"repetitions": given.rounds, "device": given.device}
    step = compare(work["bare"], work["step"], shortest=SHORTEST, **turns)
    found = compare(work["forward"], work["map"], shortest=SHORTEST, **turns)
    print(
        f"{name:<9} {size:>4} px  step {1e3 * step.median('b', clock):8.1f} ms  map "
        f"{1e3 * found.median('b', clock):8.1f} ms",
        flush=True,
    )
    figures = [
        step.figure(f"{name}, step / bare step", clock, limit=WANTED.get(name)),
        found.figure(f"{name}, map / bare forward", clock),
    ]
    if gpu:
        torch.cuda.reset_peak_memory_stats()
        work["step"]()
        memory = torch.cuda.max_memory_allocated() / 1e6
        precise = compare(works(build(name, given, amp=False)[0], batch, False)["step"], work["step"], **turns)
        figures.append(precise.figure(f"{name}, step in bfloat16 / in float32", clock))
        figures.append(Figure(name=f"{name}, peak of a step", value=memory, unit="MB"))
    return figures


def main() -> int:
    """Print a line for each method, and the figures; 1 if a judged one is too slow."""
    given = read_options(__doc__, methods=",".join(METHODS), dataset=str, batch=16, rounds=7, device=device_here())
    given.dataset = given.dataset or ("cub" if given.device.startswith("cuda") else "demo")
    return report([figure for name in given.methods.split(",") for figure in measure(name, given)])


if __name__ == "__main__":
    sys.exit(main())
