"""Cost of TeD-Loc: memory of a step by the number of classes, its speed and that of predict, parameters and latency.

    python tools/bench/tedloc.py [--backbone NAME] [--size 256] [--classes 1000] [--batch 4] [--pairs 5] [--runs 1000]
                                 [--parts memory,step,predict,latency] [--device cpu]

Weights are random. Printed beside each figure is what is wanted of it:

- memory: peak of a step's allocations with 1,000 classes over that with 10, at most 1.3 (64 x 64 patches by default);
- step: its throughput as a share of encoder forward plus decoder forward and backward alone, at least 0.9;
- predict: its throughput as a share of encoder and decoder alone, at least 0.9;
- latency: median of ``--runs`` single images after 20, and its ratio to that of the encoder, run in turns with it.

Shares are of processor time, of interleaved pairs, on a CPU; by the clock on a GPU.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import TYPE_CHECKING

import torch
from ab import compare, settle
from figures import Figure, report
from prepare import device_here, read_options
from safetensors.torch import save
from torch.profiler import ProfilerActivity, profile

from wsoltrain.inference.model import complexity
from wsoltrain.methods.base import Task
from wsoltrain.training.recipe import recipe_type

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from torch import Tensor

    from wsoltrain.methods.tedloc import TedLoc

DEVICES = ("cpu", "cuda")
FEW, WARM = 10, 20
MEMORY, SPEED = 1.3, 0.9
PARTS = ("memory", "step", "predict", "latency")


def build(given: argparse.Namespace, classes: int) -> TedLoc:
    """The method with random weights and random anchors."""
    plain = torch.nn.functional.normalize(torch.randn(classes, given.dimensions))
    about = {"names": [str(k) for k in range(classes)], "labels": list(range(classes)), "orthogonal": "none"}
    files = {
        "text_anchors/anchors.safetensors": save({"plain": plain, "anchors": plain.clone()}),
        "text_anchors/anchors.json": json.dumps(about).encode(),
    }
    keys = {"backbone": given.backbone, "weights": None, "size": given.size, "decoder_width": given.width}
    task = Task(classes, given.size, artifacts=files, device=torch.device(given.device))
    model: TedLoc = recipe_type("tedloc").model_validate({"method": "tedloc", **keys}).build(task).to(given.device)  # type: ignore[assignment]
    return model


def batch_of(given: argparse.Namespace, classes: int) -> dict[str, Tensor]:
    """A batch as the stream gives it: seeds of 14 x 14 over the whole image."""
    down = torch.linspace(-1, 1, 14)
    bump = torch.exp(-4 * (down[:, None] ** 2 + down**2)).expand(given.batch, 1, 14, 14)
    made = {
        "image": torch.randn(given.batch, 3, given.size, given.size),
        "maps": bump,
        "window": torch.tensor([[0, 0, given.size, 0]]).expand(given.batch, 4),
        "label": torch.randint(classes, (given.batch,)),
        "row": torch.arange(given.batch),
    }
    return {name: value.to(given.device) for name, value in made.items()}


def step_of(model: TedLoc, batch: dict[str, Tensor]) -> Callable[[], None]:
    """Losses and their gradients."""

    def step() -> None:
        model.train().zero_grad()
        torch.stack(list(model.losses(batch, "maps", 0).parts.values())).sum().backward()  # type: ignore[no-untyped-call]

    return step


def peak_memory(work: Callable[[], None], device: str) -> int:
    """Bytes that are allocated at once at most, beside what there was before."""
    work()
    if device.startswith("cuda"):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    held = peak = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def latencies(works: list[Callable[[], object]], runs: int, device: str) -> list[float]:
    """Median seconds of a call of each, in turns, after `WARM`."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(WARM + runs):
        for work, found in zip(works, seconds, strict=True):
            began = time.perf_counter()
            work()
            settle(device)
            found.append(time.perf_counter() - began)
    return [statistics.median(found[WARM:]) for found in seconds]


def share(name: str, whole: Callable[[], object], bare: Callable[[], object], given: argparse.Namespace) -> Figure:
    """Throughput of `whole` as a share of that of `bare`."""
    pairs = compare(bare, whole, repetitions=given.pairs, device=given.device)
    return pairs.figure(name, "wall" if given.device.startswith("cuda") else "cpu", limit=SPEED)


def measure(given: argparse.Namespace) -> list[Figure]:
    """All figures of the parts that are asked for."""
    found: list[Figure] = []
    model, batch = build(given, given.classes), batch_of(given, given.classes)
    image, single = batch["image"], batch["image"][:1]

    def bare_step() -> None:
        model.train().zero_grad()
        model.decoder(model.encoder(image)).sum().backward()

    if "memory" in given.parts:
        few = peak_memory(step_of(build(given, FEW), batch_of(given, FEW)), given.device) / 2**20
        many = peak_memory(step_of(model, batch), given.device) / 2**20
        name = f"memory of a step, {given.classes} classes / {FEW}, cost"
        found += [
            Figure(name=name, value=many / few, limit=MEMORY, at_most=True),
            Figure(name=f"memory of a step, {given.classes} classes", value=many, unit="MiB"),
        ]
    if "step" in given.parts:
        found.append(share("step / encoder and decoder alone", step_of(model, batch), bare_step, given))
    model.eval()
    with torch.no_grad():
        if "predict" in given.parts:
            bare = lambda: model.decoder(model.encoder(image))  # noqa: E731
            found.append(share("predict / encoder and decoder alone", lambda: model.predict(image), bare, given))
        if "latency" in given.parts:
            works = [lambda: model.predict(single), lambda: model.encoder(single)]
            whole, encoder = latencies(works, given.runs, given.device)
            found += [
                Figure(name="predict of an image", value=1e3 * whole, unit="ms"),
                Figure(name="predict of an image / encoder, cost", value=whole / encoder, at_most=True),
            ]
    counted = complexity(model, given.size)
    return [
        *found,
        Figure(name="parameters", value=counted["total"]["parameters"] / 1e6, unit="M"),
        Figure(name="parameters of the heads", value=counted["heads"]["parameters"] / 1e6, unit="M"),
        Figure(name="multiplications of an image", value=counted["total"]["macs"] / 1e9, unit="G"),
    ]


def main() -> int:
    """Print the figures; 1 where one is worse than wanted."""
    given = read_options(
        __doc__, backbone="vit_tiny_patch16_224", size=256, classes=1000, dimensions=512, width=512, batch=4, pairs=5,
        runs=1000, parts=",".join(PARTS), device=device_here(),
    )  # fmt: skip
    given.parts = given.parts.split(",")
    if not set(given.parts) <= set(PARTS):
        sys.exit(f"--parts: some of {','.join(PARTS)}")
    torch.manual_seed(0)
    return report(measure(given))


if __name__ == "__main__":
    sys.exit(main())
