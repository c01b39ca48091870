"""The shipped demo ViT: that timm loads it, that it looks at objects, and that its training reads what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import train_demo_weights as trainer
import yaml
from make_demo_data import best_overlap
from PIL import Image
from safetensors import safe_open

from wsolpipe.maps.foreground import largest_region_box, otsu_threshold
from wsolpipe.maps.levels import to_uint8
from wsolpipe.maps.resize import upsample
from wsolpipe.models.weight_sources import resolve
from wsolpipe.networks.attention import mean_and_heads
from wsolpipe.networks.vit import ClassTokenAttention, block_numbers, build_vit
from wsolpipe.networks.weights import load_into, load_state

if TYPE_CHECKING:
    from pathlib import Path

GRID = 224


@pytest.fixture(scope="module")
def settings(repo: Path) -> dict[str, Any]:
    stages = yaml.safe_load((repo / "data" / "demo.yaml").read_text())["stages"]
    return {**stages["cls_maps"], "folder": repo / "data"}


@pytest.fixture(scope="module")
def reader(settings: dict[str, Any]) -> ClassTokenAttention:
    vit = build_vit(settings["model"], size=settings["size"], model_args=settings["model_args"])
    weights = resolve(str(settings["folder"] / settings["weights"]), fetch=False)
    assert weights is not None
    load_into(vit, load_state(weights), what="demo ViT")
    return ClassTokenAttention(vit, block_numbers(settings.get("blocks"), len(vit.blocks)), model=settings["model"])


def test_weights_are_small_and_say_that_they_had_no_labels(settings: dict[str, Any]) -> None:
    path = settings["folder"] / settings["weights"]
    assert path.stat().st_size <= 5e6
    with safe_open(path, framework="numpy") as file:
        recorded = file.metadata()
        assert {str(file.get_tensor(key).dtype) for key in file.keys()} == {"float16"}  # noqa: SIM118
    assert recorded["labels"] == "none"
    assert float(recorded["mean"]) == settings["mean"]
    assert float(recorded["std"]) == settings["std"]


def test_mean_map_beats_a_centred_box_by_a_tenth_on_the_test_split(
    settings: dict[str, Any], reader: ClassTokenAttention
) -> None:
    folder, side = settings["folder"] / "demo", settings["size"]
    truth: dict[str, list[list[float]]] = {}
    for line in (folder / "metadata/test/localization.txt").read_text().splitlines():
        name, *box = line.split(",")
        truth.setdefault(name, []).append([float(v) for v in box])
    found, centred = [], []
    for name, boxes in truth.items():
        with Image.open(folder / "images" / name) as image:
            width, height = image.size
            squashed = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
        inputs = (torch.from_numpy(squashed.copy()).permute(2, 0, 1)[None] / 255 - settings["mean"]) / settings["std"]
        with torch.inference_mode():
            attention = reader(inputs)
        maps = mean_and_heads(attention, heads=range(reader.heads), scale=settings["scale"])
        levels = to_uint8(upsample(maps[0, :1].numpy(), (GRID, GRID)))[0]
        box = largest_region_box(levels > otsu_threshold(levels))
        assert box is not None
        scale = np.array([width, height, width, height]) / GRID
        found.append(best_overlap(tuple(box * scale), np.array(boxes, np.float32)))
        centre = (0.1 * width, 0.1 * height, 0.9 * width, 0.9 * height)
        centred.append(best_overlap(centre, np.array(boxes, np.float32)))
    assert np.mean(found) >= np.mean(centred) + 0.10


def test_training_reads_what_the_last_block_adds_to_the_class_token() -> None:
    torch.manual_seed(0)
    model = trainer.build_model().eval()
    images = torch.randn(2, 3, trainer.SIZE, trainer.SIZE)
    with torch.inference_mode():
        tokens = model._pos_embed(model.patch_embed(images))
        for block in model.blocks[:-1]:
            tokens = block(tokens)
        update = model.blocks[-1].attn(model.blocks[-1].norm1(tokens))[:, 0]
        wanted = model.norm(update + model.blocks[-1].mlp(model.blocks[-1].norm2(update)))
        assert torch.allclose(trainer.class_update(model, images), wanted, atol=1e-5)


def test_views_are_drawn_alike_from_the_same_seed_and_pasting_keeps_the_object() -> None:
    pool = trainer.draw_pool(0, 4)
    extent, views = pool.extents[0], trainer.views_at(1.0)
    first, second = (
        trainer.cut_view(np.random.default_rng(1), trainer.paste(pool, 0, 1), extent, views) for _ in range(2)
    )
    assert first.shape == (trainer.SIZE, trainer.SIZE, 3)
    assert np.array_equal(first, second)
    pasted = trainer.paste(pool, 0, 1)
    inside, outside = pool.alphas[0] == 255, pool.alphas[0] == 0
    assert np.abs(pasted[inside].astype(int) - pool.images[0][inside]).max() <= 1
    assert np.abs(pasted[outside].astype(int) - pool.backgrounds[1][outside]).max() <= 1


def test_the_same_seed_trains_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "BATCH", 4)
    first, again = (trainer.train(3, steps=2, scenes=6).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["norm.bias"].any()  # zero before training


def test_loss_falls_when_the_two_views_of_a_scene_agree() -> None:
    near = torch.nn.functional.normalize(torch.eye(8).repeat(2, 1), dim=1)
    apart = torch.nn.functional.normalize(torch.randn(16, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    assert trainer.contrast(near) < trainer.contrast(apart)
