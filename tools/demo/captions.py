"""Facts of a view of the demo's scenes, and captions that say some of them.

A statement is a tuple of words such as ``("fish",)`` or ``("on", "tiles")``. A view has a set of true statements; a
caption says one or more of them. An image and a caption fit when everything that the caption says is true of the image,
whoever's caption it was: that is what the contrastive loss of the demo's CLIP takes as its positives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from render import CLASSES

if TYPE_CHECKING:
    from collections.abc import Sequence

TEMPLATES = (
    "{}",
    "a photo of {}.",
    "a picture of {}.",
    "a drawing of {}.",
    "a clean origami {}.",
    "a rendering of {}.",
    "there is {}.",
    "a small image that shows {}.",
)
"""Frames of captions; the fifth is the prompt of CLIP-ES."""
PLACES = ("on the left", "on the right", "at the top", "at the bottom")
SIZES = ("large", "small")


@dataclass(frozen=True)
class Truth:
    """Facts of a view.

    Parameters
    ----------
    names : tuple of str
        Classes that are seen, none, one or two.
    kinds : tuple of str
        What the background is made of.
    extras : tuple of str
        Words of `SIZES` and `PLACES` that hold of the only class; empty where there are two.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    extras: tuple[str, ...] = ()

    def statements(self) -> frozenset[tuple[str, ...]]:
        """All true statements."""
        nouns = [(name,) for name in self.names] or [("nothing",)]
        extras = [(word, name) for word in self.extras for name in self.names[:1]]
        return frozenset([*nouns, *(("on", kind) for kind in self.kinds), *extras])


@dataclass(frozen=True)
class Caption:
    """A sentence and the statements that it makes."""

    text: str
    says: frozenset[tuple[str, ...]]


def where(box: Sequence[float], side: float) -> tuple[str, ...]:
    """Size and places of a box xyxy in a view of `side` pixels, where they are clear."""
    x, y = (box[0] + box[2]) / 2 / side, (box[1] + box[3]) / 2 / side
    area = (box[2] - box[0]) * (box[3] - box[1]) / side**2
    tests = (area > 0.36, area < 0.18, x < 0.4, x > 0.6, y < 0.4, y > 0.6)
    return tuple(word for word, holds in zip((*SIZES, *PLACES), tests, strict=True) if holds)


def write_caption(rng: np.random.Generator, truth: Truth, plain: float = 0.5) -> Caption:
    """Say some of what is true: the classes alone for a share `plain`, else also background, size or place."""
    kinds = tuple(truth.kinds[i] for i in rng.permutation(len(truth.kinds))[: int(rng.integers(1, 3))])
    ground = " and ".join(kinds)
    if not truth.names:
        nothing = rng.random() < 0.5
        text = f"nothing on {ground}" if nothing else ground
        return Caption(_framed(rng, text), frozenset([*(("on", kind) for kind in kinds), *([("nothing",)] * nothing)]))
    names = tuple(truth.names[i] for i in rng.permutation(len(truth.names)))
    if rng.random() < 0.3:
        names = names[:1]
    said: list[tuple[str, ...]] = [(name,) for name in names]
    nouns = [name if rng.random() < 0.5 else f"a {name}" for name in names]
    if rng.random() < plain:
        return Caption(_framed(rng, " and ".join(nouns)), frozenset(said))
    if len(names) == 1 and truth.extras and rng.random() < 0.4:
        extra = str(rng.choice(truth.extras))
        said.append((extra, names[0]))
        nouns = [f"a {extra} {names[0]}" if extra in SIZES else f"{nouns[0]} {extra}"]
    if len(said) == len(names) or rng.random() < 0.3:
        said += [("on", kind) for kind in kinds]
        nouns[-1] += f" on {ground}"
    text = " and ".join(nouns)
    return Caption(_framed(rng, text), frozenset(said))


def name_caption(rng: np.random.Generator, name: str) -> str:
    """One name in a random frame, with or without its article."""
    return _framed(rng, name if name == "nothing" or rng.random() < 0.5 else f"a {name}")


def _framed(rng: np.random.Generator, text: str) -> str:
    return TEMPLATES[int(rng.integers(len(TEMPLATES)))].format(text)


def fits(truths: Sequence[Truth], captions: Sequence[Caption]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Which captions are true of which views, bool [views, captions]."""
    known = [truth.statements() for truth in truths]
    return np.array([[caption.says <= statements for caption in captions] for statements in known], bool)


def plain_captions(words: Sequence[str] = CLASSES, template: str = "a clean origami {}.") -> list[str]:
    """One caption a word, as a zero-shot classifier or a map asks for it."""
    return [template.format(word) for word in words]
