"""Commands of the pipeline: their own keys beside those of a run, of stages and of the cluster's profile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wsolpipe.keys import shell
from wsolpipe.keys.run_keys import RUN_KEYS, RunConfig
from wsolpipe.keys.shell import Body, Given, Section, known_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import click

    from wsolpipe.keys.key import Key
    from wsolpipe.keys.kinds import Kind


@dataclass(frozen=True)
class OfRun:
    """Keys of a run, parameters of stages and fields of the profile; see `wsolpipe.keys.shell.More`.

    Attributes
    ----------
    shown : tuple of str or Key
        Keys of a run that the command's help lists; a `Key` where its default or meaning is another there.
    """

    shown: tuple[str | Key, ...]

    def listed(self) -> tuple[Key, ...]:
        """Return those keys, with the names of all clusters as the kind of ``cluster=``."""
        run = {key.name: key for key in RUN_KEYS}
        found = (run[item] if isinstance(item, str) else item for item in self.shown)
        return tuple(_with_clusters(key) if key.kind.source == "cluster" else key for key in found)

    def sections(self, given: Given) -> Iterator[Section]:
        """List the parameters of the stages that are named."""
        stages = [name.strip() for name in given.get("stage", "").split(",") if name.strip() not in {"", "index"}]
        for stage in stages:
            yield Section(f"Parameters of the stage {stage}", _parameters(stage, given))
        if not stages:
            more = "Other keys of run are accepted too. " if len(self.shown) < len(RUN_KEYS) else ""
            note = f"{more}stage.parameter=value, as in cls_maps.size=448; add stage=NAME to --help to list them."
            yield Section("Parameters of stages", (), note)

    def names(self, given: Given, start: str) -> Iterator[Key | str]:
        """List all keys, and names of stages with a dot; parameters of a stage after its name and a dot."""
        stage, dot, _ = start.partition(".")
        if dot:
            yield from _parameters(stage, given)
            return
        yield from RUN_KEYS
        yield from (f"{name}." for name in (*_registry(given).entries, "profile"))


def _with_clusters(key: Key) -> Key:
    names = [name for name in known_values(key.kind, {}) if "://" not in name]
    return replace(key, kind=replace(key.kind, name=f"{', '.join(names)} or tcp://HOST:PORT"))


def _parameters(stage: str, given: Given) -> tuple[Key, ...]:
    if stage == "profile":
        from wsolpipe.keys.models import keys_of
        from wsolpipe.launch.profiles import Profile

        return keys_of(Profile, prefix="profile.")
    found: tuple[Key, ...] = _registry(given).keys(stage)
    return found


def _registry(given: Given) -> Any:
    from wsolpipe.stages.registry import load_registry

    return load_registry(given.get("stages"))


def offered_stages(given: Given) -> list[str]:
    """Names for completion: the stages, those of the file of ``stages=`` included."""
    return ["index", *_registry(given).entries]


def configure(words: Iterable[str], keys: tuple[Key, ...] = ()) -> tuple[RunConfig, dict[str, Any]]:
    """Configuration of a command and the values of its own keys, from its words.

    Raises
    ------
    ConfigError
        As `wsolpipe.engine.config.build_config`.
    """
    from wsolpipe.engine.config import build_config

    words = tuple(words)
    return build_config(words, _registry(shell.pairs(words)), also=keys)


def make_command(
    name: str,
    *,
    keys: tuple[Key, ...] = (),
    listed: tuple[str | Key, ...] = (),
    as_run: bool = True,
    positional: Kind | None = None,
) -> Callable[[Body], click.Command]:
    """Turn a function into a command, as `wsolpipe.keys.shell.make_command`.

    Parameters
    ----------
    listed : tuple of str or Key
        As `OfRun.shown`.
    as_run : bool
        Whether it takes all words of ``run``, those of stages included.
    """
    return shell.make_command(name, keys, more=OfRun(listed) if as_run else None, positional=positional)
