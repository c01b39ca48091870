"""The realistic protocol on runs whose right answer is known by construction."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pytest
from click.testing import CliRunner

from wsolpipe import metrics
from wsolpipe.cli import eval as scoring
from wsolpipe.contract.errors import ConfigError, DataError, WsolError
from wsolpipe.metrics import protocol
from wsolpipe.metrics.accumulate import MaxBoxEvaluation
from wsolpipe.metrics.pixels import PixelEvaluation, nearest_threshold
from wsolpipe.metrics.protocol_tables import annotators_of, full_table, lacking, protocol_table, wilson


def entry(peak, height, *, rows=100, thresholds=10):
    """Figures whose curve is a tent of the given height with its top at threshold number ``peak``."""
    tent = [max(0, height - 5 * abs(place - peak)) for place in range(thresholds)]
    counts = {"30": [min(rows, count + 5) for count in tent], "50": tent, "70": [max(0, count - 20) for count in tent]}
    return {"rows": rows, "largest": counts, "all": counts, "iou": [count / 200 for count in tent]}


@pytest.fixture
def runs(tmp_path):
    """Three models. On the test split B is best; ground truth, rpn, clip, ss and cls prefer B, A, B, C and C."""
    table = {
        # name: (test peak, height), then validation (peak, height) by annotator, accuracy
        "a": ((5, 70), {"gt": (5, 60), "rpn": (4, 90), "clip": (5, 50), "ss": (2, 30)}, 60.0),
        "b": ((6, 80), {"gt": (6, 75), "rpn": (6, 80), "clip": (7, 70), "ss": (2, 35)}, 50.0),
        "c": ((3, 40), {"gt": (3, 45), "rpn": (3, 40), "clip": (4, 45), "ss": (1, 55)}, 75.0),
    }
    for name, (test, validation, accuracy) in table.items():
        entries = {annotator: entry(*shape) for annotator, shape in validation.items()}
        run = protocol.Run(
            name,
            2,
            {"accuracy": accuracy, **entries},
            {"gt": entry(*test), "otsu": protocol.figures_of_ious([0.6] * 33 + [0.1] * 67)},
            {"lr": 0.1},
        )
        protocol.write_run(tmp_path / name, run)
        # An earlier epoch, worse everywhere.
        weak = {annotator: entry(peak, height - 10) for annotator, (peak, height) in validation.items()}
        otsu = protocol.figures_of_ious([0.1] * 100)
        early = protocol.Run(name, 1, {"accuracy": 10.0, **weak}, {"gt": entry(1, 20), "otsu": otsu})
        protocol.write_run(tmp_path / name, early)
    return protocol.read_runs(tmp_path)


def test_table_has_the_answers_known_by_construction(runs):
    cells = {
        (row["annotator"], row["model"], row["threshold"]): (row["run"], row["epoch"], row["tau"], row["MaxBoxAcc"])
        for row in protocol_table(runs)
    }
    assert len(cells) == 5 * 4
    for annotator in ("gt", "rpn", "clip", "ss"):
        assert cells[annotator, "BT", "TT"] == ("b", 2, 0.6, 80)
    assert cells["gt", "BV", "VT"] == ("b", 2, 0.6, 80)
    assert cells["rpn", "BV", "VT"] == ("a", 2, 0.4, 65)  # right threshold 5, rpn says 4
    assert cells["rpn", "BV", "TT"] == ("a", 2, 0.5, 70)
    assert cells["rpn", "BT", "VT"] == ("b", 2, 0.6, 80)
    assert cells["clip", "BV", "VT"] == ("b", 2, 0.7, 75)
    assert cells["ss", "BV", "VT"] == ("c", 2, 0.1, 30)
    assert cells["ss", "BT", "VT"] == ("b", 2, 0.2, 60)
    for threshold in ("TT", "VT"):  # classes give no threshold
        assert cells["cls", "BV", threshold] == ("c", 2, "otsu", 33)
        assert cells["cls", "BT", threshold] == ("b", 2, "otsu", 33)  # equal at Otsu's: ground truth's breaks the tie


def test_iou_stands_beside_the_score_and_oracles_are_named(runs):
    for row in protocol_table(runs):
        assert 0 < row["iou"] < 1
        assert row["oracle"] == (row["model"] == "BT" or (row["threshold"] == "TT" and row["annotator"] != "cls"))


def nine_files(folder):
    """Three configurations of three epochs. Ground truth likes each last one, rpn each middle one, cls each first."""
    heights = {"a": (20, 40, 60), "b": (30, 70, 80), "c": (40, 50, 75)}  # on test, by epoch
    for name, on_test in heights.items():
        for epoch, height in enumerate(on_test):
            liked = {"gt": 30 + 20 * epoch, "rpn": 60 - 20 * abs(epoch - 1)}
            validation = {"accuracy": 90.0 - 10 * epoch, **{key: entry(5, top) for key, top in liked.items()}}
            test = {"gt": entry(5, height), "otsu": protocol.figures_of_ious([0.6] * (height // 2) + [0.1] * 50)}
            protocol.write_run(folder, protocol.Run(name, epoch, validation, test))
    return protocol.read_runs(folder)


def test_each_annotator_picks_the_epochs_and_the_test_split_only_the_configuration(tmp_path):
    runs = nine_files(tmp_path)
    best = {
        cell["annotator"]: (cell["run"], cell["epoch"], cell["MaxBoxAcc"])
        for cell in full_table(runs)
        if (cell["model"], cell["threshold"]) == ("BT", "TT")
    }
    assert best["gt"] == ("b", 2, 80)
    assert best["rpn"] == ("b", 1, 70)  # the best epoch of all on test is not in rpn's reach
    assert best["cls, tau of gt"] == ("c", 0, 40)
    assert best["cls"][:2] == ("c", 0)
    assert best["cls"][2] == pytest.approx(100 * 20 / 70)  # at each image's own Otsu threshold


def test_all_figures_stand_beside_an_interval_that_holds_the_score(runs):
    for cell in protocol_table(runs, annotators=["gt", "rpn"]):
        assert cell["low"] < cell["MaxBoxAcc"] < cell["high"]
        assert cell["MaxBoxAccV2"] == pytest.approx(np.mean([cell[f"IoU-{level}"] for level in (30, 50, 70)]))
    assert wilson(8, 10) == pytest.approx((49.02, 94.33), abs=0.01)  # Newcombe, Stat. Med. 1998, gives such examples
    assert annotators_of(runs) == ["cls", "gt", "rpn", "clip", "ss"]


def test_other_metrics_choose_by_themselves(runs):
    assert protocol.select(runs, "rpn", metric="iou").score == pytest.approx(0.45)
    v2 = protocol.select(runs, "rpn", metric="MaxBoxAccV2")
    assert v2.score == pytest.approx((95 + 90 + 70) / 3)
    assert v2.run.run == "a"


class Unreadable(Mapping):
    """Figures of which only some may be looked at."""

    def __init__(self, inside, *legal):
        self.inside, self.legal = inside, legal

    def __getitem__(self, key):
        assert key in self.legal, f"selection looked at {key}"
        return self.inside[key]

    def __iter__(self):
        raise AssertionError("selection listed the figures")

    def __len__(self):
        raise AssertionError("selection counted the figures")


@pytest.mark.parametrize("annotator", ["rpn", "clip", "ss", "cls"])
@pytest.mark.parametrize("metric", ["MaxBoxAcc", "MaxBoxAccV2", "iou"])
def test_selection_works_with_ground_truth_and_test_split_unreadable(runs, annotator, metric):
    legal = "accuracy" if annotator == "cls" else annotator
    blind = [protocol.Run(run.run, run.epoch, Unreadable(run.validation, legal), Unreadable({})) for run in runs]
    choice = protocol.select(blind, annotator, metric=metric)
    seeing = protocol.select(runs, annotator, metric=metric)
    assert (choice.run.name, choice.tau) == (seeing.run.name, seeing.tau)


def test_tau_from_pseudo_boxes_needs_no_ground_truth_file(tmp_path):
    # The whole path on arrays: pseudo-boxes give tau while the ground truth cannot be opened at all.
    rng = np.random.default_rng(0)
    score = np.zeros((20, 32, 32))
    score[:, 8:24, 8:24] = 0.6
    score[:, 12:20, 12:20] = 1.0
    score += rng.random(score.shape) * 0.01
    maps = metrics.minmax(score)
    truth = tmp_path / "localization.txt"
    assert not truth.exists()
    validation = MaxBoxEvaluation(thresholds=100)
    validation.add(list(maps), [[[12, 12, 20, 20]]] * 20)
    tau = protocol.estimate_tau(protocol.figures(validation))
    assert tau > validation.best_tau()  # that is the first of those that are equally good
    assert validation.curve("largest 0.5")[round(100 * tau)] == validation.curve("largest 0.5").max()
    test = MaxBoxEvaluation(thresholds=100)
    truth.write_text("ground truth arrives only now")
    test.add(list(maps), [[[12, 12, 20, 20]]] * 20)
    assert test.result(tau=tau)["MaxBoxAcc"] == 100
    assert test.result(tau=0.3)["MaxBoxAcc"] == 0


def test_mask_data_choose_by_pxap_and_carry_the_threshold_of_pixel_iou(tmp_path):
    rng = np.random.default_rng(1)
    mask = np.zeros((30, 30), bool)
    mask[10:20, 10:20] = True
    for name, noise in (("sharp", 0.2), ("blunt", 1.6)):
        evaluation = PixelEvaluation(thresholds=100)
        evaluation.add(metrics.minmax(mask + noise * rng.random(mask.shape)), mask)
        figures = protocol.figures(evaluation)
        protocol.write_run(tmp_path, protocol.Run(name, 1, {"clip": figures}, {"gt": figures}))
    rows = protocol_table(protocol.read_runs(tmp_path), metric="PxAP")
    assert {row["run"] for row in rows} == {"sharp"}
    assert protocol.metric_of(protocol.read_runs(tmp_path), "clip") == "PxAP"
    assert rows[0]["PxAP"] == pytest.approx(100)
    assert rows[0]["iou"] == pytest.approx(1)
    with pytest.raises(DataError, match="no 'largest'"):
        protocol.select(protocol.read_runs(tmp_path), "clip")


def test_figures_survive_the_file(tmp_path):
    evaluation = MaxBoxEvaluation(thresholds=10)
    score = np.zeros((8, 8))
    score[2:6, 2:6] = 1
    evaluation.add([score], [[[2, 2, 5, 5]]])
    protocol.write_run(tmp_path, protocol.Run("x", 3, {"gt": protocol.figures(evaluation)}))
    (tmp_path / "run.json").write_text('{"command": "wsoltrain fit"}')  # what a training leaves beside them
    (run,) = protocol.read_runs(tmp_path)
    assert run.validation["gt"] == protocol.figures(evaluation)
    assert (run.run, run.epoch, run.test) == ("x", 3, {})


def test_bad_folders_and_files_are_named(tmp_path, runs):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no training run found in"):
        protocol.read_runs(empty)
    for text, words in (
        ('{"format": "wsolpipe-run/1", "run": "a", "epo', "is not JSON"),
        (json.dumps({"format": "wsolpipe-run/9"}), "is of the format wsolpipe-run/9"),
        (json.dumps({"format": protocol.FORMAT, "run": "a"}), "lacks epoch, validation"),
    ):
        (empty / "a-0001.json").write_text(text)
        with pytest.raises(DataError, match=words):
            protocol.read_runs(empty)
    (empty / "a-0001.json").unlink()
    protocol.write_run(empty / "one", runs[0])
    protocol.write_run(empty / "two", runs[0])
    with pytest.raises(DataError, match="second file of run a, epoch 1"):
        protocol.read_runs(empty)
    with pytest.raises(DataError, match="run a, epoch 1 has no validation figures of 'owl'"):
        protocol.select(runs, "owl")
    with pytest.raises(ConfigError, match="unknown metric"):
        protocol.select(runs, "rpn", metric="best")
    with pytest.raises(DataError, match="no training runs to choose"):
        protocol.select([], "rpn")


def damaged(run, folder, change):
    """The file of a run after a change of its content, or of its text."""
    path = protocol.write_run(folder, run)
    content = json.loads(path.read_text())
    changed = change(content)
    path.write_text(changed if isinstance(changed, str) else json.dumps(content))
    return folder


def entry_of_test(content):
    return content["test"]["gt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: json.dumps(found)[:200], "is not JSON"),
        (lambda found: found.update(test={}), "run b, epoch 1 has no test figures of 'gt'"),
        (lambda found: found.update(dataset="cub"), "data sets: run a, epoch 1 of tiny, run b, epoch 1 of cub"),
        (lambda found: entry_of_test(found)["iou"].append(0.1), "the test figures of gt are not whole"),
        (lambda found: entry_of_test(found).pop("rows"), "the test figures of gt are not whole"),
        (lambda found: entry_of_test(found)["largest"].update({"50": ["a"] * 4}), "test figures of gt are not whole"),
        (lambda found: found["validation"].update(gt=[]), "the validation figures of gt are not whole"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_one_line_in_each_command_and_nothing_is_written(tmp_path, change, message):
    good, bad = two_runs(tmp_path / "good")
    for run, kept in ((good, "a"), (bad, "b")):
        damaged(protocol.Run(run.run, 1, run.validation, run.test, {}, "tiny"), tmp_path / "bad" / kept, lambda _: None)
    damaged(protocol.Run("b", 1, bad.validation, bad.test, {}, "tiny"), tmp_path / "bad" / "b", change)
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(scoring.command, [f"runs={tmp_path / 'bad'}"], catch_exceptions=True)
    assert message in str(done.exception)
    assert isinstance(done.exception, WsolError)
    assert done.output == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_json_files_of_other_programs_in_the_folder_are_passed_over(tmp_path, runs):
    for name, text in (("boxes.json", '{"rows": []}'), ("notes.json", "[]"), ("half.json", "{")):
        (tmp_path / name).write_text(text)
    assert protocol.read_runs(tmp_path) == runs


def boxes(largest, thresholds=4, rows=100):
    """Figures whose counts of the largest contour are given by level; those of all contours are ten higher."""
    every = {level: [count + 10 for count in counts] for level, counts in largest.items()}
    return {"rows": rows, "largest": largest, "all": every, "iou": [0.1, 0.2, 0.3, 0.25][:thresholds]}


def two_runs(folder):
    """Ground truth likes run a on validation; on test a is best at its best threshold, b at that of validation."""
    flat = [40, 40, 40, 40]
    levels = {  # of validation, then of test, at four thresholds
        "a": ({"30": flat, "50": [10, 60, 20, 0], "70": [0, 0, 30, 0]},
              {"30": [50, 60, 70, 80], "50": [0, 20, 70, 0], "70": [5, 10, 75, 15]}),
        "b": ({"30": flat, "50": [10, 50, 20, 0], "70": [0, 0, 0, 20]},
              {"30": [50, 60, 70, 80], "50": [0, 45, 50, 0], "70": [5, 10, 15, 20]}),
    }  # fmt: skip
    for name, (validation, test) in levels.items():
        protocol.write_run(folder, protocol.Run(name, 1, {"gt": boxes(validation)}, {"gt": boxes(test)}))
    return protocol.read_runs(folder)


def test_bt_vt_takes_the_run_that_is_best_at_the_annotators_threshold_though_bt_tt_is_bv_tt(tmp_path):
    runs = two_runs(tmp_path)
    cells = {(cell["model"], cell["threshold"]): cell for cell in protocol_table(runs)}
    assert cells["BT", "TT"] == {**cells["BV", "TT"], "model": "BT"}
    assert (cells["BT", "VT"]["run"], cells["BT", "VT"]["MaxBoxAcc"]) == ("b", 45)
    assert (cells["BV", "VT"]["run"], cells["BV", "VT"]["MaxBoxAcc"]) == ("a", 20)
    single = {(cell["model"], cell["threshold"]): cell for cell in protocol_table(runs, rule="single")}
    assert (single["BT", "VT"]["run"], single["BT", "VT"]["MaxBoxAcc"]) == ("a", 20)
    assert single["BT", "VT"]["IoU-50"] == 30  # of all contours


def test_each_level_has_its_own_threshold_so_that_iou_70_may_be_above_iou_50(tmp_path):
    (cell,) = (
        each for each in protocol_table(two_runs(tmp_path)) if (each["model"], each["threshold"]) == ("BV", "VT")
    )
    assert [cell[f"IoU-{level}"] for level in (30, 50, 70)] == [60, 20, 75]
    assert cell["MaxBoxAccV2"] == pytest.approx((60 + 20 + 75) / 3)
    assert cell["taus"] == {"30": 0.25, "50": 0.25, "70": 0.5}
    assert cell["IoU-50"] == cell["MaxBoxAcc"]


def random_folder(folder, seed):
    """Five configurations of three epochs with drawn counts: 25 thresholds on validation, 100 on test."""
    rng = np.random.default_rng(seed)

    def drawn(thresholds):
        largest = {level: rng.integers(0, 101, thresholds).tolist() for level in ("30", "50", "70")}
        every = {level: rng.integers(0, 101, thresholds).tolist() for level in ("30", "50", "70")}
        return {"rows": 100, "largest": largest, "all": every, "iou": rng.random(thresholds).round(6).tolist()}

    for name in "abcde":
        for epoch in range(3):
            validation = {"accuracy": float(rng.random()), **{key: drawn(25) for key in ("gt", "rpn", "ss")}}
            otsu = protocol.figures_of_ious(rng.random(100))
            protocol.write_run(folder, protocol.Run(name, epoch, validation, {"gt": drawn(100), "otsu": otsu}))
    return protocol.read_runs(folder)


def plain_cells(runs):
    """MaxBoxAcc and levels of every cell by the definition, in plain loops over all runs."""

    def best_tau(counts):
        top = max(counts)
        places = [place for place, count in enumerate(counts) if count == top]
        spans = [[places[0]]]
        for place in places[1:]:
            spans[-1].append(place) if place == spans[-1][-1] + 1 else spans.append([place])
        span = max(spans, key=len)
        return (span[0] + span[-1]) // 2 / len(counts)

    def order(entry, run):
        counts = entry["all"]
        return (
            max(entry["largest"]["50"]),
            np.mean([max(counts[level]) for level in counts]),
            max(entry["iou"]),
            run.epoch,
        )

    found = {}
    for annotator in ("cls", "gt", "rpn", "ss"):
        picked = []
        for name in sorted({run.run for run in runs}):
            epochs = [run for run in runs if run.run == name]
            if annotator == "cls":
                picked.append(max(epochs, key=lambda run: (run.validation["accuracy"], run.epoch)))
            else:
                picked.append(max(epochs, key=lambda run: order(run.validation[annotator], run)))  # noqa: B023
        for model in ("BT", "BV"):
            for threshold in ("TT", "VT"):
                cells = []
                for run in picked:
                    shown = run.test["otsu"] if annotator == "cls" else run.test["gt"]
                    by = shown if annotator == "cls" or threshold == "TT" else run.validation[annotator]
                    levels = [
                        shown["largest"][level][nearest_threshold(best_tau(by["largest"][level]), len(shown["iou"]))]
                        for level in ("30", "50", "70")
                    ]
                    liked = run.validation["accuracy"] if annotator == "cls" else order(run.validation[annotator], run)
                    cells.append((levels, liked, order(run.test["gt"], run)))
                if model == "BT":
                    levels = max(cells, key=lambda cell: (cell[0][1], cell[2]))[0]
                else:
                    levels = max(cells, key=lambda cell: cell[1])[0]
                found[annotator, model, threshold] = levels
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_cell_of_drawn_run_files_is_that_of_a_plain_recomputation(tmp_path, seed):
    runs = random_folder(tmp_path, seed)
    expected = plain_cells(runs)
    cells = {(cell["annotator"], cell["model"], cell["threshold"]): cell for cell in protocol_table(runs)}
    assert cells.keys() == expected.keys()
    for name, levels in expected.items():
        assert [cells[name][f"IoU-{level}"] for level in (30, 50, 70)] == levels, name
        assert cells[name]["MaxBoxAcc"] == levels[1], name
        assert cells[name]["MaxBoxAccV2"] == pytest.approx(np.mean(levels)), name


def test_files_of_earlier_versions_are_read_and_what_they_lack_is_said(tmp_path):
    for run in two_runs(tmp_path / "new"):
        for entry in (run.validation["gt"], run.test["gt"]):
            entry["largest"] = {"50": entry["largest"]["50"]}
        protocol.write_run(tmp_path / "old", run)
    runs = protocol.read_runs(tmp_path / "old")
    assert "hold no counts of the largest contour at IoU 30 and 70" in lacking(runs)
    assert lacking(protocol.read_runs(tmp_path / "new")) == ""
    cell = protocol_table(runs)[1]
    assert (cell["MaxBoxAcc"], cell["IoU-50"], cell["IoU-30"], cell["MaxBoxAccV2"]) == (45, 45, None, None)
    assert protocol_table(runs, rule="single")[0]["MaxBoxAccV2"] == pytest.approx((80 + 80 + 85) / 3)


def test_runs_that_were_tested_at_different_thresholds_have_no_common_table(tmp_path):
    runs = two_runs(tmp_path)
    runs[1].test["gt"]["iou"].append(0.0)
    with pytest.raises(DataError, match="tested at different thresholds: run a, epoch 1 at 4, run b, epoch 1 at 5"):
        protocol_table(runs)
    with pytest.raises(ConfigError, match="unknown rule 'best'"):
        protocol_table(runs[:1], rule="best")


def tied(name, epoch, *, v2, iou):
    """A run whose MaxBoxAcc is 80 at thresholds 4, 5 and 6."""
    half = [0, 0, 0, 50, 80, 80, 80, 40, 0, 0]
    counts = {"30": half, "50": half, "70": [min(count, v2) for count in half]}
    curve = [iou if count == 80 else 0.1 for count in half]
    return protocol.Run(name, epoch, {"rpn": {"rows": 100, "largest": {"50": half}, "all": counts, "iou": curve}})


def test_ties_go_to_maxboxaccv2_then_iou_then_the_later_epoch():
    first, second = tied("a", 0, v2=40, iou=0.7), tied("a", 1, v2=60, iou=0.6)
    assert protocol.select([first, second], "rpn").run.epoch == 1
    third = tied("a", 2, v2=60, iou=0.65)
    assert protocol.select([third, first, second], "rpn").run.epoch == 2
    later = tied("a", 5, v2=60, iou=0.65)
    assert protocol.select([later, third, second, first], "rpn").run.epoch == 5
    better = tied("b", 0, v2=0, iou=0.0)
    better.validation["rpn"]["largest"]["50"][5] = 81
    assert protocol.select([later, better], "rpn").run.name == "run b, epoch 0"


def test_tau_is_taken_from_the_middle_of_its_plateau():
    assert protocol.select([tied("a", 0, v2=60, iou=0.5)], "rpn").tau == 0.5


def test_doubts_name_ties_saturation_and_flat_curves():
    plain = tied("a", 0, v2=60, iou=0.5)
    choice = protocol.select([plain], "rpn")
    assert [text.split(":")[0] for text in protocol.doubts([plain], "rpn", choice)] == ["flat curve"]
    two = [plain, tied("a", 1, v2=60, iou=0.5)]
    assert protocol.doubts(two, "rpn", protocol.select(two, "rpn"))[0].startswith("2 of 2 epochs tie at 80.00")
    full = tied("a", 0, v2=60, iou=0.5)
    full.validation["rpn"]["largest"]["50"] = [0, 0, 0, 0, 0, 100, 0, 0, 0, 0]
    found = protocol.doubts([full], "rpn", protocol.select([full], "rpn"))
    assert len(found) == 1
    assert found[0].startswith("saturated: rpn scores 100.00")
    assert protocol.doubts([plain], "rpn", protocol.select([plain], "rpn", metric="iou"), metric="iou") != []


def test_runs_without_boxes_were_chosen_by_the_accuracy_of_their_classes():
    runs = [protocol.Run("r", epoch, {"accuracy": 10.0 * epoch}, {}) for epoch in (1, 2)]
    assert protocol.annotator_of(runs) == "cls"
    assert protocol.select(runs, "cls").run.epoch == 2
    with pytest.raises(DataError, match="no validation figures of 'proposls'; it has those of: cls"):
        protocol.select(runs, "proposls")
