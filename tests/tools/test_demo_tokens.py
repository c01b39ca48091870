"""The demo's encoder of students: that its patch tokens show where objects are, and what it was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
import train_demo_tokens as trainer
from PIL import Image
from safetensors import safe_open
from torch.nn import functional as F

from wsolpipe.models.weight_sources import resolve
from wsolpipe.networks.vit import build_vit
from wsolpipe.networks.weights import load_into, load_state

if TYPE_CHECKING:
    from pathlib import Path

SIZE, PATCH = trainer.SIZE, trainer.MODEL_ARGS["patch_size"]


def tokens_and_masks(repo: Path, weights: str, split: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Patch tokens [n, patches, d] of the first images of a split, and the share of each patch that is object."""
    folder = repo / "data" / "demo"
    shape = {name: value for name, value in trainer.MODEL_ARGS.items() if name != "num_classes"}
    vit = build_vit(trainer.MODEL, size=SIZE, model_args=shape)
    source = resolve(str(folder / "weights" / weights), fetch=False)
    assert source is not None
    load_into(vit, load_state(source), what=weights)
    names = (folder / "metadata" / split / "image_ids.txt").read_text().split()[:count]
    images, masks = [], []
    for name in names:
        with Image.open(folder / "images" / name) as image:
            images.append(np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)))
        with Image.open((folder / "masks" / name).with_suffix(".png")) as mask:
            masks.append(np.asarray(mask.convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR)))
    with torch.inference_mode():
        tokens = vit.eval().forward_features(trainer.normalise(np.stack(images)))[:, 1:]
    cover = torch.from_numpy(np.stack(masks)).float() / 255
    return tokens.double(), trainer.patch_pixels(cover).mean(2).double()


def readout_iou(repo: Path, weights: str) -> float:
    """Mean IoU on test images of the best linear readout of training images' patches."""
    tokens, shares = tokens_and_masks(repo, weights, "train", 96)
    rows = F.pad(tokens.flatten(0, 1), (0, 1), value=1.0)
    gram = rows.T @ rows + 1e-3 * torch.eye(rows.shape[1], dtype=torch.float64)
    readout = torch.linalg.solve(gram, rows.T @ shares.flatten())
    seen, truth = tokens_and_masks(repo, weights, "test", 64)
    found, wanted = F.pad(seen, (0, 1), value=1.0) @ readout > 0.35, truth > 0.5
    return float(((found & wanted).sum(1) / (found | wanted).sum(1).clamp_min(1)).mean())


def test_a_linear_readout_finds_objects_in_these_tokens_and_not_in_those_of_the_class_token_model(repo: Path) -> None:
    dense, before = (readout_iou(repo, f"demo_{name}.safetensors") for name in ("tokens", "vit"))
    print(f"patch IoU of a linear readout: {dense:.3f}, of the class-token model {before:.3f}")
    assert dense > 0.45
    assert dense > before + 0.12


def test_weights_are_small_and_say_that_masks_were_used(repo: Path) -> None:
    path = repo / "data" / "demo" / "weights" / "demo_tokens.safetensors"
    assert path.stat().st_size <= 2 * 2**20
    with safe_open(path, framework="numpy") as file:
        recorded = file.metadata()
    assert recorded["labels"] == "masks of rendered scenes"
    assert (float(recorded["mean"]), float(recorded["std"])) == (trainer.MEAN, trainer.STD)


def test_targets_are_the_pixels_of_their_patch() -> None:
    cover = torch.zeros(1, SIZE, SIZE)
    cover[0, PATCH : 2 * PATCH, 3 * PATCH] = 1.0  # the left column of the patch in row 1, column 3
    pixels = trainer.patch_pixels(cover)[0]
    number = 1 * (SIZE // PATCH) + 3
    assert pixels.sum(1).nonzero().flatten().tolist() == [number]
    assert (pixels[number].view(PATCH, PATCH)[:, 0] == 1).all()


def test_a_view_and_its_coverage_stay_together() -> None:
    pool = trainer.draw_pool(0, 0, 3)
    flat = np.where(pool.alphas[0][..., None] > 127, 255, 0).astype(np.uint8).repeat(3, 2)
    for number in range(5):
        rng = np.random.default_rng(number)
        view, cover = trainer.cut_view(rng, flat, pool.alphas[0])
        assert view.shape == (SIZE, SIZE, 3)
        inside, outside = cover == 255, cover == 0
        assert view[inside].mean() > view[outside].mean() + 50


def test_coverage_of_other_scenes_is_learned_within_a_few_steps() -> None:
    pool, held_out = trainer.draw_pool(0, 0, trainer.BATCH), trainer.draw_pool(0, 1, 8)
    small = [cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for image in held_out.images]
    covers = [cv2.resize(alpha, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for alpha in held_out.alphas]
    images, truth = trainer.normalise(np.stack(small)), torch.from_numpy(np.stack(covers)).float() / 255
    losses = []
    for steps in (1, 4):
        model, cover = trainer.train(0, steps, pool, trainer.START)
        with torch.no_grad():
            found = cover(model.forward_features(images)[:, 1:])
        losses.append(float(F.binary_cross_entropy_with_logits(found, trainer.patch_pixels(truth))))
    assert losses[1] < losses[0] - 1e-3
    assert 0 < trainer.held_out_iou(model, cover, held_out) < 1
