"""Train the demo's encoder of students: a tiny ViT whose patch tokens show where objects are.

It starts from the weights of `train_demo_weights`, whose class token finds objects while its patch tokens say little
of them: a decoder of those, trained on exact masks, stays below the demo's pseudo-labels. Two losses are minimised on
scenes rendered on the fly: the contrast of class tokens with which the first weights were trained, and, from each patch
token of the last layer by one linear map, the object's coverage of the patch's own pixels. No class label is used; the
renderer's masks are. So these tokens stand for those of a large self-supervised model on photographs, and figures of
students on the demo show that the code works, not what a method reaches without masks.

    python tools/demo/train_demo_tokens.py --seed 0 --out weights.safetensors

Takes about twenty minutes on one idle core with bfloat16 instructions, and prints how well the linear map segments
held-out scenes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import timm
import torch
from render import CLASSES, render_scene
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed, set_fused_attn
from torch import nn
from torch.nn import functional as F
from train_demo_weights import MEAN, MODEL, MODEL_ARGS, STD, contrast, normalise, recolour

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

START = Path(__file__).resolve().parents[2] / "data" / "demo" / "weights" / "demo_vit.safetensors"
SIZE = 96
"""Side of the network's input: that of the demo's recipes."""
POOL_SIZE = 120
BATCH = 16
"""Scenes a step; each gives two views."""
RATE = 8e-4
WARM = 100
CONTRAST = 0.25
"""Weight of the class tokens' contrast beside the coverage of patches."""
PASTED = 0.5
"""Share of the second views that show the object on another scene's background."""
STREAM = 7003
"""First word of every seed drawn here, so that no scene coincides with one of the shipped data set."""


@dataclass(frozen=True)
class Pool:
    """Scenes to cut views from: images and empty backgrounds uint8 [n, s, s, 3], object coverage uint8 [n, s, s]."""

    images: Bytes
    backgrounds: Bytes
    alphas: Bytes


def draw_pool(seed: int, part: int, count: int) -> Pool:
    """Render `count` scenes of random aspect, squashed to a square as the pipeline does; labels are dropped."""
    images = np.empty((count, POOL_SIZE, POOL_SIZE, 3), np.uint8)
    backgrounds, alphas = np.empty_like(images), np.empty(images.shape[:3], np.uint8)
    for number in range(count):
        rng = np.random.default_rng([STREAM, seed, part, number])
        long = POOL_SIZE + 24
        short = int(long * rng.uniform(0.7, 1.0))
        height, width = (long, short) if rng.random() < 0.5 else (short, long)
        scene = render_scene(rng, int(rng.integers(len(CLASSES))), height, width)
        for target, source in ((images, scene.image), (backgrounds, scene.background), (alphas, scene.alpha)):
            target[number] = cv2.resize(source, (POOL_SIZE, POOL_SIZE), interpolation=cv2.INTER_AREA)
    return Pool(images, backgrounds, alphas)


def cut_view(rng: np.random.Generator, scene: Bytes, cover: Bytes) -> tuple[Bytes, Bytes]:
    """One view [SIZE, SIZE, 3] of at least half a scene's sides, turned, flipped and recoloured, and its coverage."""
    side = POOL_SIZE * rng.uniform(0.5, 1.0) ** 0.5
    corner = rng.uniform(0, POOL_SIZE - side, 2)
    zoom = side / SIZE * np.exp(rng.uniform(-0.15, 0.15) * np.array([0.5, -0.5]))
    zoom[0] *= rng.choice([-1, 1])
    turn = rng.uniform(-0.15, 0.15)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * zoom
    matrix = np.concatenate([turned, (corner + side / 2 - turned @ np.full(2, (SIZE - 1) / 2))[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    view, seen = (
        cv2.warpAffine(of, matrix, (SIZE, SIZE), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        for of in (scene, cover)
    )
    return recolour(rng, np.asarray(view, np.uint8), 0.4), np.asarray(seen, np.uint8)


def batches(seed: int, pool: Pool, steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield `steps` batches: views float32 [2 * BATCH, 3, SIZE, SIZE] and coverage float32 [2 * BATCH, SIZE, SIZE]."""
    rng = np.random.default_rng([STREAM, seed, 1 << 30])
    for _ in range(steps):
        rows = rng.choice(len(pool.images), BATCH, replace=False)
        views = [cut_view(rng, pool.images[row], pool.alphas[row]) for row in rows]
        for row in rows:
            scene = pool.images[row]
            if rng.random() < PASTED:
                share = pool.alphas[row].astype(np.float32)[..., None] / 255
                other = pool.backgrounds[rng.integers(len(pool.images))]
                scene = np.asarray(scene * share + other * (1 - share), np.uint8)
            views.append(cut_view(rng, scene, pool.alphas[row]))
        images, covers = (np.stack(part) for part in zip(*views, strict=True))
        yield normalise(images), torch.from_numpy(covers).float() / 255


def build_model(start: Path) -> Any:
    """The ViT of `start` at `SIZE`, its positions resampled."""
    model: Any = timm.create_model(MODEL, img_size=SIZE, **MODEL_ARGS)
    state = {name: value.float() for name, value in load_file(start).items()}
    grid = list(model.patch_embed.grid_size)
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], new_size=grid, num_prefix_tokens=1)
    model.load_state_dict(state)
    return model


def patch_pixels(covers: torch.Tensor) -> torch.Tensor:
    """Pixels of each patch: [n, SIZE, SIZE] -> [n, patches, patch * patch]."""
    side = MODEL_ARGS["patch_size"]
    return F.unfold(covers[:, None], side, stride=side).mT


def train(seed: int, steps: int, pool: Pool, start: Path, snapshot: Path | None = None) -> tuple[Any, nn.Linear]:
    """Train one model for a fixed number of steps; returns it and the linear map from tokens to coverage."""
    torch.manual_seed(seed)
    set_fused_attn(False)  # the fused backward is several times slower in bfloat16 on a CPU
    model, width = build_model(start), MODEL_ARGS["embed_dim"]
    set_fused_attn(True)  # it is read where a network is built, and others of this process keep theirs
    project = nn.Sequential(nn.Linear(width, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 64))
    cover = nn.Linear(width, MODEL_ARGS["patch_size"] ** 2)
    weights = [*model.parameters(), *project.parameters(), *cover.parameters()]
    groups = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, RATE)
    started, smoothed = time.monotonic(), np.array([0.5, 1.0])
    for step, (images, covers) in enumerate(batches(seed, pool, steps)):
        rate = RATE * min(1.0, (step + 1) / WARM) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            tokens = model.forward_features(images).float()
        dense = F.binary_cross_entropy_with_logits(cover(tokens[:, 1:]), patch_pixels(covers))
        alike = contrast(F.normalize(project(tokens[:, 0]), dim=1))
        optimiser.zero_grad()
        torch.autograd.backward(dense + CONTRAST * alike)
        nn.utils.clip_grad_norm_(weights, 3.0)
        optimiser.step()
        smoothed += 0.02 * (np.array([dense.item(), alike.item()]) - smoothed)
        if step % 50 == 49:
            parts = f"coverage {smoothed[0]:.3f}, contrast {smoothed[1]:.3f}"
            print(f"step {step + 1} of {steps}, {parts}, {time.monotonic() - started:.0f} s", flush=True)
        if snapshot and step % 250 == 249:
            write(model, snapshot, {})
    return model.eval(), cover


@torch.no_grad()
def held_out_iou(model: Any, cover: nn.Linear, pool: Pool) -> float:
    """Mean IoU of the linear map's foreground with the masks of whole scenes."""
    sides = (SIZE, SIZE)
    images = np.stack([cv2.resize(image, sides, interpolation=cv2.INTER_AREA) for image in pool.images])
    masks = np.stack([cv2.resize(alpha, sides, interpolation=cv2.INTER_AREA) > 127 for alpha in pool.alphas])
    found = cover(model.forward_features(normalise(images))[:, 1:]) > 0
    truth = patch_pixels(torch.from_numpy(masks).float()) > 0.5
    both, either = ((part).flatten(1).sum(1).float() for part in (found & truth, found | truth))
    return float((both / either.clamp_min(1)).mean())


def write(model: Any, path: Path, facts: dict[str, str]) -> None:
    """Write the float16 weights of a model."""
    tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=facts)


def main(argv: list[str] | None = None) -> int:
    """Train one seed, print the IoU on held-out scenes, and write its float16 weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--scenes", type=int, default=3000, help="scenes rendered to cut views from")
    parser.add_argument("--held-out", type=int, default=200, help="other scenes, to measure on")
    parser.add_argument("--start", type=Path, default=START, help="weights from train_demo_weights")
    parser.add_argument("--snapshot", type=Path, help="where to leave the weights every 250 steps")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    pool = draw_pool(options.seed, 0, options.scenes)
    model, cover = train(options.seed, options.steps, pool, options.start, options.snapshot)
    iou = held_out_iou(model, cover, draw_pool(options.seed, 1, options.held_out))
    print(f"held-out scenes: mean IoU {iou:.3f} of the linear map's foreground with the masks")
    facts = {"model": MODEL, "model_args": json.dumps({**MODEL_ARGS, "img_size": SIZE})}
    facts |= {name: str(getattr(options, name)) for name in ("seed", "steps", "scenes")}
    write(model, options.out, facts | {"mean": str(MEAN), "std": str(STD), "labels": "masks of rendered scenes"})
    print(f"wrote {options.out}, {options.out.stat().st_size / 1e6:.2f} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
