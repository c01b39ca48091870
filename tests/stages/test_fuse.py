"""The stages ``fuse`` and ``fuse_choice``: the formula, what takes no part, the choice, and a run of both."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from e2e.toy import object_bytes
from stages.drawn import draw
from stages.test_refine import View, maps_view
from wsolpipe.cli import eval as cli_eval
from wsolpipe.cli import report, run
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.reader import open_store
from wsolpipe.contract.schema import ArraySpec, Status
from wsolpipe.images.geometry import resize
from wsolpipe.maps.levels import dequantise, quantise
from wsolpipe.share.verify import verify
from wsolpipe.stages.base import Context, Stage, StageParams, Upstream
from wsolpipe.stages.fuse import Fuse, FuseChoice
from wsolpipe.stages.map_choice import cropped, mirrored, otsu_box_of, search, stability
from wsolpipe.stages.map_stage import level_arrays
from wsolpipe.stages.registry import load_registry

COUNT, SIDE = 6, 16
PARAMS = load_registry().params


def fuse(views=None, **given):
    params = PARAMS("fuse", {"size": SIDE, "weights": [0.5, 1.0], **given})
    made = Fuse(params, Context(dataset="drawn", upstream=views or {"cls_maps": maps_view(), "cams": classed()}))
    made.setup()
    return made


def classed(**params):
    return View(maps_view().arrays | {"class_ids": ArraySpec(dtype="int32", shape=(2,), fill=-1)}, params)


@pytest.fixture
def inputs():
    rng, ok = np.random.default_rng(0), np.ones(COUNT, np.uint8)
    limits = np.tile(np.float32([-2, 6]), (COUNT, 2, 1))
    found = {name: {"maps": rng.integers(0, 256, (COUNT, 2, 7, 5)).astype(np.uint8), "range": limits.copy()}
             for name in ("cls_maps", "cams")}  # fmt: skip
    found["cams"]["class_ids"] = np.arange(2 * COUNT).reshape(COUNT, 2)
    return {name: Upstream(arrays, ok, {}) for name, arrays in found.items()}


def stretched(levels, side):
    """Bicubic in float64, a = -0.75, pixel by pixel."""

    def axis(values, at):
        centre = (at + 0.5) * len(values) / side - 0.5
        total = 0.0
        for place in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            d, a = abs(centre - place), -0.75
            weight = (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            total = total + weight * values[min(max(place, 0), len(values) - 1)]
        return total

    wide = np.stack([axis(levels.astype(np.float64).T, x) for x in range(side)], axis=1)
    return np.stack([axis(wide, y) for y in range(side)])


@pytest.mark.parametrize("norm", ["minmax", "rank"])
@pytest.mark.parametrize("by", ["geometric", "arithmetic"])
def test_the_fused_map_is_the_mean_of_normalised_maps_in_float64(inputs, by, norm):
    stage = fuse(by=by, norm=norm)
    arrays = stage.process(draw(COUNT).rows(), inputs)
    assert set(arrays) == set(stage.arrays())
    for row in range(COUNT):
        parts = []
        for name in ("cls_maps", "cams"):
            wide = stretched(inputs[name].arrays["maps"][row, 0], SIDE)
            wide = (wide - wide.min()) / np.ptp(wide)
            if norm == "rank":
                wide = (wide[..., None, None] > wide).sum((2, 3)) / (SIDE**2 - 1)
            parts.append(wide)
        wanted = parts[0] ** 0.5 * parts[1] if by == "geometric" else 0.5 * parts[0] + parts[1]
        found = dequantise(arrays["maps"][row], arrays["range"][row])[0]
        close = 0.501 / 255 * np.ptp(wanted) + (2e-2 if norm == "rank" else 1e-4)  # ranks of float32 may change places
        np.testing.assert_allclose(found, wanted, atol=close)
    np.testing.assert_array_equal(arrays["class_ids"][:, 0], inputs["cams"].arrays["class_ids"][:, 0])


def test_a_map_of_weight_0_or_without_contrast_takes_no_part_and_a_missing_one_leaves_none(inputs):
    cams, alone = inputs["cams"].arrays, fuse(weights=[1.0, 0.0])
    cams["maps"][1, 0], cams["range"][2, 0] = 9, np.nan
    rows, stage = draw(COUNT).rows(), fuse(weights=[1.0, 1.0])
    arrays, single = stage.process(rows, inputs), alone.process(draw(COUNT).rows(), inputs)
    np.testing.assert_array_equal(arrays["maps"][1], single["maps"][1])
    assert np.isnan(arrays["range"][2]).all()
    assert np.isfinite(single["range"]).all()
    assert "class_ids" not in single
    assert stage.summary(arrays, rows) == {"rows_without_map": 1, "maps_without_contrast": 1}
    wanted = quantise(stretched(inputs["cls_maps"].arrays["maps"][3, 0], SIDE))[0]
    assert np.abs(single["maps"][3, 0].astype(int) - wanted).max() <= 1


def test_a_row_whose_maps_are_not_finite_is_quarantined(inputs):
    inputs["cams"].arrays["maps"] = inputs["cams"].arrays["maps"].astype(np.float32)
    inputs["cams"].arrays["maps"][4, 0, 2, 2] = np.nan
    rows = draw(COUNT).rows()
    fuse().process(rows, inputs)
    assert rows.status.tolist() == [1, 1, 1, 1, Status.QUARANTINED, 1]
    assert rows.reasons == {4: "maps of cams hold NaN or infinite values"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"maps": ["cams"]}, "fuse.maps"),
        ({"slots": [0]}, "slots names one map of each of the 2 stages"),
        ({"maps": ["cams", "cams"]}, "none of them twice"),
        ({"weights": [1.0]}, "weights names one number for each of the 2 maps"),
        ({"weights": [0.0, 0.0]}, "not all of them 0"),
        ({"weights": "some"}, "fuse.weights"),
        ({"slots": [0, 2]}, "stage cams holds 2 maps"),
    ],
)
def test_what_cannot_be_fused_is_refused(given, says):
    with pytest.raises(ConfigError, match=says):
        fuse(**given)


def test_maps_of_different_classes_are_refused():
    views = {"cls_maps": classed(target="true"), "cams": classed(target="predicted")}
    with pytest.raises(ConfigError, match=r"cams\.target=predicted: the maps of a row would be of two classes"):
        fuse(views)


def test_the_search_adds_maps_one_by_one_and_only_where_they_gain():
    worth = np.array([0.2, 1.0, -1.0, 0.7])

    def values(weights):
        tried.append(weights)
        w = np.array(weights)
        return np.array([w @ worth - (w @ w) * 0.8])

    tried = []
    assert search(4, (0.3, 0.4), values) == (0.0, 0.6, 0.0, 0.4)
    assert len(tried) == len(set(tried)) == 4 + 3 * 2 + 2 * 2


class ShownParams(StageParams):
    """Parameters of `Shown`."""

    wild: bool = False


class Shown(Stage[ShownParams]):
    """A stage of a user: how colourful each place is, or noise that hangs on every pixel of the image."""

    def arrays(self):
        return level_arrays(1, (SIDE, SIDE), "colour")

    def process(self, rows, inputs):
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        for batch in rows.batches(4, lambda image, _: resize(image, (SIDE, SIDE))):
            for _, at, image in batch.present():
                one = np.ptp(image.astype(np.float32), axis=2)
                if self.params.wild:
                    one = np.random.default_rng(int(image.astype(np.int64).sum())).random((SIDE, SIDE), np.float32)
                made["maps"][at], made["range"][at] = quantise(one[None])
        return made


class Stored(View):
    """Arrays as the store holds them."""

    values: dict

    def __getitem__(self, name):
        return self.values[name]

    def status(self):
        return np.ones(len(self.values["maps"]), np.uint8)


def choose(drawn, *, images=8, bad=(), **given):
    stages = {name: Shown(ShownParams(wild=name == "cams"), Context(dataset="drawn")) for name in ("cls_maps", "cams")}
    views = {}
    for name, stage in stages.items():
        views[name] = Stored(stage.arrays())
        views[name].values = stage.process(drawn.rows(), {})
    params = PARAMS("fuse_choice", {"size": SIDE, "images": images, **given})
    context = Context(dataset="drawn", upstream=views, open_stage=stages.get)
    return json.loads(FuseChoice(params, context).produce({"val": drawn.rows(bad=bad)}).files["weights.json"])


def test_stability_gives_a_harmful_map_the_weight_0_and_records_all_that_was_tried():
    drawn = draw(8, seed=1)
    found = choose(drawn, bad=(3,))  # its file is gone since: it has no views
    assert (found["w"], found["rows"], found["metric"]) == ([1.0, 0.0], 7, "stability")
    assert [each["w"] for each in found["curve"]][:2] == [[1.0, 0.0], [0.0, 1.0]]
    assert len(found["curve"]) == 2 + 5
    assert choose(drawn, maps=["cams", "cls_maps"])["w"] == [0.0, 1.0]
    own = Shown(ShownParams(), Context(dataset="drawn"))
    boxes = []
    for change in (lambda image: image, mirrored, cropped):
        seen = type(drawn)([change(image) for image in drawn.images], drawn.labels, drawn.boxes)
        boxes.append([otsu_box_of(one[0]) for one in own.process(seen.rows(), {})["maps"]])
    wanted = np.mean([stability(*three) for at, three in enumerate(zip(*boxes, strict=True)) if at != 3])
    assert found["curve"][0]["stability"] == pytest.approx(wanted, abs=0.02)


def test_a_stage_that_cannot_be_run_on_other_pixels_is_named_with_what_to_type():
    drawn = draw(2)
    views = {name: Stored(Shown(ShownParams(), Context(dataset="d")).arrays()) for name in ("cls_maps", "cams")}
    for view in views.values():
        view.values = {"maps": np.zeros((2, 1, SIDE, SIDE), np.uint8), "range": np.zeros((2, 1, 2))}
    stage = FuseChoice(PARAMS("fuse_choice"), Context(dataset="d", upstream=views))
    with pytest.raises(ConfigError, match="cls_maps reads rows of other stages") as caught:
        stage.produce({"val": drawn.rows()})
    assert "fuse_choice.rule=boxes" in str(caught.value.hint)


WORDS = ("device=cpu", "threads=1", "shard_rows=4", "fuse.size=32", "fuse_choice.images=4")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuse")
    drawn = draw(16, classes=2)
    (folder / "images").mkdir()
    lines = ["path,label,split,x0,y0,x1,y1"]
    for number, image in enumerate(drawn.images):
        Image.fromarray(image).save(folder / "images" / f"{number:02d}.png")
        label = "" if number == 9 else str(drawn.labels[number])  # cams need one
        lines.append(
            f"{number:02d}.png,{label},{'val' if number < 8 else 'test'},{','.join(map(str, drawn.boxes[number]))}"
        )
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    (folder / "c.txt").write_text("0,ant\n1,bee\n")
    (folder / "toy.yaml").write_text(
        "name: toy\nlayout: csv\nroot: images\nmetadata: t.csv\nclasses: c.txt\nsplit: {val: val, test: test}\n"
        "stages:\n  cls_maps: {model: vit_tiny_patch16_224, model_args: {depth: 2, embed_dim: 24, num_heads: 2}, "
        "weights: 'random:1', size: 48}\n  classifier: {model: resnet10t, mode: import, "
        "weights: 'random:1', size: 64}\n"
    )
    words = [f"dataset={folder / 'toy.yaml'}", f"store={folder / 'store'}", "accept=all", *WORDS]
    done = CliRunner().invoke(run.command, ["stage=fuse", "split=test", *words])
    assert done.exit_code in (0, 2), done.output
    return words, folder


def test_a_run_chooses_the_weights_on_val_and_quarantines_with_the_source_s_reason(finished):
    words, folder = finished
    store = open_store(str(folder / "store"))["toy"]
    assert set(store["val"].stages()) == {"cls_maps", "cams"}
    record = store.artifact("fuse_choice").record
    assert record.summary["rows"] == 4
    assert len(record.summary["curve"]) == 7
    view = store["test"].stage("fuse")
    assert set(view.manifest.artifacts) == {"fuse_choice"}
    assert set(view.manifest.upstream) == {"cls_maps", "cams"}
    lost = [each for record in view.committed().values() for each in record.quarantined]
    assert [(each.row, each.reason.split(":")[0]) for each in lost] == [(1, "cams")]
    assert view["maps"].shape == (8, 1, 32, 32)
    assert not list(verify(open_store(str(folder / "store"))))
    shown = CliRunner().invoke(cli_eval.command, ["stage=fuse_choice", *words])
    assert shown.exit_code == 0, shown.output
    assert "stability" in shown.output


def test_fused_maps_are_read_as_any_others(finished, tmp_path):
    words, _ = finished
    scored = CliRunner().invoke(cli_eval.command, ["stage=fuse", "split=test", "beside=cls_maps", "--json", *words])
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["beside"]["stage"] == "cls_maps"
    page = CliRunner().invoke(report.command, ["stage=fuse", "split=test", f"out={tmp_path / 'page.html'}", *words])
    assert page.exit_code == 0, page.output
    planned = CliRunner().invoke(run.plan_command, ["stage=fuse", "split=test", *words])
    assert planned.exit_code == 0, planned.output
    assert "fuse_choice" in planned.output


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_made_again_by_any_number_of_workers_all_bytes_are_the_same(finished, workers):
    words, folder = finished
    before = object_bytes(folder / "store")
    for path in (folder / "store").rglob("fuse*"):
        if path.is_dir():
            shutil.rmtree(path)
    assert object_bytes(folder / "store") != before
    done = CliRunner().invoke(run.command, ["stage=fuse", "split=test", f"workers={workers}", *words])
    assert done.exit_code in (0, 2), done.output
    assert object_bytes(folder / "store") == before


def test_weights_may_be_chosen_by_pseudo_boxes_that_are_not_of_the_maps(finished):
    words, folder = finished
    boxes = folder / "boxes.txt"
    lines = [line.split(",") for line in (folder / "t.csv").read_text().splitlines()[1:]]
    boxes.write_text("".join(f"{path},{','.join(box)}\n" for path, _, _, *box in lines))
    by = [*words, "fuse_choice.rule=boxes", "val_boxes.annotator=file", f"val_boxes.file={boxes}"]
    done = CliRunner().invoke(run.command, ["stage=fuse", "split=test", *by])
    assert done.exit_code in (0, 2), done.output
    curve = open_store(str(folder / "store"))["toy"].artifact("fuse_choice").record.summary["curve"]
    assert set(curve[0]) == {"w", "MaxBoxAcc", "MaxBoxAccV2", "iou"}
    own = CliRunner().invoke(
        run.plan_command, ["stage=fuse", *words, "fuse_choice.rule=boxes", "fuse_choice.against=proposals"]
    )
    assert "are to judge fuse_choice.maps=cls_maps" in str(own.exception)
