"""What the user asked for: ``key=value`` words, checked, with every value's type settled before work starts."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import shorten, unknown
from wsolpipe.engine.clusters import find_cluster
from wsolpipe.keys.values import nest, parse_value, split_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsolpipe.stages.registry import Registry

DEFAULT_STORE = "wsol-store"


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


_KINDS: dict[str, tuple[type, ...]] = {
    "workers": (int,),
    "limit": (int, type(None)),
    "shard_rows": (int, type(None)),
    "max_failed": (float, int),
    "force": (bool,),
    "threads": (int,),
    "seed": (int,),
    "retries": (int,),
    "lease": (float, int),
    "checkpoint": (float, int),
    "wall_time": (float, int, type(None)),
    "print": (bool,),
    "wait": (bool,),
}
_LISTED = ("stage", "split", "devices")
_SETTLED = {"params", "run_id", "index", "ends_at", "profile_fields"}
RUN_KEYS = tuple(item.name for item in fields(RunConfig) if item.name not in _SETTLED)


def build_config(
    words: Iterable[str], registry: Registry, *, also: Iterable[str] = ()
) -> tuple[RunConfig, dict[str, Any]]:
    """Configuration of a command from its words.

    Parameters
    ----------
    also : iterable of str
        Keys that this command knows beside those of a run; returned apart.

    Raises
    ------
    ConfigError
        If a key, stage or cluster is unknown or a value has the wrong type.
    """
    settings: dict[str, Any] = {}
    params: dict[str, dict[str, Any]] = {}
    extra: dict[str, Any] = {}
    site: dict[str, Any] = {}
    for key, text in split_words(words).items():
        value = parse_value(text)
        if key in also:
            extra[key] = value
        elif key in RUN_KEYS:
            settings[key] = _check_run_key(key, text, value)
        elif key.startswith("profile."):
            site[key.removeprefix("profile.")] = value
        elif "." in key:
            stage, _, name = key.partition(".")
            if stage == "index":
                msg = f"{key}=: the index has no parameters of its own; its keys stand in the data set's YAML"
                raise ConfigError(msg)
            registry[stage]  # raises with the nearest name
            nest(params.setdefault(stage, {}), name.split("."), value)
        else:
            stages = [f"{name}.…" for name in (*registry.entries, "profile")]
            raise ConfigError(unknown("key", key, [*RUN_KEYS, *also, *stages]))
    for stage in settings.get("stage", ()):
        if stage != "index":
            registry[stage]
    if not settings.get("store"):
        settings["store"] = os.environ.get("WSOLPIPE_STORE", DEFAULT_STORE)
    config = RunConfig(**settings, params=_absolute_files(params), profile_fields=site)
    config.row_range()  # raises if it is not start:stop
    return config, extra


def _check_run_key(key: str, text: str, value: Any) -> Any:
    if key in _LISTED:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    kinds = _KINDS.get(key)
    if kinds is None:
        if key == "cluster":
            find_cluster(text)
        return text
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
        msg = f"{key}={text}: expected {names}"
        raise ConfigError(msg)
    lowest = {"workers": 1, "limit": 1, "shard_rows": 1, "lease": 0.1}.get(key, 0)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value < lowest:
        msg = f"{key}={text}: must be at least {lowest}"
        raise ConfigError(msg)
    return value


def _absolute_files(params: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Relative paths of existing files made absolute, since workers may run in another folder."""

    def absolute(value: Any) -> Any:
        names_file = isinstance(value, str) and ("/" in value or Path(value).suffix) and Path(value).is_file()
        return str(Path(value).absolute()) if names_file else value

    return {stage: {name: absolute(value) for name, value in values.items()} for stage, values in params.items()}


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid over it, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def for_worker(config: RunConfig) -> RunConfig:
    """The configuration of one of several workers: the same run, done by a single process."""
    return replace(config, cluster="local", workers=1, force=False, profile=None, profiles=None, profile_fields={})
