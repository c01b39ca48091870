"""Words from a file: ``config=FILE.yaml`` holds words of a command, over which those of the command line go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import shorten
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key
from wsolpipe.keys.values import split_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

CONFIG = Key("config", kinds.file("YAML file"), "file of words of this command; those of the command line go over it")


def expand_words(words: Iterable[str], listed: Callable[[str], bool] = lambda name: False) -> tuple[str, ...]:
    """The words of a command with those of its ``config=`` file, as if all had been typed.

    The file is a mapping of keys to values; ``cls_maps: {size: 448}`` and ``cls_maps.size: 448`` both mean
    ``cls_maps.size=448``. Values are read as their text is on the command line.

    Parameters
    ----------
    words : iterable of str
        ``key=value`` words; without ``config=`` they are returned as they are.
    listed : callable
        Whether a key takes several values with commas between them; a list of any other key, and of a key's item,
        becomes ``[a, b]``. Lists below ``sweep`` always get commas.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not a mapping, names another file, or holds a key twice.

    Examples
    --------
    >>> expand_words(["stage=cams", "cams.batch=8"])
    ('stage=cams', 'cams.batch=8')
    """
    words = tuple(words)
    named = [word for word in words if word.startswith("config=")]
    if not named:
        return words
    from wsolpipe.keys.safe_yaml import read_yaml  # PyYAML is slow to import, and few commands name a file

    given = split_words(word for word in words if "=" in word)
    path = Path(given["config"]).expanduser()
    content = read_yaml(path, as_text=True, hint="config=FILE.yaml holds words of the command line, one key a line")
    if not isinstance(content, dict):
        msg = f"{path} is not a mapping of keys to values"
        raise ConfigError(msg, hint="write a key a line, such as stage: proposals")
    found: dict[str, str] = {}
    for name, text in _flatten(content, "", listed):
        if name == "config":
            msg = f"{path}: config: a file of words names no other"
            raise ConfigError(msg)
        if name in found:
            msg = f"{path}: {shorten(name)} is given twice, once below its stage and once with a dot"
            raise ConfigError(msg)
        found[name] = text
    return (*(f"{name}={text}" for name, text in found.items() if name not in given),
            *(word for word in words if word not in named))  # fmt: skip


def _flatten(content: dict[str, Any], prefix: str, listed: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{name}.", listed)
        elif isinstance(value, list) and (listed(name) or name.startswith("sweep.")):
            yield name, ",".join(_flow(item) for item in value)
        else:
            yield name, _flow(value)


def _flow(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    return str(value)
