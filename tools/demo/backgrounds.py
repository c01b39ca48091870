"""Colours, textures and backgrounds of the demo's scenes, each from a seeded generator.

Lengths are shares of the image's longest side. Objects, clutter and backgrounds take their colours from the same place,
so that no colour tells a class or the foreground.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


def seen_colour(rng: np.random.Generator, canvas: Floats) -> Floats:
    """Mostly a colour that the scene already holds, so that colour alone does not tell the objects."""
    if rng.random() < 0.2:
        return _colour(rng)
    y, x = rng.integers(0, canvas.shape[0]), rng.integers(0, canvas.shape[1])
    return np.asarray((canvas[y, x] * rng.uniform(0.85, 1.2)).clip(20, 250), np.float32)


def _colour(rng: np.random.Generator) -> Floats:
    hue, grey = rng.uniform(0, 360), rng.random() < 0.15
    hsv = np.array(
        [[[hue, rng.uniform(0.0, 0.2) if grey else rng.uniform(0.2, 0.8), rng.uniform(0.35, 0.97)]]], np.float32
    )
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] * 255, np.float32)


def texture(rng: np.random.Generator, h: int, w: int, unit: int, kind: int, first: Floats, second: Floats) -> Floats:
    """Fill [h, w, 3] of two colours: 0 mottled, 1 stripes, 2 dots, 3 checks, 4 gradient."""
    x, y = axes(rng, h, w, unit)
    period = rng.uniform(0.035, 0.09)
    if kind == 1:
        share = (np.sin(2 * np.pi * x / period) > rng.uniform(-0.5, 0.5)).astype(np.float32)
    elif kind == 2:
        share = ((np.sin(np.pi * x / period) ** 2 * np.sin(np.pi * y / period) ** 2) > 0.5).astype(np.float32)
    elif kind == 3:
        share = ((np.floor(x / period) + np.floor(y / period)) % 2).astype(np.float32)
    elif kind == 4:
        share = (0.5 + 1.2 * x).clip(0, 1).astype(np.float32)
    else:
        share = (0.35 * _clouds(rng, h, w, 6)).astype(np.float32)
    share = share[..., None]
    mottle = 1 + 0.12 * (_clouds(rng, h, w, 12) - 0.5)
    return np.asarray((first * (1 - share) + second * share) * mottle[..., None], np.float32)


def axes(rng: np.random.Generator, h: int, w: int, unit: int = 0) -> tuple[Floats, Floats]:
    """Turned coordinates [h, w] around the middle, in units of `unit` pixels (default: the longest side)."""
    turn, unit = rng.uniform(0, np.pi), unit or max(h, w)
    x = (np.arange(w, dtype=np.float32) - w / 2)[None] / unit
    y = (np.arange(h, dtype=np.float32) - h / 2)[:, None] / unit
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return np.asarray(c * x + s * y, np.float32), np.asarray(c * y - s * x, np.float32)


def _clouds(rng: np.random.Generator, h: int, w: int, base: int) -> Floats:
    """Smooth noise [h, w] in 0..1 with `base` bumps along a side and two finer octaves."""
    total = np.zeros((h, w), np.float32)
    for octave in range(3):
        coarse = rng.random((base << octave, base << octave), dtype=np.float32)
        total += cv2.resize(coarse, (w, h), interpolation=cv2.INTER_LINEAR) * np.float32(0.5**octave)
    low, high = float(total.min()), float(total.max())
    return (total - low) / (high - low)


def draw_background(rng: np.random.Generator, h: int, w: int) -> tuple[Floats, tuple[str, ...]]:
    """Textured background [h, w, 3] and the names of its kinds; most have two or three, as a wall and a floor have."""
    names = tuple(KINDS)
    chosen = rng.choice(len(names), int(rng.choice([1, 2, 3], p=[0.1, 0.5, 0.4])), replace=False)
    canvas = KINDS[names[chosen[0]]](rng, h, w)
    for kind in chosen[1:]:
        x, y = axes(rng, h, w)
        wave = rng.uniform(0, 0.06) * np.sin(rng.uniform(4, 12) * x + rng.uniform(0, 6))
        beyond = y + wave > rng.uniform(-0.2, 0.2)
        canvas = np.asarray(np.where(beyond[..., None], KINDS[names[kind]](rng, h, w), canvas), np.float32)
    return canvas, tuple(names[kind] for kind in chosen)


def _fog(rng: np.random.Generator, h: int, w: int) -> Floats:
    a, b, c = (_colour(rng) for _ in range(3))
    s, t = _clouds(rng, h, w, 4)[..., None], (_clouds(rng, h, w, 9)[..., None] - 0.3).clip(0, 1)
    return np.asarray((a * (1 - s) + b * s) * (1 - t) + c * t, np.float32)


def _planks(rng: np.random.Generator, h: int, w: int) -> Floats:
    x, y = axes(rng, h, w)
    wide = rng.uniform(0.12, 0.25)
    board = np.floor(x / wide).astype(int) + 20
    tone = rng.uniform(0.75, 1.2, 60).astype(np.float32)[board]
    grain = np.sin(2 * np.pi * (x * 30 + 3 * _clouds(rng, h, w, 3) + 1.5 * y))
    gap = np.where(np.abs(x / wide - np.rint(x / wide)) * wide < 0.006, 0.45, 1.0)
    return np.asarray(_colour(rng) * (tone * (1 + 0.13 * grain) * gap)[..., None], np.float32)


def _tiles(rng: np.random.Generator, h: int, w: int) -> Floats:
    x, y = axes(rng, h, w)
    size = rng.uniform(0.1, 0.22)
    long = size * rng.choice([1.0, 2.0])
    row = np.floor(y / size)
    shift = x + (row % 2) * long / 2 * (long > size)
    column = np.floor(shift / long)
    tone = rng.uniform(0, 1, (64, 64)).astype(np.float32)[(row.astype(int) + 32) % 64, (column.astype(int) + 32) % 64]
    edge = np.minimum(np.abs(y / size - np.rint(y / size)) * size, np.abs(shift / long - np.rint(shift / long)) * long)
    a, b, seam = _colour(rng), _colour(rng), _colour(rng)
    face = (a * (1 - tone[..., None]) + b * tone[..., None]) * (0.85 + 0.3 * _clouds(rng, h, w, 10)[..., None])
    return np.asarray(np.where((edge < 0.007)[..., None], seam, face), np.float32)


def _pebbles(rng: np.random.Generator, h: int, w: int) -> Floats:
    count = int(rng.integers(40, 160))
    seeds = np.ones((h, w), np.uint8)
    seeds[rng.integers(0, h, count), rng.integers(0, w, count)] = 0
    far, cell = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5)
    palette = np.stack([_colour(rng) for _ in range(4)])
    tone = palette[rng.integers(0, 4, count + 1)] * rng.uniform(0.75, 1.15, (count + 1, 1))
    dome = (1.15 - 0.9 * far * np.sqrt(count / (h * w))).clip(0.4, 1.2)
    return np.asarray(tone.astype(np.float32)[cell] * dome[..., None], np.float32)


def _bokeh(rng: np.random.Generator, h: int, w: int) -> Floats:
    x, _ = axes(rng, h, w)
    s = (0.5 + x).clip(0, 1)[..., None]
    canvas = np.asarray(_colour(rng) * (1 - s) + _colour(rng) * s, np.float32)
    for _ in range(int(rng.integers(12, 36))):
        disc = np.zeros((h, w), np.uint8)
        centre = (int(rng.integers(0, w)), int(rng.integers(0, h)))
        cv2.circle(disc, centre, max(2, int(rng.uniform(0.02, 0.11) * max(h, w))), 1, -1)
        canvas[disc > 0] = canvas[disc > 0] * 0.55 + _colour(rng) * 0.45
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.002, 0.012) * max(h, w)), np.float32)


def _cloth(rng: np.random.Generator, h: int, w: int) -> Floats:
    x, y = axes(rng, h, w)
    a, b, c = (_colour(rng) for _ in range(3))
    thin = rng.uniform(0.05, 0.16)
    s = (np.sin(2 * np.pi * x / thin) > 0.2).astype(np.float32)[..., None] * 0.5
    t = (np.sin(2 * np.pi * y / (thin * rng.uniform(0.7, 2))) > 0.4).astype(np.float32)[..., None] * 0.5
    thread = 1 + 0.1 * np.sin(2 * np.pi * x * 70) * np.sin(2 * np.pi * y * 70) + 0.25 * (_clouds(rng, h, w, 4) - 0.5)
    return np.asarray(((a * (1 - s) + b * s) * (1 - t) + c * t) * thread[..., None], np.float32)


def _hills(rng: np.random.Generator, h: int, w: int) -> Floats:
    down = np.linspace(0, 1, h, dtype=np.float32)[:, None, None]
    puff = (_clouds(rng, h, w, 4)[..., None] - 0.45).clip(0, 1)
    sky, low, white = _colour(rng), _colour(rng), _colour(rng)
    canvas = (sky * (1 - down) + low * down) * (1 - puff) + white * puff
    line = np.arange(w) / w
    for level in np.sort(rng.uniform(0.3, 0.95, int(rng.integers(2, 5)))):
        ridge = level + sum(rng.uniform(0, 0.07) / k * np.sin(2 * np.pi * (k * line + rng.random())) for k in (1, 2, 5))
        ground = texture(rng, h, w, max(h, w), int(rng.choice([0, 0, 1, 2])), _colour(rng), _colour(rng))
        canvas = np.where((np.arange(h)[:, None] / h > ridge[None])[..., None], ground, canvas)
    return np.asarray(canvas, np.float32)


KINDS: dict[str, Callable[[np.random.Generator, int, int], Floats]] = {
    "fog": _fog,
    "planks": _planks,
    "tiles": _tiles,
    "pebbles": _pebbles,
    "lights": _bokeh,
    "cloth": _cloth,
    "hills": _hills,
}
"""Kinds of background by the word that a caption has for them."""
