"""The dense CRF against its definition, pair by pair in plain Python, and the stage that cuts masks by it."""

from __future__ import annotations

import math

import numpy as np
import torch

from wsolpipe.contract.schema import Status
from wsolpipe.ops.dense_crf import gaussian, mean_field, pixel_features
from wsolpipe.stages.base import Context, Rows, Upstream
from wsolpipe.stages.clip_masks import ClipMasks
from wsolpipe.stages.registry import load_registry


def plain(scores, image, size, params):
    """Mean field as Krähenbühl and Koltun's algorithm 1 says, one pixel, one label, one neighbour at a time."""
    labels, height, width = scores.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    step = size[0] / height, size[1] / width

    def kernels():
        def smooth(a, b):
            return ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) / params.smooth_xy**2

        def alike(a, b):
            far = ((a[0] - b[0]) * step[0]) ** 2 + ((a[1] - b[1]) * step[1]) ** 2
            colour = sum((float(image[a][c]) - float(image[b][c])) ** 2 for c in range(3))
            return far / params.bilateral_xy**2 + colour / params.bilateral_rgb**2

        for far, weight in ((smooth, params.smooth_weight), (alike, params.bilateral_weight)):
            table = {(a, b): math.exp(-far(a, b) / 2) for a in pixels for b in pixels}
            sums = {a: sum(table[a, b] for b in pixels) for a in pixels}
            yield {pair: weight * value / math.sqrt(sums[pair[0]] * sums[pair[1]]) for pair, value in table.items()}

    tables = list(kernels())
    unary = {(k, a): -math.log(max(float(scores[k][a]), 1e-5)) for k in range(labels) for a in pixels}

    def settled(energy):
        out = {}
        for a in pixels:
            powers = [math.exp(-energy[k, a]) for k in range(labels)]
            out |= {(k, a): power / sum(powers) for k, power in enumerate(powers)}
        return out

    found = settled(unary)
    for _ in range(params.iterations):
        energy = {}
        for k in range(labels):
            for a in pixels:
                others = [j for j in range(labels) if j != k]
                # Potts: a neighbour with another label costs its weight.
                cost = sum(table[a, b] * sum(found[j, b] for j in others) for table in tables for b in pixels)
                energy[k, a] = unary[k, a] + cost
        found = settled(energy)
    return np.array([[[found[k, (y, x)] for x in range(width)] for y in range(height)] for k in range(labels)])


def params_of(**given):
    return load_registry().params("clip_masks", given)


def test_mean_field_is_the_definitions_with_both_kernels():
    draws = np.random.default_rng(0)
    scores, image = draws.random((3, 4, 5)), draws.integers(0, 20, (4, 5, 3)).astype(np.uint8)
    params = params_of(iterations=4, bilateral_rgb=8.0, bilateral_xy=6.0)
    colours = torch.from_numpy(image).double()
    smooth = gaussian(pixel_features(colours, (1.0, 1.0), params.smooth_xy)) * params.smooth_weight
    alike = gaussian(pixel_features(colours, (2.0, 3.0), params.bilateral_xy, params.bilateral_rgb))
    neighbours = smooth + params.bilateral_weight * alike
    found = mean_field(torch.from_numpy(scores).flatten(1), neighbours, params.iterations)
    wanted = plain(scores, image, (8, 15), params)
    np.testing.assert_allclose(found.reshape(3, 4, 5).numpy(), wanted, atol=1e-9)


def test_a_mask_follows_the_colours_names_its_slot_and_leaves_doubt_out():
    params = params_of(size=32)
    stage = ClipMasks(params, Context(dataset="d"))
    image = np.full((128, 128, 3), 40, np.uint8)
    image[32:96, 32:96] = 200  # a square of the grid's cells 2 to 5
    maps = np.zeros((4, 2, 8, 8), np.uint8)
    maps[:, 1, 2:6, 2:6] = 255  # slot 1 speaks for it, hardly for its upper left corner
    maps[:, 1, 2, 2] = 100
    maps[3, 1, 2:6, 2:6] = 110  # neither foreground nor background
    arrays = {"maps": maps, "range": np.tile(np.float32([0, 1]), (4, 2, 1)), "class_ids": np.zeros((4, 2), np.int32)}
    arrays["range"][:, 0] = np.nan  # an empty slot
    upstream = Upstream(arrays, np.array([Status.OK, Status.OK, Status.QUARANTINED, Status.OK], np.uint8), {})
    rows = Rows(np.arange(4), {}, lambda position: image if position != 1 else np.full_like(image, 40))
    made = stage.process(rows, {"clip_cams": upstream})
    wanted = np.zeros((32, 32), np.uint8)
    wanted[8:24, 8:24] = 2
    settled = made["masks"][0] < 255
    assert settled.mean() > 0.9
    assert (made["masks"][0] == wanted)[settled].mean() > 0.95  # the edge is a mixed colour in the shrunk image
    assert (made["masks"][0][9:12, 9:12] == 2).all()  # the corner is filled by its colour
    assert rows.status.tolist() == [Status.OK, Status.OK, Status.QUARANTINED, Status.OK]
    assert (made["masks"][2] == 255).all()
    assert made["ignored"][0] < 0.1
    assert stage.summary(made, rows)["empty_masks"] <= 2
