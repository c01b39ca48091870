"""What the user asked for: ``key=value`` words, checked, with every value's type settled before work starts."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import shorten
from wsolpipe.engine.clusters import find_cluster
from wsolpipe.keys.key import unknown_key
from wsolpipe.keys.run_keys import DEFAULT_STORE, RUN_KEYS
from wsolpipe.keys.values import nest, parse_value, split_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsolpipe.keys.key import Key
    from wsolpipe.stages.registry import Registry


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run needs to know, as it crosses process borders.

    Attributes
    ----------
    stage : tuple of str
        Stages asked for.
    dataset : str
        Name in ``data/`` or path of a YAML.
    store : str
        Folder or URL.
    split : tuple of str
        Splits to work on; empty means all of the data set.
    limit : int or None
        Only the first rows of each split; an index of its own.
    rows : str or None
        ``start:stop``, only these rows; an index of its own.
    shard_rows : int or None
        Rows a shard; fixed by the first run of a stage.
    max_failed : float
        Quarantined rows a stage may have: up to 1 a share of the rows (at least 20 rows), above 1 a number of rows.
    index : dict
        split -> key of the index that this run works with, settled before workers start.
    run_id : str
        Names this run in failure notes, so that its workers share their count of tries.
    devices : tuple of str
        Devices of this machine that `cluster=dask-cuda` uses; empty for all.
    wall_time : float or None
        Seconds that a worker may take; None where only its job's own end counts, if it has one.
    ends_at : float or None
        Moment, as `time.time` counts, at which the workers of this machine must have ended.
    profile, profiles : str or None
        Name of a cluster profile, and the file that holds it.
    print : bool
        Show what would be submitted, and submit nothing.
    wait : bool
        Whether a run that submits jobs stays until they end.
    wide : bool
        Show tables whole, however long their lines.
    log : str or None
        File to which lines about the run are appended.
    profile_fields : dict
        Fields of the cluster profile given as words.
    params : dict
        stage -> parameter -> value, from the command line.
    """

    stage: tuple[str, ...] = ()
    dataset: str = ""
    store: str = ""
    cluster: str = "local"
    workers: int = 1
    split: tuple[str, ...] = ()
    limit: int | None = None
    rows: str | None = None
    shard_rows: int | None = None
    max_failed: float = 0.05
    force: bool = False
    root: str | None = None
    device: str = "auto"
    devices: tuple[str, ...] = ()
    threads: int = 0
    seed: int = 0
    stages: str | None = None
    retries: int = 2
    lease: float = 60.0
    checkpoint: float = 30.0
    wall_time: float | None = None
    profile: str | None = None
    profiles: str | None = None
    print: bool = False
    wait: bool = True
    log: str | None = None
    wide: bool = False
    run_id: str = ""
    ends_at: float | None = None
    profile_fields: dict[str, Any] = field(default_factory=dict)
    index: dict[str, str] = field(default_factory=dict)
    params: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> str:
        """For a worker process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RunConfig:
        """Inverse of `to_json`."""
        values = json.loads(text)
        return cls(**{**values, **{name: tuple(values[name]) for name in _LISTED}})

    def row_range(self) -> tuple[int, int | None]:
        """First row and one past the last of `rows=`; the stop may be open."""
        if self.rows is None:
            return 0, None
        match = re.fullmatch(r"(\d{0,15}):(\d{0,15})", self.rows)
        if not match:
            msg = f"rows={shorten(self.rows)}: write rows=start:stop, such as rows=0:1000"
            raise ConfigError(msg)
        start, stop = int(match[1] or 0), int(match[2]) if match[2] else None
        if stop is not None and stop <= start:
            msg = f"rows={self.rows} holds no row: the stop must be larger than the start"
            raise ConfigError(msg, hint="rows=start:stop, such as rows=0:1000, counts from 0 and leaves out the stop")
        return start, stop

    def selection(self) -> dict[str, Any]:
        """What of the data set the index holds, as recorded in its manifest."""
        chosen = {"limit": self.limit, "rows": self.rows}
        return {key: value for key, value in chosen.items() if value is not None}


_LISTED = ("stage", "split", "devices")


def build_config(
    words: Iterable[str], registry: Registry, *, also: Iterable[Key] = ()
) -> tuple[RunConfig, dict[str, Any]]:
    """Configuration of a command from its words.

    Parameters
    ----------
    also : iterable of Key
        Keys that this command knows beside those of a run; their values, given or default, are returned apart.

    Raises
    ------
    ConfigError
        If a key, stage or cluster is unknown or a value has the wrong type.
    """
    given = split_words(words)
    own, run = {key.name: key for key in also}, {key.name: key for key in RUN_KEYS}
    params: dict[str, dict[str, Any]] = {}
    site: dict[str, Any] = {}
    for name, text in given.items():
        if name in own or name in run:
            continue
        stage, dot, parameter = name.partition(".")
        if not dot:
            raise _unknown(name, [*run, *own], registry, given.get("stage", ""))
        if stage == "profile":
            site[parameter] = parse_value(text)
            continue
        if stage == "sweep":
            msg = f"{shorten(name)}=: this command takes one value a key"
            raise ConfigError(msg, hint="wsolpipe run and plan take sweeps; name one value here")
        if stage == "index":
            msg = f"{name}=: the index has no parameters of its own; its keys are in the data set's YAML"
            raise ConfigError(msg)
        registry[stage]  # raises with the nearest name
        nest(params, name.split("."), parse_value(text))
    settings = {name: run[name].read(given[name]) for name in given if name in run and name not in own}
    for stage in settings.get("stage") or ():
        if stage != "index":
            registry[stage]
    settings["store"] = settings.get("store") or os.environ.get("WSOLPIPE_STORE", DEFAULT_STORE)
    chosen = {name: value for name, value in settings.items() if value is not None}
    config = RunConfig(**chosen, params=_absolute_files(params), profile_fields=site)
    config.row_range()  # raises if it is not start:stop
    find_cluster(config.cluster)
    return config, {name: key.read(given[name]) if name in given else key.default for name, key in own.items()}


def _unknown(name: str, known: Iterable[str], registry: Registry, asked: str) -> ConfigError:
    """The error for an unknown key; of a parameter it tells how it is written, for the stages asked for if they fit."""
    if name in registry.entries:
        return unknown_key(name, (), hint=f"stage={name} runs that stage; {name}.PARAMETER= sets a parameter of it")
    homes = [stage for stage, entry in registry.entries.items() if name in entry.params]
    homes = [stage for stage in homes if stage in asked.split(",")] or homes[:3]
    written = " or ".join(f"{stage}.{name}=" for stage in homes)
    return unknown_key(name, known, hint=f"a parameter follows its stage: {written}" if homes else None)


def _absolute_files(params: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Relative paths of existing files made absolute, since workers may run in another folder."""

    def absolute(value: Any) -> Any:
        names_file = isinstance(value, str) and ("/" in value or Path(value).suffix) and os.path.isfile(value)
        return str(Path(value).absolute()) if names_file else value

    return {stage: {name: absolute(value) for name, value in values.items()} for stage, values in params.items()}


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid over it, mapping by mapping; an empty mapping below a name replaces what stands there."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) and value else value
    return merged


def for_worker(config: RunConfig) -> RunConfig:
    """The configuration of one of several workers: the same run, done by a single process."""
    return replace(config, cluster="local", workers=1, force=False, profile=None, profiles=None, profile_fields={})
