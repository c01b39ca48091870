"""The order of an epoch: a permutation, seeded, shared fairly, and local enough to read whole chunks."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsolpipe.contract.errors import ConfigError
from wsoltrain.data.order import BatchOrder, Shuffle, draw_frames, epoch_order, rank_share

shuffles = st.builds(
    Shuffle, run_rows=st.integers(1, 9), lane_runs=st.integers(1, 4), lanes=st.integers(1, 4), unit=st.integers(1, 5)
)


def some_rows(total: int, share: float, seed: int) -> np.ndarray:
    return np.flatnonzero(np.random.default_rng(seed).random(total) < share)


@given(st.integers(1, 400), st.floats(0.05, 1), st.integers(0, 5), shuffles)
def test_an_epoch_visits_every_row_once(total, share, seed, shuffle):
    rows = some_rows(total, share, seed)
    order = epoch_order(rows, seed=seed, epoch=1, shuffle=shuffle)
    assert np.array_equal(np.sort(order), rows)


def test_seed_and_epoch_change_the_order_and_nothing_else_does():
    rows = np.arange(5000)
    first = epoch_order(rows, seed=3, epoch=0, shuffle=Shuffle())
    assert np.array_equal(first, epoch_order(rows, seed=3, epoch=0, shuffle=Shuffle()))
    for seed, epoch in ((3, 1), (4, 0)):
        assert (first != epoch_order(rows, seed=seed, epoch=epoch, shuffle=Shuffle())).mean() > 0.99
    assert np.array_equal(epoch_order(rows, seed=3, epoch=0, shuffle=None), rows)


def test_a_batch_of_a_sorted_data_set_mixes_its_classes():
    """Rows of real data sets are sorted by class: a batch must not come from a few neighbouring chunks."""
    rows = np.arange(1000 * 200)
    order = epoch_order(rows, seed=0, epoch=0, shuffle=Shuffle())
    classes = [len(set(batch // 200)) for batch in order[: 200 * 32].reshape(-1, 32)]
    assert np.mean(classes) > 25


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_each_loader_process_meets_the_chunks_of_its_own_lanes(workers):
    shuffle = Shuffle(run_rows=32, lane_runs=16, lanes=8, unit=32)
    rows = np.arange(8 * 16 * 32 * 3)
    batches = epoch_order(rows, seed=0, epoch=0, shuffle=shuffle).reshape(-1, 32)
    reads = sum(len(np.unique(batches[worker::workers] // 32)) for worker in range(workers))
    assert reads == len(rows) // 32  # no chunk is met by two of them


def test_open_chunks_stay_few_where_only_some_rows_take_part():
    shuffle = Shuffle(run_rows=32, lane_runs=8, lanes=2, unit=4)
    rows = some_rows(64_000, 1 / 32, 0)
    order = epoch_order(rows, seed=0, epoch=0, shuffle=shuffle)
    for start in range(0, len(order) - 64, 64):
        assert len(np.unique(order[start : start + 16] // 32)) <= 3 * shuffle.window_runs


@given(st.integers(1, 300), st.integers(1, 6), st.integers(1, 5), st.sampled_from(["drop", "pad"]))
def test_ranks_get_equally_many_and_together_everything(total, world, unit, uneven):
    order = np.random.default_rng(total).permutation(total)
    if total < world and uneven == "drop":
        with pytest.raises(ConfigError, match="cannot be shared"):
            rank_share(order, rank=0, world=world, unit=unit, uneven=uneven)
        return
    shares = [rank_share(order, rank=rank, world=world, unit=unit, uneven=uneven) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    seen = Counter(np.concatenate(shares).tolist())
    if uneven == "pad":
        assert set(seen) == set(range(total))
        assert sum(seen.values()) - total < world
    else:
        assert max(seen.values()) == 1
        assert total - len(seen) < world


@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_step_of_all_ranks_covers_what_one_process_with_the_global_batch_covers(world):
    order, batch = np.arange(640), 64
    shares = [rank_share(order, rank=rank, world=world, unit=16, uneven="drop") for rank in range(world)]
    steps = [share.reshape(-1, batch // world) for share in shares]
    for number in range(len(order) // batch):
        together = np.sort(np.concatenate([step[number] for step in steps]))
        assert np.array_equal(together, order[number * batch : (number + 1) * batch])


def test_one_frame_of_each_group_is_drawn_and_every_frame_is_as_likely():
    groups = np.array([0, 0, 0, 1, 1, -1, 2])
    rows = np.array([2, 3, 5, 7, 8, 11, 20])
    seen = Counter()
    for epoch in range(900):
        drawn = draw_frames(rows, groups, seed=1, epoch=epoch)
        assert len(drawn) == 4
        assert {11, 20} <= set(drawn)
        assert np.all(np.diff(drawn) > 0)
        seen.update(drawn.tolist())
    assert all(250 < seen[row] < 350 for row in (2, 3, 5))
    assert all(390 < seen[row] < 510 for row in (7, 8))


def test_a_batch_order_enters_an_epoch_anywhere():
    order = BatchOrder(batch_size=4, drop_last=False)
    order.rows = np.arange(11) * 10
    whole = [[pick.row for pick in batch] for batch in order]
    assert [len(batch) for batch in whole] == [4, 4, 3]
    order.position = 8
    assert [[pick.row for pick in batch] for batch in order] == whole[2:]
    assert len(order) == 1


def test_a_shuffle_without_extent_is_refused():
    with pytest.raises(ConfigError, match="lanes"):
        Shuffle(lanes=0)
