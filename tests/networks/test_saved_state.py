"""The file of a run's state: the same bytes for the same state, damage noticed, the one before it kept."""

from __future__ import annotations

import pytest
import torch

from wsolpipe.contract.errors import AccessError, DataError
from wsolpipe.networks.saved_state import previous, read_newest, read_state, write_state

TENSORS = {name: torch.arange(6.0) + at for at, name in enumerate(("zebra", "ant", "bee", "cow", "dog", "eel"))}


def test_the_same_state_gives_the_same_bytes_in_whatever_order(tmp_path):
    write_state(tmp_path / "a", TENSORS, {"step": 3, "best": 1.5}, kind="k/1")
    write_state(tmp_path / "b", dict(reversed(TENSORS.items())), {"best": 1.5, "step": 3}, kind="k/1")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    state, tensors = read_state(tmp_path / "a", kind="k/1")
    assert state == {"step": 3, "best": 1.5}
    assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())


def test_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "a"
    write_state(path, {"x": torch.arange(4.0)}, {"step": 1}, kind="k/1")
    good = path.read_bytes()
    for at in range(len(good)):
        data = bytearray(good)
        data[at] ^= 1 << (at % 8)
        path.write_bytes(data)
        try:
            state, tensors = read_state(path, kind="k/1")
        except DataError:
            continue
        assert (state, tensors["x"].tolist()) == ({"step": 1}, [0, 1, 2, 3]), at  # padding of the header


def test_of_a_damaged_file_the_one_before_it_is_taken(tmp_path):
    path = tmp_path / "a"
    for step in (1, 2):
        write_state(path, TENSORS, {"step": step}, kind="k/1")
    assert read_newest(path, kind="k/1")[0] == {"step": 2}
    path.write_bytes(path.read_bytes()[:-3])
    assert read_newest(path, kind="k/1")[0] == {"step": 1}
    assert not path.exists()
    assert read_newest(path, kind="k/1")[0] == {"step": 1}
    previous(path).unlink()
    assert read_newest(path, kind="k/1") is None


def test_a_state_of_another_kind_is_refused(tmp_path):
    write_state(tmp_path / "a", TENSORS, {}, kind="k/1")
    with pytest.raises(DataError, match="is not a saved state of k/2"):
        read_state(tmp_path / "a", kind="k/2")


def test_a_damaged_file_never_becomes_the_previous_one(tmp_path):
    path = tmp_path / "a"
    for step in (1, 2):
        write_state(path, TENSORS, {"step": step}, kind="k/1")
    path.write_bytes(path.read_bytes()[:-3])
    assert read_newest(path, kind="k/1")[0] == {"step": 1}
    write_state(path, TENSORS, {"step": 3}, kind="k/1")
    path.unlink()
    assert read_newest(path, kind="k/1")[0] == {"step": 1}


def test_a_file_that_may_not_be_read_is_not_taken_for_a_damaged_one(tmp_path):
    path = tmp_path / "a"
    path.symlink_to(path.name)
    previous(path).write_bytes(b"")
    with pytest.raises(AccessError, match="cannot be read"):
        read_newest(path, kind="k/1")
