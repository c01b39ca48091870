"""Images a second of a training step on several GPUs beside one, each with a batch as large: their number is the ideal.

    python tools/bench/gpus.py [--method cam] [--dataset cub] [--batch 32] [--processes 2] [--repetitions 3]

torchrun starts both in turns. A step is that of `methods.py` in mixed precision, with the gradients averaged over all
processes and an update, as the training loop takes it; images and weights are random. With ``--device cpu`` the
processes share the cores, which says nothing of GPUs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from ab import Timing, compare, measure
from figures import Figure, report
from methods import batch_of, build
from prepare import read_options

from wsoltrain.pseudo.draws import RowDraws
from wsoltrain.training.parallel import close_group, open_group, synchronised

if TYPE_CHECKING:
    import argparse

DEVICES = ("cuda",)
WARM = 5


def train(given: argparse.Namespace) -> Timing:
    """Take steps as one of the processes that torchrun started."""
    on_gpu = given.device == "cuda"
    group = open_group(given.device)
    model, size = build(given.method, given, amp=on_gpu, group=group)
    synchronised(model, group, torch.device(given.device)).train()
    batch = batch_of(size, given)
    (phase,) = model.phases()
    optimiser = torch.optim.SGD(phase.parameters, lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        augmented = model.augment(batch, RowDraws(0, 0, batch["row"]))
        torch.stack(list(model.losses(augmented, phase.name, 0).parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        group.average_gradients(phase.parameters)
        optimiser.step()
        model.after_step()

    def steps(count: int) -> None:
        for _ in range(count):
            step()
        group.wait()

    steps(min(WARM, given.steps))
    timing = measure(lambda: steps(given.steps), device=given.device)
    close_group(group)
    return timing


def run(processes: int) -> Timing:
    """Time the steps of so many processes, with this process's own arguments."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [*torchrun, str(Path(__file__).resolve()), *sys.argv[1:], "--timed"],
        env={"OMP_NUM_THREADS": "1", **os.environ}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return Timing(*json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> int:
    """Take turns, print the figures; in a process of torchrun, take steps."""
    given = read_options(
        __doc__, method="cam", dataset="cub", batch=32, processes=2, steps=50, repetitions=3, device=("cuda", "cpu"),
        timed=False,
    )  # fmt: skip
    if given.timed:
        timing = train(given)
        if int(os.environ["RANK"]) == 0:
            print(json.dumps([timing.wall, timing.cpu]), flush=True)
        return 0
    name, there = f"{given.method}, {given.processes} GPUs / one", torch.cuda.device_count()
    if given.device == "cuda" and there < given.processes:
        return report([Figure(name=name, reason=f"{given.processes} GPUs wanted, {there} here")])
    result = compare(lambda: run(1), lambda: run(given.processes), repetitions=given.repetitions, warmup=0)
    each = [f"{given.method}, each of {count}" for count in (1, given.processes)]
    rates = result.rates(a=each[0], b=each[1], items=given.batch * given.steps)
    return report([result.figure(name, "wall", times=given.processes), *rates])


if __name__ == "__main__":
    sys.exit(main())
