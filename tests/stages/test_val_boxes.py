"""The stage ``val_boxes`` against a choice made one box at a time, its fallbacks, and how ``eval`` scores each step."""

from __future__ import annotations

import types
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from stages.drawn import draw
from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.contract.schema import Fallback, Status
from wsolpipe.evaluate.box_scores import ARRAYS, first_box_ious, score_val_boxes
from wsolpipe.evaluate.map_sources import RowTable
from wsolpipe.evaluate.truth import Truth
from wsolpipe.images.geometry import resize
from wsolpipe.images.label_lines import box_lines, read_boxes
from wsolpipe.maps.foreground import largest_otsu_box
from wsolpipe.metrics import best_iou, iou_per_box
from wsolpipe.networks.classifier import ClassifierRecord, ImageClassifier, load_classifier, save_classifier
from wsolpipe.stages.base import Context, Upstream
from wsolpipe.stages.cams import Cams
from wsolpipe.stages.regions import RegionsStage
from wsolpipe.stages.registry import load_registry
from wsolpipe.stages.val_boxes import ValBoxes
from wsolpipe.stages.val_boxes_params import DETECTOR_FLOOR

COUNT, SLOTS = 11, 24
SMALL = {"channels": [16, 24, 32, 48], "stem_width": 8}
RECORD = ClassifierRecord(model="resnet10t", outputs=4, size=64, mean=(0.5,) * 3, std=(0.25,) * 3, model_args=SMALL)


def write(folder, classifier):
    for name, content in save_classifier(classifier).items():
        (folder / name).write_bytes(content)
    return folder


def parameters(**params):
    return load_registry().params("val_boxes", {"slots": SLOTS} | params)


def stage(folder=None, *, objectless=(), classes=4, **params):
    context = Context(
        dataset="drawn", classes=classes, objectless=frozenset(objectless), artifacts={"classifier": folder}
    )
    made = ValBoxes(parameters(**params), context)
    made.setup()
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        classifier = ImageClassifier(RECORD)
        torch.nn.init.normal_(classifier.last_layer().weight, std=0.5)
    return write(tmp_path_factory.mktemp("classifier"), classifier)


@pytest.fixture(scope="module")
def drawn():
    return draw(COUNT, seed=5)


@pytest.fixture(scope="module")
def upstream(folder, drawn):
    registry = load_registry()
    regions = RegionsStage(registry.params("regions", {"top_n": SLOTS}), Context(dataset="drawn"))
    regions.setup()
    cams = Cams(registry.params("cams", {}), Context(dataset="drawn", classes=4, artifacts={"classifier": folder}))
    cams.setup()
    ones = np.ones(COUNT, np.uint8)
    return {
        "regions": Upstream(regions.process(drawn.rows(), {}), ones, {"method": "selective_search"}),
        "cams": Upstream(cams.process(drawn.rows(), {}), ones, {}),
    }


def as_detector(upstream):
    """The same regions as if a detector had found them, with scores that say something."""
    arrays = dict(upstream["regions"].arrays)
    scores = np.random.default_rng(3).random(arrays["scores"].shape).astype(np.float32)
    arrays["scores"] = np.where(np.isnan(arrays["scores"]), np.nan, scores)
    return {**upstream, "regions": Upstream(arrays, np.ones(COUNT, np.uint8), {"method": "onnx"})}


def posterior_of(image, box, label, classifier):
    """Posterior with all but one box blurred, in float64, by OpenCV."""
    small = resize(image, (64, 64)).astype(np.float64)
    half = round(32 * 64 / 224)
    crop = cv2.GaussianBlur(small, (2 * half + 1,) * 2, 20 * 64 / 224)
    height, width = image.shape[:2]
    scaled = box.astype(np.float64) * np.array([64 / width, 64 / height] * 2)
    x0, y0 = np.floor(scaled[:2] + 1e-6).astype(int)
    x1, y1 = np.ceil(scaled[2:] - 1e-6).astype(int)
    crop[y0:y1, x0:x1] = small[y0:y1, x0:x1]
    inputs = torch.from_numpy((crop / 255 - 0.5) / 0.25).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return classifier(inputs).softmax(1)[0, label].item()


@pytest.fixture(scope="module")
def posteriors(folder, drawn, upstream):
    """Posterior of every region of every row, one at a time."""
    classifier, regions = load_classifier(folder).double(), upstream["regions"].arrays
    return [
        [posterior_of(drawn.images[row], box, drawn.labels[row], classifier) for box in boxes[: int(count)]]
        for row, (boxes, count) in enumerate(zip(regions["boxes"], regions["count"], strict=True))
    ]


@pytest.mark.parametrize("annotator", ["ss", "rpn"])
@pytest.mark.parametrize("order", ["filter-first", "pointing-first"])
@pytest.mark.parametrize("top_by", [None, "classifier", "objectness"])
def test_boxes_equal_a_choice_made_one_box_at_a_time(folder, drawn, upstream, posteriors, annotator, order, top_by):
    inputs = as_detector(upstream) if annotator == "rpn" else upstream
    made = stage(folder, annotator=annotator, order=order, top_by=top_by, floor=0, batch=7, images=4)
    arrays = made.process(drawn.rows(), inputs)
    first = top_by or {"ss": "classifier", "rpn": "objectness"}[annotator]
    for row in range(COUNT):
        count = int(inputs["regions"].arrays["count"][row])
        boxes = inputs["regions"].arrays["boxes"][row, :count]
        posterior = posteriors[row]
        scores = np.array(posterior if first == "classifier" else inputs["regions"].arrays["scores"][row, :count])
        x, y = arrays["peak"][row]
        pointed = {n for n, (x0, y0, x1, y1) in enumerate(boxes) if x0 <= x < x1 and y0 <= y < y1}
        ranked = sorted(range(count), key=lambda n, scores=scores: (-scores[n], n))
        if order == "filter-first":
            top = ranked[: -(-count // 5)]
            left = [n for n in top if n in pointed] or top
        else:
            among = [n for n in ranked if n in pointed] or ranked
            left = among[: -(-len(among) // 5)]
        best = max(left, key=lambda n, posterior=posterior: posterior[n])
        assert np.array_equal(arrays["boxes"][row, 0], boxes[best]), row
        assert arrays["scores"][row, 0] == pytest.approx(posterior[best], abs=1e-4)
        assert np.array_equal(arrays["top_box"][row, 0], boxes[ranked[0]])
        assert np.flatnonzero(arrays["steps"][row] & 4).tolist() == sorted(left)
        assert np.flatnonzero(arrays["steps"][row] & 2).tolist() == sorted(pointed)
        scored = np.flatnonzero(~np.isnan(arrays["posterior"][row]))
        assert scored.tolist() == (list(range(count)) if first == "classifier" else sorted(left))


@pytest.mark.parametrize("final", ["objectness", "product"])
def test_the_last_step_may_take_objectness_or_its_product_with_the_posterior(
    folder, drawn, upstream, posteriors, final
):
    inputs = as_detector(upstream)
    arrays = stage(folder, annotator="rpn", floor=0, final=final).process(drawn.rows(), inputs)
    for row in range(COUNT):
        left = np.flatnonzero(arrays["steps"][row] & 4)
        scores = inputs["regions"].arrays["scores"][row, left]
        if final == "product":
            scores = scores * np.array(posteriors[row])[left]
        assert np.array_equal(arrays["boxes"][row, 0], arrays["candidates"][row, left[np.argmax(scores)]])
        assert arrays["scores"][row, 0] == pytest.approx(scores.max(), abs=1e-4)


@pytest.mark.parametrize("annotator", ["ss", "rpn"])
def test_the_last_step_may_take_the_region_that_agrees_with_the_map(drawn, upstream, annotator):
    inputs = as_detector(upstream) if annotator == "rpn" else upstream
    inputs = {"regions": inputs["regions"], "fuse": inputs["cams"]}  # no classifier is loaded
    made = stage(annotator=annotator, final="agreement", maps="fuse", keep=0.1)
    arrays, sizes = made.process(drawn.rows(), inputs), drawn.rows().sizes()
    assert set(arrays) == set(made.arrays())
    for row in range(COUNT):
        region = largest_otsu_box(inputs["fuse"].arrays["maps"][row, 0], sizes[row])
        left = np.flatnonzero(arrays["steps"][row] & 4)
        assert len(left) == inputs["regions"].arrays["count"][row]  # no step before this one
        scores = np.array([best_iou(arrays["candidates"][row, n], region[None]) for n in left], np.float64).ravel()
        np.testing.assert_allclose(arrays["agreement"][row, left], scores, atol=1e-6)
        if annotator == "rpn":
            scores = scores * np.sqrt(inputs["regions"].arrays["scores"][row, left])
        assert np.array_equal(arrays["boxes"][row, 0], arrays["candidates"][row, left[np.argmax(scores)]])
        assert arrays["scores"][row, 0] == pytest.approx(scores.max(), abs=1e-5)
    assert np.isnan(arrays["posterior"]).all()


def test_agreement_needs_no_classifier_and_is_made_of_its_map():
    declared = load_registry()["val_boxes"].needs
    agreeing = parameters(annotator="rpn", final="agreement", maps="fuse")
    assert ValBoxes.needs(agreeing, declared) == ("regions", "fuse")
    assert ValBoxes.needs(parameters(annotator="ss", final="agreement"), declared) == ("regions", "cams")
    assert ValBoxes.ranked_by(agreeing, ("cams", "classifier")) == ("classifier",)
    assert "fuse" in ValBoxes.ranked_by(parameters(annotator="rpn", maps="fuse"), ("cams", "classifier"))
    assert "maps" not in parameters(annotator="rpn").in_key()  # keys of cams are as before
    assert agreeing.in_key() == parameters(annotator="rpn", final="agreement", maps="fuse", keep=0.5, floor=0).in_key()


def test_results_depend_on_neither_batch_nor_threads_nor_a_bad_neighbour(folder, drawn, upstream):
    whole = stage(folder).process(drawn.rows(), upstream)
    again = stage(folder, batch=5, images=3).process(drawn.rows(threads=1), upstream)
    assert np.array_equal(whole["boxes"], again["boxes"])
    np.testing.assert_allclose(whole["posterior"], again["posterior"], atol=1e-5)
    rows = drawn.rows(bad={4})
    holed = stage(folder).process(rows, upstream)
    assert list(rows.reasons) == [4]
    assert np.array_equal(np.delete(whole["boxes"], 4, 0), np.delete(holed["boxes"], 4, 0))


def test_progress_moves_with_the_rows_whose_crops_are_scored(folder, drawn, upstream):
    made, told = stage(folder, annotator="ss", batch=4, images=COUNT), []
    made.context = replace(made.context, progress=lambda done, total: told.append((done, total)))
    made.process(drawn.rows(), upstream)
    assert [done for done, _ in told[:-1]] == sorted(done for done, _ in told[:-1])
    assert set(told) == {(done, COUNT) for done in range(COUNT + 1)}


def test_every_fallback_gives_a_box_and_is_counted(folder, drawn, upstream):
    regions = {name: array.copy() for name, array in upstream["regions"].arrays.items()}
    cams = {name: array.copy() for name, array in upstream["cams"].arrays.items()}
    regions["count"][0], regions["boxes"][0], regions["scores"][0] = 0, np.nan, np.nan
    cams["maps"][1] = 0
    corner = np.zeros((2, 2), np.uint8)
    corner[1, 1] = 255
    cams["maps"][2, 0] = corner
    regions["boxes"][2, :5], regions["boxes"][2, 5:] = [0, 0, 4, 4], np.nan
    regions["scores"][2, 5:], regions["count"][2] = np.nan, 5
    inputs = {
        "regions": Upstream(regions, np.ones(COUNT, np.uint8), {"method": "selective_search"}),
        "cams": Upstream(cams, np.ones(COUNT, np.uint8), {}),
    }
    rows, made = drawn.rows(), stage(folder)
    arrays = made.process(rows, inputs)
    height, width = rows.sizes()[0]
    assert arrays["boxes"][0, 0].tolist() == [0, 0, width, height]
    assert [int(value) for value in arrays["fallback"][:3]] == [
        Fallback.NO_REGION, Fallback.NO_PEAK, Fallback.PEAK_OUTSIDE,
    ]  # fmt: skip
    assert not np.isnan(arrays["boxes"]).any()
    summary = made.summary(arrays, rows)
    assert summary["fallback_no_region"] == summary["fallback_no_peak"] == 1
    assert summary["fallback_peak_outside"] == int((arrays["fallback"] & 2 > 0).sum()) >= 1
    assert summary["rows_without_pseudo_box"] == 0


def test_a_classifier_that_finds_its_class_nowhere_falls_back_to_the_score_before(drawn, upstream, tmp_path):
    classifier = ImageClassifier(RECORD)
    with torch.no_grad():
        classifier.last_layer().weight.zero_()
        classifier.last_layer().bias.copy_(torch.tensor([0.0, -500.0, -500.0, -500.0]))
    made = stage(write(tmp_path, classifier), annotator="rpn")
    rows = drawn.rows()
    inputs = as_detector(upstream)
    arrays = made.process(rows, inputs)
    zero = [row for row in range(COUNT) if drawn.labels[row]]
    assert (arrays["fallback"][zero] & Fallback.NO_SCORE > 0).all()
    for row in zero:
        left = np.flatnonzero(arrays["steps"][row] & 4)
        best = left[np.argmax(inputs["regions"].arrays["scores"][row, left])]
        assert np.array_equal(arrays["boxes"][row, 0], arrays["candidates"][row, best])
    assert made.summary(arrays, rows)["fallback_no_score"] >= len(zero)


@pytest.mark.parametrize("order", ["filter-first", "pointing-first"])
def test_regions_below_the_floor_take_no_part_unless_none_reaches_it(folder, drawn, upstream, order):
    inputs, keep = as_detector(upstream), 0.5
    inputs["regions"].arrays["scores"][3] *= 0.1
    made, rows = stage(folder, annotator="rpn", order=order, keep=keep, floor=0.6, final="objectness"), drawn.rows()
    arrays = made.process(rows, inputs)
    for row in range(COUNT):
        count = int(inputs["regions"].arrays["count"][row])
        scores, (x, y) = inputs["regions"].arrays["scores"][row, :count], arrays["peak"][row]
        boxes = inputs["regions"].arrays["boxes"][row, :count]
        enough = {n for n in range(count) if scores[n] >= 0.6}
        assert bool(enough) == (row != 3) == (not arrays["fallback"][row] & Fallback.BELOW_FLOOR)
        enough = enough or set(range(count))
        pointed = {n for n, (x0, y0, x1, y1) in enumerate(boxes) if x0 <= x < x1 and y0 <= y < y1}
        ranked = sorted(enough, key=lambda n, scores=scores: (-scores[n], n))
        if order == "filter-first":  # the share is counted as if all regions took part
            top = ranked[: -(-count // 2)]
            left = [n for n in top if n in pointed] or top
        else:
            held = [n for n in ranked if n in pointed]
            left = (held or ranked)[: -(-(len(pointed) if held else count) // 2)]
        assert np.flatnonzero(arrays["steps"][row] & 4).tolist() == sorted(left), row
    assert made.summary(arrays, rows)["fallback_below_floor"] == 1


def test_a_detector_has_a_floor_by_default_and_a_floor_of_zero_the_key_of_before():
    before = {"annotator", "slots", "keep", "top_by", "order", "final", "map", "size", "blur_kernel", "blur_sigma"}
    assert parameters().in_key().keys() == parameters(annotator="rpn", floor=0).in_key().keys() == before
    assert parameters(annotator="rpn").in_key()["floor"] == DETECTOR_FLOOR
    assert parameters(floor=0.2).in_key()["floor"] == 0.2
    with pytest.raises((ConfigError, ValidationError), match="floor"):
        parameters(floor=1.5)


def test_rows_without_object_label_or_regions_are_marked(folder, drawn, upstream):
    labels = [[label] for label in drawn.labels]
    labels[2] = []
    status = np.ones(COUNT, np.uint8)
    status[4] = Status.ABSENT
    inputs = {**upstream, "regions": Upstream(upstream["regions"].arrays, status, upstream["regions"].params)}
    rows = drawn.rows(labels=labels)
    arrays = stage(folder, objectless=[3]).process(rows, inputs)
    assert np.flatnonzero(rows.status == Status.NO_OBJECT).tolist() == [3, 7]
    assert set(rows.reasons) == {2, 4}
    assert arrays["count"].tolist() == [int(row not in {2, 3, 4, 7}) for row in range(COUNT)]


def test_clip_boxes_are_the_largest_otsu_regions_of_the_maps_of_their_labels(drawn):
    maps = np.zeros((COUNT, 3, 14, 14), np.uint8)
    maps[:, :, 0:2, 0:2] = 255  # of another class
    classes = np.full((COUNT, 3), 3, np.int32)
    for row, label in enumerate(drawn.labels):
        slot = row % 3
        classes[row] = [(label + 1) % 4, (label + 2) % 4, (label + 3) % 4]
        classes[row, slot] = label
        maps[row, slot] = 0
        maps[row, slot, 3:9, 4:10] = 200
        maps[row, slot, 12:14, 0:2] = 255  # higher, and smaller
    grids = np.full((COUNT, 2), 14, np.uint16)
    grids[1] = 7, 7
    maps[4] = 0  # nothing in the image speaks for the class
    classes[5] = -1
    maps[5] = 0
    labels = [[label] for label in drawn.labels]
    labels[6], maps[6, 1], maps[6, 1, 3:9, 4:10] = [], 0, 200  # no label, as clip_cams.target=predicted allows
    rows, made = drawn.rows(labels=labels), stage(annotator="clip", map=1)
    inputs = {
        "clip_cams": Upstream({"maps": maps, "grid_hw": grids, "class_ids": classes}, np.ones(COUNT, np.uint8), {})
    }
    arrays = made.process(rows, inputs)
    for row, (height, width) in enumerate(rows.sizes()):
        if row in {4, 5}:
            assert arrays["boxes"][row, 0].tolist() == [0, 0, width, height]
            continue
        cells = np.array([4, 3, 10, 9]) / 14 if row != 1 else np.array([4, 3, 7, 7]) / 7
        want = cells * np.array([width, height] * 2)
        assert best_iou(arrays["boxes"][row], want[None]) > 0.8, row
    assert np.flatnonzero(arrays["fallback"]).tolist() == [4, 5]
    assert made.summary(arrays, rows)["fallback_no_region"] == 2
    assert made.summary(arrays, rows)["rows_without_pseudo_box"] == 0


def test_clip_boxes_need_clip_maps_and_nothing_else():
    assert parameters(annotator="clip").in_key() == {"annotator": "clip", "map": 0, "size": 224}
    clip = parameters(annotator="clip")
    assert ValBoxes.needs(clip, ("regions", "cams", "classifier", "clip_cams")) == ("clip_cams",)
    with pytest.raises(ConfigError, match="clip_cams"):
        ValBoxes.needs(clip, ("regions", "cams", "classifier"))
    assert ValBoxes.needs(parameters(), ("regions", "cams", "classifier", "clip_cams")) == NEEDED


NEEDED = ("regions", "cams", "classifier")


def test_released_boxes_are_taken_by_image_id_and_known_by_content(drawn, tmp_path):
    file = tmp_path / "localization.txt"
    file.write_text("a/0.jpg,1,2,30,40\na/2.jpg,0,0,999,20.5,0.77\n\n")
    rows = drawn.rows()
    rows.columns["image_id"] = [f"a/{row}.jpg" for row in range(COUNT)]
    arrays = stage(annotator="file", file=str(file)).process(rows, {})
    assert arrays["boxes"][0, 0].tolist() == [1, 2, 30, 40]
    assert arrays["boxes"][2, 0].tolist() == [0, 0, rows.sizes()[2][1], 20.5]
    assert arrays["count"].sum() == 2
    key = parameters(annotator="file", file=str(file)).in_key()
    moved = tmp_path / "elsewhere.txt"
    moved.write_bytes(file.read_bytes())
    assert parameters(annotator="file", file=str(moved)).in_key() == key
    moved.write_text("a/0.jpg,1,2,30,41\n")
    assert parameters(annotator="file", file=str(moved)).in_key() != key
    assert ValBoxes.needs(parameters(annotator="file", file=str(moved)), NEEDED) == ()
    moved.write_text("a/0.jpg,1,2,30\n")
    with pytest.raises(DataError, match=r"elsewhere.txt:1: 'a/0.jpg,1,2,30'"):
        stage(annotator="file", file=str(moved))
    with pytest.raises((ConfigError, ValidationError)):
        parameters(annotator="file")


def test_regions_of_another_kind_and_foreign_classifiers_are_refused(folder, drawn, upstream):
    with pytest.raises(ConfigError, match=r"regions\.method=rpn"):
        stage(folder, annotator="rpn").process(drawn.rows(), upstream)
    with pytest.raises(ConfigError, match="4 outputs, and data set drawn has 7 classes"):
        stage(folder, classes=7)
    with pytest.raises(ConfigError, match="slots"):
        stage(folder, map=1).process(drawn.rows(), upstream)


def scored_of(arrays, drawn, names=None):
    sizes = np.array([image.shape[1::-1] for image in drawn.images])
    nothing = np.zeros(COUNT, bool)
    rows = RowTable("val", names or [""] * COUNT, [[0]] * COUNT, sizes, np.ones(COUNT, int), frozenset(), nothing)
    truth = Truth("drawn", rows, {row: drawn.boxes[row : row + 1].astype(float) for row in range(COUNT)})
    return View(arrays, types.SimpleNamespace(start=0, stop=COUNT)), truth


class View:
    """Arrays of one shard as a store gives them."""

    def __init__(self, arrays, record):
        self.arrays, self.record = {**arrays, "status": np.ones(COUNT, np.uint8)}, record

    def committed(self):
        return {0: self.record}

    def __getitem__(self, name):
        return self.arrays[name]


def test_eval_gives_each_row_of_the_table_with_its_estimator(folder, drawn, upstream):
    arrays = stage(folder).process(drawn.rows(), upstream)
    assert set(ARRAYS) <= set(arrays)
    figures = score_val_boxes(*scored_of(arrays, drawn)).figures
    pointing, both, upper, finalists, top, hits = [], [], [], [], [], []
    for row in range(COUNT):
        truth = drawn.boxes[row : row + 1]
        count = upstream["regions"].arrays["count"][row]
        ious = iou_per_box(arrays["candidates"][row, :count], truth)
        bits = arrays["steps"][row, :count]
        pointing += [ious[bits & 2 > 0].mean()] if (bits & 2).any() else []
        both += [ious[bits & 3 == 3].mean()] if (bits & 3 == 3).any() else []
        upper.append(ious.max())
        finalists.append(ious[bits & 4 > 0].max())
        top.append(best_iou(arrays["top_box"][row], truth))
        x, y = arrays["peak"][row]
        hits.append(truth[0, 0] <= x < truth[0, 2] and truth[0, 1] <= y < truth[0, 3])
    assert figures["rows_quarantined"] == 0
    assert figures["iou_pointing_mean_of_boxes"] == pytest.approx(np.mean(pointing))
    assert figures["iou_top_pointing_mean_of_boxes"] == pytest.approx(np.mean(both))
    assert figures["rows_top_pointing"] == len(both)
    assert figures["iou_upper_best_box"] == pytest.approx(np.mean(upper))
    assert figures["iou_upper_finalists"] == pytest.approx(np.mean(finalists))
    assert figures["iou_upper_finalists"] < figures["iou_upper_best_box"]
    assert figures["iou_top_one_box"] == pytest.approx(np.mean(top))
    assert figures["iou_final_one_box"] == pytest.approx(
        np.mean([best_iou(arrays["boxes"][row], drawn.boxes[row : row + 1]) for row in range(COUNT)])
    )
    assert figures["pointing_accuracy"] == pytest.approx(np.mean(hits))


def test_exported_boxes_come_back_as_they_were(folder, drawn, upstream, tmp_path):
    arrays = stage(folder).process(drawn.rows(), upstream)
    names = [f"a,{row}.jpg" for row in range(COUNT)]
    (tmp_path / "localization.txt").write_text(box_lines(dict(zip(names, arrays["boxes"][:, :1], strict=True))))
    back = read_boxes(tmp_path / "localization.txt")
    assert list(back) == names
    assert all(np.allclose(back[name], arrays["boxes"][row], atol=0.005) for row, name in enumerate(names))
    first = first_box_ious(*scored_of(arrays, drawn, names))[names[0]]
    assert first == pytest.approx(best_iou(arrays["boxes"][0], drawn.boxes[:1]), abs=1e-6)
    assert box_lines({"x": np.array([[1.0, 2.5, 3.125, 40.0], [np.nan] * 4])}) == "x,1,2.5,3.12,40\n"
