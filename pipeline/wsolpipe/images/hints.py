"""Hints with the words of a command line in them: what raises them knows a store, and not what was typed."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import WsolError
from wsolpipe.contract.making import DATASET

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@contextmanager
def fill_hints(words: Iterable[str]) -> Iterator[None]:
    """Put the user's own words in the place of ``dataset=…`` and ``store=…`` in the hint of an error.

    A data set goes with its ``root=``. One that is named as a store names it stays open: ``run`` may not know it.
    """
    try:
        yield
    except WsolError as error:
        if error.hint:
            error.hint = _filled(error.hint, dict(word.split("=", 1) for word in words if "=" in word))
        raise


def _filled(hint: str, given: dict[str, str]) -> str:
    if given.get("store"):
        hint = hint.replace("store=…", shlex.quote(f"store={given['store']}"))
    if DATASET not in hint or not _is_described(given.get("dataset", "")):
        return hint
    return hint.replace(DATASET, shlex.join(f"{name}={given[name]}" for name in ("dataset", "root") if given.get(name)))


def _is_described(name: str) -> bool:
    """Whether `name` is the path of a description, or the name of one that comes with the package."""
    from wsolpipe.images.dataset import is_path, known_datasets

    return is_path(name) or name in known_datasets()
