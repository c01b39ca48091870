"""Images a second of a training step on several GPUs beside one, each with a batch as large: their number is the ideal.

    python tools/bench/gpus.py [--method cam] [--dataset cub] [--batch 32] [--processes 2] [--repetitions 3]

torchrun starts both in turns. A step is that of `methods.py` in mixed precision, with the gradients averaged over all
processes and an update, as the training loop takes it; images and weights are random. With ``--device cpu`` the
processes share the cores, which says nothing of GPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from ab import Timing, compare
from figures import Figure, report
from methods import batch_of, build

from wsoltrain.pseudo.draws import RowDraws
from wsoltrain.training.parallel import close_group, open_group, synchronised

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

    def settle() -> None:
        if on_gpu:
            torch.cuda.synchronize()
        group.wait()

    for _ in range(min(WARM, given.steps)):
        step()
    settle()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(given.steps):
        step()
    settle()
    timing = Timing(time.perf_counter() - wall, time.process_time() - cpu)
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--method", default="cam")
    parser.add_argument("--dataset", default="cub")
    parser.add_argument("--batch", type=int, default=32, help="images of each process")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--timed", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
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
