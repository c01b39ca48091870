"""Class anchors: orthonormal, stable in order and sign, the closest there are, and never silently wrong."""

from __future__ import annotations

import numpy as np
import pytest

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.anchors import gram_schmidt, orthogonalise, tight_frame


def texts(count: int, dimensions: int, seed: int = 0, *, shared: float = 3.0) -> np.ndarray:
    """Unit vectors that share a direction, as texts of one template do."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, dimensions)) + shared * rng.standard_normal(dimensions)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def named(count: int) -> list[str]:
    return [f"class {number}" for number in range(count)]


@pytest.mark.parametrize(("count", "dimensions"), [(1, 4), (8, 64), (200, 512), (64, 64)])
@pytest.mark.parametrize("how", ["qr", "polar"])
def test_anchors_are_orthonormal_also_as_float32(how: str, count: int, dimensions: int) -> None:
    anchors = orthogonalise(texts(count, dimensions), how, named(count)).astype(np.float32).astype(np.float64)  # type: ignore[arg-type]
    assert np.abs(anchors @ anchors.T - np.eye(count)).max() < 1e-6


def test_qr_is_gram_schmidt_in_the_order_of_the_classes_with_each_class_on_its_own_side() -> None:
    vectors = texts(12, 30).astype(np.float64)
    rows: list[np.ndarray] = []
    for vector in vectors:  # the definition
        for row in rows:
            vector = vector - (vector @ row) * row
        rows.append(vector / np.linalg.norm(vector))
    anchors = gram_schmidt(vectors, named(12))
    assert np.abs(anchors - np.stack(rows)).max() < 1e-9
    assert (np.einsum("kd,kd->k", anchors, vectors) > 0).all()
    assert np.allclose(anchors[0], vectors[0] / np.linalg.norm(vectors[0]))


def test_qr_of_the_first_classes_does_not_depend_on_later_ones_and_polar_not_on_the_order() -> None:
    vectors, order = texts(10, 24), np.random.default_rng(3).permutation(10)
    assert np.allclose(gram_schmidt(vectors[:6], named(6)), gram_schmidt(vectors, named(10))[:6], atol=1e-12)
    assert np.allclose(tight_frame(vectors[order], named(10)), tight_frame(vectors, named(10))[order], atol=1e-10)


@pytest.mark.parametrize(("count", "dimensions"), [(8, 20), (20, 20), (50, 20)])
def test_polar_factor_is_closer_than_any_other_frame_of_its_kind(count: int, dimensions: int) -> None:
    vectors = texts(count, dimensions).astype(np.float64)
    frame = tight_frame(vectors, named(count))
    bound = max(1.0, count / dimensions)
    small = frame @ frame.T if count <= dimensions else frame.T @ frame
    assert np.abs(small - bound * np.eye(len(small))).max() < 1e-9
    assert np.mean(np.square(np.linalg.norm(frame, axis=1))) == pytest.approx(1.0)
    best = np.linalg.norm(frame - vectors)
    rng = np.random.default_rng(1)
    for spread in (1e-3, 0.1, 10.0):
        for _ in range(20):
            left, _, right = np.linalg.svd(vectors + spread * rng.standard_normal(vectors.shape), full_matrices=False)
            assert np.linalg.norm(np.sqrt(bound) * left @ right - vectors) >= best - 1e-12


def test_more_classes_than_dimensions_are_refused_by_qr_with_the_reason_and_the_way_out() -> None:
    with pytest.raises(ConfigError, match="1000 classes in 512 dimensions: at most 512") as caught:
        gram_schmidt(np.zeros((1000, 512)), named(1000))
    assert "orthogonal=polar" in str(caught.value.hint)


@pytest.mark.parametrize("how", ["qr", "polar"])
def test_classes_that_are_called_alike_are_named_and_refused(how: str) -> None:
    vectors = texts(6, 30)
    vectors[4] = vectors[1]
    with pytest.raises(ConfigError, match=r"class [14] \('class [14]'\) has no direction of its own; nearest is class"):
        orthogonalise(vectors, how, named(6))  # type: ignore[arg-type]


def test_frame_of_vectors_that_miss_dimensions_is_refused() -> None:
    vectors = np.zeros((9, 6))
    vectors[:, :3] = texts(9, 3)
    with pytest.raises(ConfigError, match="span 3 of 6 dimensions"):
        tight_frame(vectors, named(9))


def test_none_leaves_the_texts_as_they_are() -> None:
    vectors = texts(7, 3)
    assert np.array_equal(orthogonalise(vectors, "none", named(7)), vectors.astype(np.float64))
