"""``wsolpipe push``, ``pull`` and ``publish``."""

from __future__ import annotations

import os
import shlex
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wsolpipe.cli.command import make_command
from wsolpipe.contract.errors import AccessError, ConfigError, StoreError, WsolError
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json, print_skipped, print_table, shown
from wsolpipe.keys.key import Key, keys_of_class, read_keys, require
from wsolpipe.keys.run_keys import DEFAULT_STORE, ROWS, SPLIT, STORE, RunConfig, names_list
from wsolpipe.launch.ending import EXIT_INTERRUPTED, stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wsolpipe.share.selection import Selection
    from wsolpipe.share.transfer import Result


STORED_DATASET = Key(
    kinds.name("name of a data set in the store", source="stored dataset"), name="dataset", meaning="only this data set"
)


class _SelectionKeys:
    """Keys that say which results of a store are meant.

    Attributes
    ----------
    stages
        only these stages
    keys
        newest finished keys and what they were made of; or all, or beginnings of keys
    jobs
        shards on their way at a time
    """

    dataset = STORED_DATASET
    stages = Key(kinds.list_of(kinds.name("name of a stage", source="stored stage")), (), otherwise="all but pixels")
    split = replace(SPLIT, meaning="only these splits")
    rows = ROWS
    keys = Key(kinds.text(offers=("newest", "all")), "newest")
    jobs = Key(kinds.integer(1, 256), 8)


class _CopyKeys:
    """Keys of ``wsolpipe push`` and ``pull``.

    Attributes
    ----------
    to
        where they go: a folder or s3://bucket/folder
    from_
        where they are: a folder, s3://bucket/folder, gs://, az://, hf://datasets/owner/name or https://host/folder
    check
        read what the target holds and replace what is damaged; false: compare sizes
    trust
        addresses, or digests of published checksums.txt, with commas; others are refused
    replace
        newer: replace shards of this store by later generations
    """

    to = Key(kinds.filled(kinds.file(kinds.STORE)))
    from_ = Key(kinds.filled(kinds.file(kinds.STORE)))
    check = Key(kinds.flag(), False)
    trust = Key(kinds.text())
    replace = Key(kinds.choice("never", "newer"), "never")


SELECTION_KEYS = keys_of_class(_SelectionKeys)
TO, FROM, CHECK, TRUST, REPLACE = keys_of_class(_CopyKeys)


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


def _resumable(source: str, act: Callable[[threading.Event], Result], heading: dict[str, Any], *, as_json: bool) -> int:
    """Print what `act` moves from the store `source`; on failure the last line is the command that resumes.

    Raises
    ------
    StoreError
        If there is no store at `source`: then there is nothing to resume.
    """
    from wsolpipe import open_store

    with suppress(AccessError):  # out of reach now, which `act` meets too
        open_store(source)
    stop = threading.Event()
    try:
        with stop_on_signals(stop):
            moved = act(stop)
        if as_json:
            print_json({**heading, **moved.to_json()})
        _show_transfer(moved, quiet=as_json)
        code = EXIT_INTERRUPTED if moved.stopped else StoreError.exit_code if moved.refused else 0
    except WsolError as error:
        if error.exit_code == ConfigError.exit_code or "--debug" in sys.argv:
            raise
        print(f"wsolpipe: {error}", file=sys.stderr)
        code = error.exit_code
    if code:
        print(f"resume with: {shlex.join(['wsolpipe', *sys.argv[1:]])}", file=sys.stderr)
    return code


def _print_folder(event: dict[str, Any]) -> None:
    """Print a line a folder on standard error."""
    where = event["split"] or "artifact"
    print(f"{event['stage']} of {where}: {event['moved']} moved, {event['same']} already there", file=sys.stderr)


def _show_transfer(moved: Result, *, quiet: bool) -> None:
    """Print a line a folder, unless `quiet`, then on standard error what was not moved and why."""
    if not quiet:
        columns = ["data set", "stage", "split", "key", "shards", "moved", "already there", "kept", "refused", "MiB"]
        rows = [
            [
                line.dataset, line.stage, line.split or "–", line.key, line.shards, line.moved, line.same,
                len(line.kept), len(line.refused), round(line.bytes / 2**20, 3),
            ]
            for line in moved.lines
        ]  # fmt: skip
        print_table(columns, rows)
    for line in moved.lines:
        if line.kept:
            shards = ", ".join(str(unit) for unit in line.kept[:10]) + (" …" if len(line.kept) > 10 else "")
            print(f"{line.stage} {line.key}: kept the target's own shards {shards}: other bytes", file=sys.stderr)
    print_skipped(moved.skipped)
    for text in moved.refused:
        print(f"refused: {shown(text)}", file=sys.stderr)
    if moved.retried:
        counts = ", ".join(f"{count} × {verb}" for verb, count in sorted(moved.retried.items()))
        print(f"requests sent again: {counts}", file=sys.stderr)


PUSH_KEYS = (TO, STORE, *SELECTION_KEYS, CHECK)


@make_command("push", keys=PUSH_KEYS, as_run=False)
def push_command(words: tuple[str, ...], as_json: bool) -> int:
    """Copy finished shards to another store: only those it lacks, checked, resumable."""
    from wsolpipe.share.transfer import push

    given = words_of(words, PUSH_KEYS)
    require(given, "wsolpipe push", to="s3://bucket/labels")
    wanted = selection_of(given)

    def act(stop: threading.Event) -> Result:
        how = {"check": given["check"], "jobs": given["jobs"], "emit": _print_folder, "stop": stop}
        return push(given["store"], given["to"], wanted, **how)

    return _resumable(given["store"], act, {"from": given["store"], "to": given["to"]}, as_json=as_json)


PULL_KEYS = (FROM, STORE, *SELECTION_KEYS, CHECK, TRUST, REPLACE)


@make_command("pull", keys=PULL_KEYS, as_run=False)
def pull_command(words: tuple[str, ...], as_json: bool) -> int:
    """Copy finished shards from another store; run then uses them as its own."""
    from wsolpipe.share.transfer import pull

    given = words_of(words, PULL_KEYS)
    require(given, "wsolpipe pull", **{"from": "s3://bucket/labels"})
    wanted = selection_of(given)

    def act(stop: threading.Event) -> Result:
        how = {"check": given["check"], "jobs": given["jobs"], "emit": _print_folder, "stop": stop}
        newer = given["replace"] == "newer"
        return pull(given["from"], given["store"], wanted, trust=given["trust"], newer=newer, **how)

    return _resumable(given["from"], act, {"from": given["from"], "to": given["store"]}, as_json=as_json)


class _AboutKeys:
    """Where results are published, and words about them for their card.

    Attributes
    ----------
    to
        where they go: a folder, s3://bucket/folder, gs://, az:// or hf://datasets/owner/name
    licence
        licence of the labels; needed where the data set's YAML names none
    title
        title of the card
    description
        what the labels are, for the card
    citation
        what to cite, for the card
    url
        address of the published store, for the card
    version
        version of the labels, for the card
    """

    to = Key(kinds.filled(kinds.file(kinds.STORE)))
    licence = Key(kinds.text())
    title = Key(kinds.text())
    description = Key(kinds.text())
    citation = Key(kinds.text())
    url = Key(kinds.text())
    version = Key(kinds.text())


PUBLISHED_TO, *ABOUT = keys_of_class(_AboutKeys)
PUBLISH_KEYS = (PUBLISHED_TO, STORE, *SELECTION_KEYS, *ABOUT)


@make_command("publish", keys=PUBLISH_KEYS, as_run=False)
def publish_command(words: tuple[str, ...], as_json: bool) -> int:
    """Push a data set's labels with a card, croissant.json and checksums, for anybody to pull."""
    from wsolpipe.share.card import About
    from wsolpipe.share.publish import publish

    given = words_of(words, PUBLISH_KEYS)
    require(given, "wsolpipe publish", to="s3://bucket/labels", dataset="birds")
    wanted = selection_of(given)
    about = About(given["dataset"], **{key.name: given[key.name] for key in ABOUT if given[key.name]})

    heading = {"from": given["store"], "to": given["to"]}

    def act(stop: threading.Event) -> Result:
        done = publish(given["store"], given["to"], wanted, about, jobs=given["jobs"], emit=_print_folder, stop=stop)
        heading.update(files=done.files, checksums=done.digest)
        return done.moved

    code = _resumable(given["store"], act, heading, as_json=as_json)
    if "checksums" in heading:
        print(
            f"published {heading['files']} files; others trust them with trust={heading['checksums']}", file=sys.stderr
        )
    return code
