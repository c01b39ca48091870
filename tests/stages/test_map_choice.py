"""The stage ``map_choice``: the way to make maps is found without labels, and cls_maps obeys it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stages.drawn import draw
from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.models.weight_sources import resolve
from wsolpipe.stages.base import Context
from wsolpipe.stages.cls_maps import ClsMaps
from wsolpipe.stages.map_choice import CROP, MapChoice, block_sets, cropped, otsu_box_of, stability
from wsolpipe.stages.registry import load_registry

TINY = {
    "model": "vit_tiny_patch16_224",
    "model_args": {"depth": 3, "embed_dim": 24, "num_heads": 2},
    "weights": "random:1",
}


def choose(rows, **given):
    params = load_registry().params("map_choice", {**TINY, "sizes": [48, 64], "images": 5, "batch": 2, **given})
    weights = {name: resolve(spec) for name, spec in MapChoice.weights_needed(params).items()}
    made = MapChoice(params, Context(dataset="drawn", weights=weights)).produce({params.split: rows})
    return json.loads(made.files["choice.json"])


def test_stability_is_one_where_boxes_agree_and_the_smaller_overlap_where_not():
    box = np.array([0.2, 0.3, 0.6, 0.8])
    mirrored = np.array([0.4, 0.3, 0.8, 0.8])
    cut = (box - CROP) / (1 - 2 * CROP)
    assert stability(box, mirrored, cut) == pytest.approx(1)
    assert stability(box, box, cut) == pytest.approx(0.5 * 0.2 / (0.4 + 0.4 - 0.2) / 0.5)
    assert stability(box, mirrored, np.array([0.0, 0.0, 0.01, 0.01])) == 0


def test_a_box_at_the_edge_is_compared_with_what_the_cropped_image_shows():
    edge = np.array([0.0, 0.0, 1.0, 1.0])
    assert stability(edge, edge, edge) == pytest.approx(1)


def test_cropped_keeps_the_middle():
    image = np.arange(50 * 100 * 3).reshape(50, 100, 3).astype(np.uint8)
    assert np.array_equal(cropped(image), image[4:46, 8:92])
    assert cropped(image[:1, :1]).shape == (1, 1, 3)


def test_a_constant_map_is_of_the_whole_image():
    assert otsu_box_of(np.zeros((4, 4), np.float32)).tolist() == [0, 0, 1, 1]


def test_sets_of_blocks_are_distinct_and_within_the_network():
    assert len(block_sets(12)) == 7
    for depth in (1, 2, 3, 24):
        sets = block_sets(depth)
        assert len(set(sets)) == len(sets)
        assert {number for each in sets for number in each} == set(range(depth))


def test_every_way_is_tried_and_the_most_stable_is_chosen():
    found = choose(draw(7, seed=3).rows())
    assert found["images"] == 5
    assert len(found["tried"]) == 2 * len(block_sets(3)) * 3
    best = max(each["stability"] for each in found["tried"])
    assert {name: found[name] for name in ("size", "blocks", "scale", "stability")} in found["tried"]
    assert found["stability"] == best
    assert choose(draw(7, seed=3).rows()) == found


def test_scores_are_those_of_maps_that_cls_maps_makes():
    drawn = draw(4, seed=3)
    found = choose(drawn.rows(), images=4, size=64, blocks="1-2", scale="log")
    params = load_registry().params("cls_maps", {**TINY, "size": 64, "blocks": "1-2", "scale": "log"})
    stage = ClsMaps(params, Context(dataset="drawn", weights={"model": resolve("random:1")}))
    stage.setup()
    from wsolpipe.images.geometry import resize

    values = []
    for image in drawn.images:
        views = [resize(view, (64, 64)) for view in (image, cropped(image))]
        views.insert(1, views[0][:, ::-1])
        maps = [stage.attend(np.ascontiguousarray(view)[None])[0, 0] for view in views]
        values.append(stability(*(otsu_box_of(one) for one in maps)))
    assert [each["stability"] for each in found["tried"]] == [pytest.approx(np.mean(values), abs=1e-3)]


def test_cls_maps_reads_its_choice(tmp_path):
    chosen = {"size": 48, "blocks": [1, 2], "scale": "log"}
    (tmp_path / "choice.json").write_text(json.dumps(chosen))
    drawn, context = draw(3, seed=3), {"weights": {"model": resolve("random:1")}}
    autos = load_registry().params("cls_maps", {**TINY, "size": "auto", "blocks": "auto", "scale": "auto"})
    assert ClsMaps.needs(autos, ("map_choice",)) == ("map_choice",)
    auto = ClsMaps(autos, Context(dataset="drawn", artifacts={"map_choice": tmp_path}, **context))
    auto.setup()
    given = load_registry().params("cls_maps", {**TINY, **chosen})
    assert ClsMaps.needs(given, ("map_choice",)) == ()
    plain = ClsMaps(given, Context(dataset="drawn", **context))
    plain.setup()
    assert auto.arrays() == plain.arrays()
    assert np.array_equal(auto.process(drawn.rows(), {})["maps"], plain.process(drawn.rows(), {})["maps"])


def test_bad_images_are_left_out_and_none_at_all_is_an_error():
    drawn = draw(3, seed=3)
    assert choose(drawn.rows(bad={1}))["images"] == 2
    with pytest.raises(DataError, match="no image of train"):
        choose(drawn.rows(bad={0, 1, 2}))


def test_a_network_of_windows_is_refused():
    with pytest.raises(ConfigError, match="class token"):
        choose(draw(2).rows(), model="swin_tiny_patch4_window7_224", model_args={}, sizes=[224])
