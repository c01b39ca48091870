"""`export` and `import` as commands: which rows leave, what comes back, who uses it, and what is refused."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import yaml
from PIL import Image

from share.formats.conftest import COUNT
from stores import DATASET, MAPS_KEY, build_store, write_stage, write_table
from wsolpipe.cli.main import cli
from wsolpipe.contract.schema import ArraySpec
from wsolpipe.images.geometry import resize_mask
from wsolpipe.metrics import best_iou

TRUTH = np.array([[2.0, 2.0, 30.0, 30.0]])


def rows_of(folder):
    with (folder / "boxes.csv").open(newline="") as file:
        return list(dict.fromkeys(int(line["row"]) for line in csv.DictReader(file)))


def test_the_worst_rows_leave_by_score_or_by_how_they_fit(desk):
    without = [row for row in range(COUNT) if row % 4 == 0]  # row 0 is the first image by name, not by number
    view = desk.view()
    empty = np.flatnonzero(view["count"][:] == 0).tolist()
    assert len(empty) == len(without)
    assert sorted(rows_of(desk.export("csv", f"rows=worst:{len(empty)}"))) == empty
    assert rows_of(desk.export("csv", "rows=2:5")) == [2, 3, 4]
    boxes = view["boxes"][:]
    fits = [best_iou(boxes[row, :1], TRUTH) if row not in empty else 0.0 for row in range(COUNT)]
    order = np.argsort(fits, kind="stable")
    for word in ("worst", "disputed"):
        assert sorted(rows_of(desk.export("csv", f"rows={word}:5", "against=truth"))) == sorted(order[:5].tolist())
    one = desk.export("csv", "top=1")
    with (one / "boxes.csv").open(newline="") as file:
        assert {line["rank"] for line in csv.DictReader(file)} == {"0", ""}


def test_corrected_rows_stand_beside_those_that_were_good_and_serve_as_truth(desk, tmp_path):
    first = desk.view()
    fixed = tmp_path / "fixed.csv"
    names = first.index().table(["image_id"]).column("image_id").to_pylist()
    good = int(np.flatnonzero(first["count"][:] > 1)[0])
    rows = [f'"{names[good]}",2,2,30,30,crab', f'"{names[good]}",40,40,999,60,ant', f'"{names[0]}",,,,,']
    fixed.write_text("image_id,x0,y0,x1,y1,name\n" + "\n".join(rows) + "\n")
    kept = tmp_path / "boxes.jsonl"
    told = desk.call("import", "format=csv", f"in={fixed}", f"over=human_boxes:{first.key}", f"out={kept}")
    assert (told["rows_drawn"], told["boxes"], told["clipped"], told["elsewhere"]) == (COUNT, 2, 1, 0)
    view = desk.view(key=told["key"])
    drawn, boxes = view["drawn"][:], view["boxes"][:]
    assert drawn.all()  # rows that people drew before stay as they drew them
    np.testing.assert_array_equal(boxes[good, 0], TRUTH[0])
    assert view["labels"][good].tolist()[:2] == [2, 1]
    assert view["count"][0] == 0
    others = [row for row in range(COUNT) if row not in (0, good)]
    np.testing.assert_array_equal(boxes[others], first["boxes"][:][others, : boxes.shape[1]])

    against = desk.call("eval", "stage=human_boxes", f"key={told['key']}", f"against=human_boxes:{told['key']}")
    assert against["iou_top1"] == 1.0
    words = ("val_boxes.annotator=human", f"human_boxes.file={kept}")
    made = desk.call("run", "stage=val_boxes", *words)["stages"]
    assert [line["stage"] for line in made] == ["index", "human_boxes", "val_boxes"]
    assert made[1]["key"] == told["key"]
    own = desk.view("val_boxes")["boxes"][:, 0]
    np.testing.assert_array_equal(own, boxes[:, 0])
    # The second drawn box of a row is as right as its first.
    other = tmp_path / "other.csv"
    other.write_text(f'image_id,x0,y0,x1,y1\n"{names[good]}",{",".join(map(str, boxes[good, 1].tolist()))}\n')
    second = desk.call("import", "format=csv", f"in={other}")
    found = desk.call("eval", "stage=human_boxes", f"key={second['key']}", f"against=human_boxes:{told['key']}")
    assert found["rows_scored"] > 1
    drawn_row = desk.view(key=second["key"])["boxes"][good, :1]
    assert best_iou(drawn_row, boxes[good, :2]) == pytest.approx(1.0, abs=1e-6)
    assert found["iou_top1"] == pytest.approx(1.0 / found["rows_scored"], abs=1e-6)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A store with maps, boxes and masks, and its YAML."""
    folder = tmp_path_factory.mktemp("tiny")
    store = build_store(folder, rows=6, quarantined={2: "torn"}, no_object=(4,))
    masks = np.random.default_rng(0).choice(np.array([0, 1, 255], np.uint8), (6, 16, 16))
    arrays = {"masks": (ArraySpec(dtype="uint8", shape=(16, 16)), masks)}
    write_stage(store.url, "val_masks", "dddd000011112222", arrays, status=store.status)
    content = {"name": DATASET, "layout": "folder", "root": "images", "split": "train"}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content))
    return folder, store, masks


def export(tiny, capsys, out, *words):
    with pytest.raises(SystemExit) as end:
        cli.main(["export", f"dataset={tiny[0] / 'tiny.yaml'}", f"store={tiny[1].url}", f"out={out}", *words],
                 standalone_mode=False)  # fmt: skip
    assert end.value.code == 0, capsys.readouterr().err
    capsys.readouterr()
    return out


def test_masks_and_maps_leave_as_run_lengths_and_files(tiny, capsys, tmp_path):
    folder, store, masks = tiny
    usable = [row for row in range(6) if row not in (2, 4)]
    out = export(tiny, capsys, tmp_path / "coco", "stage=val_masks", "key=dddd", "format=coco")
    runs = pytest.importorskip("pycocotools.mask")
    content = json.loads((out / "annotations" / "instances_train.json").read_text())
    assert [item["id"] - 1 for item in content["images"]] == [0, 1, 3, 4, 5]
    for item in content["annotations"]:
        row = item["image_id"] - 1
        size = tuple(store.sizes[row])
        decoded = runs.decode(runs.frPyObjects(item["segmentation"], *size)).astype(bool)
        np.testing.assert_array_equal(decoded, resize_mask(masks[row] == (255 if item["iscrowd"] else 1), size))
        assert item["area"] == decoded.sum()
    out = export(tiny, capsys, tmp_path / "masks", "stage=val_masks", "key=dddd", "format=png")
    for row in usable:
        picture = Image.open(out / "ann_dir" / "train" / store.paths[row])
        wanted = resize_mask(masks[row], tuple(store.sizes[row]))
        wanted[wanted == 1] = store.labels[row] + 1
        np.testing.assert_array_equal(np.asarray(picture), wanted)
        assert (picture.mode, picture.getpalette()[-3:]) == ("P", [224, 224, 192])
    assert (out / "classes.txt").read_text().startswith("background\n")
    out = export(tiny, capsys, tmp_path / "arrays", "stage=val_masks", "key=dddd", "format=npy")
    name = f"{store.paths[usable[0]]}.npy"
    kept = np.load(out / "train" / name)
    np.testing.assert_array_equal(kept, resize_mask(masks[usable[0]], tuple(store.sizes[usable[0]])))
    out = export(tiny, capsys, tmp_path / "maps", "stage=cls_maps", f"key={MAPS_KEY}", "format=npy", "map=1")
    levels = np.load(out / "train" / f"{store.paths[0]}.npy")
    np.testing.assert_allclose(levels, -1 + store.maps[0, 1].astype(np.float32) * 4 / 255, atol=1e-5)
    assert not (out / "train" / f"{store.paths[2]}.npy").exists()
    out = export(tiny, capsys, tmp_path / "png", "stage=cls_maps", f"key={MAPS_KEY}", "format=png")
    grey = np.asarray(Image.open(out / "train" / store.paths[0]))
    assert grey.shape == tuple(store.sizes[0])
    assert (grey.min(), grey.max()) == (0, 255)


def test_a_store_of_somebody_else_writes_nothing_outside_of_the_folder(tiny, tmp_path):
    import shutil

    import pyarrow as pa
    import pyarrow.parquet as pq

    from wsolpipe.contract.errors import DataError

    shutil.copytree(tiny[0] / "store", tmp_path / "store")
    (index,) = (tmp_path / "store").rglob("index.parquet")
    table = pq.read_table(index)
    for column in ("image_id", "path"):
        names = table.column(column).to_pylist()
        place = table.column_names.index(column)
        write_table(index.parent, index.name, table.set_column(place, column, pa.array(["../../evil", *names[1:]])))
        with pytest.raises(DataError, match="leaves the root"):
            cli.main(
                ["export", f"dataset={tiny[0] / 'tiny.yaml'}", f"store={tmp_path / 'store'}", f"out={tmp_path / 'out'}",
                 "stage=cls_maps", f"key={MAPS_KEY}", "format=npy"], standalone_mode=False,
            )  # fmt: skip
    assert not (tmp_path / "evil.npy").exists()


@pytest.mark.parametrize(
    ("command", "words", "told"),
    [
        ("export", ["format=cocoa"], "unknown format 'cocoa'; did you mean 'coco'"),
        ("export", ["stage="], "labels of one stage"),
        ("export", ["out="], "out= is empty"),
        ("export", ["stage=text_anchors"], "is an artifact"),
        ("export", ["format=png"], "format=png is of maps and masks, and human_boxes holds boxes"),
        ("export", ["rows=best:3"], "start:stop, @FILE, worst:n, disputed:n or doubtful:n"),
        ("export", ["rows=disputed:3"], "needs against="),
        ("export", ["rows=90:99"], "holds none of the 9 rows"),
        ("export", ["rows=worst:3", "against=none.txt"], "none.txt"),
        ("export", ["images=copy", "root=/no/such/folder"], "images not found"),
        ("export", ["top=0"], "integer, at least 1"),
        ("export", ["key=0123"], "is not made with key 0123"),
        ("import", [], "needs in="),
        ("import", ["in=nothing.json"], "nothing.json does not exist"),
        ("import", ["format=png", "in={good}"], "unknown format 'png'"),
        ("import", ["stage=proposals", "in=x"], "not made of boxes that are taken in"),
        ("import", ["split=train", "in=x"], "unknown split of d 'train'"),
        ("import", ["human_boxes.file=x", "in=x"], "come from in="),
        ("import", ["over=nothing", "in={good}"], "unknown stage 'nothing'"),
        ("run", ["stage=human_boxes"], "has no file of boxes"),
        ("run", ["stage=human_boxes", "human_boxes.file=none.jsonl"], "cannot read the box file none.jsonl"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_refused_in_one_line_with_what_to_do(desk, tmp_path, command, words, told):
    base = {"export": {"stage": "human_boxes", "format": "csv", "out": str(tmp_path / "out")},
            "import": {"format": "jsonl"}, "run": {}}[command]  # fmt: skip
    words = [word.replace("{good}", str(desk.folder / "boxes.jsonl")) for word in words]
    given = {word.partition("=")[0] for word in words}
    error = desk.refused(command, *(f"{name}={value}" for name, value in base.items() if name not in given), *words)
    assert told in error.message
    assert error.hint or any(text in error.message for text in ("did you mean", "valid", "unknown", "expected"))
    assert not (tmp_path / "out").exists() or command == "export"


COCO = {"images": [{"id": 1, "file_name": "a/image 0.jpg"}], "categories": [{"id": 1, "name": "ant"}]}
BOX = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
TASK = {
    "data": {"image": "a/image 0.jpg"},
    "annotations": [{"result": [{"type": "rectanglelabels", "value": {"x": 1}}]}],
}


@pytest.mark.parametrize(
    ("name", "file", "content", "told"),
    [
        ("coco", "x.json", "{", "x.json:1: not JSON"),
        ("coco", "x.json", "{}", "it has no list images"),
        ("coco", "x.json", [BOX], "holds COCO results"),
        ("coco", "x.json", {**COCO, "annotations": [{**BOX, "image_id": 7}]}, "annotations[0]: no image has the id 7"),
        ("coco", "x.json", {**COCO, "annotations": [{**BOX, "bbox": [1, 1, -5, 5]}]}, "ends before it begins"),
        ("coco", "x.json", {**COCO, "annotations": [{**BOX, "bbox": [500, 1, 5, 5]}]}, "wholly outside a/image 0.jpg"),
        ("coco", "x.json", {**COCO, "categories": [{"id": 1, "name": "owl"}], "annotations": [BOX]}, "class 'owl'"),
        ("coco", "x.json", {"images": [{"id": 1, "file_name": "zebra.jpg"}]}, "but 1 others, such as 'zebra.jpg'"),
        ("coco", "x.json", {"images": [COCO["images"][0], {"id": 2, "file_name": "image 0.jpg"}]}, "is listed twice"),
        ("voc", "x.xml", "<annotation><object><name>ant</name></object></annotation>", "x.xml: object 1: not a box"),
        ("voc", "x.xml", "<annotation>", "x.xml:1: not XML"),
        ("voc", "x.xml", '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "declares a document type"),
        ("voc", "x.xml", "<html/>", "begins with <html>"),
        ("cvat", "x.xml", "<annotations><track/></annotations>", "tracks of a video"),
        ("cvat", "x.xml", '<annotations><image name="a/image 0.jpg"><box xtl="1"/></image></annotations>', "not a box"),
        ("yolo", "a/image 0.txt", "0 0.5 0.5 0.2", "image 0.txt:1: not class x y width height"),
        ("csv", "x.csv", "image_id,x0,y0,x1\n", "has no column y1"),
        ("csv", "x.csv", "image_id,x0,y0,x1,y1\na/image 0.jpg,1,2,3,b\n", "x.csv:2: not a box"),
        ("csv", "x.csv", "image_id,x0,y0,x1,y1,score\na/image 0.jpg,1,2,3,4,nan\n", "score nan is not finite"),
        ("parquet", "x.parquet", "PAR1", "cannot read"),
        ("jsonl", "x.jsonl", '{"image_id": "a", "boxes": [{"box": [1, 2, 3]}]}', "x.jsonl:1: not like {"),
        ("hf", "x.jsonl", '{"file_name": "a", "objects": {"bbox": [[1, 2, 3]]}}', "x.jsonl:1: not an object"),
        ("fiftyone", "x.json", {"labels": {"a/image 0": [{"label": "ant"}]}}, "not a list of objects with label"),
        ("labelstudio", "x.json", [TASK], "task 1: not a task"),
        ("localization", "x.txt", "a/image 0.jpg,1,2,3\n", "x.txt:1"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_its_place_and_changes_nothing(desk, tmp_path, name, file, content, told):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    keys = desk.view().store["d"]["val"].keys("human_boxes")
    error = desk.refused("import", f"format={name}", f"in={tmp_path if name == 'yolo' else path}")
    assert told in error.message
    assert error.exit_code == 3
    assert desk.view().store["d"]["val"].keys("human_boxes") == keys


@pytest.fixture
def scored(tiny, capsys, tmp_path):
    """Several scored boxes a row, which nobody drew; export(format, …) writes them."""

    def call(name, *words):
        out = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        return export(tiny, capsys, out, "stage=proposals", f"format={name}", *words)

    return call


def boxes_of(folder):
    """Boxes a row of an export to csv."""
    with (folder / "train" / "boxes.csv").open(newline="") as file:
        rows = [line["row"] for line in csv.DictReader(file) if line["x0"]]
    return {row: rows.count(row) for row in rows}


def test_readers_that_train_on_every_box_get_the_first_and_predictions_get_all(scored):
    several = boxes_of(scored("csv"))
    assert max(several.values()) > 1
    out = scored("yolo", "images=none")
    counts = {part: sorted(len(path.read_text().splitlines()) for path in (out / part / "train").iterdir())
              for part in ("labels", "predictions")}  # fmt: skip
    assert max(counts["labels"]) == 1
    assert sum(counts["predictions"]) == sum(several.values())
    assert max(len(path.read_text().splitlines()) for path in (scored("yolo", "top=2") / "labels/train").iterdir()) == 2
    coco = scored("coco")
    assert len(json.loads((coco / "annotations/instances_train.json").read_text())["annotations"]) == len(several)
    assert len(json.loads((coco / "results/results_train.json").read_text())) == sum(several.values())
    assert all(path.read_text().count("<object>") <= 1 for path in (scored("voc") / "Annotations").iterdir())


def test_boxes_of_a_low_score_or_beside_a_better_one_stay_out(scored, tiny):
    several, best = boxes_of(scored("csv")), boxes_of(scored("csv", "nms=0"))
    assert sum(best.values()) < sum(several.values())
    assert set(best) == set(several)
    assert boxes_of(scored("csv", "min_score=2")) == {}


def test_what_was_exported_and_not_changed_does_not_count_as_drawn(desk, first_exported):
    """Ten boxes of a stage that leave and come back are still those of the stage."""
    for name in ("coco", "csv", "yolo", "voc", "cvat", "labelstudio"):
        told = desk.call("import", f"format={name}", f"in={first_exported(name)}")
        assert (told["rows_drawn"], told["rows_kept"]) == (0, COUNT), name
    out = first_exported("csv")
    path = out / "boxes.csv"
    path.write_text(path.read_text().replace(",0.0,0.0,", ",1.5,0.0,", 1))
    told = desk.call("import", "format=csv", f"in={path}")
    assert told["rows_drawn"] == 1
    assert desk.call("import", "format=csv", f"in={path}", "drawn=listed")["rows_drawn"] == COUNT


@pytest.fixture
def first_exported(desk):
    key = desk.view().store["d"]["val"].keys("human_boxes")[0]
    return lambda name: desk.export(name, f"key={key}")


def test_an_export_appears_whole_or_not_at_all(desk, tmp_path, monkeypatch):
    out = tmp_path / "out"
    words = ("stage=human_boxes", "format=csv", f"out={out}")
    from wsolpipe.share.formats.box_tables import Csv

    write = Csv.write
    monkeypatch.setattr(Csv, "write", lambda *given: [*write(*given), None][:0] + [][1])
    with pytest.raises(IndexError):
        cli.main(["export", *desk.words(*words)], standalone_mode=False)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    desk.call("export", *words)
    first = (out / "val" / "boxes.csv").read_text()
    desk.call("export", *words, "top=1")  # an earlier export is replaced
    assert (out / "val" / "boxes.csv").read_text() != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    (out / "val" / "mine.txt").write_text("corrected")
    assert "mine.txt in it was changed since" in desk.refused("export", *words).message
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("")
    assert "holds other files, such as thesis.tex" in desk.refused("export", *words[:2], f"out={other}").message
