"""Train the demo's class-token map model: a tiny ViT, without labels, on scenes rendered on the fly.

Two views of a scene are pulled together and other scenes pushed apart (InfoNCE of the class token, as in SimCLR and
MoCo v3). The second view of each pair shows the object pasted on another scene's background, mostly one that is in the
same batch, so that only the object is common to both and a background misleads. Views start close to the object and
widen to the whole scene. The weights are thus label-free but not mask-free: pasting and cropping use the renderer's
coverage. The loss reads what the last block adds to the class token, so that it is this block which has to look.

    python tools/demo/train_demo_weights.py --seed 0 --out weights.safetensors

Takes about eight minutes on one idle core with bfloat16 instructions.
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
from safetensors.torch import save_file
from timm.layers import set_fused_attn
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

MODEL = "vit_tiny_patch16_224"
MODEL_ARGS: dict[str, Any] = {
    "patch_size": 8,
    "embed_dim": 128,
    "depth": 4,
    "num_heads": 4,
    "qk_norm": True,
    "num_classes": 0,
}
MEAN, STD = 0.5, 0.25
SIZE = 64
POOL_SIZE = 80
DROPPED = 0.6
TEMPERATURE = 0.1
BATCH = 64
RATE = 1e-3
WARM = 50
NEAR = 0.375
"""Share of the steps with views close to the object; over the next tenth they widen."""
STREAM = 7001
"""First word of every seed drawn here, so that no scene coincides with one of the shipped data set."""


@dataclass(frozen=True)
class Pool:
    """Scenes to cut views from.

    Parameters
    ----------
    images, backgrounds : uint8 [n, s, s, 3]
        Scenes with and without their objects.
    alphas : uint8 [n, s, s]
        Coverage of the objects.
    extents : float64 [n, 4]
        Box of `alphas`, xyxy.
    """

    images: Bytes
    backgrounds: Bytes
    alphas: Bytes
    extents: NDArray[np.float64]


@dataclass(frozen=True)
class Views:
    """How views are cut: `wide` 0..1 up to the whole scene, `jitter` of colours, `near` share of nearby backgrounds."""

    wide: float
    jitter: float
    near: float


def views_at(progress: float) -> Views:
    """Close and plain views first, then wide and recoloured ones; `progress` is the share of the steps taken."""
    t = float(np.clip((progress - NEAR) / 0.1, 0, 1))
    return Views(wide=0.6 + 0.4 * t, jitter=0.2 + 0.2 * t, near=1.0 - 0.3 * t)


def draw_pool(seed: int, count: int) -> Pool:
    """Render `count` scenes of random aspect, squashed to a square as the pipeline does; their labels are dropped."""
    images = np.empty((count, POOL_SIZE, POOL_SIZE, 3), np.uint8)
    backgrounds, alphas = np.empty_like(images), np.empty(images.shape[:3], np.uint8)
    for number in range(count):
        rng = np.random.default_rng([STREAM, seed, number])
        long = POOL_SIZE + 16
        short = int(long * rng.uniform(0.7, 1.0))
        height, width = (long, short) if rng.random() < 0.5 else (short, long)
        scene = render_scene(rng, int(rng.integers(len(CLASSES))), height, width)
        for target, source in ((images, scene.image), (backgrounds, scene.background), (alphas, scene.alpha)):
            target[number] = cv2.resize(source, (POOL_SIZE, POOL_SIZE), interpolation=cv2.INTER_AREA)
        if number % 500 == 499:
            print(f"rendered {number + 1} of {count} scenes", flush=True)
    return Pool(images, backgrounds, alphas, np.stack([_extent(alpha) for alpha in alphas]))


def _extent(alpha: Bytes) -> NDArray[np.float64]:
    ys, xs = np.flatnonzero((alpha > 127).any(1)), np.flatnonzero((alpha > 127).any(0))
    return np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], np.float64)


def paste(pool: Pool, number: int, other: int) -> Bytes:
    """Put the objects of scene `number` on the background of scene `other`."""
    share = pool.alphas[number].astype(np.float32)[..., None] / 255
    return np.asarray(pool.images[number] * share + pool.backgrounds[other] * (1 - share), np.uint8)


def cut_view(rng: np.random.Generator, scene: Bytes, extent: NDArray[np.float64], views: Views) -> Bytes:
    """One view [SIZE, SIZE, 3] that holds most of the box `extent`: cropped, turned, flipped, recoloured."""
    side = float(np.clip((extent[2:] - extent[:2]).max() * rng.uniform(0.8, 1.1), 24, POOL_SIZE))
    side *= (POOL_SIZE / side) ** rng.uniform(0, views.wide)
    ends = np.stack([np.maximum(extent[2:] - side, 0), np.minimum(extent[:2], POOL_SIZE - side)])
    corner = (ends.min(0) + np.ptp(ends, axis=0) * rng.uniform(0, 1, 2)).clip(0, POOL_SIZE - side)
    zoom = side / SIZE * np.exp(rng.uniform(-0.2, 0.2) * np.array([0.5, -0.5]))
    zoom[0] *= rng.choice([-1, 1])
    turn = rng.uniform(-0.25, 0.25)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * zoom
    matrix = np.concatenate([turned, (corner + side / 2 - turned @ np.full(2, (SIZE - 1) / 2))[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    view = cv2.warpAffine(scene, matrix, (SIZE, SIZE), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return recolour(rng, np.asarray(view, np.uint8), views.jitter)


def recolour(rng: np.random.Generator, view: Bytes, jitter: float) -> Bytes:
    """Change brightness, contrast and the channels' gains by up to about `jitter`; sometimes blur."""
    values = view.astype(np.float32)
    if rng.random() < 0.8:
        values = (values - 128) * rng.uniform(1 - 0.4 * jitter, 1 + 0.4 * jitter) + 128
        values += rng.uniform(-40 * jitter, 40 * jitter)
        values *= rng.uniform(1 - 0.3 * jitter, 1 + 0.3 * jitter, 3).astype(np.float32)
    if rng.random() < 0.3 * jitter:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.3, 1.2))
    return np.asarray(values.clip(0, 255), np.uint8)


def batches(seed: int, pool: Pool, steps: int) -> Iterator[torch.Tensor]:
    """Yield `steps` batches float32 [2 * BATCH, 3, SIZE, SIZE]: plain views, then pasted views of the same scenes."""
    rng = np.random.default_rng([STREAM, seed, 1 << 30])
    for step in range(steps):
        views = views_at(step / steps)
        rows = rng.choice(len(pool.images), BATCH, replace=False)
        others = np.where(rng.random(BATCH) < views.near, np.roll(rows, 1), rng.integers(0, len(pool.images), BATCH))
        plain = [cut_view(rng, pool.images[row], pool.extents[row], views) for row in rows]
        pasted = [
            cut_view(rng, paste(pool, row, other), pool.extents[row], views)
            for row, other in zip(rows, others, strict=True)
        ]
        yield normalise(np.stack(plain + pasted))


def normalise(images: Bytes) -> torch.Tensor:
    """uint8 [n, h, w, 3] -> float32 [n, 3, h, w] around zero."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


def contrast(tokens: torch.Tensor) -> torch.Tensor:
    """InfoNCE of unit vectors [2 * B, d] whose halves are views of the same scenes."""
    similarity = tokens @ tokens.T / TEMPERATURE
    similarity.fill_diagonal_(-1e9)
    count = len(tokens)
    return F.cross_entropy(similarity, (torch.arange(count) + count // 2) % count)


def class_update(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Return what the last block adds to the class token [B, width], normed; its other rows are not computed."""
    tokens = model.patch_drop(model._pos_embed(model.patch_embed(images)))
    for block in model.blocks[:-1]:
        tokens = block(tokens)
    block = model.blocks[-1]
    attention, normed = block.attn, block.norm1(tokens)
    batch, length, width = normed.shape
    weight, bias = attention.qkv.weight, attention.qkv.bias
    heads = (attention.num_heads, attention.head_dim)
    query = F.linear(normed[:, :1], weight[:width], bias[:width]).reshape(batch, 1, *heads).transpose(1, 2)
    both = F.linear(normed, weight[width:], bias[width:]).reshape(batch, length, 2, *heads)
    key, value = both.permute(2, 0, 3, 1, 4).unbind(0)
    scores = attention.q_norm(query) @ attention.k_norm(key).transpose(-2, -1) * attention.scale
    update = attention.proj((scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, width))
    return torch.as_tensor(model.norm(update + block.mlp(block.norm2(update))))


def build_model() -> Any:
    """A fresh ViT; its linear layers get Xavier's spread, since timm's 0.02 is too small for this width."""
    model: Any = timm.create_model(MODEL, img_size=SIZE, patch_drop_rate=DROPPED, **MODEL_ARGS)
    for block in model.blocks:
        for layer in (block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            nn.init.xavier_uniform_(layer.weight)
        bound = (3 / MODEL_ARGS["embed_dim"]) ** 0.5
        nn.init.uniform_(block.attn.qkv.weight, -bound, bound)
    return model


def train(seed: int, steps: int, scenes: int) -> Any:
    """Render the pool and train one model for a fixed number of steps."""
    torch.manual_seed(seed)
    set_fused_attn(False)  # the fused backward is several times slower in bfloat16 on a CPU
    model, width = build_model(), MODEL_ARGS["embed_dim"]
    set_fused_attn(True)  # it is read where a network is built, and others of this process keep theirs
    head = nn.Sequential(nn.Linear(width, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 64))
    weights = [*model.parameters(), *head.parameters()]
    groups = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, RATE)
    pool = draw_pool(seed, scenes)
    started, smoothed = time.monotonic(), float(np.log(2 * BATCH - 1))
    for step, images in enumerate(batches(seed, pool, steps)):
        rate = RATE * min(1.0, (step + 1) / WARM) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            updates = class_update(model, images)
        loss = contrast(F.normalize(head(updates.float()), dim=1))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(weights, 3.0)
        optimiser.step()
        smoothed += 0.02 * (loss.item() - smoothed)
        if step % 100 == 99:
            print(f"step {step + 1} of {steps}, loss {smoothed:.3f}, {time.monotonic() - started:.0f} s", flush=True)
    return model.eval()


def main(argv: list[str] | None = None) -> int:
    """Train one seed and write its float16 weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--scenes", type=int, default=3000, help="scenes rendered to cut views from")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    model = train(options.seed, options.steps, options.scenes)
    tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    recipe = {"model": MODEL, "model_args": json.dumps({**MODEL_ARGS, "img_size": SIZE}), "seed": str(options.seed)}
    recipe |= {
        "steps": str(options.steps),
        "scenes": str(options.scenes),
        "mean": str(MEAN),
        "std": str(STD),
        "labels": "none",
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, options.out, metadata=recipe)
    print(f"wrote {options.out}, {options.out.stat().st_size / 1e6:.2f} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
