"""Patches in the space of texts: each variant against its published formula, one head and patch at a time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from wsolpipe.models.clip import (
    image_vectors,
    load_clip,
    naclip_patches,
    neighbourhood,
    sclip_patches,
    text_maps,
    vanilla_patches,
)
from wsolpipe.models.weight_sources import resolve

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from wsolpipe.models.clip import Clip

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISIONS = {
    "openai": {"image_size": 24, "layers": 3, "width": 32, "head_width": 8, "patch_size": 8},
    "qk_norm": {"image_size": 24, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "qk_norm": True},
}
GRID = (3, 4)


def build(folder: Path, vision: str) -> Clip:
    path = folder / f"{vision}.json"
    parts = {"embed_dim": 12, "quick_gelu": vision == "openai", "vision_cfg": VISIONS[vision], "text_cfg": TEXT}
    path.write_text(json.dumps(parts))
    weights = resolve("random:4")
    assert weights is not None
    clip = load_clip(str(path), weights)
    clip.model.double()
    with torch.no_grad():
        clip.model.visual.class_embedding.normal_(generator=torch.Generator().manual_seed(0))
    return clip


@pytest.fixture(scope="module", params=list(VISIONS))
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return build(tmp_path_factory.mktemp("clip"), request.param)


def noise(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def projections(clip: Clip, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of one image's tokens [N, C], each [N, heads, d], from the weights themselves."""
    block = clip.model.visual.transformer.resblocks[-1]
    layer, width = block.attn, tokens.shape[1]
    normed = block.ln_1(tokens)
    parts = []
    for part in range(3):
        rows = slice(part * width, (part + 1) * width)
        parts.append((normed @ layer.in_proj_weight[rows].T + layer.in_proj_bias[rows]).reshape(len(tokens), -1, 8))
    heads = layer.num_heads
    query, key, value = (part.reshape(len(tokens), heads, -1) for part in parts)
    if hasattr(layer, "ln_q"):
        query, key = layer.ln_q(query), layer.ln_k(key)
    return query, key, value


def gathered(clip: Clip, weights: list[Tensor], value: Tensor) -> Tensor:
    """Output of the attention layer for one image from a matrix [N, N] a head."""
    heads = [matrix @ value[:, head] for head, matrix in enumerate(weights)]
    layer = clip.model.visual.transformer.resblocks[-1].attn.out_proj
    return torch.as_tensor(torch.cat(heads, dim=1) @ layer.weight.T + layer.bias)


def after(clip: Clip, tokens: Tensor, attended: Tensor) -> Tensor:
    """Both residuals of the last block."""
    block = clip.model.visual.transformer.resblocks[-1]
    tokens = tokens + attended
    return torch.as_tensor(tokens + block.mlp(block.ln_2(tokens)))


def embedded(clip: Clip, tokens: Tensor) -> Tensor:
    visual = clip.model.visual
    return torch.as_tensor(visual.ln_post(tokens[1:]) @ visual.proj)


@torch.no_grad()
def test_vanilla_patches_and_class_token_are_those_of_open_clip(clip: Clip) -> None:
    images, visual = noise(24, 24), clip.model.visual
    visual.output_tokens = True
    pooled, tokens = visual(images)
    visual.output_tokens = False
    reached = clip.reach(images)
    assert torch.allclose(vanilla_patches(clip, reached), tokens @ visual.proj, atol=1e-12)
    assert torch.allclose(image_vectors(clip, reached), normalize(pooled, dim=1), atol=1e-12)


@torch.no_grad()
def test_sclip_is_the_sum_of_query_query_and_key_key_attention(clip: Clip) -> None:
    reached = clip.reach(noise(24, 32))
    found = sclip_patches(clip, reached)
    for image, tokens in enumerate(reached.tokens):
        query, key, value = projections(clip, tokens)
        root, weights = query.shape[2] ** 0.5, []
        for head in range(query.shape[1]):
            q, k = query[:, head], key[:, head]
            weights.append((q @ q.T / root).softmax(1) + (k @ k.T / root).softmax(1))
        expected = embedded(clip, after(clip, tokens, gathered(clip, weights, value)))
        assert torch.allclose(found[image], expected, atol=1e-11)


@torch.no_grad()
@pytest.mark.parametrize("sigma", [5.0, 0.7])
def test_naclip_adds_a_gaussian_of_distance_to_key_key_attention_and_drops_the_rest(clip: Clip, sigma: float) -> None:
    reached = clip.reach(noise(24, 32))
    found = naclip_patches(clip, reached, sigma=sigma)
    assert reached.grid == GRID
    rows, columns = GRID
    for image, tokens in enumerate(reached.tokens):
        _, key, value = projections(clip, tokens)
        omega = torch.zeros(len(tokens), len(tokens), dtype=torch.float64)
        for a in range(rows * columns):
            for b in range(rows * columns):
                square = (a // columns - b // columns) ** 2 + (a % columns - b % columns) ** 2
                omega[1 + a, 1 + b] = torch.tensor(-square / (2 * sigma**2)).double().exp()
        root = key.shape[2] ** 0.5
        weights = [(key[:, head] @ key[:, head].T / root + omega).softmax(1) for head in range(key.shape[1])]
        assert torch.allclose(found[image], embedded(clip, gathered(clip, weights, value)), atol=1e-7)


@torch.no_grad()
def test_map_is_the_cosine_of_each_patch_with_its_class(clip: Clip) -> None:
    reached = clip.reach(noise(24, 32))
    patches = sclip_patches(clip, reached)
    texts = clip.encode_text(["a fish", "a house", "fog"])
    maps = text_maps(patches, texts[torch.tensor([[0, 2], [1, 1]])], reached.grid)
    assert maps.shape == (2, 2, *GRID)
    for image, slot, text in ((0, 0, 0), (0, 1, 2), (1, 0, 1)):
        expected = cosine_similarity(patches[image], texts[text][None], dim=1).reshape(GRID)
        assert torch.allclose(maps[image, slot], expected.float(), atol=1e-6)


@torch.no_grad()
def test_predicted_classes_are_those_of_open_clips_own_zero_shot_logits(clip: Clip) -> None:
    images, words = noise(24, 24), ["a fish", "a house", "fog", "a mug"]
    cosines = image_vectors(clip, clip.reach(images)) @ clip.encode_text(words).T
    logits = clip.model.get_logits(images, clip._tokenise(words))[0]
    assert torch.allclose(cosines * clip.logit_scale, logits, atol=1e-10)


def test_neighbourhood_is_one_at_home_and_symmetric() -> None:
    near = neighbourhood((2, 5), 5.0)
    assert torch.equal(near, near.T)
    assert torch.equal(near.diagonal(), torch.ones(10, dtype=torch.float64))
    assert float(near[0, 5]) == pytest.approx(2.718281828459045**-0.02)  # one row below: exp(-1 / 50)


def test_zero_patch_gives_nan_and_not_a_wrong_number() -> None:
    maps = text_maps(torch.zeros(1, 4, 3), torch.ones(1, 1, 3), (2, 2))
    assert maps.isnan().all()
