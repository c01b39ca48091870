"""YAML of users, read safely: no key twice, no alias bombs, no endless nesting, and errors in one line.

PyYAML with the checks below, rather than ruamel.yaml: both refuse Python objects, but neither bounds what aliases and
merges write out, so that the checks are needed beside either; PyYAML is there already, as packages that we need depend
on it; and ruamel.yaml 0.19 took 8 times as long over a list of 100,000 names, since it has no C parser by default. It
would spare two things: the check for keys that are given twice, and the pattern that reads ``1e-4`` as a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

from wsolpipe.contract.errors import ConfigError, shorten

#: Collections inside one another; recipes and data sets nest five deep.
MOST_DEPTH = 40
#: Values of a file with its aliases written out; the largest class lists hold 50,000.
MOST_VALUES = 1_000_000
MOST_BYTES = 64 * 2**20
#: Texts up to this size are read once a process: recipes and data sets are asked for again and again.
KEPT_BYTES = 64 * 2**10

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
    if len(text) > KEPT_BYTES:
        return _load(text, _loader(as_text), where)
    return deepcopy(_load_once(text, as_text, where))


@lru_cache(maxsize=256)
def _load_once(text: str, as_text: bool, where: str) -> Any:  # noqa: FBT001
    return _load(text, _loader(as_text), where)


def _load(text: str, loader_type: Any, where: str) -> Any:
    if len(text) > MOST_BYTES:
        msg = f"{where} is larger than {MOST_BYTES // 2**20} MiB"
        raise ConfigError(msg)
    try:
        _check_depth(text)
        loader = loader_type(text)
        try:
            node = loader.get_single_node()
            _count(node, {})
            return loader.construct_document(node) if node else None
        finally:
            loader.dispose()
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


def _check_depth(text: str) -> None:
    """Refuse nesting that would overflow the stack of the C parser, on events, which it makes without recursion."""
    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            msg = f"line {_line(event)}: nested deeper than {MOST_DEPTH} levels"
            raise _Refused(msg)


def _count(node: yaml.Node | None, sizes: dict[int, int]) -> int:
    """Count the values of a node with its aliases written out; refuse too many, and keys that are given twice."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    size = sizes.get(id(node))
    if size == 0:  # still open
        msg = f"line {_line(node)}: an alias is inside what it repeats"
        raise _Refused(msg)
    if size is None:
        sizes[id(node)] = 0
        inner = node.value
        if isinstance(node, yaml.MappingNode):
            _refuse_twice([key for key, _ in node.value])
            inner = [each for pair in node.value for each in pair]
        size = sizes[id(node)] = 1 + sum(_count(each, sizes) for each in inner)
    if size > MOST_VALUES:
        msg = f"more than {MOST_VALUES:,} values once its aliases are written out"
        raise _Refused(msg)
    return size


def _refuse_twice(keys: list[yaml.Node]) -> None:
    lines: dict[str, int] = {}
    for key in keys:
        if not isinstance(key, yaml.ScalarNode):
            continue
        if key.value in lines:
            msg = f"key {shorten(key.value)!r} is given twice, in line {lines[key.value]} and in line {_line(key)}"
            raise _Refused(msg)
        lines[key.value] = _line(key)


def _line(place: yaml.Event | yaml.Node) -> int:
    """Line of an event or node, from 1."""
    return place.start_mark.line + 1 if place.start_mark else 1


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).replace(' in "<unicode string>",', " at")
