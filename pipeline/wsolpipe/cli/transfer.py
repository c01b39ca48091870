"""Keys and messages that ``push``, ``pull`` and ``publish`` share."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import AccessError, ConfigError, WsolError
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key, read_keys
from wsolpipe.keys.run_keys import DEFAULT_STORE, ROWS, SPLIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wsolpipe.share.selection import Selection
    from wsolpipe.share.transfer import Result

SELECTION_KEYS = (
    Key("dataset", kinds.name("name of a data set in the store", source="stored dataset"), "only this data set"),
    Key(
        "stages", kinds.list_of(kinds.name("name of a stage", source="stored stage")), "only these stages", (),
        otherwise="all but pixels",
    ),
    replace(SPLIT, meaning="only these splits"),
    ROWS,
    Key(
        "keys", kinds.text(offers=("newest", "all")),
        "newest finished keys and what they were made of; or all, or beginnings of keys", "newest",
    ),
    Key("jobs", kinds.integer(1, 256), "shards on their way at a time", 8),
)  # fmt: skip
CHECK = Key(
    "check", kinds.flag(), "read what the target holds and replace what is damaged; false: compare sizes", False
)
DAMAGED, PENDING, INTERRUPTED = 4, 2, 130


def words_of(words: Iterable[str], keys: tuple[Key, ...]) -> dict[str, Any]:
    """Values of `keys`, given or default; ``stage=`` is an alias of ``stages=``.

    Raises
    ------
    ConfigError
        As `wsolpipe.keys.key.read_keys`.
    """
    words = [f"stages={word.removeprefix('stage=')}" if word.startswith("stage=") else word for word in words]
    values = read_keys(words, keys)
    values["store"] = values["store"] or os.environ.get("WSOLPIPE_STORE", DEFAULT_STORE)
    return values


def _span(word: str | None) -> tuple[int, int | None]:
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.keys.row_list import names_list
    from wsolpipe.keys.run_keys import RunConfig

    if names_list(word):
        msg = f"rows={word}: whole shards are moved, not the images of a list"
        raise ConfigError(msg, hint="rows=start:stop moves the shards that hold any of these rows")
    return RunConfig(rows=word).row_range()


def selection_of(given: dict[str, Any]) -> Selection:
    """Selection that the words name."""
    from wsolpipe.share.selection import Selection

    return Selection(
        dataset=given["dataset"] or "",
        stages=given["stages"],
        splits=given["split"],
        rows=_span(given.get("rows")),
        keys=given.get("keys", "newest"),
    )


def resumable(source: str, act: Callable[[], int]) -> int:
    """Run `act`, which reads the store `source`; on failure the last line is the command that resumes.

    Raises
    ------
    StoreError
        If there is no store at `source`: then there is nothing to resume.
    """
    from wsolpipe import open_store

    with suppress(AccessError):  # out of reach now, which `act` meets too
        open_store(source)
    resume = shlex.join(["wsolpipe", *sys.argv[1:]])
    try:
        code = act()
    except WsolError as error:
        if error.exit_code == ConfigError.exit_code or "--debug" in sys.argv:
            raise
        print(f"wsolpipe: {error}", file=sys.stderr)
        code = error.exit_code
    if code:
        print(f"resume with: {resume}", file=sys.stderr)
    return code


def print_folder(event: dict[str, Any]) -> None:
    """Print a line a folder on standard error."""
    where = event["split"] or "artifact"
    print(f"{event['stage']} of {where}: {event['moved']} moved, {event['same']} already there", file=sys.stderr)


def show(moved: Result, heading: dict[str, Any], *, as_json: bool) -> int:
    """Print the outcome of a transfer; return the exit code."""
    from wsolpipe.share.store_tables import show_transfer

    if as_json:
        print_json({**heading, **moved.to_json()})
    show_transfer(moved, quiet=as_json)
    if moved.stopped:
        return INTERRUPTED
    return DAMAGED if moved.refused else 0
