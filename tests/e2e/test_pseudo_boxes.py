"""Pseudo-boxes from the command line: made, scored step by step, exported, taken back, shown, and refused."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from stages.drawn import draw
from wsolpipe import open_store
from wsolpipe.cli.main import cli
from wsolpipe.images.label_lines import read_boxes
from wsolpipe.metrics import best_iou

COUNT = 6
WORDS = (
    "classifier.model=resnet10t", "classifier.weights=random:0", "classifier.size=64", "classifier.measure=[]",
    "regions.top_n=12", "val_boxes.slots=12",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder, drawn = tmp_path_factory.mktemp("pseudo"), draw(COUNT, seed=5)
    names = [f"drawn_{number}.png" for number in range(COUNT)]
    for name, image in zip(names, drawn.images, strict=True):
        Image.fromarray(image).save(folder / name)
    (folder / "image_ids.txt").write_text("\n".join(names))
    lines = [f"{name},{label}" for name, label in zip(names, drawn.labels, strict=True)]
    (folder / "class_labels.txt").write_text("\n".join(lines))
    boxes = [f"{name},{','.join(map(str, box))}" for name, box in zip(names, drawn.boxes.tolist(), strict=True)]
    (folder / "localization.txt").write_text("\n".join(boxes))
    (folder / "masks").mkdir()
    for name, image, (x0, y0, x1, y1) in zip(names, drawn.images, drawn.boxes.tolist(), strict=True):
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[y0:y1, x0:x1] = 255
        Image.fromarray(mask).save(folder / "masks" / name)
    (folder / "d.yaml").write_text(
        f"name: drawn\nlayout: metadata\nroot: {folder}\nmetadata: {folder}\nmasks: {folder / 'masks'}\n"
        "split: val\nclasses: 4\n"
        "files: {image_sizes: null}\n"
    )
    return folder, drawn


def call(command, place, *words):
    folder = place[0]
    with pytest.raises(SystemExit) as end:
        cli.main(
            [command, f"dataset={folder / 'd.yaml'}", f"store={folder / 'store'}", *words],
            standalone_mode=False,
        )
    assert end.value.code == 0


def test_boxes_are_made_scored_exported_taken_back_and_shown(place, capsys):
    folder, drawn = place
    call("run", place, "stage=val_boxes", *WORDS)
    capsys.readouterr()
    call("eval", place, "stage=val_boxes", *WORDS, "--json")
    figures = json.loads(capsys.readouterr().out)
    assert figures["rows"] == COUNT
    assert figures["rows_quarantined"] == 0
    assert figures["iou_upper_best_box"] >= figures["iou_final_one_box"] > 0
    assert 0 <= figures["pointing_accuracy"] <= 1
    for name in ("iou_pointing_mean_of_boxes", "iou_top_pointing_mean_of_boxes", "iou_top_one_box"):
        assert 0 < figures[name] < 1

    call("export", place, "stage=val_boxes", *WORDS, f"out={folder / 'out'}")
    file = folder / "out" / "val" / "localization.txt"
    assert str(file) in capsys.readouterr().out
    boxes = read_boxes(file)
    mean = np.mean([best_iou(boxes[f"drawn_{row}.png"], drawn.boxes[row : row + 1]) for row in range(COUNT)])
    assert mean == pytest.approx(figures["iou_final_one_box"], abs=1e-3)

    words = ("stage=val_boxes", "val_boxes.annotator=file", f"val_boxes.file={file}")
    call("run", place, *words)
    capsys.readouterr()
    call("eval", place, *words, "--json")
    again = json.loads(capsys.readouterr().out)
    assert again["key"] != figures["key"]
    assert again["iou_final_one_box"] == pytest.approx(figures["iou_final_one_box"], abs=1e-3)
    assert again["pointing_accuracy"] is None

    pytest.importorskip("jinja2")
    call("report", place, f"out={folder / 'page.html'}")
    page = (folder / "page.html").read_text()
    assert "Pseudo-boxes" in page
    assert "Annotator ss" in page
    assert "Annotator file" in page
    shown = [part.split("</div>")[0] for part in page.split('<div class="pseudo-cards">')[1:]]
    assert [part.count('<figure class="card">') for part in shown] == [COUNT, COUNT]
    assert [part.count('<g class="truth">') for part in shown] == [COUNT, COUNT]


def test_pseudo_masks_are_scored_and_verify_finds_nothing_wrong_with_them_nor_with_boxes(place, capsys):
    call("run", place, "stage=val_boxes,val_masks", *WORDS)
    capsys.readouterr()
    call("eval", place, "stage=val_masks", *WORDS, "--json")
    figures = json.loads(capsys.readouterr().out)
    assert figures["rows_scored"] == COUNT
    assert 0 < figures["mask_iou"] < 1
    call("eval", place, "stage=cams", *WORDS, "tau_from=val_boxes", "tau_split=val", "noise=boxes", "--json")
    study = json.loads(capsys.readouterr().out)["noise"]
    assert [line["level"] for line in study] == [level / 100 for level in range(5, 51, 5)]
    with pytest.raises(SystemExit) as end:
        cli.main(["verify", f"store={place[0] / 'store'}"], standalone_mode=False)
    assert end.value.code == 0, capsys.readouterr().out


def test_clip_boxes_need_no_classifier_and_are_regions_of_the_maps_of_a_clip(place, capsys):
    folder, drawn = place
    config, names = folder / "clip.json", folder / "names.yaml"
    vision = {"image_size": 64, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}
    config.write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}))
    names.write_text("names: [disc, square, cross, ring]\nbackground: [ground, sky]\n")
    words = (
        "stage=val_boxes", "val_boxes.annotator=clip", f"clip_cams.model={config}", "clip_cams.weights=random:0",
        f"clip_cams.classes={names}", "clip_cams.attention_blocks=1",
    )  # fmt: skip
    call("run", place, *words, "--json")
    made = json.loads(capsys.readouterr().out)["stages"]
    assert [stage["stage"] for stage in made] == ["index", "clip_cams", "val_boxes"]
    call("eval", place, *words, "--json")
    figures = json.loads(capsys.readouterr().out)
    assert figures["rows_scored"] == COUNT

    store = open_store(str(folder / "store"))["drawn"]["val"]
    maps, boxes = store["clip_cams"], store.stage("val_boxes", figures["key"])
    empty = 0
    for row in range(COUNT):
        height, width = drawn.images[row].shape[:2]
        small = maps["maps"][row : row + 1][0, 0].astype(np.float32)
        if small.max() == small.min():
            want, empty = [0, 0, width, height], empty + 1
        else:
            large = cv2.resize(small, (224, 224), interpolation=cv2.INTER_LINEAR)
            levels = (255 * (large - large.min()) / (large.max() - large.min())).astype(np.uint8)
            mask = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1]
            _, _, found, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
            left, top, across, down, _ = found[1 + found[1:, cv2.CC_STAT_AREA].argmax()]
            want = np.array([left, top, left + across, top + down]) * np.array([width, height] * 2) / 224
        assert best_iou(boxes["boxes"][row : row + 1][0], np.array([want], float)) > 0.97
    assert figures["rows_fallback_no_region"] == empty < COUNT
