"""Transformers of TS-CAM, SCM and SAT, written from their papers in plain matrix products on a dict of tensors."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn.functional import conv2d, gelu, layer_norm

from trained import build

VIT = {"patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 3}
SIZE, HEADS, DEPTH = 32, 3, 4
NAME = "vit_tiny_patch16_224"


def made(method="ts_cam", *, classes=5, **keys):
    given = {"weights": None, "size": SIZE, "model_args": VIT, **keys}
    return build(method, given.pop("backbone", NAME), classes=classes, **given)


def spread(net, scale=3.0):
    """Weights far from those of an initialisation, so that softmax and maps are not flat."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if value.ndim > 1:
                value.mul_(scale)
            elif "norm" not in name:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
    return net


def embedded(state, images):
    """Patch tokens with position embeddings, the class token first, [B, 1 + N, D]."""
    patches = conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=8)
    tokens = torch.stack([patch.reshape(len(patch), -1).T for patch in patches])
    first = state["cls_token"].repeat(len(images), 1, 1)
    return torch.cat([first, tokens], 1) + state["pos_embed"]


def norm(state, name, tokens):
    return layer_norm(tokens, tokens.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)


def block(state, number, tokens, *, masked=False):
    """One block: tokens, softmax weights [B, H, N, N], and the last token's mask [B, N]."""
    name = f"blocks.{number}"
    seen = norm(state, f"{name}.norm1", tokens)
    joint = seen @ state[f"{name}.attn.qkv.weight"].T + state[f"{name}.attn.qkv.bias"]
    batch, count, width = tokens.shape
    depth = width // HEADS
    made, weights, logits = [], [], []
    for head in range(HEADS):
        part = slice(head * depth, (head + 1) * depth)
        query, key, value = (joint[..., start : start + width][..., part] for start in (0, width, 2 * width))
        logits.append(query @ key.transpose(1, 2) / math.sqrt(depth))
        weights.append(torch.softmax(logits[-1], -1))
        made.append(value)
    mask = 1 / (1 + torch.exp(-sum(each[:, -1] for each in logits) / HEADS))
    mixed = [each * mask[:, None] if masked else each for each in weights]
    attended = torch.cat([each @ value for each, value in zip(mixed, made, strict=True)], -1)
    tokens = tokens + attended @ state[f"{name}.attn.proj.weight"].T + state[f"{name}.attn.proj.bias"]
    hidden = norm(state, f"{name}.norm2", tokens) @ state[f"{name}.mlp.fc1.weight"].T + state[f"{name}.mlp.fc1.bias"]
    tokens = tokens + gelu(hidden) @ state[f"{name}.mlp.fc2.weight"].T + state[f"{name}.mlp.fc2.bias"]
    assert mask.shape == (batch, count)
    return tokens, torch.stack(weights, 1), mask


def class_maps(state, patches, side=4):
    """Class scores [B, C, h, w] of patch tokens [B, N, D] after the last norm."""
    grid = patches.transpose(1, 2).reshape(len(patches), -1, side, side)
    return conv2d(grid, state["head.weight"], state["head.bias"], padding=1)


def ts_cam(state, images, side=4, blocks=range(DEPTH)):
    """Class logits, class maps and the attention that they are multiplied by."""
    tokens, attention = embedded(state, images), 0
    for number in range(DEPTH):
        tokens, weights, _ = block(state, number, tokens)
        attention = attention + weights.mean(1)[:, 0, 1:] * (number in blocks)
    maps = class_maps(state, norm(state, "norm", tokens)[:, 1:], side)
    return maps.mean((2, 3)), maps, attention.reshape(-1, side, side)


def sat(state, images, masked=3):
    """Class logits and the mean mask of the last blocks."""
    last = (state["loc_token"] + state["loc_embed"]).repeat(len(images), 1, 1)
    tokens, masks = torch.cat([embedded(state, images), last], 1), []
    for number in range(DEPTH):
        tokens, _, mask = block(state, number, tokens, masked=number >= DEPTH - masked)
        masks.append(mask)
    maps = class_maps(state, norm(state, "norm", tokens)[:, 1:-1])
    return maps.mean((2, 3)), sum(masks[-masked:])[:, 1:-1].reshape(-1, 4, 4) / masked


def unit(values):
    return (values - values.min()) / (values.max() - values.min())


def calibrated(maps, attention, blocks):
    """SCM's blocks on one image in NumPy, float64: class maps [C, h, w], attention [h, w], (rate, threshold, steps)."""
    count, height, width = maps.shape
    cells, spread = maps.reshape(count, -1).T, unit(attention).reshape(-1)
    graph = np.zeros((height * width, height * width))
    for one in range(height * width):
        for other in range(height * width):
            apart = abs(one // width - other // width) + abs(one % width - other % width)
            graph[one, other] = -1 if apart == 1 else 0
    graph -= np.diag(graph.sum(1))
    for rate, threshold, steps in blocks:
        lengths = np.sqrt((cells**2).sum(1))
        similar = cells @ cells.T / np.outer(lengths, lengths)
        matrix = graph * (rate * similar - 1)
        inverse = 0.002 * matrix.T
        for _ in range(steps):
            inverse = inverse @ (2 * np.eye(len(matrix)) - matrix @ inverse)
        moved = inverse.T @ spread / (threshold * spread.max())
        moved = unit(moved - np.tanh(moved))
        cells, spread = cells + cells * moved[:, None], spread + moved
    return cells.mean(0), spread.reshape(height, width)
