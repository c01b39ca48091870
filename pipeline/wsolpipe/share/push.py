"""Giving finished shards to another store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsolpipe.contract.backends.base import open_backend
from wsolpipe.contract.reader import open_store
from wsolpipe.share.transfer import Transfer
from wsolpipe.share.trust import Trust

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from wsolpipe.share.result import Moved
    from wsolpipe.share.selection import Selection


def push(
    store: str, to: str, wanted: Selection, *, jobs: int, emit: Callable[[dict[str, Any]], None], stop: threading.Event
) -> Moved:
    """Move what `wanted` says from `store` to the store `to`, as far as `to` lacks it.

    A shard that was made again here, as a later generation, takes the place of its earlier one there; any other shard
    that is there with other bytes stays.

    Raises
    ------
    WsolError
        If a store is out of reach, there is none at `store`, `to` is not writable, or `wanted` names what is not there.
    """
    target = open_backend(to)
    return Transfer(open_store(store).backend, target, wanted, Trust(), True, jobs, emit, stop).run()
