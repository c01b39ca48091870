"""Images in any order, decoded ahead of whoever uses them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import BadImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


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
        How many work at once.
    failed : callable
        Told (position, reason) of each image that cannot be decoded; it is left out.

    Yields
    ------
    positions, images
        Positions that came through, and their arrays stacked. A batch of which nothing came through is not yielded.
    """

    def one(position: int) -> NDArray[Any] | BadImageError:
        try:
            return prepare(load(position), position)
        except BadImageError as error:
            return error

    groups = [chosen[start : start + batch] for start in range(0, len(chosen), batch)]
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        pending = [[pool.submit(one, position) for position in group] for group in groups[:2]]
        try:
            for number, group in enumerate(groups):
                results = [future.result() for future in pending.pop(0)]
                pending += [[pool.submit(one, position) for position in later] for later in groups[number + 2 :][:1]]
                good: list[tuple[int, NDArray[Any]]] = []
                for position, result in zip(group, results, strict=True):
                    if isinstance(result, BadImageError):
                        failed(position, result.message)
                    else:
                        good.append((position, result))
                if good:
                    yield [position for position, _ in good], np.stack([image for _, image in good])
        finally:
            for futures in pending:
                for future in futures:
                    future.cancel()
