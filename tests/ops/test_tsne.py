"""t-SNE: groups stay together, few points are harmless, and the similarities sum to one."""

from __future__ import annotations

import numpy as np

from wsolpipe.ops.tsne import _similarities, tsne


def test_groups_of_near_vectors_are_apart_in_the_plane():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 20)) * 5
    vectors = np.repeat(centres, 12, axis=0) + 0.2 * rng.normal(size=(48, 20))
    places = tsne(vectors, perplexity=8)
    group = np.repeat(np.arange(4), 12)
    distances = np.linalg.norm(places[:, None] - places, axis=-1) + 1e9 * np.eye(48)
    assert (group[distances.argmin(axis=1)] == group).all()
    within = max(np.ptp(places[group == g], axis=0).max() for g in range(4))
    means = np.stack([places[group == g].mean(axis=0) for g in range(4)])
    between = (np.linalg.norm(means[:, None] - means, axis=-1) + 1e9 * np.eye(4)).min()
    assert between > within
    assert np.array_equal(places, tsne(vectors, perplexity=8))


def test_similarities_are_symmetric_and_sum_to_one():
    points = np.random.default_rng(1).normal(size=(30, 5))
    joint = _similarities(points, 7.0)
    assert abs(joint.sum() - 1) < 1e-6
    assert np.allclose(joint, joint.T)


def test_few_points_are_finite():
    for count in (1, 2, 3, 5):
        assert np.isfinite(tsne(np.eye(6)[:count])).all()
