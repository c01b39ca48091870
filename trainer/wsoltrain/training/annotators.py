"""Annotators that choose epochs and thresholds on validation: values of the key ``by``, each with its name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ConfigError
from wsolpipe.evaluate.truth import TRUTH, Truth, find_truth

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsolpipe.evaluate.map_sources import RowTable
    from wsolpipe.evaluate.results import Results

#: Classification accuracy: no boxes, no masks, and no threshold.
CLS = "cls"
WORDS = "NAME:STAGE@KEY, STAGE, gt, noisy:PERCENT, cls, a localization.txt or a folder of masks"
_NOISY = re.compile(r"noisy:(\d+(?:\.\d+)?)")
_KEY = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True)
class Annotator:
    """One annotator.

    Attributes
    ----------
    name : str
        In figures, tables and names of files.
    word : str
        What its boxes or masks are: a word of `wsolpipe.evaluate.truth.find_truth`; ``cls`` for none.
    noise : float
        Level by which they are disturbed (`wsolpipe.metrics.noise`), 0..1.
    """

    name: str
    word: str
    noise: float = 0.0

    @property
    def file_name(self) -> str:
        """Name of the file of the best weights."""
        return f"best-{re.sub(r'[^A-Za-z0-9_.@=-]', '-', self.name)}.safetensors"

    def find(self, results: Results, rows: RowTable) -> Truth:
        """Boxes or masks of some rows; raises as `find_truth`."""
        truth = find_truth(results, rows, self.word)
        return truth.disturbed(self.noise, 0) if self.noise else truth


def read_annotators(words: Iterable[str]) -> list[Annotator]:
    """Annotators of the words of ``by``.

    ``STAGE`` and ``STAGE:KEY`` are named by their stage, ``NAME:STAGE``, ``NAME:STAGE@KEY`` by NAME; what follows a
    single colon is a key where all of it could be one (0-9, a-f). ``noisy:10`` is ground truth disturbed by 10 %.

    Raises
    ------
    ConfigError
        If two have one name, or a word is of no known form.
    """
    found: dict[str, Annotator] = {}
    for word in words:
        one = _read(word)
        if one.name in found:
            msg = f"by={word}: a second annotator named {one.name}"
            raise ConfigError(msg, hint=f"by=a:{word.split(':')[-1]},b:… gives each a name of its own")
        found[one.name] = one
    if not found:
        msg = "by= names no annotator"
        raise ConfigError(msg, hint=f"by= one or several of {WORDS}")
    return list(found.values())


def _read(word: str) -> Annotator:
    if word == CLS:
        return Annotator(CLS, CLS)
    if word in TRUTH:
        return Annotator("gt", "gt")
    if word.startswith("noisy"):
        match = _NOISY.fullmatch(word)
        percent = float(match.group(1)) if match else 0.0
        if not 1 <= percent <= 100:
            msg = f"by={word}: the level of noise is a percentage from 1 to 100"
            raise ConfigError(msg, hint="by=noisy:10")
        return Annotator(word, "gt", percent / 100)
    if "@" in word:
        head, _, key = word.rpartition("@")
        name, _, stage = head.rpartition(":")
        if not stage or not key:
            msg = f"by={word}: not {WORDS}"
            raise ConfigError(msg)
        return Annotator(name or stage, f"{stage}:{key}")
    name, colon, rest = word.partition(":")
    if not colon:
        return Annotator(PurePath(word).stem, word)
    if not name or not rest:
        msg = f"by={word}: not {WORDS}"
        raise ConfigError(msg)
    return Annotator(name, word if _KEY.fullmatch(rest) else rest)
