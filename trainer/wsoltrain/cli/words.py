"""``key=value`` words of a command, checked against the keys that it knows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import click
    from click.shell_completion import CompletionItem


@dataclass(frozen=True)
class Key:
    """One key of a command.

    Attributes
    ----------
    read : callable
        Text -> value; raises ValueError where the text is none.
    default : object
        Value of a key that is not given.
    help : str
        One line.
    """

    read: Callable[[str], Any]
    default: Any
    help: str


def whole(least: int) -> Callable[[str], int]:
    """Reader of a whole number of at least `least`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d+", text) or int(text) < least:
            msg = f"a whole number of at least {least}"
            raise ValueError(msg)
        return int(text)

    return read


def need(values: Mapping[str, Any], command: str, *names: str) -> None:
    """Refuse to go on without one of these keys.

    Raises
    ------
    ConfigError
        If one has no value.
    """
    for name in names:
        if not values[name]:
            msg = f"no {name} named"
            raise ConfigError(msg, hint=f"add {name}=…; wsoltrain {command} --help shows an example")


def one_of(*names: str) -> Callable[[str], str]:
    """Reader of one of some names."""

    def read(text: str) -> str:
        if text not in names:
            msg = f"one of {', '.join(names)}"
            raise ValueError(msg)
        return text

    return read


def text(word: str) -> str | None:
    """Text; ``null`` and ``none`` are None."""
    return None if word.lower() in {"null", "none"} else word


def flag(word: str) -> bool:
    """``true`` or ``false``."""
    return one_of("true", "false")(word.lower()) == "true"


def read_words(words: Iterable[str], keys: Mapping[str, Key]) -> dict[str, Any]:
    """Values of all `keys`, given or default.

    Raises
    ------
    ConfigError
        If a word has no ``=``, a key is unknown (names the nearest) or comes twice, or a value is of another kind.
    """
    values: dict[str, Any] = {}
    for word in words:
        name, separator, given = word.partition("=")
        if not separator:
            msg = f"{word!r} is not of the form key=value"
            raise ConfigError(msg, hint=f"keys: {', '.join(keys)}")
        if name not in keys:
            raise ConfigError(unknown("key", name, keys))
        if name in values:
            msg = f"{name}= is given twice"
            raise ConfigError(msg)
        try:
            values[name] = keys[name].read(given)
        except ValueError as error:
            msg = f"{name}={given}: expected {error}"
            raise ConfigError(msg) from error
    return {name: values.get(name, key.default) for name, key in keys.items()}


def completer(keys: Mapping[str, Key]) -> Callable[..., list[CompletionItem]]:
    """Shell completion of ``key=`` words."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
        from click.shell_completion import CompletionItem

        return [CompletionItem(f"{name}=", help=key.help) for name, key in keys.items() if name.startswith(incomplete)]

    return complete


def table(keys: Mapping[str, Key]) -> str:
    """The keys for ``--help``, a line each."""
    width = max(len(name) for name in keys) + 1
    shown = {name: "" if key.default is None else f" [{str(key.default).lower()}]" for name, key in keys.items()}
    return "\n".join(f"  {name + '=':<{width}}  {key.help}{shown[name]}" for name, key in keys.items())
