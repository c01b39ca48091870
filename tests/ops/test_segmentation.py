"""Segments: the library's own labels, and networks trained on single images."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import skimage.segmentation
import torch

from wsolpipe.contract.errors import ConfigError
from wsolpipe.ops.deep_clusters import Clustering, Networks, cluster_images, majority
from wsolpipe.stages.segments import felzenszwalb, slic

PLAN = Clustering(width=8, labels=12, bases=8, steps=25)


def scene(seed, side=32):
    """A bright disc on a dark ground, both noisy, and where it is."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    inside = (x - rng.uniform(12, 20)) ** 2 + (y - rng.uniform(12, 20)) ** 2 < 64
    image = rng.integers(20, 50, (side, side, 3))
    image[inside] += np.array([170, 120, 30])
    return image.astype(np.uint8), inside


def test_labels_are_those_of_the_library():
    image, _ = scene(0, 64)
    wanted = skimage.segmentation.felzenszwalb(image, scale=50, sigma=0.5, min_size=20)
    np.testing.assert_array_equal(felzenszwalb(image, scale=50, sigma=0.5, min_size=20), wanted)
    wanted = skimage.segmentation.slic(image, n_segments=40, compactness=5, start_label=0)
    np.testing.assert_array_equal(slic(image, pieces=40, compactness=5), wanted)


def test_more_segments_than_a_label_tells_apart_are_refused():
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    with pytest.raises(ConfigError, match="more than the 65535"):
        felzenszwalb(noise, scale=1e-6, sigma=0, min_size=1)


def test_the_majority_is_counted_by_superpixel_and_the_lowest_label_wins_a_tie():
    rng = np.random.default_rng(0)
    labels, pieces = rng.integers(0, 5, (3, 60)), rng.integers(0, 9, (3, 60))
    found = majority(torch.from_numpy(labels), torch.from_numpy(pieces), 5).numpy()
    for row in range(3):
        for piece in np.unique(pieces[row]):
            votes = Counter(labels[row][pieces[row] == piece].tolist())
            most = min(name for name, count in votes.items() if count == max(votes.values()))
            assert (found[row][pieces[row] == piece] == most).all()


def test_networks_side_by_side_give_the_labels_of_one_alone_and_separate_what_differs():
    scenes = [scene(seed) for seed in range(3)]
    images = np.stack([image for image, _ in scenes])
    pieces = [slic(image, pieces=120, compactness=10) for image in images]
    seeds = [(0, row) for row in range(3)]
    many = cluster_images(images, pieces, seeds, PLAN)
    for row in range(3):
        alone = cluster_images(images[row : row + 1], pieces[row : row + 1], seeds[row : row + 1], PLAN)
        np.testing.assert_array_equal(many[row], alone[0])
        assert np.unique(many[row]).tolist() == list(range(many[row].max() + 1))
        assert all(len(np.unique(many[row][pieces[row] == piece])) == 1 for piece in np.unique(pieces[row]))
    pure = [
        max(inside[labels == name].mean(), 1 - inside[labels == name].mean()) * (labels == name).mean()
        for labels, (_, inside) in zip(many, scenes, strict=True)
        for name in np.unique(labels)
    ]
    assert sum(pure) / 3 > 0.93  # each segment lies on one side of the disc's edge


def test_other_first_weights_give_other_segments():
    image, _ = scene(0)
    pieces = [slic(image, pieces=120, compactness=10)]
    first, second = (cluster_images(image[None], pieces, [seed], PLAN) for seed in ((0, 1), (0, 2)))
    assert (first != second).any()


def test_training_ends_with_too_few_labels():
    image, _ = scene(1)
    pieces = [slic(image, pieces=120, compactness=10)]
    steps = []
    cluster_images(
        image[None], pieces, [(0, 0)], Clustering(width=8, steps=9, least=13, labels=12), check=lambda: steps.append(1)
    )
    assert len(steps) == 1


def test_grouped_convolutions_are_those_of_each_image():
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    seeds, cpu = [(0, row) for row in range(3)], torch.device("cpu")
    alone = [Networks(seeds[row : row + 1], PLAN, cpu)(images[row : row + 1]) for row in range(3)]
    torch.testing.assert_close(Networks(seeds, PLAN, cpu)(images), torch.cat(alone), atol=1e-4, rtol=1e-4)
