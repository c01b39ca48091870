"""Images made ahead keep their order, and a bad one costs nobody but itself."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from wsolpipe.contract.errors import BadImageError
from wsolpipe.images.video import prepare_ahead


def load(position: int) -> np.ndarray:
    if position % 5 == 3:
        msg = f"file {position} ends early"
        raise BadImageError(msg)
    time.sleep(0.001 * (position % 3))
    return np.full((2, 2, 3), position, np.uint8)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("batch", [1, 3, 50])
def test_order_is_kept_and_bad_images_are_told(threads, batch):
    chosen, failed = [9, 3, 0, 7, 13, 3, 1, 20, 2], {}
    given = list(
        prepare_ahead(chosen, load, lambda image, _: image + 1, batch=batch, threads=threads, failed=failed.__setitem__)
    )
    assert [position for positions, _ in given for position in positions] == [9, 0, 7, 1, 20, 2]
    for positions, images in given:
        assert images[:, 0, 0, 0].tolist() == [position + 1 for position in positions]
    assert failed == {3: "file 3 ends early", 13: "file 13 ends early"}


def test_only_two_batches_are_made_ahead():
    started: list[int] = []
    lock = threading.Lock()

    def count(position: int) -> np.ndarray:
        with lock:
            started.append(position)
        return np.zeros(1, np.uint8)

    images = prepare_ahead(list(range(100)), count, lambda image, _: image, batch=4, threads=2, failed=lambda *_: None)
    next(images)
    time.sleep(0.05)
    assert len(started) <= 12
    images.close()


def test_other_errors_are_not_swallowed():
    def broken(position: int) -> np.ndarray:
        raise MemoryError

    with pytest.raises(MemoryError):
        list(prepare_ahead([1], broken, lambda image, _: image, batch=2, threads=1, failed=lambda *_: None))
