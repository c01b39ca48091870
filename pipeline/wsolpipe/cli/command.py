"""What every command shares: ``key=value`` words with help and completion, ``--json``, ``--debug``, tables."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.images.hints import fill_hints
from wsolpipe.keys.console import shown
from wsolpipe.keys.run_keys import RUN_KEYS
from wsolpipe.keys.shell import KeyCommand, Section, words_argument
from wsolpipe.keys.word_file import CONFIG, expand_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rich.table import Table

    from wsolpipe.engine.config import RunConfig
    from wsolpipe.keys.key import Key

Body = Callable[[tuple[str, ...], bool], int]
_KEY = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{8}\b")
_NUMBER = re.compile(r"[+-]?\d[\d,]*(\.\d+)?")
#: Characters that a column of text keeps beside columns of single words.
LEAST_TEXT = 14
_NOTHING = ("–", "", "0", "0.000", "0 s")


@dataclass(frozen=True)
class PipelineTable:
    """Keys of one command of the pipeline; see `wsolpipe.keys.shell.Table`.

    Attributes
    ----------
    keys : tuple of Key
        Of this command alone.
    listed : tuple of str or Key
        Keys of a run that its help lists; a `Key` where this command's default or meaning is another.
    as_run : bool
        Whether it takes all words of ``run``, those of stages included.
    positional : str
        Source of its words without ``=``, such as ``stage``; empty where it has none.
    """

    keys: tuple[Key, ...]
    listed: tuple[str | Key, ...]
    as_run: bool
    positional: str = ""

    def sections(self, given: Mapping[str, str]) -> Iterator[Section]:
        """Own keys and those of a run, then the parameters of the stages that are named."""
        run = {key.name: key for key in RUN_KEYS}
        found = (*(self._named(run[key] if isinstance(key, str) else key) for key in self.listed), *self.keys)
        yield Section("Keys", (*found, CONFIG))
        if not self.as_run:
            return
        stages = [name.strip() for name in given.get("stage", "").split(",") if name.strip() not in {"", "index"}]
        for stage in stages:
            yield Section(f"Parameters of the stage {stage}", self._parameters(stage, given))
        if not stages:
            more = "Other keys of run are accepted too. " if len(self.listed) < len(RUN_KEYS) else ""
            note = f"{more}stage.parameter=value, as in cls_maps.size=448; add stage=NAME to --help to list them."
            yield Section("Parameters of stages", (), note)

    def names(self, given: Mapping[str, str], start: str) -> Iterator[Key | str]:
        """All keys, and names of stages with a dot; parameters of a stage after its name and a dot."""
        stage, dot, _ = start.partition(".")
        if self.as_run and dot:
            yield from self._parameters(stage, given)
            return
        if self.positional:
            yield from self.look_up(self.positional, given)
        yield from (*self.keys, CONFIG)
        if self.as_run:
            yield from RUN_KEYS
            yield from (f"{name}." for name in (*self._registry(given).entries, "profile"))

    def look_up(self, source: str, given: Mapping[str, str]) -> Iterable[str]:
        """Data sets, splits and stages, of the package or of the store."""
        if source == "cluster":
            from wsolpipe.engine.clusters import CLUSTERS

            return CLUSTERS
        if source == "action":
            return ("list", "retry", "drop")
        if source == "key":
            return ()
        if source == "stage":
            return ["index", *self._registry(given).entries]
        from wsolpipe.images import offers

        return {
            "dataset": offers.offered_datasets,
            "split": offers.offered_splits,
            "stored dataset": offers.stored_datasets,
            "stored stage": offers.stored_stages,
        }[source](given)

    def takes_list(self, name: str) -> bool:
        """Whether a key of this command takes several values with commas between them."""
        own = {key.name for key in self.keys}
        known = (*self.keys, *(key for key in RUN_KEYS if self.as_run and key.name not in own))
        return any(key.name == name and key.kind.listed for key in known)

    def _named(self, key: Key) -> Key:
        """A key with the names of all clusters as its kind, if that is what it takes."""
        if key.kind.source != "cluster":
            return key
        names = ", ".join(self.look_up("cluster", {}))
        return replace(key, kind=replace(key.kind, name=f"{names} or tcp://HOST:PORT"))

    @staticmethod
    def _registry(given: Mapping[str, str]) -> Any:
        from wsolpipe.stages.registry import load_registry

        return load_registry(given.get("stages"))

    def _parameters(self, stage: str, given: Mapping[str, str]) -> tuple[Key, ...]:
        if stage == "profile":
            from wsolpipe.keys.models import keys_of
            from wsolpipe.launch.profiles import Profile

            return keys_of(Profile, prefix="profile.")
        found: tuple[Key, ...] = self._registry(given).keys(stage)
        return found


def configure(words: Iterable[str], keys: tuple[Key, ...] = ()) -> tuple[RunConfig, dict[str, Any]]:
    """Configuration of a command and the values of its own keys, from its words.

    Raises
    ------
    ConfigError
        As `wsolpipe.engine.config.build_config`.
    """
    from wsolpipe.engine.config import build_config
    from wsolpipe.keys.values import split_words
    from wsolpipe.stages.registry import load_registry

    words = tuple(words)
    return build_config(words, load_registry(split_words(words).get("stages")), also=keys)


def make_command(
    name: str,
    *,
    keys: tuple[Key, ...] = (),
    listed: tuple[str | Key, ...] = (),
    as_run: bool = True,
    positional: str = "",
) -> Callable[[Body], click.Command]:
    """Turn a function of (words, as_json) that returns an exit code into a command; its docstring is the help.

    Parameters
    ----------
    keys : tuple of Key
        Keys of this command alone.
    listed : tuple of str or Key
        Keys of a run that its help lists; a `Key` where this command's default or meaning is another.
    as_run : bool
        Whether the command takes all words of ``run``, those of stages included.
    positional : str
        Source of its words without ``=``, such as ``stage``; empty where it has none.
    """

    table = PipelineTable(keys, listed, as_run, positional)

    def decorate(body: Body) -> click.Command:
        def call(words: tuple[str, ...], as_json: bool, debug: bool) -> None:  # noqa: ARG001, FBT001
            words = expand_words(words, table.takes_list)
            with fill_hints(words):
                sys.exit(body(words, as_json))

        return KeyCommand(
            name,
            table=table,
            callback=call,
            help=body.__doc__,
            context_settings={"help_option_names": ["-h", "--help"]},
            params=[
                words_argument(),
                click.Option(
                    ["--json", "as_json"], is_flag=True, help="Result as JSON on standard output; all else on stderr."
                ),
                click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
            ],
        )

    return decorate


def print_table(columns: list[str], rows: list[list[Any]], *, title: str | None = None, wide: bool = False) -> None:
    """A table on standard output, numbers to the right.

    Where it is wider than the terminal, keys are cut to their first eight digits, and columns in which no row says
    anything are left out.

    Parameters
    ----------
    wide : bool
        Show everything, however long the lines.
    """
    from rich.console import Console

    numeric = [bool(rows) and all(_is_number(row[number]) for row in rows) for number in range(len(columns))]
    cells = [[_text(value) for value in row] for row in rows]
    console = Console()
    width = console.width if console.is_terminal else 160
    if not wide and _width(columns, cells) > width:
        cells = [[_KEY.sub(r"\1", text) for text in row] for row in cells]
        columns, cells, numeric = _without_empty_columns(columns, cells, numeric)
    if wide:
        width = max(width, _width(columns, cells))
    Console(width=width).print(_build_table(columns, cells, numeric, title, width))


def _build_table(
    columns: list[str], cells: list[list[str]], numeric: list[bool], title: str | None, width: int
) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, right, whole in zip(columns, numeric, _unbroken(columns, cells, width), strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=whole)
    for row in cells:
        table.add_row(*map(escape, row))
    return table


def _unbroken(columns: list[str], cells: list[list[str]], width: int) -> list[bool]:
    """Columns of single words, which stay on one line where that leaves the others `LEAST_TEXT` characters each."""
    words = [not any(" " in cell for cell in column) for column in zip(columns, *cells, strict=True)]
    own = [max(map(len, column)) + 3 for column in zip(columns, *cells, strict=True)]
    needed = sum(size if whole else min(size, LEAST_TEXT + 3) for size, whole in zip(own, words, strict=True))
    return words if needed <= width else [False] * len(columns)


def _width(columns: list[str], cells: list[list[str]]) -> int:
    """Characters of a line: the longest cell of each column, a space on either side, and one between columns."""
    return sum(max(map(len, column)) + 3 for column in zip(columns, *cells, strict=True))


def _without_empty_columns(
    columns: list[str], cells: list[list[str]], numeric: list[bool]
) -> tuple[list[str], list[list[str]], list[bool]]:
    """Leave out the columns in which every row says nothing."""
    kept = [at for at in range(len(columns)) if any(row[at] not in _NOTHING for row in cells)]
    return [columns[at] for at in kept], [[row[at] for at in kept] for row in cells], [numeric[at] for at in kept]


def print_skipped(folders: Iterable[str]) -> None:
    """A line on standard error for each folder of a store that is none of its own."""
    for name in folders:
        print(f"skipped: folder {shown(name)}: its name cannot belong to a store", file=sys.stderr)


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return shown(str(value))
