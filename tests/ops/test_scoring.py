"""Scores of crops: what is kept of finished batches spares the forward and changes no bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsolpipe.ops.scoring import BoxScorer

SIDE, BATCH = 16, 8


class Net:
    """Two classes by a random linear layer; counts its forwards."""

    memory_format = torch.contiguous_format

    def __init__(self) -> None:
        self.weight = torch.randn(3 * SIDE * SIDE, 2, generator=torch.Generator().manual_seed(0)) / 50
        self.forwards = 0

    def normalise(self, images):
        return images.permute(0, 3, 1, 2).float() / 255

    def __call__(self, inputs):
        self.forwards += 1
        return inputs.flatten(1) @ self.weight


class Kept(dict):
    """Parts in memory, always due."""

    def due(self):
        return True

    keep = dict.update


def score(net, parts, *, check=lambda scorer: None, first_row=0):
    rng = np.random.default_rng(0)
    scorer = BoxScorer(
        net, size=SIDE, device="cpu", kernel=5, sigma=2.0, batch=BATCH, parts=parts, check=lambda: check(scorer)
    )  # fmt: skip
    for row in range(first_row, first_row + 5):
        low = rng.integers(0, SIDE // 2, (7, 2))
        boxes = np.concatenate([low, low + rng.integers(2, SIDE // 2, (7, 2))], axis=1)
        scorer.add(rng.integers(0, 255, (1, SIDE, SIDE, 3), dtype=np.uint8), [boxes], [row % 2], [row])
    return scorer.finish()


def test_kept_batches_are_not_scored_again_and_no_bit_differs():
    whole, net, parts = score(Net(), None), Net(), Kept()

    done = []

    def stop(scorer):
        done.append(scorer.done)
        if net.forwards == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(net, parts, check=stop)
    assert done == [1, 2, 3]  # of 8, 16 and 24 crops, 7 an image
    again = Net()
    assert np.array_equal(score(again, parts), whole)
    assert again.forwards == 5 - 3


def test_batches_of_other_rows_are_not_taken_for_kept_ones():
    parts = Kept()
    score(Net(), parts)
    net = Net()
    score(net, parts, first_row=2)
    assert net.forwards == 5
