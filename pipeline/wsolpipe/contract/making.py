"""Which stages there are by name, and the command that makes one: what messages about missing results tell."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shlex
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import wsolpipe
from wsolpipe.contract.errors import ConfigError, NotFoundError, guess, shorten

ENTRY_POINT_GROUP = "wsolpipe.stages"
#: The word of a command in a hint that names the data set; `wsolpipe.keys.shell` fills it in.
DATASET = "dataset=…"

#: Advice about a key that a stage does not have, where its keys are listed.
NAME_A_KEY = "write how one of these keys begins"


def run_command(stage: str, *, store: str | None, split: str | None = None, words: Iterable[str] = ()) -> str:
    """The command that makes a stage of the data set `DATASET`, which is for the command line to fill in.

    A store knows the name of a data set, but ``run`` may know it only by a path.

    Parameters
    ----------
    stage : str
        One, or several with commas.
    split : str, optional
        All splits where None.
    words : iterable of str
        More ``key=value`` words.

    Examples
    --------
    >>> run_command("proposals", store="my labels", split="train")
    "wsolpipe run stage=proposals dataset=… split=train 'store=my labels'"
    """
    more = [*([f"split={split}"] if split else []), *([f"store={store}"] if store else []), *words]
    return f"wsolpipe run stage={stage} {DATASET} {shlex.join(more)}{'' if store else ' store=…'}"


def missing_stage(
    stage: str, where: str, keys: Iterable[str] = (), *, key: str | None = None, command: str = ""
) -> NotFoundError:
    """The error for a stage, or a key of it, that a store does not hold.

    Parameters
    ----------
    where : str
        What was searched, a folder of the store.
    keys : iterable of str
        Keys of the stage that are there.
    key : str, optional
        The beginning of a key that was asked for.
    command : str
        What makes the stage.
    """
    keys = list(keys)
    if stage not in known_stages() and not keys:
        msg = f"no stage {shorten(stage)!r} under {where}{guess(stage, known_stages())}"
        return NotFoundError(msg, hint="wsolpipe stages lists the stages that there are")
    msg = f"no {stage}{f' with key {shorten(key)}' if key else ''} under {where}"
    if key and keys:
        return NotFoundError(f"{msg}; keys: {', '.join(keys)}", hint=NAME_A_KEY)
    return NotFoundError(msg, hint=command)


@cache
def known_stages() -> tuple[str, ...]:
    """Names of the stages of this package and of installed ones; those of a user's ``stages=FILE`` are not known."""
    names = ["index"]
    for path in stage_files():
        names += re.findall(r"^([^\s#:]+):", path.read_text(encoding="utf-8"), re.MULTILINE)
    return tuple(names)


def stage_files() -> list[Path]:
    """Files that describe stages: that of this package, then those of installed packages.

    The entry point ``package:name`` names ``name.yaml`` in that package.

    Raises
    ------
    ConfigError
        If an entry point names a module that cannot be found.
    """
    package = Path(wsolpipe.__file__).parent
    inside = package / "stages.yaml"
    paths = [inside if inside.exists() else package.parents[1] / "stages.yaml"]
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        module, _, attribute = point.value.partition(":")
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            msg = f"entry point {point.name} of {ENTRY_POINT_GROUP} names module {module}, which cannot be found"
            raise ConfigError(msg)
        paths.append(Path(spec.origin).parent / f"{attribute or 'stages'}.yaml")
    return paths
