"""What ``push``, ``pull`` and ``publish`` have in common on the command line."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

from wsolpipe.cli.command import print_json, print_table, shown
from wsolpipe.contract.errors import ConfigError, WsolError
from wsolpipe.contract.nearest import unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsolpipe.share.selection import Selection
    from wsolpipe.share.transfer import Result

SELECTION_KEYS = ("dataset", "stages", "split", "rows", "keys")
DEFAULT_JOBS = 8
DAMAGED, PENDING, INTERRUPTED = 4, 2, 130


def words_of(words: tuple[str, ...], valid: tuple[str, ...]) -> dict[str, str]:
    """``key=value`` words of a command that knows only `valid`; ``stage=`` may stand for ``stages=``.

    Raises
    ------
    ConfigError
        If a key is unknown or given twice.
    """
    from wsolpipe.engine.config import DEFAULT_STORE
    from wsolpipe.keys.values import split_words

    given = split_words(words)
    if "stage" in given and "stages" not in given:
        given["stages"] = given.pop("stage")
    for key in given:
        if key not in valid:
            raise ConfigError(unknown("key", key, valid))
    given.setdefault("store", os.environ.get("WSOLPIPE_STORE", DEFAULT_STORE))
    return given


def selection_of(given: dict[str, str]) -> Selection:
    """Selection that the words name."""
    from wsolpipe.engine.config import RunConfig
    from wsolpipe.share.selection import Selection

    return Selection(
        dataset=given.get("dataset", ""),
        stages=_parts(given.get("stages", "")),
        splits=_parts(given.get("split", "")),
        rows=RunConfig(rows=given.get("rows")).row_range(),
        keys=given.get("keys", "newest"),
    )


def jobs_of(given: dict[str, str]) -> int:
    """``jobs=``, the shards on their way at a time."""
    text = given.get("jobs", str(DEFAULT_JOBS))
    if not text.isdigit() or not 1 <= int(text) <= 256:
        msg = f"jobs={text}: expected a number from 1 to 256"
        raise ConfigError(msg)
    return int(text)


def check_of(given: dict[str, str]) -> bool:
    """``check=``, whether to read what the target holds."""
    text = given.get("check", "false")
    if text not in {"true", "false"}:
        msg = f"check={text}: write check=true or check=false"
        raise ConfigError(msg)
    return text == "true"


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def resumable(act: Callable[[], int]) -> int:
    """Run `act`; on failure the last line is the command that goes on."""
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
    if as_json:
        print_json({**heading, **moved.to_json()})
    else:
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
    for name in moved.skipped:
        print(f"skipped: folder {shown(name)}: its name is not one of a store", file=sys.stderr)
    for text in moved.refused:
        print(f"refused: {shown(text)}", file=sys.stderr)
    if moved.retried:
        counts = ", ".join(f"{count} × {verb}" for verb, count in sorted(moved.retried.items()))
        print(f"requests sent again: {counts}", file=sys.stderr)
    if moved.stopped:
        return INTERRUPTED
    return DAMAGED if moved.refused else 0
