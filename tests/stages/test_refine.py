"""The stages ``refine`` and ``refine_weight``: numbers, rows without maps, the choice of a weight, and a run of all."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
from click.testing import CliRunner

from stages.drawn import draw
from wsolpipe.cli import eval as cli_eval
from wsolpipe.cli import run
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.reader import open_store
from wsolpipe.contract.schema import ArraySpec, Status
from wsolpipe.maps.levels import dequantise
from wsolpipe.maps.segments import mix_segments
from wsolpipe.stages.base import Context, Upstream
from wsolpipe.stages.refine import Refine
from wsolpipe.stages.refine_weight import BATCH, finite_rows, lowest_equal
from wsolpipe.stages.registry import load_registry
from wsoltrain.data.stream import ItemConfig, Labelling, Stream

SIDE, COUNT = 28, 6


@dataclass
class View:
    """What a stage asks of what it reads, before there are rows."""

    arrays: dict[str, ArraySpec]
    params: dict = field(default_factory=lambda: {"size": SIDE})
    stage: str = "cams"

    @property
    def manifest(self):
        return self


def maps_view(**more):
    arrays = {
        "maps": ArraySpec(dtype="uint8", shape=(2, 7, 7), meaning="maps"),
        "range": ArraySpec(dtype="float32", shape=(2, 2), unit="score"),
    }
    return View(arrays | more)


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 256, (COUNT, 2, 7, 7)).astype(np.uint8)
    limits = np.tile(np.float32([-2, 6]), (COUNT, 2, 1))
    labels = rng.integers(0, 9, (COUNT, SIDE // 4, SIDE // 4)).astype(np.uint16).repeat(4, 1).repeat(4, 2)
    limits[1, 1], maps[2, 0], labels[3] = np.nan, 9, 0
    ok = np.ones(COUNT, np.uint8)
    return {
        "cams": Upstream({"maps": maps, "range": limits, "class_ids": np.arange(2 * COUNT).reshape(COUNT, 2)}, ok, {}),
        "segments": Upstream({"labels": labels, "count": ok}, ok, {}),
    }


def stage(view=None, segments=None, **given):
    params = load_registry().params("refine", {"w": 0.6, "size": SIDE} | given)
    upstream = {"cams": view or maps_view(class_ids=ArraySpec(dtype="int32", shape=(2,), fill=-1))}
    if params.by == "segments":
        upstream["segments"] = segments or View({"labels": ArraySpec(dtype="uint16", shape=(SIDE, SIDE))})
    made = Refine(params, Context(dataset="drawn", upstream=upstream))
    made.setup()
    return made


def test_every_map_of_a_row_is_mixed_and_keeps_its_scale_and_class(inputs):
    rows, made = draw(COUNT).rows(), stage()
    arrays = made.process(rows, inputs)
    cams = inputs["cams"].arrays
    for row, slot in ((0, 0), (0, 1), (1, 0), (4, 1)):
        source = dequantise(cams["maps"][row, slot : slot + 1], cams["range"][row, slot : slot + 1])
        wanted = mix_segments(source, inputs["segments"].arrays["labels"][row], 0.6)
        found = dequantise(arrays["maps"][row, slot : slot + 1], arrays["range"][row, slot : slot + 1])
        assert np.abs(found - wanted).max() <= np.ptp(wanted) / 255
        assert (arrays["maps"][row, slot].min(), arrays["maps"][row, slot].max()) == (0, 255)
    np.testing.assert_array_equal(arrays["class_ids"], cams["class_ids"])
    assert np.isnan(arrays["range"][1, 1]).all()
    assert not arrays["maps"][1, 1].any()
    assert not arrays["maps"][2, 0].any()
    assert made.summary(arrays, rows) == {"rows_of_one_segment": 1, "maps_without_contrast": 1, "slots_without_map": 1}
    assert set(arrays) == set(made.arrays())


def test_with_weight_0_maps_are_kept_at_their_own_grid(inputs):
    cams = inputs["cams"].arrays
    cams |= {"grid_hw": np.tile(np.uint16([5, 7]), (COUNT, 1)), "values": np.zeros((COUNT, 2, 7, 7), np.float32)}
    specs = {"grid_hw": ArraySpec(dtype="uint16", shape=(2,)), "values": ArraySpec(dtype="float32", shape=(2, 7, 7))}
    made, rows = stage(maps_view(**specs), w=0.0), draw(COUNT).rows()
    arrays = made.process(rows, inputs)
    assert set(arrays) == {"maps", "range", "grid_hw", "values"}
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, cams[name])
    assert made.summary(arrays, rows) == {"rows_of_one_segment": 1, "maps_without_contrast": 1, "slots_without_map": 1}


@pytest.mark.parametrize("w", [0.0, 0.6])
def test_a_row_whose_maps_are_not_finite_is_quarantined(inputs, w):
    maps = inputs["cams"].arrays["maps"].astype(np.float32)
    maps[1, 1, 3, 3], maps[4, 0, 2, 2], maps[5, 1, 0, 0] = np.nan, np.nan, np.inf  # row 1 has no map in slot 1
    inputs["cams"].arrays["maps"] = maps
    own = maps_view(maps=ArraySpec(dtype="float32", shape=(2, 7, 7)))
    made, rows = stage(own, w=w), draw(COUNT).rows()
    made.process(rows, inputs)
    assert rows.status.tolist() == [1, 1, 1, 1, Status.QUARANTINED, Status.QUARANTINED]
    assert rows.reasons == dict.fromkeys((4, 5), "maps of cams hold NaN or infinite values")


@pytest.mark.parametrize("w", [0.0, 0.6])
def test_one_slot_may_be_refined_alone(inputs, w):
    whole = stage(w=w).process(draw(COUNT).rows(), inputs)
    alone = stage(w=w, map=1)
    arrays = alone.process(draw(COUNT).rows(), inputs)
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, whole[name][:, 1:])
        assert values.shape[1:] == alone.arrays()[name].shape
    with pytest.raises(ConfigError, match="refine.map=2: stage cams holds 2 maps"):
        stage(map=2)
    params = load_registry().params
    assert "map" not in params("refine").in_key()  # keys of all slots are as before
    assert params("refine", {"map": 0}).in_key()["map"] == 0


def test_maps_that_keep_the_aspect_are_cut_to_their_grid_first(inputs):
    inputs["cams"].arrays["grid_hw"] = np.tile(np.uint16([5, 7]), (COUNT, 1))
    arrays = stage().process(draw(COUNT).rows(), inputs)
    inputs["cams"].arrays["maps"] = inputs["cams"].arrays["maps"][:, :, :5].copy()
    del inputs["cams"].arrays["grid_hw"]
    np.testing.assert_array_equal(stage().process(draw(COUNT).rows(), inputs)["maps"], arrays["maps"])


def test_the_image_is_read_where_maps_follow_it_and_a_broken_one_is_quarantined(inputs):
    del inputs["segments"]
    rows = draw(COUNT).rows(bad=(4,))
    arrays = stage(by="guided", w=1.0, guided_radius=4).process(rows, inputs)
    assert rows.status.tolist() == [1, 1, 1, 1, Status.QUARANTINED, 1]
    assert np.ptp(arrays["maps"][0, 0]) == 255
    assert not arrays["maps"][4].any()


def test_what_cannot_be_refined_is_refused_with_what_can():
    with pytest.raises(ConfigError, match="holds no maps to refine, but boxes"):
        stage(View({"boxes": ArraySpec(dtype="float32")}))
    with pytest.raises(ConfigError, match="segments have 28 pixels a side"):
        stage(size=56)
    params = load_registry().params
    for given in ({"w": 1.5}, {"w": "some"}, {"by": "magic"}, {"guided_radius": 3e9}, {"crf_rgb": 1e-300}):
        with pytest.raises(ConfigError, match=r"refine\."):
            params("refine", given)
    with pytest.raises(ConfigError, match="different numbers from 0 to 1"):
        params("refine_weight", {"weights": [0.5, 0.5]})
    assert Refine.needs(params("refine", {"w": 0.5, "by": "crf", "maps": "mine"}), ()) == ("mine",)


@pytest.mark.parametrize("count", [0, 1, BATCH + 23])
def test_rows_whose_map_is_not_finite_choose_no_weight(count):
    maps = np.zeros((200, 2, 7, 7), np.float32)
    maps[[0, 150], 1, 2, 2] = np.nan
    maps[1, 0, 0, 0] = np.nan

    class Stored(View):
        def __getitem__(self, name):
            return maps

    view = Stored({"maps": ArraySpec(dtype="float32", shape=(2, 7, 7))})
    rows = np.arange(200)[:count]
    assert (rows[~finite_rows(view, 1, rows)]).tolist() == [row for row in (0, 150) if row < count]
    assert finite_rows(maps_view(), 1, rows).all()  # of levels nothing is read


def test_the_lowest_weight_counts_that_is_within_a_standard_error_of_the_best():
    rng = np.random.default_rng(0)
    rows = rng.random(400)
    gain = [0, 0.05, 0.08, 0.0802, 0.03]
    noise = rng.normal(0, 0.1, (5, 400))
    values = rows + np.array(gain)[:, None] + noise - noise.mean(axis=1, keepdims=True)
    assert lowest_equal(values) == 2  # the fourth is better, and by less than it is uncertain
    assert lowest_equal(values[::-1]) == 1
    assert lowest_equal(rows + 1e-4 * np.arange(3)[:, None] + noise[:3] - noise[:3].mean(axis=1, keepdims=True)) == 0
    assert lowest_equal(np.zeros((3, 1))) == 0


WORDS = (
    "dataset=demo", "limit=12", "device=cpu", "refine.maps=cls_maps", "segments.size=56", "segments.min_size=20",
    "val_boxes.annotator=file", "cls_maps.positions=timm", "threads=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory, repo):
    url = str(tmp_path_factory.mktemp("refine") / "store")
    boxes = f"val_boxes.file={repo / 'data/demo/metadata/val/localization.txt'}"
    words = [*WORDS, boxes, f"store={url}"]
    done = CliRunner().invoke(run.command, ["stage=refine", "split=test", *words])
    assert done.exit_code == 0, done.output
    return words, open_store(url)["demo"]


def test_a_run_chooses_the_weight_on_the_validation_split_alone(finished):
    _, store = finished
    assert set(store["val"].stages()) == {"segments", "cls_maps", "val_boxes"}
    assert set(store["test"].stages()) == {"segments", "cls_maps", "refine"}
    artifact = store.artifact("refine_weight")
    chosen = json.loads(artifact.read("weight.json"))
    curve = {point["w"]: point["iou"] for point in artifact.record.summary["curve"]}
    assert list(curve) == [round(0.1 * step, 1) for step in range(11)]
    assert curve[chosen["w"]] >= max(curve.values()) - 0.05
    assert all(curve[w] < curve[chosen["w"]] for w in curve if w < chosen["w"])
    assert artifact.record.summary["rows"] == 12
    refined = store["test"].stage("refine")
    assert f"w {chosen['w']:g}" in refined.manifest.arrays["maps"].meaning
    assert set(refined.manifest.artifacts) == {"refine_weight"}
    assert refined.manifest.shard_rows < store["test"].stage("segments").manifest.shard_rows  # its rows are large
    assert refined["maps"].shape[2:] == ((56, 56) if chosen["w"] else store["test"].stage("cls_maps")["maps"].shape[2:])


def test_the_refined_maps_are_scored_beside_their_source(finished):
    words, _ = finished
    done = CliRunner().invoke(cli_eval.command, ["stage=refine", "split=test", "beside=cls_maps", "--json", *words])
    assert done.exit_code == 0, done.output
    beside = json.loads(done.output)["beside"]
    assert beside["stage"] == "cls_maps"
    assert beside["MaxBoxAcc"]["rows"] == 12
    assert beside["iou"]["low"] <= beside["iou"]["difference"] <= beside["iou"]["high"]
    shown = CliRunner().invoke(cli_eval.command, ["stage=refine_weight", *words])
    assert shown.exit_code == 0, shown.output
    assert "MaxBoxAccV2" in shown.output
    twice = CliRunner().invoke(run.command, ["stage=refine", "split=test", "--json", *words])
    assert all(line["seconds"] >= 0 and line["done"] for line in json.loads(twice.output)["stages"] if line["split"])


def test_with_weight_0_nothing_is_lost_or_gained(finished):
    words, store = finished
    curve = store.artifact("refine_weight").record.summary["curve"]
    on_val = ["stage=cls_maps", "split=val", "against=val_boxes", "--json"]
    source = json.loads(CliRunner().invoke(cli_eval.command, [*on_val, *words]).output)
    assert curve[0]["iou"] == pytest.approx(source["iou"])
    assert curve[0]["MaxBoxAcc"] == source["MaxBoxAcc"]
    done = CliRunner().invoke(run.command, ["stage=refine", "split=test", "refine.w=0", *words])
    assert done.exit_code == 0, done.output
    same = ["stage=refine", "split=test", "refine.w=0", "beside=cls_maps", "--json"]
    beside = json.loads(CliRunner().invoke(cli_eval.command, [*same, *words]).output)["beside"]
    for figure in ("MaxBoxAcc", "iou"):
        assert (beside[figure]["difference"], beside[figure]["low"], beside[figure]["high"]) == (0, 0, 0)


def test_the_trainer_reads_refined_maps(finished, repo):
    words, store = finished
    url = words[-1].removeprefix("store=")
    maps = Labelling(url, "demo", "test", maps="refine", boxes=None)
    stream = Stream(ItemConfig(maps, root=str(repo / "data/demo/images"), size=96, train=False), batch_size=None)
    items = list(stream)
    view = store["test"].stage("refine")
    assert [int(item["row"]) for item in items] == list(range(12))
    stored = dequantise(view["maps"][:], view["range"][:])[3]
    low, high = stored.min((1, 2), keepdims=True), stored.max((1, 2), keepdims=True)
    np.testing.assert_allclose(items[3]["maps"], (stored - low) / (high - low), atol=1e-5)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("refine_weight.split=calibration", "does not have"),
        ("refine_weight.map=9", "holds 5 maps"),
        ("refine_weight.against=segments", "holds no boxes, but count, labels"),
        ("refine.maps=nowhere", "nowhere"),
        ("refine.maps=refine", "is that stage itself"),
        ("refine.size=112", "56 pixels a side"),
    ],
)
def test_a_weight_that_cannot_be_chosen_is_a_line_that_says_what_to_type(finished, word, says):
    words, _ = finished
    kept = [given for given in words if given.partition("=")[0] != word.partition("=")[0]]
    done = CliRunner().invoke(run.command, ["stage=refine", "split=test", *kept, word])
    assert isinstance(done.exception, ConfigError)  # which the command line shows as one line, exit code 3
    assert says in str(done.exception)
