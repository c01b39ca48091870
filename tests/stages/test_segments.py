"""The stage ``segments``: every method, sizes in a store, wrong parameters."""

from __future__ import annotations

import numpy as np
import pytest

from stages.drawn import draw
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.layout import Shards
from wsolpipe.contract.schema import CHECKSUM, Status
from wsolpipe.engine.encoding import encode_shard
from wsolpipe.images.decode import decode
from wsolpipe.images.geometry import resize
from wsolpipe.ops.segmentation import felzenszwalb
from wsolpipe.stages.base import Context, Rows
from wsolpipe.stages.registry import load_registry
from wsolpipe.stages.segments import Segments

SMALL_DIC = {
    "method": "dic", "size": 48, "dic_size": 32, "dic_superpixels": 100, "dic_width": 4, "dic_labels": 8,
    "dic_bases": 4, "dic_steps": 6,
}  # fmt: skip


def stage(**given):
    return Segments(load_registry().params("segments", given), Context(dataset="drawn"))


def test_each_row_gets_the_segments_of_its_squashed_image_and_a_broken_one_none():
    drawn = draw(5)
    rows, made = drawn.rows(bad=(2,)), stage(size=56, min_size=30)
    arrays = made.process(rows, {})
    for position in (0, 1, 3, 4):
        squashed = resize(drawn.images[position], (56, 56))
        wanted = felzenszwalb(squashed, scale=100, sigma=0.8, min_size=30)
        np.testing.assert_array_equal(arrays["labels"][position], wanted)
        assert arrays["count"][position] == wanted.max() + 1
    assert rows.status.tolist() == [1, 1, Status.QUARANTINED, 1, 1]
    assert arrays["count"][2] == 0
    assert made.summary(arrays, rows)["segments"] == arrays["count"].sum()


def test_an_image_of_one_colour_is_one_segment_and_counted():
    made = stage(size=32)
    grey = Rows(np.arange(1), {}, lambda _: np.full((40, 40, 3), 90, np.uint8))
    arrays = made.process(grey, {})
    assert not arrays["labels"].any()
    assert made.summary(arrays, grey)["rows_of_one_segment"] == 1


def test_networks_of_a_batch_do_not_change_each_others_labels():
    drawn = draw(4)
    together = stage(**SMALL_DIC, dic_images=4).process(drawn.rows(), {})["labels"]
    gap = stage(**SMALL_DIC, dic_images=4).process(drawn.rows(bad=(1,)), {})["labels"]
    alone = stage(**SMALL_DIC, dic_images=1).process(drawn.rows(), {})["labels"]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(gap[[0, 2, 3]], together[[0, 2, 3]])
    assert together.shape == (4, 48, 48)
    assert all(labels.max() >= 1 for labels in together)


def test_the_key_holds_what_the_method_reads_and_nothing_else():
    params = load_registry().params
    assert params("segments").in_key() == {
        "method": "felzenszwalb", "size": 224, "scale": 100.0, "sigma": 0.8, "min_size": 200,
    }  # fmt: skip
    assert params("segments", {"pieces": 7}).in_key() == params("segments").in_key()
    assert "dic_images" not in params("segments", {"method": "dic"}).in_key()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"method": "quickshift"}, "felzenszwalb"),
        ({"dic_size": 33}, "even number"),
        ({"scale": 0.0}, "must be above 0"),
        ({"dic_momentum": 1.0}, "must be below 1"),
    ],
)
def test_a_wrong_parameter_is_refused_with_what_is_right(given, words):
    with pytest.raises(ConfigError, match=words):
        stage(**given)


@pytest.mark.parametrize("method", ["felzenszwalb", "slic"])
def test_label_maps_of_photographs_take_at_most_four_kib_a_row(shared, method):
    folder = shared / "data/ilsvrc_val_acuity"
    names = (folder / "image_ids.txt").read_text().split()[:256:8]
    images = [resize(decode((folder / "images" / name).read_bytes()), (224, 224)) for name in names]
    made = stage(method=method)
    arrays = made.process(Rows(np.arange(32), {}, lambda position: images[position]), {})
    specs = made.arrays()
    data = [encode_shard(specs[name], Shards(32, 32), 0, arrays[name], CHECKSUM) for name in specs]
    assert sum(map(len, data)) / 32 <= 4096
