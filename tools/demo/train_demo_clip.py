"""Train the demo's CLIP: a tiny image tower and text tower, on captions of scenes rendered on the fly.

Three things are asked of it at once. The first is CLIP's own: a view and its caption find each other in the batch, and
a caption is a positive of every view of which it is true. The second is to tell a view's class among the eight
names. Both are asked of the class token (what `encode_image` returns) and of the mean patch (what CLIP-ES scores). The
third is asked of single patches: to be nearest to the name of what they show, a class or nothing, by the renderer's
coverage. So this model is neither label-free nor mask-free, and its patches know texts better than those of a CLIP
that has seen only captions. The scale of the logits is small: a saturated softmax has no gradient to make maps from.

The image tower starts from the weights of `train_demo_weights`. Views are crops of scenes, first from near; scenes with
an object pasted on another background; scenes with objects of two classes; and empty backgrounds. Rows of the text
embedding for tokens that no caption uses are zero.

    python tools/demo/train_demo_clip.py --seed 0 --out data/demo/weights/demo_clip.safetensors

Takes about twenty minutes on one core with bfloat16 instructions, and prints the accuracy among eight classes on
held-out scenes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import open_clip
import torch
from captioned_views import SIZE, STREAM, Pool, View, draw_pool, draw_view, object_box
from captions import fits, name_caption, plain_captions, write_caption
from render import CLASSES
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

START = Path(__file__).resolve().parents[2] / "data" / "demo" / "weights" / "demo_vit.safetensors"
CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {
        "image_size": SIZE,
        "patch_size": 8,
        "layers": 4,
        "width": 128,
        "head_width": 32,
        "no_ln_pre": True,
        "qk_norm": True,
    },
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 2},
}
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
SCALE = 10.0
"""Factor of the cosines, which is not trained."""
BATCH = 32
NOTHING = len(CLASSES)
"""Number of the background among the names of patches."""
WINDOW = 8
"""Patches a side of the window around an object that training looks at, but for the last `WHOLE` of the steps."""
WHOLE = 0.15
NEAR = 0.3
"""Share of the steps that show objects from near; over the next quarter the views become those of whole scenes."""
RATE, START_RATE = 1e-3, 1e-3
"""Learning rate of what is new, and of the image tower, which starts from trained weights."""
WARM = 50


def normalise(images: Bytes) -> torch.Tensor:
    """uint8 [n, h, w, 3] -> float32 [n, 3, h, w] as CLIP wants it."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return ((torch.from_numpy(images).float() / 255 - mean) / std).permute(0, 3, 1, 2)


def patch_features(model: Any, images: torch.Tensor, windows: torch.Tensor | None = None) -> torch.Tensor:
    """Tokens [n, 1 + k, d] in the joint space, the class token first, not of unit length.

    `windows` int64 [n, k] are the patches that are looked at, None for all.
    """
    visual = model.visual
    tokens = visual._embeds(images)
    if windows is not None:
        kept = torch.cat([torch.zeros_like(windows[:, :1]), windows + 1], dim=1)
        tokens = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))
    return torch.as_tensor((visual.ln_post(visual.transformer(tokens)) @ visual.proj).float())


def image_features(tokens: torch.Tensor) -> torch.Tensor:
    """Unit vectors [2, n, d] of tokens [n, 1 + k, d]: the class token, and the mean patch."""
    return F.normalize(torch.stack([tokens[:, 0], tokens[:, 1:].mean(1)]), dim=-1)


def patch_targets(views: Sequence[View], windows: torch.Tensor | None) -> torch.Tensor:
    """Return what each patch [n, k] shows: a class, `NOTHING`, or -1 where it is not sure or shows two classes."""
    size = CONFIG["vision_cfg"]["patch_size"]
    cover = torch.from_numpy(np.stack([view.cover for view in views])).float()[:, None] / 255
    shares = F.avg_pool2d(cover, size).flatten(1)
    if windows is not None:
        shares = shares.gather(1, windows)
    classes = [CLASSES.index(view.truth.names[0]) if len(view.truth.names) == 1 else -1 for view in views]
    objects = torch.tensor(classes)[:, None].expand_as(shares)
    return torch.where(shares > 0.5, objects, torch.where(shares < 0.02, NOTHING, -1))


def draw_window(rng: np.random.Generator, cover: Bytes) -> NDArray[np.int64]:
    """Numbers [WINDOW ** 2] of the patches of a square window around what `cover` covers."""
    box = np.array(object_box(cover) if (cover > 127).any() else (0, 0, SIZE, SIZE))
    point = (box[:2] + box[2:]) / 2
    side = SIZE // CONFIG["vision_cfg"]["patch_size"]
    place = (point[::-1] / SIZE * side - WINDOW / 2 + rng.uniform(-1.5, 1.5, 2)).round()
    row, column = place.clip(0, side - WINDOW).astype(np.int64)
    grid = np.arange(side * side).reshape(side, side)
    return grid[row : row + WINDOW, column : column + WINDOW].reshape(-1)


def loss_of(similarity: torch.Tensor, fitting: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric cross-entropy of logits [n, n], the target spread evenly over all that fit (bool [n, n])."""
    target = fitting.float()
    rows = (-F.log_softmax(similarity, 1) * target / target.sum(1, keepdim=True)).sum(1)
    columns = (-F.log_softmax(similarity, 0) * target / target.sum(0, keepdim=True)).sum(0)
    return (rows.mean() + columns.mean()) / 2


def patch_loss(shown: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of logits [n, k, names] against what patches show [n, k]; objects and background count alike."""
    losses = F.cross_entropy(shown.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none")
    parts = [(targets.flatten() == NOTHING), (targets.flatten() >= 0) & (targets.flatten() != NOTHING)]
    return sum((losses[part].sum() / part.sum().clamp_min(1) for part in parts), torch.zeros(()))


def build_model(seed: int, start: Path) -> Any:
    """A fresh model with the image tower of `start`; rows of tokens that no caption can use stay zero."""
    torch.manual_seed(seed)
    model: Any = open_clip.CLIP(CONFIG["embed_dim"], dict(CONFIG["vision_cfg"]), dict(CONFIG["text_cfg"]))
    model.visual.load_state_dict({**model.visual.state_dict(), **as_open_clip(load_file(start))})
    used = torch.unique(open_clip.SimpleTokenizer(context_length=256)(_all_words()))
    with torch.no_grad():
        kept = model.token_embedding.weight[used] * 10
        model.token_embedding.weight.zero_()
        model.token_embedding.weight[used] = kept
        model.logit_scale.fill_(np.log(SCALE))
    return model


def as_open_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of timm's vision transformer under open_clip's names; positions for SIZE, float32."""
    state = {name: value.float() for name, value in state.items()}
    positions, side = state["pos_embed"][0], SIZE // CONFIG["vision_cfg"]["patch_size"]
    plane = positions[1:].T.reshape(1, positions.shape[1], *2 * (round((len(positions) - 1) ** 0.5),))
    plane = F.interpolate(plane, size=(side, side), mode="bicubic", antialias=True)[0].flatten(1).T
    named = {
        "class_embedding": state["cls_token"][0, 0],
        "conv1.weight": state["patch_embed.proj.weight"],
        # open_clip's patches have no bias of their own, so it goes with their positions.
        "positional_embedding": torch.cat([positions[:1], plane + state["patch_embed.proj.bias"]]),
        "ln_post.weight": state["norm.weight"],
        "ln_post.bias": state["norm.bias"],
    }
    for name, value in state.items():
        if name.startswith("blocks."):
            for theirs, ours in BLOCK_NAMES.items():
                name = name.replace(theirs, ours)  # noqa: PLW2901
            named[f"transformer.res{name}"] = value
    return named


BLOCK_NAMES = {
    "norm1.": "ln_1.",
    "norm2.": "ln_2.",
    "attn.qkv.": "attn.in_proj_",
    "attn.proj.": "attn.out_proj.",
    "attn.q_norm.": "attn.ln_q.",
    "attn.k_norm.": "attn.ln_k.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
}
"""timm's names of a block's parts and open_clip's."""


def _all_words() -> list[str]:
    from backgrounds import KINDS
    from captions import PLACES, SIZES, TEMPLATES

    return [" ".join((*CLASSES, *KINDS, *SIZES, *PLACES, "nothing and on a")), *TEMPLATES]


def train(seed: int, steps: int, pool: Pool, start: Path, snapshot: Path | None = None) -> Any:
    """Train one model for a fixed number of steps."""
    model, tokenise = (
        build_model(seed, start),
        open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"]),
    )
    groups = [
        {"params": [], "weight_decay": decay, "rate": rate} for rate in (RATE, START_RATE) for decay in (0.0, 0.05)
    ]
    for name, weights in model.named_parameters():
        decays = weights.ndim > 1 and name != "token_embedding.weight"
        groups[2 * (name.startswith("visual.") and name != "visual.proj") + decays]["params"].append(weights)
    optimiser = torch.optim.AdamW(groups, RATE, betas=(0.9, 0.98))
    rng = np.random.default_rng([STREAM, seed, 2])
    started, smoothed = time.monotonic(), np.zeros(2)
    for step in range(steps):
        share = min(1.0, (step + 1) / WARM) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = group["rate"] * share
        wide = float(np.clip((step / steps - NEAR) / 0.25, 0, 1))
        views = [draw_view(rng, pool, wide) for _ in range(BATCH)]
        truths, windows = [view.truth for view in views], None
        if step < steps * (1 - WHOLE):
            windows = torch.from_numpy(np.stack([draw_window(rng, view.cover) for view in views]))
        captions = [write_caption(rng, truth) for truth in truths]
        words = [*(caption.text for caption in captions), *(name_caption(rng, name) for name in (*CLASSES, "nothing"))]
        # The fused backward of attention is slower than the plain one in bfloat16 on a CPU.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            tokens = patch_features(model, normalise(np.stack([view.pixels for view in views])), windows)
            texts = F.normalize(model.encode_text(tokenise(words)).float(), dim=1)
        logits = SCALE * image_features(tokens) @ texts.T  # [2, views, captions + names]
        single = [number for number, truth in enumerate(truths) if len(truth.names) == 1]
        labels = torch.tensor([CLASSES.index(truths[number].names[0]) for number in single])
        fitting = torch.from_numpy(fits(truths, captions))
        loss: torch.Tensor = sum(  # type: ignore[assignment]
            0.25 * loss_of(part[:, :BATCH], fitting) + 0.5 * F.cross_entropy(part[single, BATCH:-1], labels)
            for part in logits
        )
        shown = SCALE * F.normalize(tokens[:, 1:], dim=2) @ texts[BATCH:].T
        loss = loss + patch_loss(shown, patch_targets(views, windows))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimiser.step()
        right = float((logits[:, single, BATCH:-1].argmax(2) == labels).float().mean())
        now = np.array([loss.item(), right])
        smoothed = now if step == 0 else 0.98 * smoothed + 0.02 * now
        if step % 50 == 49:
            progress = f"loss {smoothed[0]:.3f}, right {smoothed[1]:.2f}"
            print(f"step {step + 1} of {steps}, {progress}, {time.monotonic() - started:.0f} s", flush=True)
        if snapshot and step % 250 == 249:
            torch.save(model.state_dict(), snapshot)
    return model.eval()


@torch.no_grad()
def zero_shot(model: Any, pool: Pool) -> dict[str, float]:
    """Share of scenes whose nearest class name is theirs, by class token and by mean patch token."""
    tokenise = open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])
    texts = F.normalize(model.encode_text(tokenise(plain_captions())), dim=1)
    found = image_features(patch_features(model, normalise(pool.images)))
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
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--scenes", type=int, default=3000, help="scenes rendered to cut views from")
    parser.add_argument("--held-out", type=int, default=400, help="other scenes, to measure on")
    parser.add_argument("--start", type=Path, default=START, help="weights of the image tower, from train_demo_weights")
    parser.add_argument("--snapshot", type=Path, help="where to leave the state every 250 steps, to look at it")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file; the configuration goes beside it")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    pool = draw_pool(options.seed, 0, options.scenes)
    model = train(options.seed, options.steps, pool, options.start, options.snapshot)
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
