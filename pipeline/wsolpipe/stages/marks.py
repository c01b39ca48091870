"""Marks of stage parameters, ``Annotated[int, ExecutionOnly()]``: what the engine does with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wsolpipe.keys.kinds import NamesFile


class ExecutionOnly:
    """Marks a parameter that changes how work is done, not its result nor key: ``Annotated[int, ExecutionOnly()]``."""


class WeightsSource(NamesFile):
    """Marks a parameter that says where weights come from; the key holds the sha256 of the file instead."""


@dataclass(frozen=True)
class AsBefore:
    """Marks a parameter that was added later: with this value, results are those made before, and so is their key."""

    value: Any


@dataclass(frozen=True)
class NamesStage:
    """Marks a parameter that names a rows stage that is read: ``Annotated[str, NamesStage("maps")]``.

    Attributes
    ----------
    holds : str
        Array that the stage must hold.
    apart_from : str, optional
        Parameter that names another stage, of whose maps or boxes this one's may not be made.
    instead : str
        What to give where they are.
    """

    holds: str
    apart_from: str | None = None
    instead: str = ""
