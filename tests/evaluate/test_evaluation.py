"""What `eval` says of maps and boxes: figures by definition, every row accounted for, thresholds chosen blind."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from xml.etree import ElementTree

import cv2
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from PIL import Image

from stores import DATASET, build_store, write_stage, write_table
from wsolpipe.cli.eval import command
from wsolpipe.contract.backends.opening import open_backend
from wsolpipe.contract.errors import ConfigError, DataError, StoreError
from wsolpipe.contract.layout import commit_name, stage_folder
from wsolpipe.contract.manifest import CommitRecord, StageManifest
from wsolpipe.contract.schema import ArraySpec, Status
from wsolpipe.engine.chosen_maps import SessionResults
from wsolpipe.engine.session import Session
from wsolpipe.evaluate.evaluation import Options, evaluate
from wsolpipe.evaluate.figures import Frame
from wsolpipe.evaluate.map_scores import score_maps
from wsolpipe.evaluate.map_sources import BATCH, MapBatch, RowTable
from wsolpipe.evaluate.mask_scores import MaskEvaluation, compare_masks
from wsolpipe.evaluate.otsu_scores import otsu_box
from wsolpipe.evaluate.truth import MaskFiles, Truth
from wsolpipe.keys.run_keys import RunConfig
from wsolpipe.metrics import best_iou, iou_curves, maxbox_counts, standard_boxes
from wsolpipe.metrics.confidence import middle
from wsolpipe.report.curves import curve_rows, write_csv, write_plots

ROWS = 24


def row_table(names, labels, side, silent=()):
    """Rows of square images that can all be read."""
    count = len(names)
    sizes, upright, quarantined = np.full((count, 2), side), np.ones(count, int), np.zeros(count, bool)
    return RowTable("test", names, labels, sizes, upright, frozenset(silent), quarantined)


class Place:
    """A store with the splits val and test, a YAML that names them, and ground truth for every second row."""

    def __init__(self, folder):
        self.folder = folder
        self.tiny = {}
        for seed, split in enumerate(("val", "test")):
            bad = {3: "truncated"} if split == "test" else None
            self.tiny[split] = build_store(
                folder, rows=ROWS, n_maps=3, split=split, seed=seed, quarantined=bad, no_object=(5,)
            )
            self.write_truth(split)
        yaml = folder / "tiny.yaml"
        yaml.write_text(
            f"name: {DATASET}\nlayout: folder\nroot: images\nmasks: masks\nsplit: {{val: val, test: test}}\n"
        )
        self.config = RunConfig(dataset=str(yaml), store=self.tiny["test"].url, threads=1)

    @property
    def session(self):
        return Session.open(self.config, need_root=False)

    def annotations(self, split):
        (path,) = (self.folder / "store" / DATASET / split / "index").glob("*/annotations.parquet")
        return path

    def truth(self, split):
        """Boxes of the rows that have ground truth."""
        return {row: self.tiny[split].objects[row : row + 1].astype(float) for row in range(0, ROWS, 2)}

    def write_truth(self, split, masks=()):
        lines = [(row, "box", *boxes[0], "") for row, boxes in self.truth(split).items()]
        lines += [(row, kind, 0.0, 0.0, 0.0, 0.0, path) for row, kind, path in masks]
        columns = dict(zip(("row", "kind", "x0", "y0", "x1", "y1", "path"), zip(*lines, strict=True), strict=True))
        table = pa.table({name: list(values) for name, values in columns.items()})
        write_table(self.annotations(split).parent, "annotations.parquet", table)

    def score(self, stage="cls_maps", split="test", **options):
        results = SessionResults(self.session)
        return evaluate(results, stage, split, Options(threads=1, seed=self.config.seed, **options))

    def figures(self, stage="cls_maps", split="test", **options):
        return self.score(stage, split, **options).figures

    def pseudo(self, split, wobble=0):
        """A box file of all rows, moved a little."""
        path = self.folder / f"pseudo-{split}-{wobble}.txt"
        tiny = self.tiny[split]
        lines = [
            f"{name},{box[0]},{box[1]},{box[2] + wobble},{box[3]}\n"
            for name, box in zip(tiny.paths, tiny.objects.tolist(), strict=True)
        ]
        path.write_text("".join(lines))
        return str(path)

    def maps_folder(self, split="test", change=None):
        folder = self.folder / f"maps-{split}"
        for row, name in enumerate(self.tiny[split].paths):
            values = self.tiny[split].maps[row, 1].astype(np.float32) / 255
            if change and row in change:
                values = change[row](values)
            if values is not None:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                np.save(folder / f"{name}.npy", values)
        return str(folder)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def framed(levels):
    large = cv2.resize(levels.astype(np.float32), (224, 224), interpolation=cv2.INTER_CUBIC)
    return ((large - large.min()) / (large.max() - large.min())).astype(np.float64)


def scored_rows(place, split, slot=0, rows=None):
    """Maps and boxes in the frame, by plain OpenCV."""
    tiny, truth = place.tiny[split], place.truth(split)
    rows = [row for row in truth if tiny.status[row] != Status.QUARANTINED] if rows is None else rows
    sizes = [tiny.sizes[row][::-1] for row in rows]
    boxes = [standard_boxes(tiny.objects[row : row + 1], size) for row, size in zip(rows, sizes, strict=True)]
    return np.stack([framed(tiny.maps[row, slot]) for row in rows]), boxes


def test_figures_of_a_stage_of_maps_are_those_of_its_maps_by_definition(place):
    figures = place.figures(slot=1)
    maps, boxes = scored_rows(place, "test", slot=1)
    largest, every = (maxbox_counts(maps, boxes, contours=kind, ious=(0.3, 0.5, 0.7)) for kind in ("largest", "all"))
    assert figures["MaxBoxAcc"] == pytest.approx(100 * largest[1].max() / len(maps))
    shares = 100 * every.max(axis=1) / len(maps)
    assert figures["MaxBoxAccV2"] == pytest.approx(
        dict(zip(("30", "50", "70", "mean"), (*shares, shares.mean()), strict=True))
    )
    assert figures["iou"] == pytest.approx(iou_curves(maps, boxes).mean(axis=0).max(), abs=1e-6)
    assert figures["tau"] == largest[1].argmax() / 1000
    assert (figures["labels"], figures["convention"], figures["PxAP"]) == ("true", "standard", None)


def test_no_row_leaves_a_denominator_unseen(place):
    figures = place.figures()
    assert figures["rows"] + figures["rows_quarantined"] == ROWS
    assert figures["rows_scored"] + figures["rows_without_box"] + figures["rows_objectless"] == figures["rows"]
    assert (figures["rows_quarantined"], figures["rows_scored"], figures["rows_without_box"]) == (1, 12, 11)


def test_a_constant_map_a_missing_one_and_one_with_nan_score_as_empty_and_are_counted(place):
    plain = place.figures(None, maps=place.maps_folder())
    broken = {
        0: np.zeros_like,
        2: lambda values: None,
        4: lambda values: np.where(values > 0.9, np.nan, values),
        6: lambda values: np.where(values > 0.9, np.inf, values),
    }
    worse = Place.maps_folder
    for path in (place.folder / "maps-test").rglob("*.npy"):
        path.unlink()
    figures = place.figures(None, maps=worse(place, change=broken))
    assert (figures["rows_missing"], figures["rows_unusable"]) == (1, 3)
    assert figures["rows_scored"] == plain["rows_scored"] == 12
    kept = [row for row in range(0, ROWS, 2) if row not in broken]
    maps, boxes = scored_rows(place, "test", slot=1, rows=kept)
    want = maxbox_counts(maps, boxes)[0].max() / 12
    assert figures["MaxBoxAcc"] == pytest.approx(100 * want)


def test_an_image_that_cannot_be_read_is_given_up_and_counted_and_one_without_a_size_is_looked_at(tmp_path):
    box = np.array([[2, 3, 20, 30]])
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(tmp_path / "images" / name)
        np.save(tmp_path / f"{name}.npy", np.pad(np.ones((4, 3)), 2))
    (tmp_path / "images" / "b.png").write_bytes(b"no image")
    (tmp_path / "image_ids.txt").write_text("a.png\nb.png\nc.png\n")
    (tmp_path / "class_labels.txt").write_text("a.png,0\nb.png,0\nc.png,0\n")
    (tmp_path / "localization.txt").write_text("a.png,2,3,20,30\nb.png,2,3,20,30\n")
    yaml = tmp_path / "few.yaml"
    files = "files: {classes: null, image_sizes: null}"
    yaml.write_text(f"name: few\nlayout: metadata\nroot: images\nmetadata: .\nsplit: test\nclasses: 1\n{files}\n")
    session = Session.open(RunConfig(dataset=str(yaml), store=str(tmp_path / "none"), threads=1), need_root=False)
    figures = evaluate(SessionResults(session), None, "test", Options(maps=str(tmp_path))).figures
    names = ("rows", "rows_quarantined", "rows_scored", "rows_without_box")
    assert [figures[name] for name in names] == [2, 1, 1, 1]
    scale = 224 / np.array([30, 40, 30, 40])
    want = iou_curves(framed(np.pad(np.ones((4, 3)), 2))[None], [np.trunc(box * scale)]).max()
    assert figures["iou"] == pytest.approx(want, abs=1e-6)


def test_a_folder_or_file_of_another_data_set_is_refused(place, tmp_path):
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other" / "someone_else.npy", np.eye(4))
    with pytest.raises(ConfigError, match=f"holds no map of any of the {ROWS} images of test") as caught:
        place.figures(None, maps=str(tmp_path / "other"))
    assert f"{place.tiny['test'].paths[0]}.npy" in caught.value.hint
    (tmp_path / "boxes.txt").write_text("someone_else.jpg,1,2,3,4\n")
    with pytest.raises(ConfigError, match="holds no box of an image of test"):
        place.figures("proposals", against=str(tmp_path / "boxes.txt"))


def test_a_map_of_the_wrong_shape_is_an_error_that_names_its_file(place):
    folder = place.maps_folder(change={2: lambda values: np.stack([values] * 2)})
    with pytest.raises(DataError, match=r"image00002.png.npy holds float32 \[2, 14, 14\]"):
        place.figures(None, maps=folder)


def test_maps_outside_0_to_1_are_scaled_or_refused_by_name(place):
    folder = place.maps_folder(change={2: lambda values: 7 * values - 3})
    assert place.figures(None, maps=folder)["rows_unusable"] == 0
    with pytest.raises(DataError, match="image00002.png leaves 0..1: -2.97255 to 4"):
        place.figures(None, maps=folder, normalise=False)


def test_a_threshold_is_chosen_on_pseudo_boxes_while_ground_truth_cannot_be_read(place):
    pseudo = place.pseudo("val", wobble=9)
    place.annotations("val").unlink()
    figures = place.figures(slot=1, tau_from=pseudo)
    maps, _ = scored_rows(place, "val", slot=1, rows=range(ROWS))
    tiny = place.tiny["val"]
    wobbly = [
        standard_boxes(box + (0, 0, 9, 0), size[::-1]) for box, size in zip(tiny.objects, tiny.sizes, strict=True)
    ]
    want = middle(maxbox_counts(maps, wobbly)[0]) / 1000
    assert figures["tau"] == want
    assert (figures["tau_rows"], figures["tau_metric"]) == (ROWS, "MaxBoxAcc")
    test_maps, test_boxes = scored_rows(place, "test", slot=1)
    at_tau = maxbox_counts(test_maps, test_boxes)[0][round(want * 1000)]
    assert figures["MaxBoxAcc"] == pytest.approx(100 * at_tau / len(test_maps))
    with pytest.raises(StoreError, match=r"annotations.parquet is missing"):
        place.figures(slot=1, tau_from="truth")


def test_a_stage_of_boxes_can_choose_the_threshold_and_be_the_judge(place):
    place.annotations("val").unlink()
    figures = place.figures(tau_from="proposals")
    assert figures["tau_from"].startswith("pseudo-boxes of proposals")
    assert figures["tau_rows"] == ROWS - 1  # the row without an object has no box
    place.annotations("test").unlink()
    judged = place.figures(against="proposals")
    assert judged["rows_scored"] == ROWS - 2
    assert judged["against"].startswith("pseudo-boxes of proposals")


def test_the_maps_of_the_other_split_must_be_of_the_same_parameters(place):
    tiny = place.tiny["val"]
    for split, params in (("val", {"layer": 3}), ("test", {"layer": 4})):
        key = f"dddd00000000{len(split):04d}"
        arrays = {"maps": (ArraySpec(dtype="uint8", shape=tiny.maps.shape[1:]), tiny.maps)}
        write_stage(tiny.url, "cams", key, arrays, status=np.ones(ROWS, np.uint8), split=split)
        path = place.folder / "store" / DATASET / split / "cams" / key / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "params": params}))
    with pytest.raises(StoreError, match="not made with the parameters"):
        place.figures("cams", tau_from=place.pseudo("val"))


def test_masks_give_pxap_by_definition_with_pixels_ignored(place):
    tiny, rng, lines = place.tiny["test"], np.random.default_rng(0), []
    (place.folder / "masks").mkdir()
    pooled = [[], []]
    for row in (0, 2, 4):
        height, width = tiny.sizes[row]
        for kind, share in (("mask", 0.3), ("mask", 0.1), ("ignore", 0.2)):
            lines.append((row, kind, f"{row}-{kind}-{share}.png"))
            pixels = 255 * (rng.random((height, width)) < share).astype(np.uint8)
            Image.fromarray(pixels).save(place.folder / "masks" / lines[-1][2])
        parts = [
            cv2.resize(cv2.imread(str(place.folder / "masks" / path), 0), (224, 224), interpolation=cv2.INTER_NEAREST)
            for at, _, path in lines
            if at == row
        ]
        truth, ignored = (parts[0] > 0) | (parts[1] > 0), parts[2] > 0
        counted = truth | ~ignored
        pooled[0].append(framed(tiny.maps[row, 0])[counted])
        pooled[1].append(truth[counted])
    place.write_truth("test", masks=lines)
    figures = place.figures()
    scores, truth = (np.concatenate(part) for part in pooled)
    edges = np.append(np.arange(1000) / 1000, [1, 2, 3])
    true, false = (np.histogram(scores[part], edges)[0][::-1].cumsum() for part in (truth, ~truth))
    with np.errstate(invalid="ignore"):
        area = np.diff(true / true[-1]) * (true / (true + false))[1:]
    # OpenCV's bicubic and ours differ in the last bits of float32, which moves a pixel in ten thousand by one bin.
    assert figures["PxAP"] == pytest.approx(100 * np.nansum(area), abs=1e-3)
    assert figures["rows_without_mask"] == figures["rows"] - 3


def test_pseudo_masks_choose_the_threshold_of_mask_data(place):
    tiny = place.tiny["val"]
    for row, name in enumerate(tiny.paths):
        path = place.folder / "guesses" / f"{name[:-4]}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 * (tiny.maps[row, 0] > 100).astype(np.uint8)).resize((50, 60), 0).save(path)
    place.annotations("val").unlink()
    figures = place.figures(tau_from=str(place.folder / "guesses"))
    assert figures["tau_metric"] == "PxAP"
    assert 0.3 < figures["tau"] < 0.5  # 100 of 255 levels


def write_masks(place, masks, status=None, key="abcd000011112222"):
    arrays = {"masks": (ArraySpec(dtype="uint8", shape=masks.shape[1:]), masks.astype(np.uint8))}
    status = np.ones(ROWS, np.uint8) if status is None else status
    write_stage(place.tiny["test"].url, "val_masks", key, arrays, status=status, split="test")


def test_masks_of_a_stage_are_scored_pixel_by_pixel_and_every_row_is_accounted_for(place):
    rng, side = np.random.default_rng(2), 28
    wanted = {row: rng.random((side, side)) < 0.4 for row in range(8)}
    skipped = {1: rng.random((side, side)) < 0.2}
    lines = []
    for row, mask in wanted.items():
        for kind, own in (("mask", mask), ("ignore", skipped.get(row))):
            if own is not None:
                path = place.folder / "masks" / f"{kind}{row}.png"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(255 * own.astype(np.uint8)).save(path)
                lines.append((row, kind, path.name))
    place.write_truth("test", masks=lines)
    masks = rng.random((ROWS, side, side)) < 0.4
    masks[0] = wanted[0]
    masks[2] = False
    status = np.ones(ROWS, np.uint8)
    status[3], status[4] = Status.QUARANTINED, Status.ABSENT
    masks[4] = False
    write_masks(place, masks, status)
    figures = place.figures("val_masks", interval=True)
    ious, pixels = [], np.zeros(3)
    for row, truth in wanted.items():
        if row != 3:
            counted = truth | ~skipped.get(row, np.zeros_like(truth))
            both, either = (masks[row] & truth).sum(), ((masks[row] & counted) | truth).sum()
            ious.append(both / either)
            pixels += both, (masks[row] & counted).sum(), truth.sum()
    assert figures["rows_scored"] == len(ious) == 7
    assert (figures["rows_quarantined"], figures["rows_missing"], figures["rows_empty_mask"]) == (1, 1, 2)
    assert figures["rows_scored"] + figures["rows_without_mask"] == figures["rows"] == ROWS - 1
    assert figures["mask_iou"] == pytest.approx(np.mean(ious))
    assert figures["mask_iou_50"] == pytest.approx(np.mean(np.array(ious) >= 0.5))
    assert figures["pixel_precision"] == pytest.approx(pixels[0] / pixels[1])
    assert figures["pixel_recall"] == pytest.approx(pixels[0] / pixels[2])
    assert figures["pixel_iou"] == pytest.approx(pixels[0] / (pixels[1] + pixels[2] - pixels[0]))
    part = figures["intervals"]["mask_iou"]
    assert part["low"] <= part["value"] <= part["high"]
    write_masks(place, ~masks, key="abcd000011113333")
    test = place.figures("val_masks", key="abcd000011112222", beside="abcd000011113333")["beside"]["mask_iou"]
    assert test["difference"] != 0
    evaluated = place.score("val_masks", key="abcd000011112222")
    drawn = write_plots(place.folder / "plots", evaluated)
    assert [path.suffix for path in drawn] == [".svg", ".pdf", ".png", ".csv"] * 2


def test_masks_of_objectless_rows_are_true_negatives_where_they_are_empty(place):
    Image.fromarray(np.full((9, 9), 255, np.uint8)).save(place.folder / "one.png")
    reference = Truth(
        "x",
        row_table(["a", "b", "c"], [[0], [1], [1]], 9, silent={1}),
        masks={0: MaskFiles((place.folder / "one.png",))},
    )
    found = MaskEvaluation()
    for row, mask in enumerate((np.ones((9, 9), bool), np.zeros((9, 9), bool), np.ones((9, 9), bool))):
        found.add(row, mask, *reference.mask(row, 9), objectless=reference.rows.objectless(row))
    figures = found.result()
    assert (figures["rows_scored"], figures["rows_objectless"], figures["true_negatives"]) == (1, 2, 1)
    assert figures["mask_iou"] == figures["pixel_iou"] == 1
    assert figures["mask_iou_centre"] == pytest.approx(49 / 81)


def test_the_error_of_an_eroded_mask_is_half_of_the_area_it_lost(tmp_path):
    disc = (np.hypot(*np.mgrid[-100:100, -90:110]) < 60).astype(np.uint8)
    Image.fromarray(255 * disc).save(tmp_path / "disc.png")
    ignored = np.zeros_like(disc)
    ignored[:, :40] = 255
    Image.fromarray(ignored).save(tmp_path / "ignored.png")
    files = MaskFiles((tmp_path / "disc.png",), (tmp_path / "ignored.png",))
    rows = row_table(["a", "b", "c"], [[0], [0], [1]], 200, silent={1})
    truth = Truth("x", rows, masks={0: files, 2: files})
    for percent in (5, 20, 50, 90):
        figures = compare_masks(truth.disturbed(percent / 100, 0), truth)
        assert figures["mask_error"] == pytest.approx(percent / 200, abs=1e-3)
    everything = Image.fromarray(np.full((9, 9), 255, np.uint8))
    everything.save(tmp_path / "all.png")
    whole = Truth("y", rows, masks={0: MaskFiles((tmp_path / "all.png",))})
    assert compare_masks(whole, truth)["mask_error"] == 0.5  # nothing missed, all of the rest taken
    with pytest.raises(ConfigError, match="x of test holds no masks to compare"):
        compare_masks(truth, Truth("x", rows))


def test_masks_need_masks_and_no_threshold(place):
    write_masks(place, np.ones((ROWS, 14, 14)))
    with pytest.raises(ConfigError, match="ground truth of test holds no masks"):
        place.figures("val_masks")
    with pytest.raises(ConfigError, match="tau: val_masks holds masks"):
        place.figures("val_masks", tau=0.5)


def test_predicted_classes_are_stated_and_give_top_k_figures(place):
    tiny, labels = place.tiny["test"], np.array(place.tiny["test"].labels)
    classes = np.stack([labels, (labels + 1) % 5], axis=1).astype(np.int32)
    classes[::4] = classes[::4, ::-1]
    arrays = {
        "maps": (ArraySpec(dtype="uint8", shape=(2, 14, 14)), tiny.maps[:, :2]),
        "class_ids": (ArraySpec(dtype="int32", shape=(2,), fill=-1), classes),
    }
    write_stage(tiny.url, "cams", "eeee000011112222", arrays, status=np.ones(ROWS, np.uint8), split="test")
    figures = place.figures("cams")
    assert figures["labels"] == "predicted"
    assert figures["accuracy_top1"] == pytest.approx(100 * (np.arange(ROWS) % 4 != 0).mean())
    assert figures["top1_loc"] < figures["MaxBoxAcc"]


def test_padded_grids_are_cropped_before_they_are_stretched(place):
    tiny = place.tiny["test"]
    padded = np.full((ROWS, 1, 20, 20), 255, np.uint8)
    padded[:, :, :14, :14] = tiny.maps[:, :1]
    arrays = {
        "maps": (ArraySpec(dtype="uint8", shape=(1, 20, 20)), padded),
        "grid_hw": (ArraySpec(dtype="uint16", shape=(2,)), np.full((ROWS, 2), 14, np.uint16)),
    }
    write_stage(tiny.url, "cams", "ffff000011112222", arrays, status=tiny.status, split="test")
    for name in ("MaxBoxAcc", "MaxBoxAccV2", "iou", "iou_otsu", "tau"):
        assert place.figures("cams")[name] == place.figures("cls_maps")[name], name


def test_the_clean_convention_works_at_other_resolutions(place):
    figures = place.figures(convention="clean", resolution=96)
    assert figures["convention"] == "clean"
    assert figures["MaxBoxAcc"] == pytest.approx(place.figures()["MaxBoxAcc"], abs=10)


def test_intervals_hold_their_figure_and_a_result_does_not_differ_from_itself(place):
    key = place.figures()["key"]
    figures = place.figures(interval=True, beside=key)
    for name in ("MaxBoxAcc", "iou"):
        part = figures["intervals"][name]
        assert part["low"] <= part["value"] <= part["high"]
        assert part["value"] == pytest.approx(figures[name], abs=1e-4)
        assert (figures["beside"][name]["difference"], figures["beside"][name]["p"]) == (0, 1)


def test_at_each_map_s_own_otsu_threshold_a_stage_is_compared_with_another_slot(place):
    plain = place.figures(slot=1)
    figures = place.figures(slot=1, tau="otsu", figures=("errors",), interval=True, beside=plain["key"])
    tiny, truth = place.tiny["test"], place.truth("test")
    rows = [row for row in truth if tiny.status[row] != Status.QUARANTINED]
    boxes = [otsu_box(tiny.maps[row, 1], *tiny.sizes[row][::-1]) for row in rows]
    ious = np.array([best_iou(box, tiny.objects[row : row + 1]) for row, box in zip(rows, boxes, strict=True)])
    assert figures["iou"] == pytest.approx(plain["iou_otsu"]) == pytest.approx(float(ious.mean()), abs=1e-4)
    assert figures["MaxBoxAcc"] == pytest.approx(100 * float((ious >= 0.5).mean()))
    assert (figures["tau"], figures["tau_from"], figures["oracle"]) == (None, "Otsu of each map", False)
    assert figures["intervals"]["iou"]["value"] == pytest.approx(figures["iou"], abs=1e-4)
    assert (figures["beside"]["iou"]["difference"], figures["beside"]["tau"]) == (0, None)


def test_intervals_of_boxes_hold_their_figures(place):
    figures = place.figures("proposals", interval=True, beside=place.figures("proposals")["key"])
    for name in ("iou_top1", "iou_best5", "iou_centre", "recall50_top1", "box_maxboxacc_v2"):
        part = figures["intervals"][name]
        assert part["value"] == pytest.approx(figures[name])
        assert part["low"] <= part["value"] <= part["high"]
        assert figures["beside"][name]["p"] == 1


def test_boxes_have_no_threshold_to_choose(place):
    with pytest.raises(ConfigError, match="tau: proposals holds boxes"):
        place.figures("proposals", tau=0.5)


def test_noise_leaves_the_judge_alone_and_is_the_same_for_the_same_seed(place):
    study = place.figures(noise="boxes", tau_from=place.pseudo("val"))["noise"]
    assert [line["level"] for line in study] == [level / 100 for level in range(5, 51, 5)]
    again = place.figures(noise="boxes", tau_from=place.pseudo("val"))["noise"]
    assert study == again
    place.config = replace(place.config, seed=1)
    assert study != place.figures(noise="boxes", tau_from=place.pseudo("val"))["noise"]
    assert study[-1]["iou_by_noisy"] < study[0]["iou_by_noisy"]
    for line in study:
        assert line["MaxBoxAcc_at_tau"] == place.figures(tau=line["tau"])["MaxBoxAcc"]


def test_curves_and_plots_show_the_figures(place, tmp_path):
    maps, boxes = place.score(), place.score("proposals")
    rows = curve_rows(maps)
    assert max(row["largest 0.5"] for row in rows) == pytest.approx(maps.figures["MaxBoxAcc"] / 100)
    assert max(row["largest iou"] for row in rows) == pytest.approx(maps.figures["iou"])
    reached = {row["iou"]: row["iou_top1"] for row in curve_rows(boxes)}
    assert reached[0.5] == pytest.approx(boxes.figures["recall50_top1"])
    write_csv(tmp_path / "curves.csv", [maps])
    assert (tmp_path / "curves.csv").read_text().startswith("split,tau,")
    paths = write_plots(tmp_path / "plots", maps) + write_plots(tmp_path / "plots", boxes)
    assert len(paths) == 16
    for path in paths:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        elif path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF")
            assert b"/FontFile2" in path.read_bytes()  # embedded, as printers ask
        elif path.suffix == ".png":
            assert Image.open(path).size == (1050, 720)


class RandomMaps:
    """As many maps as one likes, made when they are asked for."""

    labels = "true"
    quarantined = 0

    def __init__(self, count):
        self.count = count

    def batches(self):
        for start in range(0, self.count, BATCH):
            rows = np.arange(start, min(start + BATCH, self.count))
            yield MapBatch(rows, list(np.random.default_rng(start).random((len(rows), 5, 5), dtype=np.float32)))


def test_memory_does_not_grow_with_the_number_of_maps():
    peaks = []
    for count in (8, BATCH, 3 * BATCH):  # the first compiles
        names = [str(row) for row in range(count)]
        rows = row_table(names, [[0]] * count, 300)
        reference = Truth("truth", rows, {row: np.array([[10.0, 20, 200, 220]]) for row in range(count)})
        tracemalloc.start()
        score_maps(RandomMaps(count), reference, Frame(), threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.1 * peaks[1]


def test_a_folder_of_maps_needs_no_store_and_no_ground_truth_of_the_split_that_chooses(tmp_path):
    box = "2,3,20,30"
    (tmp_path / "images").mkdir()
    for split in ("val", "test"):
        (tmp_path / split).mkdir()
        names = [f"{split}{number}.png" for number in range(3)]
        for number, name in enumerate(names):
            Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(tmp_path / "images" / name)
            np.save(tmp_path / f"{name}.npy", np.pad(np.ones((4, 3)), 2) + np.eye(8, 7) * 0.1 * number)
        for file, rest in (("image_ids", ""), ("class_labels", ",0"), ("image_sizes", ",30,40"), ("boxes", f",{box}")):
            (tmp_path / split / f"{file}.txt").write_text("".join(f"{name}{rest}\n" for name in names))
    # The boxes of val lie where nothing says that they are ground truth; those of test are.
    (tmp_path / "test" / "boxes.txt").rename(tmp_path / "test" / "localization.txt")
    (tmp_path / "val" / "localization.txt").mkdir()  # opening it as a file fails
    yaml = tmp_path / "few.yaml"
    splits = "split: {val: val, test: test}\nclasses: 1\nfiles: {classes: null}"
    yaml.write_text(f"name: few\nlayout: metadata\nroot: images\nmetadata: .\n{splits}\n")
    session = Session.open(RunConfig(dataset=str(yaml), store=str(tmp_path / "none"), threads=1), need_root=False)
    asked = Options(maps=str(tmp_path), tau_from=str(tmp_path / "val" / "boxes.txt"))
    figures = evaluate(SessionResults(session), None, "test", asked).figures
    own = evaluate(SessionResults(session), None, "test", Options(maps=str(tmp_path))).figures
    # The same maps and boxes in both splits: as good as the best, at the middle of the plateau instead of its edge.
    assert (figures["MaxBoxAcc"], figures["tau_rows"]) == (own["MaxBoxAcc"], 3)
    assert figures["tau"] > own["tau"]
    with pytest.raises((DataError, ConfigError, OSError)):
        evaluate(SessionResults(session), None, "test", replace(asked, tau_from="truth"))


def write_artifact(place, stage, summary):
    backend, folder = open_backend(place.tiny["test"].url), stage_folder(DATASET, None, stage, "abcd000011114444")
    manifest = StageManifest(
        kind="artifact", dataset=DATASET, split=None, stage=stage, key="abcd000011114444", version=1, params={},
        fingerprint="abcd000011114444", columns={}, upstream={}, artifacts={}, basis="", created="2025-01-01T00:00:00Z",
    )  # fmt: skip
    record = CommitRecord(shard=None, start=0, stop=0, objects={}, summary=summary)
    backend.create(f"{folder}/manifest.json", manifest.to_bytes())
    backend.create(commit_name(folder, None), record.to_bytes())


def test_eval_of_an_artifact_shows_its_recorded_accuracy_or_says_what_it_is(place):
    measured = {split: {"rows": 3, "top1": 0.5, "top5": 1.0} for split in ("val", "test")}
    write_artifact(place, "classifier", {"mode": "finetune", "accuracy": measured})
    write_artifact(place, "text_anchors", {"classes": 8})
    words = [f"dataset={place.config.dataset}", f"store={place.config.store}"]

    def call(*more):
        return CliRunner().invoke(command, [*words, *more], catch_exceptions=False)

    found = json.loads(call("stage=classifier", "--json").stdout)
    assert (found["key"], found["accuracy"], found["mode"]) == ("abcd000011114444", measured, "finetune")
    only = json.loads(call("stage=classifier", "split=val", "--json").stdout)
    assert only["accuracy"] == {"val": measured["val"]}
    assert "50.0" in call("stage=classifier").stdout
    with pytest.raises(ConfigError, match="text_anchors is an artifact of the whole data set"):
        call("stage=text_anchors")
    with pytest.raises(StoreError, match="no classifier with key ffff"):
        call("stage=classifier", "key=ffff")
