"""Outlines of the demo's eight classes, drawn with parts so that each has structure inside.

Coordinates are x to the right and y down, in a frame of about -1..1; a part is a closed polygon and the number of the
material that fills it. Materials are chosen by the renderer, so nothing here knows a colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Points = NDArray[np.float64]

BODY, SECOND, ACCENT, DARK, LIGHT = range(5)


@dataclass(frozen=True)
class Part:
    """One closed polygon of an outline.

    Parameters
    ----------
    points : float64 [n, 2]
        Corners (x, y) in the shape's frame.
    material : int
        0 body, 1 second, 2 accent, 3 dark, 4 light.
    """

    points: Points
    material: int


def ellipse(x: float, y: float, rx: float, ry: float, *, turn: float = 0.0, corners: int = 40) -> Points:
    """Polygon of an ellipse around (x, y), turned by `turn` radians."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    flat = np.stack([rx * np.cos(angle), ry * np.sin(angle)], axis=1)
    c, s = np.cos(turn), np.sin(turn)
    return np.asarray(flat @ np.array([[c, s], [-s, c]]) + (x, y))


def smooth(points: Sequence[tuple[float, float]], *, steps: int = 6) -> Points:
    """Closed Catmull-Rom curve through `points`."""
    p = np.asarray(points, dtype=np.float64)
    before, after, after2 = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    a, b, c, d = (q[:, None, :] for q in (before, p, after, after2))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return np.asarray(curve.reshape(-1, 2))


def slab(x0: float, y0: float, x1: float, y1: float, *, taper: float = 0.0) -> Points:
    """Rectangle whose lower side is narrower by `taper` on each end."""
    return np.array([(x0, y0), (x1, y0), (x1 - taper, y1), (x0 + taper, y1)], dtype=np.float64)


def arc_band(
    x: float, y: float, outer: tuple[float, float], inner: tuple[float, float], span: tuple[float, float]
) -> Points:
    """Band between two elliptic arcs over the angles `span` in radians."""
    angle = np.linspace(*span, 24)
    far = np.stack([x + outer[0] * np.cos(angle), y + outer[1] * np.sin(angle)], axis=1)
    near = np.stack([x + inner[0] * np.cos(angle), y + inner[1] * np.sin(angle)], axis=1)
    return np.concatenate([far, near[::-1]])


def _mirror(points: Points) -> Points:
    return points * (-1.0, 1.0)


def _butterfly(rng: np.random.Generator) -> list[Part]:
    reach, low = rng.uniform(0.85, 1.0), rng.uniform(0.75, 0.95)
    upper = smooth([(0.05, -0.15), (0.4, -0.75), (reach, -0.8), (0.95 * reach, -0.3), (0.5, 0.02), (0.08, 0.1)])
    lower = smooth([(0.05, 0.05), (0.5, 0.05), (0.8 * reach, 0.35), (0.6 * reach, low), (0.25, 0.6)])
    spots = [ellipse(0.62 * reach, -0.5, 0.17, 0.15), ellipse(0.45 * reach, 0.45, 0.13, 0.15)]
    dots = [ellipse(0.62 * reach, -0.5, 0.07, 0.06)]
    feeler = np.array([(0.02, -0.35), (0.3, -0.92), (0.37, -0.9), (0.06, -0.3)])
    parts = [(feeler, DARK), (lower, SECOND), (upper, BODY), *((s, ACCENT) for s in spots), *((d, DARK) for d in dots)]
    both = [Part(p if side else _mirror(p), m) for p, m in parts for side in (True, False)]
    return [*both, Part(ellipse(0, 0.05, 0.1, 0.52), DARK), Part(ellipse(0, -0.4, 0.12, 0.12), DARK)]


def _car(rng: np.random.Generator) -> list[Part]:
    roof, nose, wheel = rng.uniform(-0.62, -0.48), rng.uniform(0.9, 1.0), rng.uniform(0.2, 0.26)
    shell = smooth([(-1, 0.25), (-0.98, -0.05), (-0.6, -0.12), (0.5, -0.12), (nose, 0.02), (nose, 0.28), (0, 0.34)])
    cabin = smooth([(-0.72, -0.05), (-0.5, roof), (-0.1, roof - 0.04), (0.25, roof), (0.55, -0.05)])
    glass = [np.array([(-0.55, -0.12), (-0.42, roof + 0.1), (-0.12, roof + 0.07), (-0.12, -0.12)])]
    glass.append(np.array([(-0.02, -0.12), (-0.02, roof + 0.07), (0.2, roof + 0.1), (0.38, -0.12)]))
    parts = [Part(cabin, SECOND), *(Part(g, LIGHT) for g in glass), Part(shell, BODY)]
    parts.append(Part(slab(-0.95, 0.1, nose - 0.06, 0.17), ACCENT))
    for x in (-0.55, 0.55):
        parts += [Part(ellipse(x, 0.32, wheel, wheel), DARK), Part(ellipse(x, 0.32, wheel * 0.5, wheel * 0.5), LIGHT)]
    return [*parts, Part(ellipse(nose - 0.06, 0.05, 0.07, 0.06), LIGHT)]


def _fish(rng: np.random.Generator) -> list[Part]:
    height, tail = rng.uniform(0.42, 0.56), rng.uniform(0.4, 0.52)
    body = smooth([(0.95, 0.02), (0.6, -0.8 * height), (0.1, -height), (-0.45, -0.45 * height), (-0.65, 0)]
                  + [(-0.45, 0.45 * height), (0.1, height), (0.6, 0.75 * height)])  # fmt: skip
    fork = smooth([(-0.5, 0), (-0.98, -tail), (-0.85, 0), (-0.98, tail)])
    top = smooth([(0.45, -0.85 * height), (0.05, -1.65 * height), (-0.4, -0.95 * height), (-0.3, -0.4 * height)])
    parts = [Part(fork, SECOND), Part(top, SECOND), Part(body, BODY)]
    for x in (-0.35, -0.08):
        half = height * (0.5 if x < -0.2 else 0.86)
        parts.append(
            Part(
                smooth([(x, -half), (x + 0.13, 0), (x, half), (x - 0.09, half * 0.6), (x - 0.09, -half * 0.6)]), ACCENT
            )
        )
    parts.append(Part(smooth([(0.3, 0.05), (0.02, 0.02), (-0.05, 0.3), (0.2, 0.24)]), SECOND))
    return [*parts, Part(ellipse(0.62, -0.12, 0.12, 0.12), LIGHT), Part(ellipse(0.64, -0.12, 0.06, 0.06), DARK)]


def _flower(rng: np.random.Generator) -> list[Part]:
    petals, start, width = int(rng.integers(5, 9)), rng.uniform(0, np.pi), rng.uniform(0.8, 0.95)
    half = width * np.pi / petals * 0.62
    parts = []
    for k in range(petals):
        turn = start + 2 * np.pi * k / petals
        petal = ellipse(0.6 * np.cos(turn), 0.6 * np.sin(turn), 0.42, half, turn=turn)
        vein = ellipse(0.5 * np.cos(turn), 0.5 * np.sin(turn), 0.26, half * 0.3, turn=turn)
        parts += [Part(petal, BODY if petals % 2 or k % 2 else SECOND), Part(vein, ACCENT)]
    rim = [Part(ellipse(0, 0, 0.32, 0.32), DARK), Part(ellipse(0, 0, 0.25, 0.25), SECOND)]
    seeds = [Part(ellipse(0.14 * np.cos(a), 0.14 * np.sin(a), 0.04, 0.04), DARK) for a in np.arange(6) * np.pi / 3]
    return [*parts, *rim, *seeds]


def _house(rng: np.random.Generator) -> list[Part]:
    wide, eaves, peak = rng.uniform(0.65, 0.85), rng.uniform(-0.2, -0.05), rng.uniform(-1.0, -0.8)
    roof = np.array([(-wide - 0.15, eaves), (rng.uniform(-0.15, 0.15), peak), (wide + 0.15, eaves)])
    side = rng.choice([-1.0, 1.0])
    chimney = np.sort(np.array([0.38, 0.58]) * side)
    parts = [Part(slab(chimney[0], peak, chimney[1], eaves), SECOND), Part(slab(-wide, eaves, wide, 0.9), BODY)]
    parts += [Part(roof, ACCENT), Part(ellipse(0, eaves - 0.28, 0.12, 0.12), LIGHT)]
    door = -0.3 * side
    parts += [Part(slab(door - 0.17, 0.25, door + 0.17, 0.9), DARK), Part(ellipse(door + 0.1, 0.6, 0.03, 0.03), LIGHT)]
    x = 0.34 * side
    parts.append(Part(slab(x - 0.22, 0.15, x + 0.22, 0.55), LIGHT))
    return [*parts, Part(slab(x - 0.03, 0.15, x + 0.03, 0.55), DARK), Part(slab(x - 0.22, 0.32, x + 0.22, 0.38), DARK)]


def _mug(rng: np.random.Generator) -> list[Part]:
    tall, taper, grip = rng.uniform(0.75, 0.95), rng.uniform(0.0, 0.14), rng.uniform(0.38, 0.5)
    handle = arc_band(0.42, 0.0, (grip + 0.15, 0.55), (grip - 0.04, 0.36), (-np.pi / 2, np.pi / 2))
    foot = [(0.55 - taper, tall), (0.0, tall + 0.1), (-0.75 + taper, tall)]
    wall = np.concatenate([np.array([(-0.75, -tall + 0.1), (0.55, -tall + 0.1)]), np.array(foot)])
    low, high = rng.uniform(0.2, 0.4), rng.uniform(-0.25, -0.05)
    band = np.array(
        [(-0.74 + taper * 0.4, high), (0.54 - taper * 0.4, high), (0.54 - taper * 0.7, low), (-0.74 + taper * 0.7, low)]
    )
    parts = [Part(handle, SECOND), Part(wall, BODY), Part(band, ACCENT)]
    return [
        *parts,
        Part(ellipse(-0.1, -tall + 0.1, 0.65, 0.17), LIGHT),
        Part(ellipse(-0.1, -tall + 0.12, 0.53, 0.11), DARK),
    ]


def _mushroom(rng: np.random.Generator) -> list[Part]:
    wide, dome, stem = rng.uniform(0.82, 1.0), rng.uniform(-0.95, -0.8), rng.uniform(0.22, 0.32)
    stalk = smooth(
        [(-stem, 0.0), (stem, 0.0), (stem * 0.9, 0.5), (stem * 1.35, 0.92), (-stem * 1.35, 0.92), (-stem * 0.9, 0.5)]
    )
    cap = smooth(
        [
            (-wide, 0.02),
            (-0.85 * wide, -0.45),
            (-0.4, 0.92 * dome),
            (0.0, dome),
            (0.4, 0.92 * dome),
            (0.85 * wide, -0.45),
            (wide, 0.02),
            (0, 0.12),
        ]
    )
    parts = [Part(stalk, SECOND), Part(arc_band(0, 0.3, (stem * 1.7, 0.12), (stem * 0.8, 0.04), (0, np.pi)), LIGHT)]
    parts += [Part(ellipse(0, 0.03, wide * 0.93, 0.17), DARK), Part(cap, BODY)]
    spots = [(-0.55, -0.28, 0.14), (-0.1, -0.58, 0.17), (0.45, -0.42, 0.15), (0.1, -0.15, 0.12), (0.72, -0.1, 0.08)]
    return [*parts, *(Part(ellipse(x * wide, y, r, r * 0.85), ACCENT) for x, y, r in spots)]


def _rocket(rng: np.random.Generator) -> list[Part]:
    wide, fin, flame = rng.uniform(0.27, 0.34), rng.uniform(0.62, 0.78), rng.uniform(0.9, 1.0)
    hull = smooth(
        [
            (0, -1),
            (0.75 * wide, -0.6),
            (wide, -0.1),
            (0.85 * wide, 0.5),
            (-0.85 * wide, 0.5),
            (-wide, -0.1),
            (-0.75 * wide, -0.6),
        ]
    )
    nose = smooth([(0, -1), (0.72 * wide, -0.6), (0, -0.52), (-0.72 * wide, -0.6)])
    wing = np.array([(0.8 * wide, -0.02), (fin, 0.42), (fin, 0.72), (0.7 * wide, 0.46)])
    blaze = smooth(
        [(-0.6 * wide, 0.5), (0, 0.45), (0.6 * wide, 0.5), (0.45 * wide, 0.75), (0, flame), (-0.45 * wide, 0.75)]
    )
    parts = [Part(blaze, LIGHT), Part(wing, SECOND), Part(_mirror(wing), SECOND), Part(hull, BODY), Part(nose, ACCENT)]
    port = [Part(ellipse(0, -0.22, 0.17, 0.17), DARK), Part(ellipse(0, -0.22, 0.11, 0.11), LIGHT)]
    return [
        *parts,
        *port,
        Part(slab(-0.88 * wide, 0.28, 0.88 * wide, 0.38), ACCENT),
        Part(slab(-0.05, 0.3, 0.05, 0.72), SECOND),
    ]


SHAPES: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "butterfly": _butterfly,
    "car": _car,
    "fish": _fish,
    "flower": _flower,
    "house": _house,
    "mug": _mug,
    "mushroom": _mushroom,
    "rocket": _rocket,
}
CLASSES: tuple[str, ...] = tuple(SHAPES)


def blob(rng: np.random.Generator) -> Part:
    """Outline without structure inside, for clutter: a pebble, a stick or a chip."""
    material = int(rng.choice([BODY, DARK, LIGHT], p=[0.5, 0.3, 0.2]))
    kind = rng.integers(3)
    if kind == 0:
        angle = np.arange(7) * 2 * np.pi / 7
        radius = rng.uniform(0.55, 1.0, 7)
        return Part(smooth(list(zip(radius * np.cos(angle), radius * np.sin(angle), strict=True))), material)
    if kind == 1:
        return Part(slab(-1, -0.12, 1, 0.12), material)
    angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 6))))
    chip = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Part(chip - chip.mean(0), material)
