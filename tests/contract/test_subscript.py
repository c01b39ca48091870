"""An index of an array that is read by rows means what numpy means by it, or is refused as numpy refuses it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsolpipe.contract.subscript import split_index


def take(array, index):
    """What a reader does: the rows first, then what is left of the index."""
    rows, rest = split_index(index, array.shape)
    read = array[rows]
    return read[rest], len(read)


@st.composite
def arrays_and_indices(draw):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=6))
    array = np.arange(np.prod(shape)).reshape(shape)
    basic = hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True)
    integers = hnp.integer_array_indices(shape)
    first = st.lists(st.integers(-shape[0], shape[0] - 1), max_size=8)
    mask = st.integers(1, len(shape)).flatmap(lambda ndim: hnp.arrays(bool, shape[:ndim]))
    mixed = st.tuples(first.map(lambda rows: np.array(rows, np.int64)), basic_tail(shape))
    index = draw(st.one_of(basic, integers, first, mask, mixed.map(lambda parts: (parts[0], *parts[1]))))
    return array, index


def basic_tail(shape):
    if len(shape) == 1:
        return st.just(())
    return hnp.basic_indices(shape[1:], allow_newaxis=False).map(
        lambda index: index if isinstance(index, tuple) else (index,)
    )


@given(arrays_and_indices())
def test_every_index_gives_what_numpy_gives(given):
    array, index = given
    found, read = take(array, index)
    expected = array[index]
    assert np.shape(found) == np.shape(expected)
    np.testing.assert_array_equal(found, expected)
    assert read <= len(array)


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        ((0, 0), 1), (slice(2, 4), 2), ((slice(9, 1, -3), 0), 3), ([7, 7, -1], 2), ((..., 0), 10), (-1, 1),
        ([], 0), ((None, 3, 1), 1), ((np.array([[1, 2], [2, 1]]), 0), 2), (slice(8, 2), 0), ((..., 3, 1, 2), 1),
    ],
)  # fmt: skip
def test_only_the_rows_that_an_index_needs_are_read(index, rows):
    array = np.arange(10 * 3 * 4).reshape(10, 3, 4)
    found, read = take(array, index)
    np.testing.assert_array_equal(found, array[index])
    assert read == rows


@pytest.mark.parametrize(
    "index", [10, -11, [0, 10], 1.5, [0.5], "boxes", np.zeros(9, bool), np.zeros((10, 2), bool), (0, 3), (0, 0, 0, 0)]
)
def test_an_index_that_numpy_refuses_is_refused(index):
    array = np.zeros((10, 3, 4))
    with pytest.raises(IndexError):
        array[index]
    with pytest.raises(IndexError):
        take(array, index)
