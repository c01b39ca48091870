"""Train the network that the demo's scoring classifier starts from, with labels, on scenes rendered on the fly.

It stands for the ImageNet weights that a scoring classifier starts from on photographs: it has seen other scenes of the
same kind with their labels, and none of the shipped data set. The `classifier` stage then fine-tunes it on the demo's
train split.

    python tools/demo/train_demo_classifier.py --seed 0 --out weights.safetensors

Takes about eight minutes on one idle core, most of it to render.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import timm
import torch
from render import CLASSES, render_scene
from safetensors.torch import save_file
from torch.nn import functional as F

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

MODEL = "resnet10t"
MODEL_ARGS: dict[str, Any] = {"channels": [32, 48, 96, 160], "stem_width": 16}
MEAN, STD = 0.5, 0.5
SIZE = 64
POOL_SIZE = 96
BATCH = 64
RATE = 0.05
WARM = 100
STREAM = 7002
"""First word of every seed drawn here, so that no scene coincides with one of the shipped data set."""


def render_pool(seed: int, scenes: int) -> tuple[Bytes, NDArray[np.int64]]:
    """Images uint8 [n, s, s, 3] and labels int64 [n] of random scenes."""
    rng = np.random.default_rng([STREAM, seed, 0])
    images = np.zeros((scenes, POOL_SIZE, POOL_SIZE, 3), np.uint8)
    labels = rng.integers(0, len(CLASSES), scenes)
    for number, label in enumerate(labels):
        images[number] = render_scene(rng, int(label), POOL_SIZE, POOL_SIZE).image
        if number % 500 == 499:
            print(f"rendered {number + 1} of {scenes} scenes", flush=True)
    return images, labels


def draw_view(rng: np.random.Generator, image: Bytes) -> Bytes:
    """A random crop of at least half the image, flipped half of the time, as uint8 [s, s, 3]."""
    side = POOL_SIZE * np.sqrt(rng.uniform(0.5, 1.0))
    centre = POOL_SIZE / 2 + rng.uniform(-0.5, 0.5, 2) * (POOL_SIZE - side)
    zoom = side / SIZE * np.array([rng.choice([-1.0, 1.0]), 1.0])
    offset = centre - zoom * (SIZE - 1) / 2
    matrix = np.array([[zoom[0], 0.0, offset[0]], [0.0, zoom[1], offset[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=flags, borderMode=cv2.BORDER_REFLECT_101))


def normalise(images: Bytes) -> torch.Tensor:
    """uint8 [n, s, s, 3] to the network's input, float32 [n, 3, s, s]."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return ((pixels - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def train(images: Bytes, labels: NDArray[np.int64], *, seed: int, steps: int) -> torch.nn.Module:
    """SGD with momentum, cosine schedule, label smoothing."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([STREAM, seed, 1])
    model = timm.create_model(MODEL, pretrained=False, num_classes=len(CLASSES), **MODEL_ARGS)
    model = model.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    began, smooth = time.perf_counter(), float("nan")
    for step in range(steps):
        rate = RATE * min(1.0, (step + 1) / WARM) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        rows = rng.choice(len(images), BATCH)
        scores = model(normalise(np.stack([draw_view(rng, images[row]) for row in rows])))
        loss = F.cross_entropy(scores, torch.from_numpy(labels[rows]), label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        smooth = loss.item() if step == 0 else 0.95 * smooth + 0.05 * loss.item()
        if step % 100 == 99:
            print(f"step {step + 1} of {steps}, loss {smooth:.3f}, {time.perf_counter() - began:.0f} s", flush=True)
    trained: torch.nn.Module = model.eval()
    return trained


def main() -> None:
    """Render, train, write."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    images, labels = render_pool(options.seed, options.scenes)
    model = train(images, labels, seed=options.seed, steps=options.steps)
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(state, options.out, metadata={"mean": str(MEAN), "std": str(STD), "input_size": str(SIZE)})
    print(f"wrote {options.out}: {options.out.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
