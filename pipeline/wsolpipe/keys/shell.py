"""A command of ``key=value`` words, for both halves: its ``--help`` and its completion come from one table of keys."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from wsolpipe.contract.errors import ConfigError, WsolError, shorten
from wsolpipe.keys.key import CONFIG, Key
from wsolpipe.keys.kinds import FLAG, STORE, Kind
from wsolpipe.keys.words import expand_words

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


Given = Mapping[str, str]
Body = Callable[[tuple[str, ...], bool], "int | None"]
_WORDS = "wsolpipe.words"
#: Keys that help lists under one heading.
FEW = 12
#: Keys that an error offers for a file or folder without a key.
MOST_MEANT = 4
#: Short names of `Kind.source`: ``package.module:attribute``, values or a function of the arguments given so far.
SOURCES = {
    "dataset": "wsolpipe.images.offers:offered_datasets",
    "split": "wsolpipe.images.offers:offered_splits",
    "stored dataset": "wsolpipe.images.offers:stored_datasets",
    "stored stage": "wsolpipe.images.offers:stored_stages",
    "stage": "wsolpipe.cli.command:offered_stages",
    "cluster": "wsolpipe.engine.config:offered_clusters",
}


@dataclass(frozen=True)
class Section:
    """Some keys under a heading of ``--help``, with a line below the heading."""

    title: str
    keys: tuple[Key, ...]
    note: str = ""


def under_headings(title: str, keys: tuple[Key, ...], *, prefix: str = "") -> Iterator[Section]:
    """Sections of keys by their headings, in the order of the keys; those without one are below `title`."""
    found: dict[str, list[Key]] = {}
    for key in keys:
        found.setdefault(prefix + key.heading if key.heading and len(keys) > FEW else title, []).append(key)
    return (Section(name, tuple(held)) for name, held in found.items())


class More(Protocol):
    """Keys that a command takes beside its own, such as those of a run or of a recipe."""

    def listed(self) -> tuple[Key, ...]:
        """Keys that ``--help`` shows before the command's own."""
        ...

    def sections(self, given: Given) -> Iterable[Section]:
        """Keys that ``--help`` shows after them beside these words, such as those of the stage that is named."""
        ...

    def names(self, given: Given, start: str) -> Iterable[Key | str]:
        """Keys, and beginnings of keys such as ``cls_maps.``, that a word starting with `start` may become."""
        ...


@dataclass(frozen=True)
class Table:
    """The keys of one command.

    Attributes
    ----------
    keys : tuple of Key
        Of this command alone.
    more : More or None
        Keys that it takes beside them.
    positional : Kind or None
        Words that it takes without a key; None where it takes none.
    """

    keys: tuple[Key, ...]
    more: More | None = None
    positional: Kind | None = None

    def sections(self, given: Given) -> Iterator[Section]:
        """Keys to show in ``--help`` beside these words."""
        keys = (*(self.more.listed() if self.more else ()), *self.keys)
        config = replace(CONFIG, heading=keys[0].heading if keys else "")
        yield from under_headings("Keys", (*keys, config))
        if self.more:
            yield from self.more.sections(given)

    def names(self, given: Given, start: str) -> Iterator[Key | str]:
        """List what a word starting with `start` may become."""
        if self.more is None or "." not in start:
            yield from known_values(self.positional, given) if self.positional else ()
            yield from (*self.keys, CONFIG)
        if self.more:
            yield from self.more.names(given, start)

    def keys_beside(self, given: Given, start: str = "") -> Iterator[Key]:
        """List the keys among `names`."""
        return (item for item in self.names(given, start) if not isinstance(item, str))

    def takes_list(self, name: str) -> bool:
        """Whether a key takes several values with commas between them."""
        return "." not in name and any(key.name == name and key.kind.listed for key in self.keys_beside({}, name))


class KeyCommand(click.Command):
    """A command whose help lists the keys of its table."""

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
        if not ctx.resilient_parsing and self.table.positional is None:
            for word in ctx.params["words"]:
                if "=" not in word:
                    raise without_key(word, self.table, pairs(ctx.params["words"]))
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the keys, then the options."""
        for section in self.table.sections(pairs(ctx.meta.get(_WORDS, ()))):
            with formatter.section(section.title):
                if section.note:
                    formatter.write_text(section.note)
                if section.keys:
                    formatter.write_dl([(f"{key.name}=", describe_key(key)) for key in section.keys], col_max=24)
        super().format_options(ctx, formatter)


def make_command(
    name: str,
    keys: tuple[Key, ...] = (),
    *,
    more: More | None = None,
    positional: Kind | None = None,
    example: str = "",
    json_help: str = "Result as JSON on standard output; all else on stderr.",
) -> Callable[[Body], click.Command]:
    """Turn a function of (words, as_json), which may return an exit code, into a command; its docstring is the help.

    Parameters
    ----------
    keys, more, positional
        As those of `Table`.
    example : str
        A command line for the end of the help.
    json_help : str
        Help of ``--json``.
    """
    table = Table(keys, more, positional)

    def decorate(body: Body) -> click.Command:
        def call(words: tuple[str, ...], as_json: bool, debug: bool) -> None:  # noqa: ARG001, FBT001
            words = expand_words(words, table.takes_list)
            with _fill_hints(pairs(words)):
                code = body(words, as_json)
            if code is not None:
                sys.exit(code)

        return KeyCommand(
            name,
            table=table,
            callback=call,
            help=body.__doc__,
            epilog=f"Example: {example}" if example else None,
            context_settings={"help_option_names": ["-h", "--help"]},
            params=[
                click.Argument(["words"], nargs=-1, metavar="[KEY=VALUE]…", shell_complete=_complete),
                click.Option(["--json", "as_json"], is_flag=True, help=json_help),
                click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
            ],
        )

    return decorate


@contextmanager
def _fill_hints(given: Given) -> Iterator[None]:
    """Put the user's own words in the place of ``dataset=…`` and ``store=…`` in the hint of an error.

    Code that raises an error knows the store but not the typed arguments. A data set goes with its ``root=``. One that
    is named as a store names it stays open: ``run`` may not know it.
    """
    try:
        yield
    except WsolError as error:
        from wsolpipe.contract.making import DATASET

        if error.hint and given.get("store"):
            error.hint = error.hint.replace("store=…", shlex.quote(f"store={given['store']}"))
        if error.hint and DATASET in error.hint and _is_described(given.get("dataset", "")):
            words = [f"{name}={given[name]}" for name in ("dataset", "root") if given.get(name)]
            error.hint = error.hint.replace(DATASET, shlex.join(words))
        raise


def _is_described(name: str) -> bool:
    """Whether `name` is the path of a description, or the name of one that comes with the package."""
    return name.endswith((".yaml", ".yml")) or os.sep in name or name in _look_up("dataset", {})


def without_key(word: str, table: Table, given: Given) -> ConfigError:
    """Return the error for a word without ``=``: the keys of the command that take such a value."""
    keys = [key for key in table.keys_beside(given) if key.name not in given]
    meant = [f"{word}={'true' if key.kind.choices == FLAG else '…'}" for key in keys if key.name == word]
    meant = meant or [f"{key.name}={word}" for key in keys if _takes(key, word, given)]
    if not meant and os.path.lexists(word):
        keys = [key for key in keys if key.kind.files and not (key.name == "config" and os.path.isdir(word))]
        meant = [f"{key.name}={word}" for key in keys][:MOST_MEANT]
    if ":" in word and any(key.name == word.partition(":")[0] for key in keys):
        meant = [word.replace(":", "=", 1)]
    spaced = "without blanks around =, " if "=" in given or "" in given else ""
    hint = f"write {' or '.join(meant)}" if meant else f"write key=value, {spaced}as in stage=cls_maps"
    msg = f"{shorten(word)!r} is not of the form key=value"
    return ConfigError(msg, hint=f"{hint}; the same command with --help lists its keys")


def _takes(key: Key, word: str, given: Given) -> bool:
    """Whether a value is one that a key is known to take."""
    if key.kind.choices == FLAG:
        return False
    if key.kind.source == "dataset" and word.endswith((".yaml", ".yml")):
        return True
    if key.kind.name == STORE:
        from wsolpipe.contract.backends.opening import holds_results, open_backend

        return Path(word).is_dir() and holds_results(open_backend(word))
    known = known_values(key.kind, given)
    return all(part in known for part in (word.split(",") if key.kind.listed else [word]))


def describe_key(key: Key) -> str:
    """Meaning, kind, unit and default of a key in one line."""
    listed = (*key.kind.choices, *key.kind.offers)
    complete = key.kind.name.removesuffix(" or null") == "text" or (
        listed and all(text in key.meaning for text in listed)
    )
    details = "; ".join(text for text in ("" if complete else key.kind.name, key.unit) if text)
    default = key.shown_default()
    return f"{key.meaning}{f' ({details})' if details else ''}{f' [{default}]' if default else ''}"


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


def known_values(kind: Kind, given: Given) -> list[str]:
    """Values of a kind that can be listed, each once; none of a source that cannot be read now."""
    try:
        found = _look_up(kind.source, given) if kind.source else ()
    except (WsolError, OSError):
        found = ()
    return list(dict.fromkeys((*kind.choices, *kind.offers, *found)))


def _look_up(source: str, given: Given) -> Iterable[str]:
    from wsolpipe.contract.named import load

    found = load("source of values", source, SOURCES.get(source, source))
    values: Iterable[str] = found(given) if callable(found) else found
    return values


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    from click.shell_completion import CompletionItem

    table: Table = ctx.command.table  # type: ignore[attr-defined]
    before = list(ctx.params.get("words") or ())
    cut = ""  # bash has cut this off before the word, and does not want it back
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
    return any(key.name == word for key in table.keys_beside({}, word))


def offers(table: Table, word: str, given: Given) -> Iterator[tuple[str, str]]:
    """List completions of a word after the words before it: texts and their meanings."""
    name, separator, start = word.partition("=")
    if separator:
        for key in table.keys_beside(given, name):
            if key.name == name:
                yield from ((f"{name}={text}", "") for text in _values(key.kind, start, given))
        return
    for item in table.names(given, name):
        text, meaning = (item, "") if isinstance(item, str) else (f"{item.name}=", item.meaning)
        if text.startswith(name):
            yield text, meaning


def _values(kind: Kind, start: str, given: Given) -> Iterator[str]:
    """Values of a kind that begin with `start`; of a list, values of its last item."""
    done, comma, last = start.rpartition(",") if kind.listed else ("", "", start)
    for text in known_values(kind, given):
        if text.startswith(last) and text not in done.split(","):
            yield done + comma + text
    if kind.files:
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
