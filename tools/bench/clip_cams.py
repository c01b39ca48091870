"""Throughput of the maps of ``clip_cams`` against the bare forward of their CLIP, and against a loop over images.

Three ways to treat the same images, normalised and in memory:

bare
    the vision tower's own forward on the very batches, without gradient;
maps
    what the stage runs on them: CLIP-ES maps of one class an image, refined;
loop
    one image, one forward and one backward at a time, the N x N affinity multiplied out: the order of work of the
    authors' script, with the texts encoded once beforehand, as in the stage.

The weights are random: timings do not depend on them. On a GPU the loop must be beaten four times.

    python tools/bench/clip_cams.py [--threads 1]
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import torch
from ab import compare
from figures import Figure, report
from prepare import read_options
from torch.nn.functional import normalize

from wsolpipe.models.clip import Clip, load_clip
from wsolpipe.models.clip_cam import ClipCam, box_masks
from wsolpipe.networks.sources import Weights
from wsolpipe.stages.clip_cams import AT_A_TIME

if TYPE_CHECKING:
    import argparse

DEVICES = ("cpu", "cuda")
BARE, GOAL, LOOP, LOOP_ON_GPU = 0.85, 0.92, 1.05, 4.0
BACKGROUND = 25


def main() -> int:
    """Measure, print, and return 1 where the maps are slower than they must be."""
    options = read_options(
        __doc__, model="ViT-S-16", size=224, rows=32, batch=int, repetitions=5, threads=int, device="cpu"
    )
    cores = os.cpu_count() or 1
    options.batch = options.batch or (AT_A_TIME if options.device == "cpu" else 32)  # as the stage
    gpu = options.device.startswith("cuda")
    several = [options.threads] if options.threads else [cores] if gpu else sorted({1, cores})
    return report([figure for threads in several for figure in measure(options, threads, gpu=gpu)])


def measure(options: argparse.Namespace, threads: int, *, gpu: bool) -> list[Figure]:
    """Figures of one number of threads."""
    torch.set_num_threads(threads)
    clip = load_clip(options.model, Weights("", "random:0", None), device=options.device)
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(options.rows, 3, options.size, options.size, generator=draws).to(options.device)
    words = normalize(torch.randn(options.rows + BACKGROUND, clip.encode_text(["a"]).shape[1], generator=draws), dim=-1)
    names, background = words[: options.rows, None].to(options.device), words[options.rows :].to(options.device)
    cam = ClipCam(clip, background)
    batches = [slice(start, start + options.batch) for start in range(0, options.rows, options.batch)]

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                clip.model.encode_image(images[batch])

    def maps() -> None:
        for batch in batches:
            opened = cam.open(images[batch])
            present = torch.ones(len(names[batch]), 1, dtype=torch.bool, device=images.device)
            cam.refined(opened, cam.maps(opened, names[batch], present, 1)).cpu()

    def loop() -> None:
        for image, name in zip(images, names, strict=True):
            one_image(clip, image[None], torch.cat([name, background])).cpu()

    print(
        f"{options.model} at {options.size}, batch {options.batch}, float32, {options.device}, "
        f"{threads} threads of {os.cpu_count()} cores"
    )
    against_bare = compare(bare, maps, repetitions=options.repetitions, device=options.device)
    against_bare.show(a="bare forward", b="maps", items=options.rows)
    against_loop = compare(loop, maps, repetitions=options.repetitions, device=options.device)
    against_loop.show(a="loop over images", b="maps", items=options.rows)
    clock, wanted = ("wall", LOOP_ON_GPU) if gpu else ("cpu", LOOP)
    end = "" if gpu else f", {threads} thread{'s' if threads > 1 else ''}"
    return [
        against_bare.figure(f"maps / bare forward{end}", clock, limit=BARE, goal=GOAL),
        against_loop.figure(f"maps / loop over images{end}", clock, limit=wanted),
        *against_bare.rates(a=f"bare forward{end}", b=f"maps{end}", items=options.rows),
    ]


def one_image(clip: Clip, image: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Refined map [h, w] of the first text for one image [1, 3, H, W], step by step as the authors' script goes."""
    visual: Any = clip.model.visual
    blocks, shares = visual.transformer.resblocks, []
    with torch.no_grad():
        tokens, _ = clip.tower.tokens(image)
        for block in blocks[:-1]:
            tokens, share = _block(block, tokens, block.ln_1(tokens))
            shares.append(share)
        normed = blocks[-1].ln_1(tokens)
    normed.requires_grad_()
    tokens, share = _block(blocks[-1], tokens, normed)
    shares.append(share.detach())
    pooled = visual.ln_post(tokens)[:, 1:].mean(dim=1) @ visual.proj
    logits = clip.logit_scale * normalize(pooled, dim=-1) @ texts.T
    (gradient,) = torch.autograd.grad(logits.softmax(dim=1)[0, 0], normed)
    cam = (normed.detach()[0, 1:] * gradient[0, 1:].mean(dim=0)).sum(dim=1).relu()
    cam = _stretched(_stretched(cam))
    grid = clip.tower.grid(image)
    mask = torch.from_numpy(box_masks(cam.reshape(grid).cpu().numpy(), 0.4)).to(cam.device)
    attention = torch.stack(shares)[-8:].mean(dim=0)[0, 1:, 1:]
    for _ in range(3):
        attention = attention / attention.sum(dim=0, keepdim=True)
        attention = attention / attention.sum(dim=1, keepdim=True)
    attention = (attention + attention.T) / 2
    attention = attention @ attention * mask.reshape(1, -1)
    return _stretched(attention @ cam).reshape(grid)


def _block(block: Any, tokens: torch.Tensor, normed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    attended, share = block.attn(normed, normed, normed, need_weights=True)
    tokens = tokens + attended
    return tokens + block.mlp(block.ln_2(tokens)), share


def _stretched(cam: torch.Tensor) -> torch.Tensor:
    cam = cam - cam.min()
    return cam / (cam.max() + 1e-7)


if __name__ == "__main__":
    sys.exit(main())
