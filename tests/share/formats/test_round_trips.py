"""Every format: what is exported is read by its own library and comes back as the same boxes."""

from __future__ import annotations

import csv
import json
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest

from share.formats.conftest import COUNT, NAMES
from wsolpipe.share.formats.base import FORMATS

#: Largest difference of an edge in pixels that a format's documentation allows.
PRECISION = {
    "localization": 0.005,
    "yolo": 1e-4,
    "voc": 0.5,
    "cvat": 0.005,
    "hf": 1e-9,
    "coco": 1e-5,
    "labelstudio": 1e-5,
}
WITHOUT_SCORES = {"localization", "yolo"}
WITHOUT_CLASSES = {"localization"}
READ = [name for name in FORMATS.names() if FORMATS.find(name).reads()]


def arrays(view):
    return {name: view[name][:] for name in ("boxes", "scores", "labels", "count")}


def by_image(lines):
    return {line["image_id"]: line["boxes"] for line in lines}


@pytest.mark.parametrize("name", READ)
def test_boxes_come_back_as_they_left(desk, name):
    more = ("top=99",) if name == "localization" else ()
    out = desk.export(name, *more)
    told = desk.call("import", f"format={name}", f"in={out}", "drawn=listed")
    listed = COUNT if name != "localization" else sum(1 for row in range(COUNT) if row % 4)
    assert (told["rows_drawn"], told["elsewhere"]) == (listed, 0)
    before, after = arrays(desk.view(key=first_key(desk))), arrays(desk.view(key=told["key"]))
    np.testing.assert_array_equal(before["count"], after["count"])
    np.testing.assert_allclose(before["boxes"], after["boxes"], atol=PRECISION.get(name, 1e-6) + 1e-5, rtol=0)
    if name not in WITHOUT_SCORES:
        np.testing.assert_allclose(before["scores"], after["scores"], atol=1e-6)
    if name not in WITHOUT_CLASSES:
        np.testing.assert_array_equal(before["labels"], after["labels"])


def first_key(desk):
    """Key of what the fixture took in: exports take the newest, which may be an earlier test's."""
    return desk.view().store["d"]["val"].keys("human_boxes")[0]


@pytest.fixture(autouse=True)
def first(desk, monkeypatch):
    """Export the fixture's boxes, whatever other tests took in."""
    export, key = desk.export, first_key(desk)
    monkeypatch.setattr(desk, "export", lambda name, *more: export(name, f"key={key}", *more))


def test_every_format_says_what_it_is_and_what_it_loses():
    for name in FORMATS.names():
        found = FORMATS.find(name)
        assert len(found.about) > 10
        assert found.loss


def test_coco_is_read_by_pycocotools(desk, made, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    out = desk.export("coco")
    whole = coco.COCO(str(out / "annotations" / "instances_val.json"))
    results = whole.loadRes(str(out / "results" / "results_val.json"))
    wanted = by_image(made[1])
    assert {whole.cats[item]["name"] for item in whole.getCatIds()} == set(NAMES)
    for number, image in whole.imgs.items():
        own = whole.loadAnns(results.getAnnIds(number)) and results.loadAnns(results.getAnnIds(number))
        assert len(own) == len(wanted[image["file_name"]])
        for found, box in zip(own, wanted[image["file_name"]], strict=True):
            x, y, width, height = found["bbox"]
            np.testing.assert_allclose([x, y, x + width, y + height], box["box"], atol=1e-4)
            assert whole.cats[found["category_id"]]["name"] == NAMES[box["label"]]
            assert found["score"] == pytest.approx(box["score"], abs=1e-6)
    capsys.readouterr()


def test_yolo_is_read_by_supervision_with_its_images(desk, made):
    supervision = pytest.importorskip("supervision")
    out = desk.export("yolo")
    found = supervision.DetectionDataset.from_yolo(
        images_directory_path=str(out / "images" / "val"), annotations_directory_path=str(out / "labels" / "val"),
        data_yaml_path=str(out / "data.yaml"),
    )  # fmt: skip
    assert (found.classes, len(found)) == (list(NAMES), COUNT)
    for path, _, detections in found:
        wanted = by_image(made[1])[path.rpartition("/")[2].replace("__", "/")]
        np.testing.assert_allclose(detections.xyxy, np.reshape([box["box"] for box in wanted], (-1, 4)), atol=1e-3)
        assert detections.class_id.tolist() == [box["label"] for box in wanted]
    lines = (out / "predictions" / "val" / "b__image 3.txt").read_text().splitlines()
    assert [float(line.split()[5]) for line in lines] == [box["score"] for box in by_image(made[1])["b/image 3.jpg"]]


def test_voc_is_read_by_torchvision(desk, made):
    parse = pytest.importorskip("torchvision.datasets").VOCDetection.parse_voc_xml
    out = desk.export("voc")
    for name, wanted in by_image(made[1]).items():
        stem = name.rpartition(".")[0].replace("/", "__")
        found = parse(ElementTree.parse(out / "Annotations" / f"{stem}.xml").getroot())["annotation"]
        edges = [
            [float(item["bndbox"][edge]) for edge in ("xmin", "ymin", "xmax", "ymax")]
            for item in found.get("object", [])
        ]  # noqa: E501
        edges = np.reshape(edges, (-1, 4)) - [1, 1, 0, 0]
        np.testing.assert_allclose(edges, np.reshape([box["box"] for box in wanted], (-1, 4)), atol=0.51)
        assert [item["name"] for item in found.get("object", [])] == [NAMES[box["label"]] for box in wanted]


def test_a_folder_for_hugging_face_is_read_by_datasets_with_its_images(desk, made, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    out = desk.export("hf")
    found = datasets.load_dataset("imagefolder", data_dir=str(out), split="train", cache_dir=str(tmp_path))
    assert len(found) == COUNT
    for item in found:
        wanted = by_image(made[1])[item["image_id"]]
        assert item["image"].size == (item["width"], item["height"])
        assert list(item["objects"]["category"]) == [NAMES[box["label"]] for box in wanted]
        assert len(item["objects"]["bbox"]) == len(wanted)


def test_tables_hold_a_row_a_box(desk, made):
    boxes = sum(len(line["boxes"]) for line in made[1])
    empty = sum(not line["boxes"] for line in made[1])
    with (desk.export("csv") / "boxes.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    table = pq.read_table(desk.export("parquet") / "boxes.parquet").to_pylist()
    assert len(lines) == len(table) == boxes + empty
    assert [line["image_id"] for line in lines] == [line["image_id"] for line in table]
    assert {line["name"] for line in table if line["label"] == 0} == {NAMES[0]}


def test_tasks_are_as_label_studio_cvat_and_fiftyone_describe_them(desk):
    """Their own loaders need servers; the fields are those of their documentation of the formats."""
    tasks = json.loads((desk.export("labelstudio") / "tasks.json").read_text())
    assert len(tasks) == COUNT
    result = tasks[1]["predictions"][0]["result"][0]
    assert {"type", "from_name", "to_name", "original_width", "original_height", "image_rotation", "value"} <= set(
        result
    )
    assert set(result["value"]) == {"x", "y", "width", "height", "rotation", "rectanglelabels"}
    config = ElementTree.parse(desk.export("labelstudio") / "config.xml")
    assert [item.get("value") for item in config.iter("Label")] == list(NAMES)
    out = desk.export("cvat")
    root = ElementTree.parse(out / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert {"label", "xtl", "ytl", "xbr", "ybr", "occluded", "z_order"} <= set(next(root.iter("box")).attrib)
    assert [item["name"] for item in json.loads((out / "labels.json").read_text())] == list(NAMES)
    out = desk.export("fiftyone")
    labels = json.loads((out / "labels.json").read_text())["labels"]
    assert {str(path.relative_to(out / "data").with_suffix("")) for path in out.rglob("image*")} == set(labels)
    assert all(0 <= share <= 1 for items in labels.values() for item in items for share in item["bounding_box"])


def test_what_annotators_made_of_tasks_is_taken(desk):
    """An annotation goes before the prediction; a turned rectangle becomes the box around it."""
    path = desk.export("labelstudio") / "tasks.json"
    tasks = json.loads(path.read_text())
    task = tasks[5]
    drawn = json.loads(json.dumps(task["predictions"][0]["result"][0]))
    width, height = drawn["original_width"], drawn["original_height"]
    drawn["value"] |= {"x": 50, "y": 0, "width": 100 * 10 / width, "height": 100 * 20 / height, "rotation": 90}
    task["annotations"] = [{"result": [drawn]}, {"was_cancelled": True, "result": []}]
    path.write_text(json.dumps([task]))
    told = desk.call("import", "format=labelstudio", f"in={path}")
    assert (told["rows_drawn"], told["boxes"]) == (1, 1)
    row = int(np.flatnonzero(desk.view(key=told["key"])["drawn"][:])[0])
    box = desk.view(key=told["key"])["boxes"][row, 0]
    np.testing.assert_allclose(box, [max(width / 2 - 20, 0), 0, width / 2, 10], atol=1e-3)
