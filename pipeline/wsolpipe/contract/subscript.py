"""Numpy's indexing of an array that is read by rows: which rows an index needs, and the index of what was read."""

from __future__ import annotations

from types import EllipsisType
from typing import Any

import numpy as np

Rows = slice | np.ndarray[Any, np.dtype[np.int64]]


def split_index(index: Any, shape: tuple[int, ...]) -> tuple[Rows, tuple[Any, ...]]:
    """Split an index into the rows to read and an index into these rows.

    For every index that numpy takes, ``array[rows][rest]`` equals ``array[index]``.

    Parameters
    ----------
    index : int, slice, Ellipsis, None, sequence, array, or tuple of these
        As numpy's: negative numbers count from the end, boolean arrays are masks.
    shape : tuple of int
        Of the array.

    Returns
    -------
    rows : slice with a positive step, or int64 [n], ascending and unique
    rest : tuple
        To be applied to the array of these rows.

    Raises
    ------
    IndexError
        If a row is out of range, a mask has another shape than the array, or rows are not numbers.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    at = next((place for place, part in enumerate(parts) if part is not None), len(parts))
    before, first, after = parts[:at], parts[at] if at < len(parts) else Ellipsis, parts[at + 1 :]
    if isinstance(first, EllipsisType):
        given = sum(1 if not _is_mask(part) else np.ndim(part) for part in after if part is not None)
        if given >= len(shape):  # an ellipsis of no axes, kept: with it numpy returns an array, without it a scalar
            rows, rest = split_index(tuple(after), shape)
            return rows, (*before, ..., *rest)
        return slice(0, shape[0], 1), (*before, ..., *after)
    if isinstance(first, slice):
        start, stop, step = first.indices(shape[0])
        numbers = range(start, stop, step)
        if step < 0:
            return _as_slice(numbers[::-1]), (*before, slice(None, None, -1), *after)
        return _as_slice(numbers), (*before, slice(None), *after)
    if _is_mask(first):
        return _split_mask(np.asarray(first), shape, before, after)
    return _split_numbers(first, shape, before, after)


def _as_slice(numbers: range) -> slice:
    return slice(numbers[0], numbers[-1] + 1, numbers.step) if numbers else slice(0, 0, 1)


def _is_mask(part: Any) -> bool:
    return not isinstance(part, (slice, EllipsisType)) and part is not None and np.asarray(part).dtype == bool


def _split_mask(
    mask: np.ndarray[Any, Any], shape: tuple[int, ...], before: list[Any], after: list[Any]
) -> tuple[Rows, tuple[Any, ...]]:
    if mask.ndim == 0 or mask.shape != shape[: mask.ndim]:
        msg = f"a mask of shape {mask.shape} cannot index an array of shape {shape}"
        raise IndexError(msg)
    rows = np.flatnonzero(mask.any(axis=tuple(range(1, mask.ndim))))
    return rows, (*before, mask[rows], *after)


def _split_numbers(
    first: Any, shape: tuple[int, ...], before: list[Any], after: list[Any]
) -> tuple[Rows, tuple[Any, ...]]:
    numbers = np.asarray(first)
    if numbers.size == 0 and not isinstance(first, np.ndarray):
        numbers = numbers.astype(np.int64)  # numpy takes an empty list for an index of nothing
    if numbers.dtype.kind not in "iu":
        msg = f"rows are taken by integers, slices and masks, not by {numbers.dtype}"
        raise IndexError(msg)
    wrong = (numbers < -shape[0]) | (numbers >= shape[0])
    if wrong.any():
        msg = f"row {numbers[wrong].flat[0]} of {shape[0]}"
        raise IndexError(msg)
    numbers = np.where(numbers < 0, numbers + shape[0], numbers).astype(np.int64)
    if isinstance(first, (int, np.integer)):
        return slice(int(numbers), int(numbers) + 1, 1), (*before, 0, *after)
    rows, places = np.unique(numbers, return_inverse=True)
    return rows, (*before, places.reshape(numbers.shape), *after)
