"""Splits drawn where a data set has none: by class, and near-duplicates together."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.contract.errors import BadImageError
from wsolpipe.images.ahead import map_ahead
from wsolpipe.images.decode import decode, read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
SIDE = 8
NEAR = 3
"""Bits of 64 by which the difference hashes of near-duplicates differ at most."""


def draw_splits(labels: Sequence[str], groups: Sequence[int], seed: int) -> list[str]:
    """Split of every image: each class in the shares of `SHARES`, as far as its groups allow.

    Parameters
    ----------
    labels : sequence of str
        Class of each image.
    groups : sequence of int
        Images of one group come into one split.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    of_class: dict[str, list[int]] = defaultdict(list)
    for group, places in members.items():
        of_class[labels[places[0]]].append(group)
    draw = random.Random(seed)
    found = ["train"] * len(labels)
    for label in sorted(of_class):
        order = sorted(of_class[label], key=lambda group: members[group][0])
        draw.shuffle(order)
        total = sum(len(members[group]) for group in order)
        for split in ("val", "test"):
            wanted = max(1, round(SHARES[split] * total)) if len(order) > 2 else 0
            while wanted > 0 and len(order) > 1:
                group = order.pop()
                wanted -= len(members[group])
                for place in members[group]:
                    found[place] = split
    return found


def near_groups(root: Path, paths: Sequence[str], threads: int = 4) -> list[int]:
    """Number of the group of near-duplicates of each image: those whose difference hashes are alike, and theirs.

    An image that cannot be read is a group of its own. The hash says of 8 x 8 places whether the next one to the right
    is brighter; Krawetz, "Kind of Like That", 2013.
    """

    def hashed(path: str) -> int | None:
        try:
            found = difference_hash(decode(read_file(f"{root}/{path}"), draft=(64, 64)))
        except (BadImageError, OSError):
            return None
        return found or None  # an even surface looks like any other

    found = list(map_ahead(hashed, paths, threads=threads))
    parents = list(range(len(paths)))

    def top(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    for part in range(4):  # two hashes that differ in three bits at most have one of their four parts in common
        buckets: dict[int, list[int]] = defaultdict(list)
        for place, value in enumerate(found):
            if value is not None:
                buckets[value >> 16 * part & 0xFFFF].append(place)
        for bucket in buckets.values():
            _join(bucket, np.array([found[place] for place in bucket], np.uint64), parents, top)
    return [top(place) for place in range(len(paths))]


def _join(bucket: list[int], values: NDArray[np.uint64], parents: list[int], top: Callable[[int], int]) -> None:
    for at, place in enumerate(bucket):
        alike = np.flatnonzero(np.bitwise_count(values[at + 1 :] ^ values[at]) <= NEAR)
        for other in alike.tolist():
            parents[top(bucket[at + 1 + other])] = top(place)


def difference_hash(pixels: NDArray[np.uint8]) -> int:
    """Sixty-four bits of an image [H, W, 3], alike for images that look alike."""
    from PIL import Image

    small = np.asarray(Image.fromarray(pixels).convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX), np.int16)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")
