"""Marks of stage parameters, ``Annotated[int, ExecutionOnly()]``: what the engine does with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError
from wsolpipe.keys.kinds import NamesFile

if TYPE_CHECKING:
    from wsolpipe.contract.reader import StageView


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
    """Marks a parameter that names a rows stage that is read, or several: ``Annotated[str, NamesStage("maps")]``.

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


def require_array(view: StageView, name: str, purpose: str, hint: str) -> None:
    """Refuse a stage that holds no array of this name; `purpose` ends the message, as in ``no boxes to carry``.

    Raises
    ------
    ConfigError
        With the arrays that it holds.
    """
    if name not in view.manifest.arrays:
        msg = f"stage {view.stage} holds no {name}{purpose}, but {', '.join(sorted(view.manifest.arrays))}"
        raise ConfigError(msg, hint=hint)
