"""Views that the demo's CLIP learns from: scenes as they are, from near, recomposed, with what is true of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from captions import Truth, where
from render import CLASSES, render_scene

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

SIZE = 96
STREAM = 7003
"""First word of every seed drawn here, so that no scene coincides with one of the shipped data set."""


@dataclass(frozen=True)
class Pool:
    """Scenes to cut views from: uint8 [n, s, s, 3] with and without objects, coverage uint8 [n, s, s], label, kinds."""

    images: Bytes
    backgrounds: Bytes
    alphas: Bytes
    labels: NDArray[np.int64]
    kinds: tuple[tuple[str, ...], ...]


def draw_pool(seed: int, part: int, count: int) -> Pool:
    """Render `count` scenes of random aspect, squashed to a square as the pipeline does."""
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    backgrounds, alphas = np.empty_like(images), np.empty(images.shape[:3], np.uint8)
    labels, kinds = np.arange(count) % len(CLASSES), []
    for number in range(count):
        rng = np.random.default_rng([STREAM, seed, part, number])
        short = int(SIZE * rng.uniform(0.7, 1.0))
        height, width = (SIZE, short) if rng.random() < 0.5 else (short, SIZE)
        scene = render_scene(rng, int(labels[number]), height, width)
        for target, source in ((images, scene.image), (backgrounds, scene.background), (alphas, scene.alpha)):
            target[number] = cv2.resize(source, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        kinds.append(scene.kinds)
        if number % 500 == 499:
            print(f"rendered {number + 1} of {count} scenes", flush=True)
    return Pool(images, backgrounds, alphas, labels, tuple(kinds))


@dataclass(frozen=True)
class View:
    """One view: pixels uint8 [SIZE, SIZE, 3], what is true of it, and its objects' coverage uint8 [SIZE, SIZE]."""

    pixels: Bytes
    truth: Truth
    cover: Bytes


def draw_view(rng: np.random.Generator, pool: Pool, wide: float = 1.0) -> View:
    """Cut or compose a view; `wide` 0 shows one object from near, 1 scenes as they are, with up to two objects."""
    row, other = (int(number) for number in rng.integers(0, len(pool.images), 2))
    sort = rng.random()
    if sort < 0.1:
        view, cover = _moved(rng, pool.backgrounds[row], np.zeros_like(pool.alphas[row]), least=0.3)
        return View(_recoloured(rng, view), Truth((), pool.kinds[row]), cover)
    image, alpha, kinds = pool.images[row], pool.alphas[row], pool.kinds[row]
    if sort < 0.55:
        image, kinds = _over(image, alpha, pool.backgrounds[other]), pool.kinds[other]
    names: tuple[str, ...] = (CLASSES[pool.labels[row]],)
    if sort > 1 - 0.15 * wide and pool.labels[row] != pool.labels[other]:
        spare, cover = _moved(rng, pool.images[other], pool.alphas[other], least=0.5, shrink=1.5)
        if (cover > 127).sum() > 300 and ((cover > 127) & (alpha > 127)).sum() < 0.15 * (alpha > 127).sum():
            image, names = _over(spare, cover, image), (*names, CLASSES[pool.labels[other]])
            alpha = np.maximum(alpha, cover)
    view, seen = _near(rng, image, alpha) if rng.random() > wide else _moved(rng, image, alpha, least=0.45)
    if (seen > 127).sum() < 80:  # the crop lost the object, so nothing sure can be said of it
        view, seen = image, alpha
    extras = where(object_box(seen), SIZE) if len(names) == 1 else ()
    return View(_recoloured(rng, view), Truth(names, kinds, extras), seen)


def _over(front: Bytes, alpha: Bytes, back: Bytes) -> Bytes:
    share = alpha.astype(np.float32)[..., None] / 255
    return np.asarray(front * share + back * (1 - share), np.uint8)


def _near(rng: np.random.Generator, image: Bytes, alpha: Bytes) -> tuple[Bytes, Bytes]:
    """A view in which what `alpha` covers is about as large as the window that training looks at."""
    box = np.array(object_box(alpha))
    side = float((box[2:] - box[:2]).max() * rng.uniform(1.3, 1.8))
    return _cut(rng, image, alpha, side, (box[:2] + box[2:]) / 2 + rng.uniform(-0.1, 0.1, 2) * side)


def _moved(
    rng: np.random.Generator, image: Bytes, alpha: Bytes, *, least: float, shrink: float = 1.15
) -> tuple[Bytes, Bytes]:
    """Crop to a random window that keeps three quarters of what `alpha` covers, turn and flip; both layers alike."""
    covered = max(float((alpha > 127).sum()), 1.0)
    for _ in range(8):
        side = SIZE * np.exp(rng.uniform(np.log(least), np.log(shrink)))
        moved = _cut(rng, image, alpha, side, SIZE / 2 + rng.uniform(-0.5, 0.5, 2) * (SIZE - side))
        if float((moved[1] > 127).sum()) * (side / SIZE) ** 2 >= 0.75 * covered:
            break
    return moved


def _cut(
    rng: np.random.Generator, image: Bytes, alpha: Bytes, side: float, centre: NDArray[np.float64]
) -> tuple[Bytes, Bytes]:
    """Square of about `side` pixels around `centre`, turned, flipped and squashed a little; both layers alike."""
    zoom = side / SIZE * np.exp(rng.uniform(-0.2, 0.2) * np.array([0.5, -0.5]))
    zoom[0] *= rng.choice([-1, 1])
    turn = rng.uniform(-0.2, 0.2)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * zoom
    matrix = np.concatenate([matrix, (centre - matrix @ np.full(2, (SIZE - 1) / 2))[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(alpha, matrix, (SIZE, SIZE), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    view = cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(view, np.uint8), np.asarray(seen, np.uint8)


def object_box(seen: Bytes) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of what is covered, half-open, in pixels."""
    ys, xs = np.flatnonzero((seen > 127).any(1)), np.flatnonzero((seen > 127).any(0))
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)


def _recoloured(rng: np.random.Generator, view: Bytes) -> Bytes:
    values = (view.astype(np.float32) - 128) * rng.uniform(0.85, 1.15) + 128 + rng.uniform(-15, 15)
    values *= rng.uniform(0.9, 1.1, 3).astype(np.float32)
    return np.asarray(values.clip(0, 255), np.uint8)
