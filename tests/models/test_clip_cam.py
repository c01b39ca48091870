"""Maps of CLIP against CLIP-ES written out in float64 (tests/clip_oracle.py)."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import save_file

from clip_oracle import Oracle, random_state, refine, stretch
from wsolpipe.models.clip import load_clip
from wsolpipe.models.clip_cam import ClipCam, box_masks
from wsolpipe.models.clip_cam import refine as refine_here
from wsolpipe.models.weight_sources import resolve

SIZES = {"square": (64, 64), "wide": (48, 96), "tall": (80, 32)}


@pytest.fixture(scope="module", params=["openai", "open_clip"])
def model(request, tmp_path_factory):
    """A small CLIP with QuickGELU from OpenAI's state dict, or with GELU from a file of open_clip; and its oracle."""
    folder, quick = tmp_path_factory.mktemp("clip"), request.param == "openai"
    state = random_state(seed=1 + quick, layers=9 if quick else 4)
    marks = {
        "input_resolution": torch.tensor(64),
        "context_length": torch.tensor(16),
        "vocab_size": torch.tensor(49408),
    }
    save_file(state | (marks if quick else {}), folder / "clip.safetensors")
    clip = load_clip(None, resolve(str(folder / "clip.safetensors")), quick_gelu=None if quick else False)
    return clip, Oracle(state, quick_gelu=quick)


def unit(rows, seed, dims=24):
    draws = torch.randn(rows, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return draws / draws.norm(dim=1, keepdim=True)


def images(size, count=3, seed=0):
    coarse = torch.randn(count, 3, size[0] // 8, size[1] // 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse.double(), size=size, mode="bilinear")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["softmax", "logit", "warm"])
def test_maps_of_several_classes_and_their_refinement_equal_the_definition(model, size, kind):
    clip, oracle = model
    softmax, temperature = kind != "logit", 4.0 if kind == "warm" else 1.0
    pixels, names, background = images(SIZES[size]), unit(5, 1), unit(7, 2)
    present = [[0, 3], [2], [4, 1, 0]]  # rows with fewer classes than others, and more than the two slots
    vectors, there = torch.zeros(3, 3, 24), torch.zeros(3, 3, dtype=torch.bool)
    for row, labels in enumerate(present):
        vectors[row, : len(labels)], there[row, : len(labels)] = names[labels].float(), True
    cam = ClipCam(clip, background.float(), softmax=softmax, temperature=temperature)
    opened = cam.open(pixels.float())
    maps = cam.maps(opened, vectors, there, 2)
    refined = cam.refined(opened, maps)
    lively = 0
    for row, labels in enumerate(present):
        for slot in range(min(2, len(labels))):
            wanted, spread = oracle.maps(
                pixels[row], names[labels], background, slot, softmax=softmax, temperature=temperature
            )
            lively += int(wanted.max() > 0)
            torch.testing.assert_close(maps[row, slot].double(), wanted.flatten(), atol=1e-5, rtol=0)
            torch.testing.assert_close(refined[row, slot].double(), spread.flatten(), atol=1e-5, rtol=0)
    assert lively >= 3  # not all of it zeros that agree


def test_one_class_of_one_image_equals_the_definition_with_other_blocks_and_boxes(model):
    clip, oracle = model
    pixels, names, background = images((64, 96), count=1, seed=3), unit(1, 4), unit(3, 5)
    cam = ClipCam(clip, background.float(), attention_blocks=2, threshold=0.7)
    opened = cam.open(pixels.float())
    maps = cam.maps(opened, names.float()[None], torch.ones(1, 1, dtype=torch.bool), 1)
    wanted, spread = oracle.maps(pixels[0], names, background, 0, blocks=2, threshold=0.7)
    assert wanted.max() > 0.99
    torch.testing.assert_close(maps[0, 0].double(), wanted.flatten(), atol=1e-5, rtol=0)
    torch.testing.assert_close(cam.refined(opened, maps)[0, 0].double(), spread.flatten(), atol=1e-5, rtol=0)


def test_a_refined_map_is_stretched_once_as_the_released_code_does(model):
    """Stretched twice, the highest would be 1 - 1e-7 whatever the height of the refined map."""
    clip, _ = model
    cam = ClipCam(clip, unit(3, 5).float())
    opened = cam.open(images((64, 96), count=1, seed=3).float())
    maps = cam.maps(opened, unit(1, 4).float()[None], torch.ones(1, 1, dtype=torch.bool), 1)
    masks = torch.from_numpy(box_masks(maps.reshape(1, 1, *opened.grid).numpy(), 0.4)).reshape(maps.shape)
    raw = refine_here(maps, opened.attention, masks)
    span = float(raw.max() - raw.min())
    assert 0 < span < 0.9
    assert abs(float(cam.refined(opened, maps).max()) - span / (span + 1e-7)) < 1e-11


def test_the_class_token_and_the_mean_of_patches_are_those_of_the_definition(model):
    clip, oracle = model
    pixels = images((48, 80))
    opened = ClipCam(clip, unit(2, 0).float()).open(pixels.float())
    for row in range(len(pixels)):
        token, mean = oracle.embeddings(pixels[row])
        torch.testing.assert_close(opened.image[row].double(), token, atol=2e-5, rtol=0)
        torch.testing.assert_close(opened.pooled[row].double(), mean, atol=2e-5, rtol=0)


def test_the_network_taken_apart_gives_its_own_forward(model):
    clip, _ = model
    pixels = images((64, 64)).float()
    opened = ClipCam(clip, unit(2, 0).float(), attention_blocks=0).open(pixels)
    with torch.no_grad():
        torch.testing.assert_close(opened.image, clip.model.encode_image(pixels), atol=2e-5, rtol=1e-5)


def test_a_map_does_not_change_with_the_company_of_its_image(model):
    clip, _ = model
    pixels, names = images((64, 64), count=4, seed=7).float(), unit(2, 1).float().expand(4, -1, -1)
    there = torch.ones(4, 2, dtype=torch.bool)
    cam = ClipCam(clip, unit(3, 2).float())
    together = cam.maps(cam.open(pixels), names, there, 2)
    alone = cam.maps(cam.open(pixels[2:3]), names[:1], there[:1], 2)
    torch.testing.assert_close(together[2], alone[0], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def eva(tmp_path_factory):
    """EVA02's blocks in a small tower of timm: rotary positions, separate projections, SwiGLU."""
    path = tmp_path_factory.mktemp("eva") / "eva.json"
    tower = {"image_size": 224, "timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token", "timm_proj": None}
    text = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}
    path.write_text(json.dumps({"embed_dim": 24, "vision_cfg": tower, "text_cfg": text, "custom_text": True}))
    clip = load_clip(str(path), resolve("random:0"), positions="bicubic")
    draws = torch.Generator().manual_seed(0)
    for name, value in clip.model.visual.named_parameters():  # the initialisation of timm gives flat attention
        if value.ndim == 2 and "pos_embed" not in name:
            value.copy_(torch.randn(value.shape, generator=draws) * 1.3 * value.shape[1] ** -0.5)
    return clip


def test_eva_maps_equal_hooks_on_timm_in_float64(eva):
    """The reference here is timm's own forward: a hook on norm1, its gradient, and hooks on the attention's dropout."""
    size, names, background = (112, 140), unit(2, 1), unit(4, 2)
    pixels = images(size, count=1, seed=5)
    trunk = copy.deepcopy(eva.model.visual.trunk).double()
    trunk.set_input_size(size)
    shares, kept = [], []
    for block in trunk.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(
            lambda _, given, __: shares.append(given[0].detach()[0, :, 1:, 1:].mean(0))
        )
    trunk.blocks[-1].norm1.register_forward_hook(lambda _, __, out: kept.append(out.requires_grad_()))
    mean = trunk.forward_features(pixels)[:, 1:].mean(dim=1)
    pooled = trunk.head(trunk.fc_norm(mean))[0]
    logits = eva.logit_scale * torch.cat([names, background]) @ (pooled / pooled.norm())
    gradient = torch.autograd.grad(torch.softmax(logits, 0)[1], kept[0])[0][0, 1:]
    wanted = stretch((kept[0].detach()[0, 1:] * gradient.mean(0)).sum(1).clamp(min=0)).reshape(8, 10)
    spread = refine(wanted, torch.stack(shares[-8:]).mean(0), 0.4)
    cam = ClipCam(eva, background.float())
    opened = cam.open(pixels.float())
    maps = cam.maps(opened, names.float()[None], torch.ones(1, 2, dtype=torch.bool), 2)
    assert wanted.max() > 0.99
    torch.testing.assert_close(maps[0, 1].double(), wanted.flatten(), atol=1e-5, rtol=0)
    torch.testing.assert_close(cam.refined(opened, maps)[0, 1].double(), spread.flatten(), atol=1e-5, rtol=0)


def test_eva_taken_apart_gives_its_own_forward_also_after_another_grid(eva):
    with torch.no_grad():
        eva.reach(images((112, 140), count=1).float())
        pixels = images((224, 224), count=1).float()
        opened = ClipCam(eva, unit(2, 0).float(), attention_blocks=3).open(pixels)
        torch.testing.assert_close(opened.image, eva.model.encode_image(pixels), atol=1e-5, rtol=1e-5)
