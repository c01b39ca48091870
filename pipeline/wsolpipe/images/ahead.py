"""Work on images done in threads ahead of its consumer, in order: the one decoding pool of both halves."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from wsolpipe.contract.errors import BadImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

T = TypeVar("T")
R = TypeVar("R")
#: Default number of items per thread submitted before the first result is taken.
ITEMS_A_THREAD = 4


def map_ahead(work: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int | None = None) -> Generator[R]:
    """Results of `work` in the order of `items`, computed in threads before they are asked for.

    Parameters
    ----------
    work : callable
        Runs in a thread; its exceptions are raised here, in place of its result.
    items : iterable
        Read as far as work is submitted.
    threads : int
        Items worked on at once.
    ahead : int, optional
        Items submitted beyond those whose results were taken; default `ITEMS_A_THREAD` a thread.
    """
    from concurrent.futures import ThreadPoolExecutor

    window = max(1, ITEMS_A_THREAD * threads if ahead is None else ahead)
    source = iter(items)
    with ThreadPoolExecutor(max(1, threads), thread_name_prefix="decode") as pool:
        pending = deque(pool.submit(work, item) for item in islice(source, window))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(work, item) for item in islice(source, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()


def prepare_ahead(
    chosen: Sequence[int],
    load: Callable[[int], Pixels],
    prepare: Callable[[Pixels, int], NDArray[Any]],
    *,
    batch: int,
    threads: int,
    failed: Callable[[int, str], None],
) -> Iterator[tuple[list[int], NDArray[Any]]]:
    """Load and prepare images in threads, two batches ahead.

    Parameters
    ----------
    chosen : sequence of int
        Positions in the order wanted.
    load : callable
        Position -> uint8 [H, W, 3]; may raise BadImageError.
    prepare : callable
        (image, position) -> array of one shape for all.
    batch : int
        Positions a batch; the last may be shorter.
    threads : int
        Images worked on at once.
    failed : callable
        Called with (position, reason) for each image that cannot be decoded; it is left out.

    Yields
    ------
    positions, images
        Positions that could be decoded, and their arrays stacked. A batch without any is not yielded.
    """

    def attempt(position: int) -> NDArray[Any] | BadImageError:
        try:
            return prepare(load(position), position)
        except BadImageError as error:
            return error

    results = map_ahead(attempt, chosen, threads=threads, ahead=2 * batch)
    for start in range(0, len(chosen), batch):
        good: list[tuple[int, NDArray[Any]]] = []
        for position, result in zip(chosen[start : start + batch], results, strict=False):
            if isinstance(result, BadImageError):
                failed(position, result.message)
            else:
                good.append((position, result))
        if good:
            yield [position for position, _ in good], np.stack([image for _, image in good])
