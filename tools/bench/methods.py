"""A training step and a map of each method, beside the bare backbone on the same batch, and peak memory.

    python tools/bench/methods.py [--methods cam,has,…] [--dataset demo] [--batch 16] [--rounds 3] [--device cpu]
                                  [--json]

Every recipe is taken as it stands for the data set, with random images and weights as its recipe names them, and no
store. ``step``: augmentation, losses and backward of the method; ``bare``: forward of its backbone, a mean of its
features, backward. ``map``: prediction; ``forward``: of the backbone. Ratios are bare / method, so 1 is no cost; both
are timed in turns, on processor time without a GPU. Wanted: 0.9 of a step for cam, has, cutmix, adl, ts_cam and sat;
what others are below that is their own branches. Memory is the peak of a step on a GPU, MB. MOLT's ``bare`` runs each
of its networks at its own size, on images that were resized beforehand.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from ab import compare

from wsoltrain.methods.base import Task
from wsoltrain.methods.molt import Molt
from wsoltrain.pseudo.random import RowDraws
from wsoltrain.training.recipe_file import load_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsoltrain.methods.base import Method

METHODS = ("cam", "has", "cutmix", "adl", "acol", "spg", "nl_ccam", "ts_cam", "sat", "scm", "molt")
JUDGED, WANTED = ("cam", "has", "cutmix", "adl", "ts_cam", "sat"), 0.9
CLASSES = 8


def backbones_of(model: Method[Any], image: torch.Tensor) -> list[tuple[Any, torch.Tensor]]:
    """The networks that the method is built on, and the image as each sees it."""
    if isinstance(model, Molt):
        return model.levels(image)
    net: Any = model.net
    return [(net, image)]


def works(model: Method[Any], batch: dict[str, torch.Tensor], amp: bool) -> dict[str, Callable[[], None]]:
    """What is timed, by name."""
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


def measure(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Ratios of one method, and its peak memory."""
    recipe = load_recipe(name, dataset=given.dataset, changes={})
    device = torch.device(given.device)
    amp = device.type == "cuda"
    task = Task(
        CLASSES, recipe.size, device=device, autocast=lambda: torch.autocast("cuda", torch.bfloat16, enabled=amp)
    )
    model = recipe.build(task).to(device)
    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.randn(given.batch, 3, recipe.size, recipe.size, generator=generator).to(device),
        "label": torch.arange(given.batch, device=device) % CLASSES,
        "row": torch.arange(given.batch, device=device),
    }
    work = works(model, batch, amp)
    memory = None
    if amp:
        work["step"]()
        torch.cuda.reset_peak_memory_stats()
        work["step"]()
        memory = torch.cuda.max_memory_allocated() / 1e6
    found = {"method": name, "size": recipe.size, "memory_mb": memory}
    for own, other in (("step", "bare"), ("map", "forward")):
        turns = compare(_waiting(work[other], amp), _waiting(work[own], amp), repetitions=given.rounds)
        clock = "wall" if amp else "cpu"
        found |= {f"{own}_ms": 1e3 * turns.median("b", clock), f"{own}_ratio": turns.ratio(clock)}
    return found


def _waiting(work: Callable[[], None], gpu: bool) -> Callable[[], None]:
    """The same, ending when the GPU has ended."""

    def timed() -> None:
        work()
        if gpu:
            torch.cuda.synchronize()

    return timed


def main() -> None:
    """Print a line for each method; exit with 1 if a judged one is too slow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    slow = []
    for name in given.methods.split(","):
        found = measure(name, given)
        if name in JUDGED and found["step_ratio"] < WANTED:
            slow.append(name)
        if given.json:
            print(json.dumps(found), flush=True)
            continue
        memory = "" if found["memory_mb"] is None else f"{found['memory_mb']:.0f} MB"
        print(
            f"{name:<9} {found['size']:>4} px  step {found['step_ms']:8.1f} ms, bare / step {found['step_ratio']:.2f}"
            f"  map {found['map_ms']:8.1f} ms, forward / map {found['map_ratio']:.2f}  {memory}",
            flush=True,
        )
    if slow:
        print(f"TOO SLOW: {', '.join(slow)} below {WANTED} of the bare step", file=sys.stderr)
    sys.exit(bool(slow))


if __name__ == "__main__":
    main()
