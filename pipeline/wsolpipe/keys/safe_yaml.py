"""YAML of users, read safely: no key twice, no alias bombs, no endless nesting, and errors in one line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import shorten

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MOST_DEPTH = 40
"""Collections inside one another; recipes and data sets nest five deep."""
MOST_VALUES = 1_000_000
"""Values of a file with its aliases written out; the largest class lists hold 50,000."""
MOST_BYTES = 64 * 2**20

_TEXT = "tag:yaml.org,2002:str"
_FLOAT = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$")


def read_yaml(path: Path, *, as_text: bool = False, hint: str | None = None) -> Any:
    """Content of a YAML file; see `load_yaml`.

    Parameters
    ----------
    hint : str, optional
        What to do where the file cannot be read.

    Raises
    ------
    ConfigError
        If the file cannot be read, or as `load_yaml`.
    """
    try:
        data = path.read_bytes()
        return load_yaml(data.decode("utf-8"), where=str(path), as_text=as_text)
    except OSError as error:
        msg = f"cannot read {shorten(str(path))}: {error.strerror}"
        raise ConfigError(msg, hint=hint) from error
    except UnicodeDecodeError as error:
        msg = f"{path} is not valid YAML: byte {error.start} is not UTF-8"
        raise ConfigError(msg, hint=hint) from error


def load_yaml(text: str, *, where: str, as_text: bool = False) -> Any:
    """Value of a YAML text, in plain Python types.

    Parameters
    ----------
    text : str
        One document.
    where : str
        What an error message names, such as the path of the file.
    as_text : bool
        Keep every scalar as text (``4:00:00`` would be a number of seconds otherwise).

    Raises
    ------
    ConfigError
        If the text is not YAML, holds a key twice in one mapping, nests deeper than `MOST_DEPTH`, or has more than
        `MOST_VALUES` values once its aliases are written out.
    """
    return _load(text, _loader(as_text), where)


def _load(text: str, loader: Any, where: str) -> Any:
    if len(text) > MOST_BYTES:
        msg = f"{where} is larger than {MOST_BYTES // 2**20} MiB"
        raise ConfigError(msg)
    try:
        _check(text)
        return yaml.load(text, Loader=loader)
    except _Refused as error:
        msg = f"{where}: {error}"
        raise ConfigError(msg) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date or a number that cannot be
        msg = f"{where} is not valid YAML: {_one_line(error)}"
        raise ConfigError(msg) from error


@cache
def _loader(as_text: bool) -> Any:  # noqa: FBT001
    """Loader class: libyaml's where it is built in (ten times as fast), which also reads ``1e-4`` as a number."""
    if as_text:
        return getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader: Any = type("Loader", (base,), {})
    loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
    return loader


def load_flow(text: str, scalar: Callable[[str], Any]) -> Any:
    """Value of a list or mapping in flow style, each unquoted scalar read by `scalar`; quoted ones are text.

    Raises
    ------
    ConfigError
        As `load_yaml`.
    """
    loader: Any = type("Flow", (yaml.SafeLoader,), {"yaml_implicit_resolvers": {}, "yaml_constructors": {}})

    def read(loader: Any, node: yaml.ScalarNode) -> Any:
        return scalar(node.value) if node.style is None and node.tag == _TEXT else loader.construct_scalar(node)

    loader.add_constructor(None, yaml.SafeLoader.construct_undefined)
    for tag, construct in ((_TEXT, read), ("tag:yaml.org,2002:seq", yaml.SafeLoader.construct_yaml_seq),
                           ("tag:yaml.org,2002:map", yaml.SafeLoader.construct_yaml_map)):  # fmt: skip
        loader.add_constructor(tag, construct)
    return _load(text, loader, f"the value {shorten(text)}")


class _Refused(ValueError):
    """Valid YAML that is not accepted."""


@dataclass
class _Open:
    """A collection that is being read.

    Attributes
    ----------
    keys : dict of str to int or None
        Scalar keys of a mapping and their lines; None for a sequence.
    anchor : str or None
        Name by which it can be repeated.
    size : int
        Values so far, aliases written out.
    at_key : bool
        Whether the next event of a mapping is a key.
    """

    keys: dict[str, int] | None
    anchor: str | None
    size: int = 1
    at_key: bool = True


@dataclass
class _Reading:
    open: list[_Open] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)

    def add(self, size: int, *, scalar: yaml.ScalarEvent | None = None) -> None:
        """Count one finished value, and note it where it is a key."""
        if not self.open:
            return
        top = self.open[-1]
        top.size += size
        if top.size > MOST_VALUES:
            msg = f"more than {MOST_VALUES:,} values once its aliases are written out"
            raise _Refused(msg)
        if top.keys is None:
            return
        if top.at_key and scalar is not None:
            name, line = scalar.value, _line(scalar)
            if name in top.keys:
                msg = f"key {shorten(name)!r} is given twice, in line {top.keys[name]} and in line {line}"
                raise _Refused(msg)
            top.keys[name] = line
        top.at_key = not top.at_key


def _check(text: str) -> None:
    """Refuse what would take too long to read or would be dropped silently; works on events, builds no values."""
    reading = _Reading()
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.ScalarEvent):
            reading.add(1, scalar=event)
        elif isinstance(event, yaml.CollectionStartEvent):
            keys: dict[str, int] | None = {} if isinstance(event, yaml.MappingStartEvent) else None
            reading.open.append(_Open(keys, event.anchor))
            if len(reading.open) > MOST_DEPTH:
                msg = f"line {_line(event)}: nested deeper than {MOST_DEPTH} levels"
                raise _Refused(msg)
        elif isinstance(event, yaml.CollectionEndEvent):
            done = reading.open.pop()
            if done.anchor:
                reading.sizes[done.anchor] = done.size
            reading.add(done.size)
        elif isinstance(event, yaml.AliasEvent):
            if any(item.anchor == event.anchor for item in reading.open):
                msg = f"line {_line(event)}: alias *{event.anchor} is inside what it repeats"
                raise _Refused(msg)
            reading.add(reading.sizes.get(str(event.anchor), 1))


def _line(event: yaml.Event) -> int:
    """Line of an event, from 1."""
    return event.start_mark.line + 1 if event.start_mark else 1


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).replace(' in "<unicode string>",', " at")
