"""Names, meanings and printed form of every figure; the one convention of numbers.

Printed: shares and IoU in per cent with one decimal (78.7), thresholds in 0..1 with three (0.312), counts whole. Files
and ``--json`` keep what scripts read: IoU and shares of boxes as fractions, accuracies of maps in per cent.

The figures stand in ``glossary.yaml``. A name of several words, such as ``boxes iou_top1`` or ``CorLoc tau``, is
printed as its last word that the glossary holds; a word may end in one of `ENDINGS`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from wsolpipe.contract.errors import ConfigError
from wsolpipe.evaluate.figures import FIGURES
from wsolpipe.keys.safe_yaml import read_yaml

UNITS = "IoU and shares in per cent, thresholds of 0 to 1; wsolpipe eval glossary=true says what each word means"
Kind = Literal["fraction", "per cent", "threshold", "weight", "count", "text"]
#: Factor and decimals with which numbers of each kind are printed.
PRINTED: dict[Kind, tuple[int, int]] = {"fraction": (100, 1), "per cent": (1, 1), "threshold": (1, 3), "weight": (1, 2)}
#: What the name of a figure may end in, and how that is shown.
ENDINGS = {"_by_noisy": " by noisy labels", "_at_tau": " at τ", "_30": " 30", "_50": " 50", "_70": " 70"}


@dataclass(frozen=True)
class Entry:
    """A figure.

    Attributes
    ----------
    name : str
        In JSON.
    shown : str
        In tables and on pages.
    kind : str
        How JSON holds it: ``fraction`` is printed times 100.
    meaning : str
        One sentence.
    """

    name: str
    shown: str
    kind: Kind
    meaning: str


@cache
def read_glossary() -> dict[str, Entry]:
    """Every figure by its name, in the order in which the glossary is printed."""
    entries = read_yaml(Path(__file__).with_name("glossary.yaml"))
    for name in set(FIGURES.names()) - set(FIGURES.builtins):
        with suppress(ConfigError):  # said where the figure is asked for
            entries |= FIGURES.find(name).explained
    return {name: Entry(name, **fields) for name, fields in entries.items()}


def find_entry(name: str) -> Entry | None:
    """Entry that says what a figure of this name is; None where the glossary holds none of its words."""
    found = (_entry_of(word)[0] for word in reversed(name.split(" ")))
    return next((entry for entry in found if entry is not None), None)


def _entry_of(word: str) -> tuple[Entry | None, str]:
    """Entry of a word, else of what is left without its ending, and how that ending is shown."""
    known = read_glossary()
    if word in known:
        return known[word], ""
    for ending, shown in ENDINGS.items():
        if word.endswith(ending) and word.removesuffix(ending) in known:
            return known[word.removesuffix(ending)], shown
    return None, ""


def shown_name(name: str) -> str:
    """Return the name of a figure in tables: each word by its entry, others as they are, as in ``MaxBoxAccV2 30``."""
    found = ((word, *_entry_of(word)) for word in name.split(" "))
    return " ".join(word if entry is None else f"{entry.shown}{ending}" for word, entry, ending in found)


def print_scale(name: str) -> tuple[int, int]:
    """Factor and decimals with which a figure of this name is printed."""
    entry = find_entry(name)
    return PRINTED.get(entry.kind, (1, 3)) if entry is not None else (1, 3)


def format_figure(name: str, value: Any) -> Any:
    """A figure, or a list of figures, as one printed cell; anything else unchanged."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(str(format_figure(name, each)) for each in value)
    if not isinstance(value, float):
        return value
    scale, digits = print_scale(name)
    return f"{scale * value:.{digits}f}"
