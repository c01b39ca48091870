"""The stage ``regions``: selective search, a region proposal network and an ONNX detector, on drawn and real images."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stages.drawn import draw
from wsolpipe.contract.errors import ConfigError, WeightsError
from wsolpipe.contract.schema import Status
from wsolpipe.images.decode import decode
from wsolpipe.metrics import best_iou, centred_box, iou_per_box
from wsolpipe.models.regions import OnnxDetector, OnnxLayout, best_regions, build_detector
from wsolpipe.models.weight_sources import resolve
from wsolpipe.stages.base import Context, Rows
from wsolpipe.stages.regions import RegionsStage
from wsolpipe.stages.registry import load_registry

RPN = "fasterrcnn_mobilenet_v3_large_320_fpn"


def stage(**params):
    chosen = load_registry().params("regions", params)
    weights = {name: resolve(spec) for name, spec in RegionsStage.weights_needed(chosen).items()}
    made = RegionsStage(chosen, Context(dataset="drawn", weights=weights))
    made.setup()
    return made


@pytest.fixture(scope="module")
def drawn():
    return draw(6, seed=5)


@pytest.fixture(scope="module")
def birds(shared):
    folder = shared / "data" / "cub10"
    names = (folder / "image_ids.txt").read_text().split()[:326:54]
    truth = dict(line.split(",", 1) for line in (folder / "localization.txt").read_text().split())
    images = [decode((folder / "images" / name).read_bytes(), orientation=1) for name in names]
    return images, [np.array(truth[name].split(","), float)[None] for name in names]


def rows_of(images):
    return Rows(np.arange(len(images)), {}, images.__getitem__, threads=2)


def assert_legal(arrays, images):
    for position, image in enumerate(images):
        count = int(arrays["count"][position])
        boxes, scores = arrays["boxes"][position], arrays["scores"][position]
        assert not np.isnan(boxes[:count]).any()
        assert np.isnan(boxes[count:]).all()
        assert np.isnan(scores[count:]).all()
        assert (boxes[:count, :2] >= 0).all()
        assert (boxes[:count, 2:] <= np.array(image.shape[1::-1])).all()
        assert (boxes[:count, 2:] > boxes[:count, :2]).all()
        assert (np.diff(scores[:count]) <= 0).all()
        assert len(np.unique(boxes[:count], axis=0)) == count


def test_selective_search_keeps_exactly_the_largest_boxes_of_opencv_in_any_thread(drawn):
    made = stage(top_n=30)
    arrays = made.process(drawn.rows(), {})
    assert_legal(arrays, drawn.images)
    again = made.process(drawn.rows(threads=4), {})
    assert all(np.array_equal(arrays[name], again[name], equal_nan=name != "count") for name in arrays)
    for position, image in enumerate(drawn.images):
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
        search.switchToSelectiveSearchFast()
        found = {(x, y, x + w, y + h) for x, y, w, h in search.process().tolist()}
        kept = {tuple(map(int, box)) for box in arrays["boxes"][position][: arrays["count"][position]]}
        assert kept <= found
        areas = sorted(((b[2] - b[0]) * (b[3] - b[1]) for b in found), reverse=True)[:30]
        assert sorted(((b[2] - b[0]) * (b[3] - b[1]) for b in kept), reverse=True) == areas


def test_selective_search_of_a_shrunk_image_comes_back_in_original_pixels(drawn):
    large = [cv2.resize(image, None, fx=3, fy=3) for image in drawn.images[:2]]
    arrays = stage(max_side=80).process(rows_of(large), {})
    assert_legal(arrays, large)
    for position, image in enumerate(large):
        assert arrays["boxes"][position, 0, 2:].tolist() == list(image.shape[1::-1])
        found = arrays["boxes"][position][: arrays["count"][position]]
        assert best_iou(found, 3 * drawn.boxes[position : position + 1]) > 0.8


def test_quality_finds_more_than_fast(drawn):
    fast, quality = (stage(mode=mode, top_n=2000).process(drawn.rows(), {}) for mode in ("fast", "quality"))
    assert quality["count"].sum() > fast["count"].sum()


def test_region_proposals_equal_torchvisions_own_with_its_objectness_beside_them(drawn, tmp_path):
    made = stage(method="rpn", model=RPN, weights="random:3", top_n=40)
    arrays = made.process(drawn.rows(), {})
    assert_legal(arrays, drawn.images)
    assert (arrays["count"] > 0).all()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = build_detector(RPN, top_n=40, nms=0.7).eval()
    with torch.inference_mode():
        pixels = torch.from_numpy(drawn.images[2]).permute(2, 0, 1).float() / 255
        images, _ = net.transform([pixels])
        (boxes,), _ = net.rpn(images, net.backbone(images.tensors))
    height, width = drawn.images[2].shape[:2]
    resized = images.image_sizes[0]
    want = boxes.numpy() * np.array([width / resized[1], height / resized[0]] * 2)
    got = arrays["boxes"][2][: arrays["count"][2]]
    assert len(got) == len(want)
    assert np.allclose(iou_per_box(got, want), 1, atol=1e-4)
    # A file of the whole detector, its second stage left out, gives the same.
    save_file({**net.state_dict(), "roi_heads.box_predictor.bias": torch.zeros(3)}, tmp_path / "whole.safetensors")
    again = stage(method="rpn", model=RPN, weights=str(tmp_path / "whole.safetensors"), top_n=40)
    same = again.process(drawn.rows(), {})
    assert np.array_equal(same["boxes"], arrays["boxes"], equal_nan=True)


def test_yolox_finds_birds_and_beats_the_centred_box(shared, birds):
    images, truth = birds
    made = stage(method="onnx", weights=str(shared / "weights" / "yolox_nano_coco.onnx"))
    arrays = made.process(rows_of(images), {})
    assert_legal(arrays, images)
    again = made.process(Rows(np.arange(7), {}, images.__getitem__, threads=1), {})
    assert np.array_equal(arrays["boxes"], again["boxes"], equal_nan=True)
    first = [best_iou(arrays["boxes"][at, :1], truth[at]) for at in range(7)]
    upper = [best_iou(arrays["boxes"][at], truth[at]) for at in range(7)]
    centred = [best_iou(centred_box(*image.shape[1::-1])[None], box) for image, box in zip(images, truth, strict=True)]
    assert np.mean(first) > np.mean(centred) + 0.02
    assert np.mean(upper) > 0.8
    assert made.summary(arrays, rows_of(images))["rows_without_region"] == 0


def test_nothing_above_the_least_score_is_a_row_without_region_and_no_failure(shared, birds):
    images, _ = birds
    made = stage(method="onnx", weights=str(shared / "weights" / "yolox_nano_coco.onnx"), min_score=1.1)
    rows = rows_of(images)
    arrays = made.process(rows, {})
    assert arrays["count"].sum() == 0
    assert (rows.status == Status.OK).all()
    assert made.summary(arrays, rows) == {"regions": 0, "rows_without_region": 7}


def test_every_box_form_is_decoded_as_its_layout_says(shared):
    file = shared / "weights" / "yolox_nano_coco.onnx"

    def detector(**layout):
        return OnnxDetector(file, OnnxLayout(**layout), top_n=5, nms=0.7, min_score=0.0)

    raw = np.zeros((3549, 85), np.float32)
    raw[52 * 3 + 7, :5] = [0.5, 0.25, np.log(4), np.log(2), 0.9]  # stride 8, row 3, column 7
    raw[52 * 52 + 26 * 2 + 1, :5] = [0, 0, 0, 0, 0.8]  # stride 16
    boxes, scores = detector().decode(raw)
    assert boxes[52 * 3 + 7] == pytest.approx([60 - 16, 26 - 8, 60 + 16, 26 + 8])
    assert boxes[52 * 52 + 53] == pytest.approx([16 - 8, 32 - 8, 16 + 8, 32 + 8])
    assert scores[52 * 3 + 7] == pytest.approx(0.9)
    raw[0, :6] = [10, 20, 30, 50, 0.5, 0.4]
    assert detector(boxes="xyxy").decode(raw)[0][0].tolist() == [10, 20, 30, 50]
    assert detector(boxes="cxcywh").decode(raw)[0][0].tolist() == [-5, -5, 25, 45]
    assert detector(boxes="xyxy", score="product").decode(raw)[1][0] == pytest.approx(0.2)
    with pytest.raises(ConfigError, match="3549 anchors"):
        detector(strides=(8, 16)).decode(raw)
    with pytest.raises(ConfigError, match="85 columns"):
        detector(objectness=99).decode(raw)
    with pytest.raises(ConfigError, match="output"):
        detector(output="outputs")
    pixels, scale = detector(fit="squash", channels="rgb", scale=1 / 255).fit(np.full((10, 20, 3), 255, np.uint8))
    assert pixels.shape == (1, 3, 416, 416)
    assert pixels.min() == pixels.max() == pytest.approx(1)
    assert scale.tolist() == [20.8, 41.6, 20.8, 41.6]
    boxed, _ = detector().fit(np.zeros((10, 20, 3), np.uint8))
    assert boxed[0, :, 208:].min() == 114
    assert boxed[0, :, :208].max() == 0


def test_ties_and_empty_boxes_do_not_depend_on_the_order_found():
    boxes = np.array([[0, 0, 5, 5], [2, 0, 9, 9], [1, 0, 5, 5], [3, 3, 3, 9], [-4, -4, 0, 0], [5, 5, 99, 99]], float)
    scores = np.array([0.5, 0.5, 0.5, 0.9, 0.8, np.nan])
    for order in (np.arange(6), np.arange(6)[::-1]):
        found = best_regions(boxes[order], scores[order], (10, 10), 9)
        assert found.boxes.tolist() == [[0, 0, 5, 5], [1, 0, 5, 5], [2, 0, 9, 9]]


def test_a_bad_image_is_quarantined_and_its_neighbours_are_not(drawn):
    rows = drawn.rows(bad={1})
    arrays = stage().process(rows, {})
    assert rows.reasons == {1: "the file ends early"}
    assert arrays["count"][1] == 0
    assert (np.delete(arrays["count"], 1) > 0).all()


def test_what_cannot_be_used_is_refused_with_its_reason(tmp_path):
    with pytest.raises(ConfigError, match=r"FILE\.onnx"):
        load_registry().params("regions", {"method": "onnx"})
    with pytest.raises(ConfigError, match="fasterrcnn"):
        stage(method="rpn", model="fasterrcnn_resnet51_fpn", weights="random:0")
    with pytest.raises(WeightsError, match="fasterrcnn"):
        resolve("torchvision:fasterrcnn_resnet51_fpn", fetch=False)
    (tmp_path / "torn.onnx").write_bytes(b"\x08\x07")
    with pytest.raises(WeightsError, match="ONNX"):
        stage(method="onnx", weights=str(tmp_path / "torn.onnx"))


def test_official_weights_are_found_in_torchs_cache_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert resolve(f"torchvision:{RPN}", fetch=False) is None
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth").write_bytes(b"weights")
    for name in (RPN, "FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1"):
        assert resolve(f"torchvision:{name}", fetch=False).path.parent == folder


def test_only_the_parameters_of_the_method_are_in_the_key():
    search = load_registry().params("regions", {}).in_key()
    assert set(search) == {"method", "top_n", "mode", "max_side"}
    rpn = load_registry().params("regions", {"method": "rpn"}).in_key()
    assert set(rpn) == {"method", "top_n", "model", "nms"}


def test_planning_needs_no_heavy_package():
    code = "import sys, wsolpipe.stages.regions; print(sorted({'torch', 'cv2', 'onnxruntime'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
