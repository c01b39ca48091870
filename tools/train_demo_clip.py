"""Train the demo's CLIP: a tiny image tower and text tower, on captions of scenes rendered on the fly.

The loss is CLIP's, with two changes. A caption is a positive of every view in the batch of which it is true, not only of
the view it was written for: among eight classes most batches hold the same fish twice. And it is taken twice, for the
class token (what `encode_image` returns) and for the mean of the patch tokens (what CLIP-ES scores), so that patches
carry the meaning too. The scale of the logits is held small: a saturated softmax has no gradient to make maps from.

Views are crops of scenes, scenes whose object is pasted on another's background, scenes with objects of two classes,
and empty backgrounds. Rows of the text embedding for tokens that no caption uses are zero.

    python tools/train_demo_clip.py --seed 0 --out data/demo/weights/demo_clip.safetensors

Takes about half an hour on one idle core with bfloat16 instructions, and prints the accuracy among eight classes on
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
import open_clip
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from captions import Truth, fits, plain_captions, where, write_caption
from render import CLASSES, render_scene

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from captions import Caption

    Bytes = NDArray[np.uint8]

SIZE = 96
CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": SIZE, "patch_size": 8, "layers": 4, "width": 128, "head_width": 32},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 2},
}
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
SCALE = 10.0
"""Largest factor of the cosines."""
BATCH = 64
DROPPED = 0.5
"""Share of patches that training leaves out, but for the last `WHOLE` of the steps."""
WHOLE = 0.1
RATE = 1e-3
WARM = 100
STREAM = 7003
"""First word of every seed drawn here, so that no scene coincides with one of the shipped data set."""


@dataclass(frozen=True)
class Pool:
    """Scenes to cut views from: uint8 [n, s, s, 3] with and without objects, coverage uint8 [n, s, s], label, kinds."""

    images: Bytes
    backgrounds: Bytes
    alphas: Bytes
    labels: NDArray[np.int64]
    kinds: tuple[tuple[str, ...], ...]


def draw_pool(seed: int, part: int, count: int) -> Pool:
    """Render `count` scenes of random aspect, squashed to a square as the pipeline does."""
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    backgrounds, alphas = np.empty_like(images), np.empty(images.shape[:3], np.uint8)
    labels, kinds = np.arange(count) % len(CLASSES), []
    for number in range(count):
        rng = np.random.default_rng([STREAM, seed, part, number])
        short = int(SIZE * rng.uniform(0.7, 1.0))
        height, width = (SIZE, short) if rng.random() < 0.5 else (short, SIZE)
        scene = render_scene(rng, int(labels[number]), height, width)
        for target, source in ((images, scene.image), (backgrounds, scene.background), (alphas, scene.alpha)):
            target[number] = cv2.resize(source, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        kinds.append(scene.kinds)
        if number % 500 == 499:
            print(f"rendered {number + 1} of {count} scenes", flush=True)
    return Pool(images, backgrounds, alphas, labels, tuple(kinds))


def draw_view(rng: np.random.Generator, pool: Pool) -> tuple[Bytes, Truth]:
    """One view [SIZE, SIZE, 3] and what is true of it."""
    row, other = (int(number) for number in rng.integers(0, len(pool.images), 2))
    sort = rng.random()
    if sort < 0.12:
        view, _ = _moved(rng, pool.backgrounds[row], np.zeros_like(pool.alphas[row]), least=0.3)
        return _recoloured(rng, view), Truth((), pool.kinds[row])
    image, alpha, kinds = pool.images[row], pool.alphas[row], pool.kinds[row]
    if sort < 0.55:
        image, kinds = _over(image, alpha, pool.backgrounds[other]), pool.kinds[other]
    names: tuple[str, ...] = (CLASSES[pool.labels[row]],)
    if sort > 0.85 and pool.labels[row] != pool.labels[other]:
        spare, cover = _moved(rng, pool.images[other], pool.alphas[other], least=0.5, shrink=1.5)
        if (cover > 127).sum() > 300 and ((cover > 127) & (alpha > 127)).sum() < 0.15 * (alpha > 127).sum():
            image, names = _over(spare, cover, image), (*names, CLASSES[pool.labels[other]])
            alpha = np.maximum(alpha, cover)
    view, seen = _moved(rng, image, alpha, least=0.45)
    if (seen > 127).sum() < 80:  # the crop lost the object, so nothing sure can be said of it
        view, seen = image, alpha
    extras = where(_box(seen), SIZE) if len(names) == 1 else ()
    return _recoloured(rng, view), Truth(names, kinds, extras)


def _over(front: Bytes, alpha: Bytes, back: Bytes) -> Bytes:
    share = alpha.astype(np.float32)[..., None] / 255
    return np.asarray(front * share + back * (1 - share), np.uint8)


def _moved(
    rng: np.random.Generator, image: Bytes, alpha: Bytes, *, least: float, shrink: float = 1.15
) -> tuple[Bytes, Bytes]:
    """Crop to a random window that keeps three quarters of what `alpha` covers, turn and flip; both layers alike."""
    covered = max(float((alpha > 127).sum()), 1.0)
    for _ in range(8):
        side = SIZE * np.exp(rng.uniform(np.log(least), np.log(shrink)))
        centre = SIZE / 2 + rng.uniform(-0.5, 0.5, 2) * (SIZE - side)
        zoom = side / SIZE * np.exp(rng.uniform(-0.2, 0.2) * np.array([0.5, -0.5]))
        zoom[0] *= rng.choice([-1, 1])
        turn = rng.uniform(-0.2, 0.2)
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * zoom
        matrix = np.concatenate([matrix, (centre - matrix @ np.full(2, (SIZE - 1) / 2))[:, None]], axis=1)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        seen = cv2.warpAffine(alpha, matrix, (SIZE, SIZE), flags=flags, borderMode=cv2.BORDER_CONSTANT)
        if float((seen > 127).sum()) * abs(float(zoom[0] * zoom[1])) >= 0.75 * covered or not alpha.any():
            break
    view = cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(view, np.uint8), np.asarray(seen, np.uint8)


def _box(seen: Bytes) -> tuple[float, float, float, float]:
    ys, xs = np.flatnonzero((seen > 127).any(1)), np.flatnonzero((seen > 127).any(0))
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)


def _recoloured(rng: np.random.Generator, view: Bytes) -> Bytes:
    values = (view.astype(np.float32) - 128) * rng.uniform(0.85, 1.15) + 128 + rng.uniform(-15, 15)
    values *= rng.uniform(0.9, 1.1, 3).astype(np.float32)
    return np.asarray(values.clip(0, 255), np.uint8)


def normalise(images: Bytes) -> torch.Tensor:
    """uint8 [n, h, w, 3] -> float32 [n, 3, h, w] as CLIP wants it."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return ((torch.from_numpy(images).float() / 255 - mean) / std).permute(0, 3, 1, 2)


def image_features(model: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors [n, d] of the class token and of the mean patch token, both after the last norm."""
    visual = model.visual
    tokens = visual.ln_post(visual.transformer(visual._embeds(images)))
    return tuple(F.normalize((part @ visual.proj).float(), dim=1) for part in (tokens[:, 0], tokens[:, 1:].mean(1)))  # type: ignore[return-value]


def loss_of(similarity: torch.Tensor, fitting: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric cross-entropy of logits [n, n], the target spread evenly over all that fit (bool [n, n])."""
    target = fitting.float()
    rows = (-F.log_softmax(similarity, 1) * target / target.sum(1, keepdim=True)).sum(1)
    columns = (-F.log_softmax(similarity, 0) * target / target.sum(0, keepdim=True)).sum(0)
    return (rows.mean() + columns.mean()) / 2


def build_model(seed: int) -> Any:
    """A fresh model; rows of tokens that no caption can use stay zero, for they never get a gradient."""
    torch.manual_seed(seed)
    vision = {**CONFIG["vision_cfg"], "patch_dropout": DROPPED}
    model: Any = open_clip.CLIP(CONFIG["embed_dim"], vision, dict(CONFIG["text_cfg"]))
    used = torch.unique(open_clip.SimpleTokenizer(context_length=256)(_all_words()))
    with torch.no_grad():
        kept = model.token_embedding.weight[used] * 10
        model.token_embedding.weight.zero_()
        model.token_embedding.weight[used] = kept
        model.logit_scale.fill_(np.log(SCALE / 2))
    return model


def _all_words() -> list[str]:
    from backgrounds import KINDS
    from captions import PLACES, SIZES, TEMPLATES

    return [" ".join((*CLASSES, *KINDS, *SIZES, *PLACES, "nothing and on a")), *TEMPLATES]


def train(seed: int, steps: int, scenes: int, snapshot: Path | None = None) -> Any:
    """Render the pool and train one model for a fixed number of steps."""
    model, tokenise = build_model(seed), open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])
    frozen = {"token_embedding.weight"}
    groups = [
        {"params": [p for n, p in model.named_parameters() if p.ndim > 1 and n not in frozen], "weight_decay": 0.05},
        {"params": [p for n, p in model.named_parameters() if p.ndim <= 1 or n in frozen], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, RATE, betas=(0.9, 0.98))
    pool, rng = draw_pool(seed, 0, scenes), np.random.default_rng([STREAM, seed, 2])
    started, smoothed = time.monotonic(), float("nan")
    for step in range(steps):
        rate = RATE * min(1.0, (step + 1) / WARM) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        if step == int(steps * (1 - WHOLE)):
            model.visual.patch_dropout = torch.nn.Identity()
        views, truths = zip(*(draw_view(rng, pool) for _ in range(BATCH)), strict=True)
        captions: Sequence[Caption] = [write_caption(rng, truth) for truth in truths]
        fitting = torch.from_numpy(fits(truths, captions))
        # The fused backward of attention is slower than the plain one in bfloat16 on a CPU.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            whole, patches = image_features(model, normalise(np.stack(views)))
            texts = F.normalize(model.encode_text(tokenise([caption.text for caption in captions])).float(), dim=1)
        scale = model.logit_scale.exp()
        loss = 0.5 * (loss_of(scale * whole @ texts.T, fitting) + loss_of(scale * patches @ texts.T, fitting))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=float(np.log(SCALE)))
        smoothed = loss.item() if step == 0 else 0.98 * smoothed + 0.02 * loss.item()
        if step % 100 == 99:
            print(f"step {step + 1} of {steps}, loss {smoothed:.3f}, {time.monotonic() - started:.0f} s", flush=True)
        if snapshot and step % 500 == 499:
            torch.save(model.state_dict(), snapshot)
    model.visual.patch_dropout = torch.nn.Identity()
    return model.eval()


@torch.no_grad()
def zero_shot(model: Any, pool: Pool) -> dict[str, float]:
    """Share of scenes whose nearest class name is theirs, by class token and by mean patch token."""
    tokenise = open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])
    texts = F.normalize(model.encode_text(tokenise(plain_captions())), dim=1)
    found = image_features(model, normalise(pool.images))
    labels = torch.from_numpy(pool.labels)
    names = ("class token", "mean patch")
    return {
        name: float(((features @ texts.T).argmax(1) == labels).float().mean())
        for name, features in zip(names, found, strict=True)
    }


def main(argv: list[str] | None = None) -> int:
    """Train one seed, print its accuracy on held-out scenes, write its float16 weights and its configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--scenes", type=int, default=3000, help="scenes rendered to cut views from")
    parser.add_argument("--held-out", type=int, default=400, help="other scenes, to measure on")
    parser.add_argument("--snapshot", type=Path, help="where to leave the state every 500 steps, to look at it")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file; the configuration goes beside it")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    model = train(options.seed, options.steps, options.scenes, options.snapshot)
    accuracy = zero_shot(model, draw_pool(options.seed, 1, options.held_out))
    print("held-out zero-shot accuracy among 8: " + "  ".join(f"{name} {v:.3f}" for name, v in accuracy.items()))
    tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    recipe = {name: str(getattr(options, name)) for name in ("seed", "steps", "scenes")}
    recipe |= {"mean": json.dumps(MEAN), "std": json.dumps(STD)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, options.out, metadata=recipe)
    options.out.with_suffix(".json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    print(f"wrote {options.out}, {options.out.stat().st_size / 1e6:.2f} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
