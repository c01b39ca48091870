"""Single boxes and peaks, and the streamed figures of maps."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from wsolpipe import metrics
from wsolpipe.contract.errors import DataError
from wsolpipe.metrics import localization
from wsolpipe.metrics.accumulate import MaxBoxEvaluation
from wsolpipe.metrics.scoremaps import ScoreMaps

SQUARE = [[10, 10, 29, 29]]


@pytest.mark.parametrize(
    ("box", "truth", "want"),
    [
        ([10, 10, 29, 28], SQUARE, "right"),
        ([12, 12, 18, 18], SQUARE, "part"),
        ([0, 0, 60, 60], SQUARE, "more"),
        ([16, 0, 60, 60], SQUARE, "more"),  # 14 of 20 columns: exactly 0.7 of the object
        ([17, 0, 60, 60], SQUARE, "wrong"),
        ([25, 25, 60, 60], SQUARE, "wrong"),
        ([0, 0, 60, 60], [[0, 0, 19, 19], [40, 40, 59, 59]], "multi-instance"),
    ],
)
def test_errors_are_dissected_in_the_papers_order(box, truth, want):
    assert localization.dissect(box, truth) == want
    assert localization.dissect(box, truth, class_right=False) == "wrong class"


def test_dissection_needs_ground_truth_and_sums_to_one():
    with pytest.raises(DataError, match="ground truth"):
        localization.dissect([0, 0, 1, 1], [])
    shares = localization.dissection(["right", "part", "part", "wrong class"])
    assert shares["LPE"] == 0.5
    assert sum(shares[name] for name in localization.OUTCOMES) == 1
    assert localization.dissection([]) == {}


def test_pointing_game_looks_at_the_peaks_centre():
    score = np.zeros((10, 10))
    score[4, 7] = 1
    assert localization.peak(score).tolist() == [7.5, 4.5]
    assert localization.pointing_hit(score, [[7, 4, 8, 5]])
    assert not localization.pointing_hit(score, [[8, 4, 9, 5], [0, 0, 7, 10]])
    assert localization.pointing_hit(score, [[8, 4, 9, 5]], tolerance=1)
    assert not localization.pointing_hit(score, [])
    assert localization.points_in_boxes([[7.5, 4.5], [1, 1]], [[7, 4, 8, 5]]).tolist() == [[True], [False]]


def test_corloc_oracle_takes_a_threshold_a_class_and_says_so():
    correct = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]], bool)
    labels = [3, 3, 8, 8]
    pooled = localization.corloc(correct, labels)
    assert (pooled["pooled"], pooled["mean"], pooled["per_class"]) == (50, 50, {3: 100, 8: 0})
    assert (pooled["tau"], pooled["oracle"]) == (0, False)
    counts = {3: np.array([2, 0, 0]), 8: np.array([0, 0, 1])}
    last = localization.corloc_of(counts, {3: 2, 8: 2}, tau=1.0)  # of n thresholds the highest is (n - 1) / n
    assert (last["pooled"], last["tau"]) == (25, pytest.approx(2 / 3))
    oracle = localization.corloc(correct, labels, threshold="class-oracle")
    assert (oracle["pooled"], oracle["per_class"], oracle["oracle"]) == (75, {3: 100, 8: 50}, True)
    assert oracle["tau"] == {3: 0, 8: pytest.approx(2 / 3)}


def test_accuracy_and_true_negatives():
    assert localization.classification_accuracy([[1, 2], [3, 4], [5, 6]], [1, 4, 7]) == pytest.approx(100 / 3)
    assert localization.classification_accuracy([[1, 2], [3, 4], [5, 6]], [1, 4, 7], k=2) == pytest.approx(200 / 3)
    counted = localization.true_negatives([True, False, True, False], [True, True, False, False])
    assert counted == {"true_negatives": 1, "false_positives": 1, "specificity": 0.5, "missed": 0.5}
    assert localization.true_negatives([], [])["specificity"] is None


def test_otsu_box_needs_no_threshold_and_finds_the_bright_part():
    score = np.full((40, 40), 0.2)
    score[5:20, 10:30] = 0.9
    assert localization.otsu_box(score).tolist() == [10, 5, 30, 20]
    assert localization.otsu_box(np.zeros((4, 4))).tolist() == [0, 0, 0, 0]


def rows(seed=0, count=24, side=24):
    """Blurred boxes with noise, ground truth that fits them more or less, classes and predictions."""
    rng = np.random.default_rng(seed)
    maps, boxes = [], []
    for _ in range(count):
        x, y = rng.integers(0, side // 2, 2)
        score = rng.random((side, side)) * 0.3
        score[y : y + 10, x : x + 10] += 0.6
        maps.append(metrics.minmax(score))
        shift = rng.integers(-4, 5)
        boxes.append([[x, max(0, y + shift), x + 10, y + shift + 10]])
    truth = rng.integers(0, 4, count)
    predicted = np.array([rng.permutation(8)[:5] for _ in range(count)])
    return maps, boxes, truth, predicted


def test_streamed_figures_equal_the_pure_functions():
    maps, boxes, truth, predicted = rows()
    evaluation = MaxBoxEvaluation(thresholds=100, classes=True)
    for start in (0, 7, 20):
        stop = {0: 7, 7: 20, 20: 24}[start]
        evaluation.add(maps[start:stop], boxes[start:stop], truth=truth[start:stop], predicted=predicted[start:stop])
    single = metrics.iou_curves(maps, boxes, thresholds=100)
    every = metrics.maxbox_counts(maps, boxes, thresholds=100, contours="all", ious=(0.3, 0.5, 0.7))
    result = evaluation.result()
    assert result["MaxBoxAcc"] == pytest.approx(100 * (single >= 0.5).mean(axis=0).max())
    assert result["tau"] == (single >= 0.5).mean(axis=0).argmax() / 100
    assert result["MaxBoxAccV2"]["mean"] == pytest.approx(100 * every.max(axis=1).mean() / 24)
    assert result["iou"] == pytest.approx(single.mean(axis=0).max(), abs=1e-11)
    first = predicted[:, 0] == truth
    assert result["top1_loc"] == pytest.approx(100 * ((single >= 0.5) & first[:, None]).mean(axis=0).max())
    among = (predicted == truth[:, None]).any(axis=1)
    assert result["top5_loc"] == pytest.approx(100 * ((single >= 0.5) & among[:, None]).mean(axis=0).max())
    assert result["accuracy_top1"] == pytest.approx(100 * first.mean())
    assert result["CorLoc"] == localization.corloc(single >= 0.5, truth)
    assert evaluation.corloc(class_oracle=True) == localization.corloc(single >= 0.5, truth, threshold="class-oracle")
    given = evaluation.result(tau=0.3)
    assert given["MaxBoxAcc"] == pytest.approx(100 * (single[:, 30] >= 0.5).mean())
    assert given["iou_at_tau"] == pytest.approx(single[:, 30].mean(), abs=1e-11)
    assert (given["tau"], given["tau_from"], given["labels"]) == (0.3, "given", "true")


def test_one_worker_equals_many_to_the_last_bit():
    maps, boxes, truth, predicted = rows(seed=4)
    whole, parts = (
        MaxBoxEvaluation(thresholds=50, classes=True),
        [MaxBoxEvaluation(thresholds=50, classes=True) for _ in range(3)],
    )
    whole.add(maps, boxes, truth=truth, predicted=predicted)
    for number, part in enumerate(parts):
        part.add(maps[number::3], boxes[number::3], truth=truth[number::3], predicted=predicted[number::3])
    total = MaxBoxEvaluation(thresholds=50, classes=True)
    for part in parts[::-1]:
        total.merge(part)
    assert total.result() == whole.result()
    assert total.curve_rows() == whole.curve_rows()
    with pytest.raises(DataError, match="different settings"):
        total.merge(MaxBoxEvaluation(thresholds=49))


def test_top_k_takes_the_map_of_the_true_class_and_knows_no_rank_without_a_label():
    right, wrong = np.zeros((24, 24)), np.zeros((24, 24))
    right[4:12, 4:12], wrong[20:, 20:] = 1, 1
    box = [[4, 4, 11, 11]]
    evaluation = MaxBoxEvaluation(thresholds=10)
    # The label ranks first, second, third with a worse map of its own, sixth; the last row has no label.
    predicted = [[3, 1, 2, 4, 5], [1, 3, 2, 4, 5], [1, 2, 3, 4, 5], [1, 2, 4, 5, 6], [-1, -1, -1, -1, -1]]
    evaluation.add(
        [right, wrong, right, right, right], [box] * 5,
        truth=[3, 3, 3, 3, -1], predicted=predicted, of_truth={1: right, 2: wrong},
    )  # fmt: skip
    result = evaluation.result(tau=0.5)
    assert (result["MaxBoxAcc"], result["top1_loc"], result["top5_loc"]) == (80, 20, 40)
    assert (result["accuracy_top1"], result["accuracy_top5"]) == (25, 75)
    single = MaxBoxEvaluation(thresholds=10)
    single.add([right], [box], truth=[3], predicted=[[3]])
    assert (single.result()["top1_loc"], single.result()["top5_loc"], single.result()["accuracy_top5"]) == (
        100, None, None,
    )  # fmt: skip


def test_no_row_leaves_the_denominator_silently():
    maps, boxes, _, _ = rows(count=6)
    constant, broken = np.full((24, 24), 0.5), np.full((24, 24), np.nan)
    evaluation = MaxBoxEvaluation(thresholds=20)
    evaluation.add(
        [maps[0], None, constant, broken, maps[4], maps[5]],
        [boxes[0], boxes[1], boxes[2], boxes[3], [], []],
        objectless=[False] * 5 + [True],
    )
    result = evaluation.result()
    assert result["rows"] == 6
    assert result["rows_scored"] == 4
    assert (result["rows_without_box"], result["rows_objectless"]) == (1, 1)
    assert (result["rows_missing"], result["rows_unusable"]) == (1, 2)
    assert result["MaxBoxAcc"] <= 25 * 2
    assert evaluation.curve_rows()[3]["tau"] == pytest.approx(0.15)
    assert set(evaluation.curve_rows()[0]) >= {"tau", "largest 0.5", "all 0.7", "largest iou"}


def test_nothing_scored_is_none_not_zero():
    result = MaxBoxEvaluation().result()
    assert (result["MaxBoxAcc"], result["iou"], result["tau"], result["MaxBoxAccV2"]["mean"]) == (None,) * 4


def test_bad_batches_are_refused():
    evaluation = MaxBoxEvaluation(thresholds=10)
    with pytest.raises(DataError, match="one set an image"):
        evaluation.add([np.zeros((4, 4))], [])
    with pytest.raises(DataError, match="share one size"):
        evaluation.add([np.zeros((4, 4)), np.zeros((5, 4))], [SQUARE, SQUARE])
    with pytest.raises(DataError, match="true classes"):
        evaluation.add([np.zeros((4, 4))], [SQUARE], predicted=[[1]])


def test_folder_of_maps_in_the_fields_layout(tmp_path):
    (tmp_path / "val2/9").mkdir(parents=True)
    np.save(tmp_path / "val2/9/0.jpeg.npy", np.eye(4, dtype=np.float32))
    np.savez(tmp_path / "val2/9/1.npz", scoremap=np.ones((1, 3, 5)), other=np.zeros(2))
    np.savez_compressed(tmp_path / "plain.npz", np.zeros((2, 2), np.uint8))
    maps = ScoreMaps(tmp_path)
    assert maps.read("val2/9/0.jpeg").dtype == np.float32
    assert maps.read("val2/9/1.jpeg").shape == (3, 5)
    assert maps.read("plain.png").dtype == np.float64
    assert maps.read("absent.png") is None
    assert [name for name, score in maps.items(["plain", "absent"]) if score is None] == ["absent"]


def test_folder_of_maps_names_what_it_cannot_read(tmp_path):
    np.save(tmp_path / "flat.npy", np.zeros(7))
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY")
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 2)), b=np.zeros((2, 2)))
    for name in ("flat", "pickled", "torn", "two"):
        with pytest.raises(DataError, match=name):
            ScoreMaps(tmp_path).read(name)
    with pytest.raises(DataError, match="leads out"):
        ScoreMaps(tmp_path).read("../flat")
    with pytest.raises(DataError, match="does not exist"):
        ScoreMaps(tmp_path / "nowhere")


def test_metrics_alone_needs_neither_opencv_nor_torch_nor_a_compiler_at_import():
    code = (
        "import sys; from wsolpipe import metrics; import wsolpipe.metrics.protocol, wsolpipe.metrics.accumulate; "
        "print(sorted({'cv2', 'torch', 'numba', 'skimage', 'zarr', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_scoring_maps_needs_no_opencv():
    code = (
        "import sys; sys.modules['cv2'] = None; import numpy as np; from wsolpipe import metrics; "
        "maps = metrics.standard_maps(np.random.default_rng(0).random((2, 7, 7))); "
        "metrics.maxbox_counts(maps, [[[0, 0, 9, 9]]] * 2); metrics.pxap(maps, maps > 0.5)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
