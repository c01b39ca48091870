"""From the ``key=value`` words of a command to a `RunConfig`: every value is checked before work starts."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, shorten, unknown
from wsolpipe.contract.named import Registry
from wsolpipe.keys.key import Key, unknown_key
from wsolpipe.keys.run_keys import RUN_KEYS, SIGN, RunConfig, names_list, read_row_list, store_of
from wsolpipe.keys.words import nest, parse_value, split_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wsolpipe.stages.registry import StageRegistry


#: How the name of a launcher ends that takes an address, such as ``tcp://`` of ``cluster=tcp://host:port``.
ADDRESS = "://"
LAUNCHERS: Registry[Any] = Registry(
    "cluster",
    "wsolpipe.launchers",
    {
        "local": "wsolpipe.launch.local:Processes",
        "dask-local": "wsolpipe.launch.dask:HereByDask",
        "dask-cuda": "wsolpipe.launch.dask:GpusByDask",
        "slurm": "wsolpipe.launch.jobs:Jobs",
        "slurm-array": "wsolpipe.launch.jobs:JobArray",
        "tcp://": "wsolpipe.launch.dask:StandingDask",
        "tls://": "wsolpipe.launch.dask:StandingDask",
    },
    base="wsolpipe.launch.launcher:Launcher",
)


def offered_clusters(given: Mapping[str, str]) -> list[str]:  # noqa: ARG001 - as all that help and completion offer
    """Names that ``cluster=`` takes beside addresses."""
    return [name for name in LAUNCHERS.names() if not name.endswith(ADDRESS)]


def launcher_name(cluster: str) -> str:
    """Name of the launcher that a value of ``cluster=`` means.

    Raises
    ------
    ConfigError
        If there is none; names the nearest.
    """
    kind, separator, _ = cluster.partition(ADDRESS)
    name = kind + separator
    if name not in LAUNCHERS:
        raise ConfigError(unknown("cluster", cluster, [*offered_clusters({}), "tcp://host:port"]))
    return name


def build_config(
    words: Iterable[str], registry: StageRegistry, *, also: Iterable[Key] = ()
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
    settings["store"] = store_of(settings.get("store"))
    chosen = {name: value for name, value in settings.items() if value is not None}
    config = RunConfig(**chosen, params=_absolute_files(params), profile_fields=site)
    if names_list(config.rows):
        config = replace(config, rows=f"{SIGN}{read_row_list(str(config.rows)).path.absolute()}")
    config.row_range()  # raises if it is not start:stop
    launcher_name(config.cluster)
    return config, {name: key.read(given[name]) if name in given else key.default for name, key in own.items()}


def _unknown(name: str, known: Iterable[str], registry: StageRegistry, asked: str) -> ConfigError:
    """The error for an unknown key; for a parameter it shows how to write it, preferably for the stages asked for."""
    if name in registry.entries:
        return unknown_key(name, (), hint=f"stage={name} runs that stage; {name}.PARAMETER= sets a parameter of it")
    homes = [stage for stage, entry in registry.entries.items() if name in entry.params]
    homes = [stage for stage in homes if stage in asked.split(",")] or homes[:3]
    written = " or ".join(f"{stage}.{name}=" for stage in homes)
    return unknown_key(
        name, () if homes else known, hint=f"a parameter follows its stage: {written}" if homes else None
    )


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
