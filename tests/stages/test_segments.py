"""The stage ``segments``: every method, sizes in a store, wrong parameters."""

from __future__ import annotations

import numpy as np
import pytest

from stages.drawn import draw
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.layout import Shards
from wsolpipe.contract.schema import CHECKSUM, Status
from wsolpipe.engine.isolation import process_guarded
from wsolpipe.engine.zarr_metadata import encode_shard
from wsolpipe.images.decode import decode
from wsolpipe.images.geometry import resize
from wsolpipe.ops import deep_clusters
from wsolpipe.stages.base import Context, Rows
from wsolpipe.stages.registry import load_registry
from wsolpipe.stages.segments import Segments, felzenszwalb

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


def test_slots_without_an_image_are_no_work_on_a_cpu(monkeypatch):
    trained = []
    made = deep_clusters.Networks

    def counted(seeds, *rest):
        trained.append(len(seeds))
        return made(seeds, *rest)

    monkeypatch.setattr(deep_clusters, "Networks", counted)
    stage(**SMALL_DIC, dic_images=8).process(draw(5).rows(bad=(1, 3)), {})
    assert trained == [1, 1, 1]  # one after the other, in the memory of one


def test_networks_that_do_not_fit_into_memory_are_halved(monkeypatch):
    tried, said = [], []
    made = deep_clusters.cluster_images

    def hungry(images, *rest, **given):
        tried.append(len(images))
        if len(images) > 2:
            msg = "CUDA out of memory. Tried to allocate 2.00 GiB"
            raise RuntimeError(msg)
        return made(images, *rest, **given)

    monkeypatch.setattr(deep_clusters, "cluster_images", hungry)
    params = load_registry().params("segments", SMALL_DIC | {"dic_images": 8})
    halved = Segments(params, Context(dataset="drawn", warn=said.append))
    labels = process_guarded(halved, draw(5).rows(), {}, halved.arrays())["labels"]
    assert tried[:3] == [5, 4, 2]
    assert said[-1] == "Segments: cpu ran out of memory with dic_images=4; going on with dic_images=2"
    np.testing.assert_array_equal(labels, stage(**SMALL_DIC, dic_images=1).process(draw(5).rows(), {})["labels"])


@pytest.mark.parametrize("refused", [False, True])
def test_as_many_segments_as_can_be_counted(refused):
    side = 257 if refused else 255
    noise = np.random.default_rng(0).integers(0, 256, (256, side, 3)).astype(np.uint8)
    if refused:
        with pytest.raises(ConfigError, match="more than the 65535"):
            felzenszwalb(noise[:, :256], scale=1e-9, sigma=0, min_size=1)
    else:
        assert felzenszwalb(noise, scale=1e-9, sigma=0, min_size=1).max() + 1 <= (1 << 16) - 1


def test_the_key_holds_what_the_method_reads_and_nothing_else():
    params = load_registry().params
    assert params("segments").in_key() == {
        "method": "felzenszwalb", "size": 224, "scale": 100.0, "sigma": 0.8, "min_size": 200,
    }  # fmt: skip
    assert params("segments", {"pieces": 7}).in_key() == params("segments").in_key()
    dic = params("segments", {"method": "dic"}).in_key()
    assert "dic_images" not in dic
    assert "compactness" not in dic
    assert dic["dic_compactness"] == 100  # with 10,000 superpixels, as published


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"method": "quickshift"}, "felzenszwalb"),
        ({"dic_size": 33}, "even number"),
        ({"scale": 0.0}, "must be above 0"),
        ({"sigma": 1e9}, "at most 100"),
        ({"min_size": 10**20}, "at most 100000"),
        ({"pieces": 1 << 16}, "at most 65535"),
        ({"compactness": 1e-300}, "at least 0.001"),
        ({"dic_compactness": 1e-300}, "at least 0.001"),
        ({"dic_superpixels": 1 << 16}, "at most 65535"),
        ({"dic_steps": 10**20}, "at most 100000"),
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
