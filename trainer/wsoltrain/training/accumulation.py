"""Several batches in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor

    from wsoltrain.methods.base import Batch


def group_batches(batches: Iterable[Batch], count: int) -> Iterator[list[Batch]]:
    """Batches, so many at a time; fewer at the end."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == count:
            yield group
            group = []
    if group:
        yield group


def add_up(sums: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    """Add numbers to sums of the same names, in place."""
    for name, value in more.items():
        sums[name] = sums[name] + value if name in sums else value
