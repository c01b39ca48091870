"""Stages that parameters name, checked before anything is made: their kind, what they hold, what they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ConfigError, unknown
from wsolpipe.stages.marks import NamesStage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsolpipe.engine.session import Session


def check_kinds(session: Session, stage: str) -> None:
    """Refuse a parameter of `stage` that names a stage without the arrays that it reads.

    A stage that declares no outputs is asked when it is set up.

    Raises
    ------
    ConfigError
        Says what the stage is instead, and names those that would do.
    """
    for key, named, mark in _named(session, stage):
        entries = session.registry.entries
        fitting = [
            name
            for name, entry in entries.items()
            if entry.kind == "rows" and mark.holds in entry.outputs and name != stage
        ]
        entry = entries.get(named)
        if entry is None:
            msg = f"{key}: {unknown('stage', named, fitting)}"
            raise ConfigError(msg)
        if named == stage:
            wrong = "is that stage itself"
        elif entry.kind == "artifact":
            wrong = f"is an artifact of files, not a stage of {mark.holds}"
        elif entry.outputs and mark.holds not in entry.outputs:
            wrong = f"holds no {mark.holds}, but {', '.join(sorted(entry.outputs))}"
        else:
            continue
        msg = f"{key}={named} {wrong}"
        raise ConfigError(msg, hint=f"{key}={', '.join(sorted(fitting))}, or a stage of your own")


def check_apart(session: Session, stage: str) -> None:
    """Refuse a stage that is to judge another one's maps and is made of them; call it once no stages form a circle.

    Raises
    ------
    ConfigError
        Names the stage that both come from.
    """
    named = list(_named(session, stage))
    pairs = [
        (key, judge, mark, other, judged, its.holds)
        for key, judge, mark in named
        for other, judged, its in named
        if other == f"{stage}.{mark.apart_from}" and judge in session.needs(stage)
    ]
    for key, judge, mark, other, judged, held in pairs:
        own = [name for name in _made_of(session, judged) if name == judged or _holds(session, name, held)]
        both = [name for name in own if name in _made_of(session, judge)]
        if both:
            through = "" if both[0] == judged else f", which are made of {both[0]} too"
            source = both[0] if judge != both[0] else f"its own {held}"
            msg = (
                f"{key}={judge}: its {mark.holds} are made of {source}, and are to judge {other}={judged}{through}; "
                f"they fit those {held} as they are, so that an improvement would look like a loss"
            )
            raise ConfigError(msg, hint=mark.instead)


def _named(session: Session, stage: str) -> Iterator[tuple[str, str, NamesStage]]:
    """Each stage that a parameter names: ``stage.parameter``, that stage, and the mark."""
    params = session.params(stage)
    for name, info in type(params).model_fields.items():
        for mark in info.metadata:
            if isinstance(mark, NamesStage):
                given = getattr(params, name)
                for each in given if isinstance(given, tuple) else (given,):
                    yield f"{stage}.{name}", each, mark


def _made_of(session: Session, stage: str) -> list[str]:
    """A stage and all stages that its result is made of, nearest first; those that only rank it are left out."""
    found = [stage]
    for name in found:
        ranks = session.stage_class(name).ranked_by(session.params(name), session.registry[name].ranked_by)
        found += [need for need in session.needs(name) if need not in found and need not in ranks]
    return found


def _holds(session: Session, stage: str, array: str) -> bool:
    return array in session.registry[stage].outputs
