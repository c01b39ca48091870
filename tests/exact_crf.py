"""The dense kernel pair by pair in float64, and the maps and photographs it is compared on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba
import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


@numba.njit(cache=True)
def _exact(features: np.ndarray, values: np.ndarray, every: int) -> np.ndarray:
    points, channels = values.shape
    filtered = np.zeros(((points + every - 1) // every, channels))
    for place in range(len(filtered)):
        for other in range(points):
            distance = 0.0
            for axis in range(5):
                distance += (features[place * every, axis] - features[other, axis]) ** 2
            if distance < 80.0:  # exp(-40) is 4e-18: nothing to a sum that holds a self term of one
                weight = math.exp(-0.5 * distance)
                for channel in range(channels):
                    filtered[place, channel] += weight * values[other, channel]
    return filtered


def exact_at(
    values: torch.Tensor, image: torch.Tensor, sigma_rgb: float, sigma_xy: float, every: int = 1
) -> torch.Tensor:
    """W · values of one image at every n-th of its pixels, float64 [C, pixels]."""
    _, height, width = values.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    features = torch.cat([torch.stack([x, y]).double() / sigma_xy, image.double() / sigma_rgb]).flatten(1).T
    flat = values.double().flatten(1).T
    return torch.from_numpy(_exact(features.contiguous().numpy(), flat.contiguous().numpy(), every)).T


def exact_filter(values: torch.Tensor, image: torch.Tensor, sigma_rgb: float, sigma_xy: float) -> torch.Tensor:
    """W · values of one image, float64 [C, H, W]."""
    return exact_at(values, image, sigma_rgb, sigma_xy).reshape(values.shape)


def permutohedral_filter(values: torch.Tensor, image: torch.Tensor, sigma_rgb: float, sigma_xy: float) -> torch.Tensor:
    """W · values of one image as the papers' code filters: the lattice of Adams, Baek and Davis (2010), [C, H, W].

    Written from the paper, with the conventions of Kraehenbuehl and Koltun's release: blur weights (½, 1, ½) among the
    vertices that hold pixels, and a final factor 1 / (1 + 2^-d).
    """
    _, height, width = values.shape
    y, x = np.mgrid[:height, :width]
    colours = image.double().numpy().reshape(3, -1).T / sigma_rgb
    features = np.column_stack([x.ravel() / sigma_xy, y.ravel() / sigma_xy, colours])
    points, d = features.shape
    scale = np.sqrt(2 / 3) * (d + 1) / np.sqrt(np.arange(1, d + 1) * np.arange(2, d + 2))
    scaled = features * scale
    elevated = np.zeros((points, d + 1))
    for j in range(d, 0, -1):  # onto the hyperplane of vectors that sum to zero
        elevated[:, j] = scaled[:, j:].sum(1) - j * scaled[:, j - 1]
    elevated[:, 0] = scaled.sum(1)
    lower = np.floor(elevated / (d + 1) + 0.5) * (d + 1)
    over = np.rint(lower.sum(1) / (d + 1)).astype(int)
    away = elevated - lower
    rank = np.argsort(np.argsort(-away, axis=1, kind="stable"), axis=1) + over[:, None]
    lower += (d + 1) * ((rank < 0).astype(int) - (rank > d))
    rank = rank % (d + 1)
    away = (elevated - lower) / (d + 1)
    share = np.zeros((points, d + 2))
    for i in range(d + 1):
        share[np.arange(points), d - rank[:, i]] += away[:, i]
        share[np.arange(points), d + 1 - rank[:, i]] -= away[:, i]
    share[:, 0] += 1 + share[:, d + 1]
    corners = [lower + np.where(rank <= d - k, k, k - d - 1) for k in range(d + 1)]
    vertices, place = np.unique(np.concatenate(corners).astype(int), axis=0, return_inverse=True)
    place = place.reshape(d + 1, points)
    number = {tuple(vertex): index for index, vertex in enumerate(vertices)}
    pixels = values.double().numpy().reshape(len(values), -1).T
    held = np.zeros((len(vertices) + 1, len(values)))  # the last one stands for vertices that hold no pixel
    for k in range(d + 1):
        np.add.at(held, place[k], share[:, k, None] * pixels)
    for j in range(d + 1):
        step = -np.ones(d + 1, int)
        step[j] = d
        sides = [[number.get(tuple(v), len(vertices)) for v in vertices + sign * step] for sign in (1, -1)]
        held[:-1] += 0.5 * (held[sides[0]] + held[sides[1]])
    filtered = sum(share[:, k, None] * held[place[k]] for k in range(d + 1)) / (1 + 2.0**-d)
    return torch.from_numpy(np.asarray(filtered).T.reshape(values.shape))


def photographs(shared: Path, count: int, size: int) -> torch.Tensor:
    """Every n-th photograph of a set of many kinds, squashed; uint8 [count, 3, size, size]."""
    files = sorted((shared / "data/ecssd_masks/images").rglob("*.*"))
    chosen = files[:: len(files) // count][:count]
    images = [Image.open(file).convert("RGB").resize((size, size), Image.Resampling.BILINEAR) for file in chosen]
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])


def soft_maps(count: int, size: int, seed: int = 0) -> torch.Tensor:
    """Sigmoid of three times an 8x8 standard normal field resized bicubically, [count, 1, size, size]."""
    field = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.sigmoid(3 * torch.nn.functional.interpolate(field, size=(size, size), mode="bicubic"))


def accuracy(shared: Path, count: int, size: int, filtering, *, every: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of W·1 - 2 W·S with the exact one [count]; relative errors of ΣW·1 and ΣW·S [count, 2].

    Both are over every n-th pixel of each photograph.
    """
    images, maps = photographs(shared, count, size), soft_maps(count, size)
    values = torch.cat([torch.ones_like(maps), maps], 1)
    filtered = filtering(values, images).double().flatten(2)[..., ::every]
    cosines, errors = [], []
    for number in range(count):
        exact = exact_at(values[number], images[number], 15.0, 100.0, every)
        slopes = exact[0] - 2 * exact[1], filtered[number, 0] - 2 * filtered[number, 1]
        cosines.append(float((slopes[0] * slopes[1]).sum() / slopes[0].norm() / slopes[1].norm()))
        errors.append((filtered[number].sum(1) / exact.sum(1) - 1).tolist())
    return np.array(cosines), np.array(errors)
