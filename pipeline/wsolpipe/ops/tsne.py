"""t-SNE of a few thousand vectors at most, exact and without random numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

EXAGGERATION, EXAGGERATED_STEPS = 12.0, 100


def tsne(vectors: Floats, *, perplexity: float = 30.0, steps: int = 400) -> NDArray[np.float64]:
    """Places in the plane at which neighbours stay neighbours (van der Maaten and Hinton, 2008).

    Parameters
    ----------
    vectors : float array [N, D]
    perplexity : float
        Effective number of neighbours; at most a third of the others.
    steps : int
        Of gradient descent with momentum, the first `EXAGGERATED_STEPS` with similarities times `EXAGGERATION`.

    Returns
    -------
    float64 array [N, 2]
        Started at the two principal components, so that the result depends on the vectors alone.
    """
    wide = np.asarray(vectors, np.float64)
    count = len(wide)
    wide = wide - wide.mean(axis=0)
    left, spread, _ = np.linalg.svd(wide, full_matrices=False)
    places = np.zeros((count, 2))
    kept = min(2, len(spread))
    places[:, :kept] = 1e-2 * left[:, :kept]
    if count < 3:
        return places
    near = _similarities(wide, min(perplexity, max((count - 1) / 3, 1.0)))
    rate, moved = max(count / EXAGGERATION, 10.0), np.zeros_like(places)
    for step in range(steps):
        early = step < EXAGGERATED_STEPS
        moved = (0.5 if early else 0.8) * moved - rate * _gradient(near * (EXAGGERATION if early else 1.0), places)
        places = places + moved
        places -= places.mean(axis=0)
    return places


def _squared_distances(points: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = (points**2).sum(axis=1)
    distances: NDArray[np.float64] = np.maximum(lengths[:, None] + lengths - 2 * points @ points.T, 0.0)
    return distances


def _similarities(points: NDArray[np.float64], perplexity: float) -> NDArray[np.float64]:
    """Symmetric joint probabilities; each row's Gaussian has the width that gives the perplexity."""
    distances = _squared_distances(points)
    np.fill_diagonal(distances, np.inf)
    finite = np.where(np.isfinite(distances), distances - distances.min(axis=1, keepdims=True), 0.0)
    low, high = np.full(len(points), -20.0), np.full(len(points), 40.0)  # of the logarithm of the precision
    shares = np.zeros_like(distances)
    for _ in range(60):
        middle = (low + high) / 2
        weights = np.exp(-finite * np.exp(middle)[:, None])
        np.fill_diagonal(weights, 0.0)
        shares = weights / weights.sum(axis=1, keepdims=True)
        entropy = -np.sum(shares * np.log(np.maximum(shares, 1e-300)), axis=1)
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    joint = (shares + shares.T) / (2 * len(points))
    return np.maximum(joint, 1e-12)


def _gradient(near: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    kernel = 1 / (1 + _squared_distances(places))
    np.fill_diagonal(kernel, 0.0)
    pull = (near - kernel / kernel.sum()) * kernel
    gradient: NDArray[np.float64] = 4 * (pull.sum(axis=1)[:, None] * places - pull @ places)
    return gradient
