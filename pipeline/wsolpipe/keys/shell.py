"""A command of ``key=value`` words: its ``--help`` and its completion, both from the table of keys."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from wsolpipe.contract.errors import ConfigError, WsolError
from wsolpipe.contract.nearest import shorten
from wsolpipe.keys.kinds import FLAG, STORE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from click.shell_completion import CompletionItem

    from wsolpipe.keys.key import Key

    Lookup = Callable[[Mapping[str, str]], Iterable[str]]
    Offer = tuple[str, str]

_WORDS = "wsolpipe.words"
MOST_MEANT = 4
"""Keys that an error offers for a file or folder without a key."""


@dataclass(frozen=True)
class Section:
    """Some keys under a heading of ``--help``.

    Attributes
    ----------
    title : str
        The heading.
    keys : tuple of Key
        What is listed.
    note : str
        A line below the heading.
    """

    title: str
    keys: tuple[Key, ...]
    note: str = ""


class Table(Protocol):
    """Where a command's keys come from; asked anew with the words of each call."""

    @property
    def positional(self) -> str:
        """Source of words without ``=``, such as ``stage``; empty where the command takes none."""
        ...

    def sections(self, given: Mapping[str, str]) -> Iterable[Section]:
        """Keys to show in ``--help`` beside these words, such as those of the stage that is named."""
        ...

    def names(self, given: Mapping[str, str], start: str) -> Iterable[Key | str]:
        """Keys, and beginnings of keys such as ``cls_maps.``, that a word starting with `start` may become."""
        ...

    def look_up(self, source: str, given: Mapping[str, str]) -> Iterable[str]:
        """Values of a source that a `Kind` names, such as ``dataset``."""
        ...


class KeyCommand(click.Command):
    """A command whose help lists the keys of its table.

    Parameters
    ----------
    table : Table
        Its keys.
    """

    def __init__(self, name: str, *, table: Table, **attributes: Any) -> None:
        super().__init__(name, **attributes)
        self.table = table

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words, for a ``--help`` anywhere among them, and refuse those without ``=``.

        Raises
        ------
        ConfigError
            If a word has no key, and this command takes none without; says which key it belongs to.
        """
        ctx.meta[_WORDS] = [word for word in args if not word.startswith("-")]
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing and not self.table.positional:
            given = ctx.params["words"]
            for word in given:
                if "=" not in word:
                    raise without_key(word, self.table, pairs(given))
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the keys, then the options."""
        for section in self.table.sections(pairs(ctx.meta.get(_WORDS, ()))):
            with formatter.section(section.title):
                if section.note:
                    formatter.write_text(section.note)
                if section.keys:
                    formatter.write_dl([(f"{key.name}=", describe(key)) for key in section.keys], col_max=24)
        super().format_options(ctx, formatter)


def without_key(word: str, table: Table, given: Mapping[str, str]) -> ConfigError:
    """Return the error for a word without ``=``: the keys of the command that take such a value."""
    keys = [key for key in table.names(given, "") if not isinstance(key, str) and key.name not in given]
    meant = [f"{word}={'true' if key.kind.choices == FLAG else '…'}" for key in keys if key.name == word]
    meant = meant or [f"{key.name}={word}" for key in keys if _takes(table, key, word, given)]
    if not meant and os.path.lexists(word):
        meant = [f"{key.name}={word}" for key in keys if key.kind.files][:MOST_MEANT]
    hint = f"write {' or '.join(meant)}" if meant else "write key=value"
    msg = f"{shorten(word)!r} is not of the form key=value"
    return ConfigError(msg, hint=f"{hint}; the same command with --help lists its keys")


def _takes(table: Table, key: Key, word: str, given: Mapping[str, str]) -> bool:
    """Whether a value is one that a key is known to take."""
    if key.kind.choices == FLAG:
        return False
    if key.kind.source == "dataset" and word.endswith((".yaml", ".yml")):
        return True
    if key.kind.name == STORE:
        from wsolpipe.contract.reader import Store

        return Path(word).is_dir() and Store(word).holds_results()
    try:
        known = table.look_up(key.kind.source, given) if key.kind.source else ()
    except (WsolError, OSError):
        known = ()
    parts = word.split(",") if key.kind.listed else [word]
    return all(part in (*key.kind.choices, *key.kind.offers, *known) for part in parts)


def words_argument(metavar: str = "[KEY=VALUE]…") -> click.Argument:
    """The words of a `KeyCommand`, with completion."""
    return click.Argument(["words"], nargs=-1, metavar=metavar, shell_complete=_complete)


def describe(key: Key) -> str:
    """Meaning, kind, unit and default of a key in one line."""
    details = "; ".join(text for text in (_kind_shown(key), key.unit) if text)
    default = key.shown_default()
    return f"{key.meaning}{f' ({details})' if details else ''}{f' [{default}]' if default else ''}"


def _kind_shown(key: Key) -> str:
    """The kind, unless the meaning says it already."""
    listed = (*key.kind.choices, *key.kind.offers)
    if key.kind.name.removesuffix(" or null") == "text" or (listed and all(text in key.meaning for text in listed)):
        return ""
    return key.kind.name


def pairs(words: Iterable[str]) -> dict[str, str]:
    """``key=value`` words as a mapping, as far as they are whole; bash hands them over cut at each ``=``."""
    joined: list[str] = []
    glue = False
    for word in words:
        if word == "=" and joined:
            joined[-1] += "="
            glue = True
        elif glue:
            joined[-1] += word
            glue = False
        else:
            joined.append(word)
    return {key: value for key, separator, value in (word.partition("=") for word in joined) if separator}


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    from click.shell_completion import CompletionItem

    table: Table = ctx.command.table  # type: ignore[attr-defined]
    before = list(ctx.params.get("words") or ())
    cut = ""  # what bash has cut off before the word, and does not want back
    if len(before) > 1 and before[-1] == "=":
        cut = f"{before[-2]}="
        before = before[:-2]
    elif not incomplete and before and before[-2:-1] != ["="] and _is_key(table, before[-1]):
        cut = f"{before.pop()}="  # click takes the = away where nothing follows it
    try:
        found = list(offers(table, cut + incomplete, pairs(before)))
    except (WsolError, OSError):
        return []  # a shell cannot show an error; the command itself does
    return [CompletionItem(text.removeprefix(cut), help=meaning or None) for text, meaning in found]


def _is_key(table: Table, word: str) -> bool:
    """Whether a word is the name of a key."""
    return any(not isinstance(key, str) and key.name == word for key in table.names({}, word))


def offers(table: Table, word: str, given: Mapping[str, str]) -> Iterator[Offer]:
    """What a word may become: texts and their meanings.

    Parameters
    ----------
    table : Table
        Keys of the command.
    word : str
        Beginning of a word.
    given : mapping
        The words before it.
    """
    name, separator, start = word.partition("=")
    if not separator:
        for item in table.names(given, name):
            text, meaning = (item, "") if isinstance(item, str) else (f"{item.name}=", item.meaning)
            if text.startswith(name):
                yield text, meaning
        return
    for key in table.names(given, name):
        if not isinstance(key, str) and key.name == name:
            yield from ((f"{name}={text}", "") for text in _values(table, key, start, given))


def _values(table: Table, key: Key, start: str, given: Mapping[str, str]) -> Iterator[str]:
    """Values of a key that begin with `start`; of a list, values of its last item."""
    done, comma, last = start.rpartition(",") if key.kind.listed else ("", "", start)
    known = [*key.kind.choices, *key.kind.offers]
    if key.kind.source:
        known += table.look_up(key.kind.source, given)
    for text in dict.fromkeys(known):
        if text.startswith(last) and text not in done.split(","):
            yield done + comma + text
    if key.kind.files:
        yield from _files(start)


def _files(start: str) -> Iterator[str]:
    """Files and folders whose path begins with `start`; folders end with a slash."""
    folder, slash, last = start.rpartition("/")
    place = Path(folder + slash).expanduser() if folder + slash else Path()
    try:
        entries = sorted(os.scandir(place), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(last) and (last or not entry.name.startswith(".")):
            yield f"{folder}{slash}{entry.name}{'/' if entry.is_dir() else ''}"
