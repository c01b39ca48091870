"""Taking finished shards from another store."""

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


def pull(
    source: str,
    store: str,
    wanted: Selection,
    *,
    trust: str | None = None,
    newer: bool = False,
    jobs: int,
    emit: Callable[[dict[str, Any]], None],
    stop: threading.Event,
) -> Moved:
    """Move what `wanted` says from the store `source` to `store`, as far as `store` lacks it.

    Parameters
    ----------
    trust : str, optional
        As `Trust.of` takes it.
    newer : bool
        Whether a later generation there takes the place of a shard here; if not, every shard that is here stays.

    Raises
    ------
    WsolError
        If a store is out of reach, there is none at `source`, it is not trusted, or `wanted` names what is not there.
    """
    origin = open_store(source).backend
    return Transfer(origin, open_backend(store), wanted, Trust.of(origin, trust), newer, jobs, emit, stop).run()
