"""Boxes of maps at all thresholds, kept in a file: the curves that they give are those of the maps."""

from __future__ import annotations

import numpy as np
import pytest

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.metrics.kept_maps import CutBoxes
from wsolpipe.metrics.maxbox import iou_curves_of

SIDE = 48


@pytest.fixture(scope="module")
def maps():
    """Noise, blobs with holes, a map with one level, and an empty one."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    blobs = [np.exp(-((x - a) ** 2 + (y - b) ** 2) * 20) * (1 - np.exp(-((x - a) ** 2 + (y - b) ** 2) * 200))
             for a, b in rng.random((6, 2))]  # fmt: skip
    return np.stack([*rng.random((6, SIDE, SIDE)), *blobs, (x > 0.5) * 1.0, np.zeros((SIDE, SIDE)), x * y * 0.01])


@pytest.fixture(scope="module")
def sets(maps):
    rng = np.random.default_rng(4)
    corners = np.sort(rng.uniform(0, SIDE, (2, len(maps), 2, 2)), axis=2).reshape(2, len(maps), 1, 4)
    two = [np.concatenate([one, one / 2]) for one in corners[0]]
    return [list(corners[0]), list(corners[1]), two, [np.zeros((0, 4))] * len(maps)]


@pytest.mark.parametrize("thresholds", [7, 200, 1000])
def test_curves_are_those_of_the_maps_to_the_last_bit(maps, sets, thresholds, tmp_path):
    kept = CutBoxes.joined([CutBoxes.of_maps([0, 1], SIDE, maps[:2]), CutBoxes.of_maps(range(2, 15), SIDE, maps[2:])])
    kept.write(tmp_path / "a" / "0001.npz")
    read = CutBoxes.read(tmp_path / "a" / "0001.npz")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["0001.npz"]
    assert read.rows.tolist() == list(range(15))
    expected = iou_curves_of(maps, sets, thresholds=thresholds, threads=1)
    assert expected[:3].max() > 0.3
    assert (read.curves(sets, thresholds=thresholds) == expected).all()


def test_smooth_maps_take_few_bytes(maps, tmp_path):
    smooth = [np.roll(maps[8], (place, -place), (0, 1)) for place in range(40)]
    CutBoxes.of_maps(range(40), SIDE, smooth).write(tmp_path / "x.npz")
    assert (tmp_path / "x.npz").stat().st_size < 40 * 255  # a byte a threshold


def test_damaged_files_and_other_files_are_refused(maps, sets, tmp_path):
    kept, path = CutBoxes.of_maps(range(15), SIDE, maps), tmp_path / "x.npz"
    kept.write(path)
    whole = path.read_bytes()
    with np.load(path, allow_pickle=False) as file:
        parts = dict(file)
    for damage in (whole[: len(whole) // 2], b"", b"text"):
        path.write_bytes(damage)
        with pytest.raises(DataError, match=r"x\.npz holds no boxes"):
            CutBoxes.read(path)
    for wrong in (
        {"rows": np.array([{}], object)},
        {"starts": parts["starts"][1:]},
        {"cut_steps": parts["cut_steps"][1:]},
    ):
        np.savez(path, **{**parts, **wrong})
        with pytest.raises(DataError, match=r"x\.npz"):
            CutBoxes.read(path)
    with pytest.raises(DataError, match="boxes of 15 maps"):
        kept.curves([sets[0][1:]])
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        kept.write(tmp_path / "file" / "x.npz")
