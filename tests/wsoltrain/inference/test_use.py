"""What a finished run is used for: predictions on any pictures, and programs that run without this package."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import shutil
import subprocess
import sys
from logging.handlers import BufferingHandler

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import wsoltrain
from wsolpipe.contract.errors import BadImageError, ConfigError, DataError, RunFailed
from wsolpipe.evaluate.otsu_scores import otsu_box
from wsolpipe.metrics import ScoreMaps, iou_matrix, standard_maps
from wsolpipe.pages.pictures import HEAT_ANCHORS
from wsoltrain.cli import use as exporting
from wsoltrain.cli import use as predicting
from wsoltrain.inference.drawing import BOX
from wsoltrain.inference.localizer import Localization, find_region
from wsoltrain.inference.pictures import Picture, read_pictures

SIDEWAYS = 6


def ask(command, *words: str):
    done = CliRunner().invoke(command, [*words, "--json"], catch_exceptions=False)
    return json.loads(done.stdout)


@pytest.fixture
def photos(tmp_path):
    """An image of some size, the same stored sideways, a broken one, and what is no image."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(3)
    pixels = rng.integers(60, 110, (90, 160, 3), dtype=np.uint8)
    pixels[20:70, 90:150] = (230, 30, 30)
    image = Image.fromarray(pixels)
    image.save(folder / "plain.png")
    exif = Image.Exif()
    exif[0x0112] = SIDEWAYS
    image.transpose(Image.Transpose.ROTATE_90).save(folder / "deep/turned.png", exif=exif)
    (folder / "torn.png").write_bytes((folder / "plain.png").read_bytes()[:500])
    (folder / "notes.txt").write_text("no image")
    return folder


def test_predictions_are_boxes_in_pixels_of_the_upright_picture(trained, photos, tmp_path):
    out = tmp_path / "found"
    told = ask(
        predicting.predict_command, f"checkpoint={trained}", f"source={photos}", f"out={out}", "device=cpu", "batch=1"
    )
    written = json.loads((out / "boxes.json").read_text())
    assert told == {"schema_version": 1, **written}
    turned, plain = told["rows"]
    assert [row["path"] for row in told["rows"]] == ["deep/turned.png", "plain.png"]
    assert (plain["width"], plain["height"]) == (turned["width"], turned["height"]) == (160, 90)
    assert turned["box"] == plain["box"]
    assert iou_matrix([plain["box"]], [[90, 20, 150, 70]])[0, 0] > 0.4
    assert 0 <= plain["box"][0] < plain["box"][2] <= 160
    assert plain["class"] == f"class {plain['label']}"
    assert 0.2 <= plain["probability"] <= 1  # of five classes
    assert [bad["path"] for bad in told["broken"]] == ["torn.png"]
    assert "truncated" in told["broken"][0]["reason"]
    with (out / "boxes.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(lines[1][edge]) for edge in ("x0", "y0", "x1", "y1")] == plain["box"]
    assert ScoreMaps(out / "maps").read("plain.png").shape == (32, 32)
    assert Image.open(out / "overlays/plain.png.jpg").size == (160, 90)


def test_box_of_the_evaluation_is_the_box_of_the_prediction(trained, trainable, tmp_path):
    from wsoltrain.cli import figures as scoring

    words = [f"checkpoint={trained}", "device=cpu"]
    data = [f"store={trainable.url}", f"dataset={trainable.root}/../tiny.yaml", "split=val", "workers=0"]
    score = ask(scoring.eval_command, *words, *data)["localizer"]
    told = ask(
        predicting.predict_command,
        *words,
        f"source={trainable.root}",
        f"out={tmp_path}",
        "maps=false",
        "overlays=false",
    )
    assert not (tmp_path / "maps").exists()
    truth = dict(zip(trainable.paths, trainable.objects, strict=True))
    ious = [iou_matrix([row["box"]], [truth[row["path"]]])[0, 0] for row in told["rows"]]
    assert len(ious) == 40
    assert np.mean(ious) == pytest.approx(score["iou"], abs=0.02)  # the evaluator truncates and counts edges


def test_patterns_name_files_from_where_they_begin_to_match(photos):
    found = [picture.name for picture in read_pictures(f"{photos}/**/*.png") if picture.pixels is not None]
    assert found == ["deep/turned.png", "plain.png"]
    with pytest.raises(ConfigError, match="no image or video"):
        list(read_pictures(f"{photos}/*.jpg"))


def test_nothing_but_broken_pictures_is_a_failure(trained, photos, tmp_path):
    words = [f"checkpoint={trained}", f"source={photos}/torn.png", f"out={tmp_path}", "device=cpu"]
    with pytest.raises(RunFailed, match=r"none of 1 pictures can be read; torn\.png"):
        CliRunner().invoke(predicting.predict_command, words, catch_exceptions=False)


def test_frames_of_a_video_are_predicted_on(trained, tmp_path):
    av = pytest.importorskip("av", reason="needs av")
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 96, 64
        for number in range(7):
            pixels = np.full((64, 96, 3), 30 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    told = ask(
        predicting.predict_command,
        f"checkpoint={trained}",
        f"source={path}",
        f"out={tmp_path}",
        "device=cpu",
        "every=3",
    )
    assert [row["path"] for row in told["rows"]] == ["clip.mp4#000000", "clip.mp4#000003", "clip.mp4#000006"]
    assert {(row["width"], row["height"]) for row in told["rows"]} == {(96, 64)}
    levels = [picture.pixels.mean() for picture in read_pictures(str(path))]
    assert levels == pytest.approx([30 * number for number in range(7)], abs=6)
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(path.read_bytes()[:300])
    assert [picture.pixels for picture in read_pictures(str(torn))] == [None]


def test_videos_say_which_package_they_need(tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match="package av"):
        list(read_pictures(str(tmp_path)))


def test_wrong_checkpoints_are_named(trained, tmp_path):
    from wsoltrain.inference.model import load_trained

    with pytest.raises(ConfigError, match="best-"):
        ask(predicting.predict_command, f"checkpoint={tmp_path}", "source=x")
    with pytest.raises(ConfigError, match="for resuming training"):
        load_trained(str(trained / "last.safetensors"), device="cpu")
    with pytest.raises(ConfigError, match="no checkpoint at"):
        load_trained(str(tmp_path / "none.safetensors"), device="cpu")
    with pytest.raises(ConfigError, match="tau=2"):
        ask(predicting.predict_command, f"checkpoint={trained}", "source=x", "tau=2")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """Folder of the trained run in both formats, what the command printed and what was logged; tests change copies."""
    folder, logged, root = tmp_path_factory.mktemp("exported"), BufferingHandler(1000), logging.getLogger()
    before = root.level
    root.addHandler(logged)
    root.setLevel(logging.INFO)
    try:
        return folder, ask(exporting.export_command, f"checkpoint={trained}", f"out={folder}"), logged.buffer
    finally:
        root.setLevel(before)
        root.removeHandler(logged)


def test_exported_programs_say_what_the_network_says(exported):
    folder, told, logged = exported
    assert not logged  # the exporters' notes about their own work are not the user's
    assert set(told["differences"]) == {"torch", "onnx"}
    assert max(told["differences"].values()) < 1e-5
    card = json.loads((folder / "localizer.json").read_text())
    assert card["size"] == 32
    assert card["outputs"] == {"map": ["batch", 32, 32], "classes": ["batch", 5]}
    assert 0 <= card["tau"] < 1
    assert len(card["mean"]) == len(card["std"]) == 3
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    session = onnxruntime.InferenceSession(folder / "localizer.onnx", providers=["CPUExecutionProvider"])
    assert [put.name for put in session.get_inputs()] == ["image"]
    assert [put.name for put in session.get_outputs()] == ["map", "classes"]
    found, classes = session.run(None, {"image": np.zeros((5, 3, 32, 32), np.float32)})
    assert (found.shape, classes.shape) == ((5, 32, 32), (5, 5))
    assert classes.sum(1) == pytest.approx(np.ones(5), abs=1e-5)


@pytest.mark.parametrize("tau", [None, 0.4])
def test_a_localizer_finds_the_same_box_by_the_run_the_programs_and_the_file_that_needs_neither(
    trained, exported, photos, tmp_path, tau
):
    shutil.copytree(exported[0], tmp_path, dirs_exist_ok=True)
    card = json.loads((tmp_path / "localizer.json").read_text()) | {"tau": tau}
    (tmp_path / "localizer.json").write_text(json.dumps(card))
    run = dataclasses.replace(wsoltrain.load(trained, device="cpu"), tau=tau)
    paths = [str(photos / "plain.png"), str(photos / "deep/turned.png")]
    expected = run(paths)
    assert [found.class_name for found in expected] == [f"class {found.label}" for found in expected]
    assert iou_matrix(expected[0].boxes, [[90, 20, 150, 70]])[0, 0] > 0.4
    for named in (tmp_path, tmp_path / "localizer.onnx", tmp_path / "localizer.pt2"):
        for found, other in zip(wsoltrain.load(named)(paths), expected, strict=True):
            np.testing.assert_allclose(found.map, other.map, atol=1e-5)
            np.testing.assert_allclose(found.box, other.box, atol=1.5)  # a level of 255 may turn by rounding
            assert (found.label, found.score) == (other.label, pytest.approx(other.score, abs=0.02))
    code = "import sys; sys.modules |= dict.fromkeys(('torch', 'wsolpipe', 'wsoltrain')); import runpy; "
    code += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    words = [sys.executable, "-c", code, str(tmp_path / "localizer.py"), *paths]
    done = subprocess.run([*words, str(photos / "torn.png"), "none.png"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert [line.partition(" cannot be read: ")[0] for line in done.stderr.splitlines()] == [
        str(photos / "torn.png"),
        "none.png",
    ]
    lines = done.stdout.splitlines()
    for line, other in zip(map(json.loads, lines), expected, strict=True):
        np.testing.assert_allclose(line["box"], other.box, atol=1.5)
        assert line["class"] == other.class_name
        assert line["probability"] == pytest.approx(other.probability, abs=1e-4)
        assert line["score"] == pytest.approx(other.score, abs=0.02)


def test_a_localizer_takes_paths_pictures_arrays_and_tensors(trained, photos):
    localizer = wsoltrain.load(trained, device="cpu")
    upright = Image.open(photos / "plain.png").convert("RGB")
    pixels = np.asarray(upright)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    found = localizer([photos / "plain.png", upright, pixels, tensor, tensor / 255], batch=2)
    assert len({tuple(each.box) for each in found}) == 1
    one = localizer(pixels)
    np.testing.assert_allclose(one.map, found[2].map, atol=1e-5)
    assert one._repr_png_().startswith(b"\x89PNG")
    assert localizer([]) == []
    for wrong in (pixels[..., 0], pixels.astype(float), tensor[:1]):
        with pytest.raises(DataError, match="not RGB"):
            localizer(wrong)
    with pytest.raises(BadImageError):
        localizer(photos / "torn.png")


def test_a_damaged_export_is_one_line(exported, tmp_path):
    shutil.copytree(exported[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "localizer.pt2").unlink()
    with pytest.raises(ConfigError, match="classes are fixed"):
        wsoltrain.load(tmp_path, anchors="anchors.safetensors")
    with pytest.raises(DataError, match=r"localizer\.pt2 does not exist"):
        wsoltrain.load(tmp_path / "localizer.pt2")
    (tmp_path / "localizer.onnx").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"localizer\.onnx cannot be read"):
        wsoltrain.load(tmp_path / "localizer.onnx")
    (tmp_path / "localizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"localizer\.json cannot be read"):
        wsoltrain.load(tmp_path)


def test_unknown_format_is_named(trained):
    with pytest.raises(ConfigError, match="did you mean 'onnx'"):
        ask(exporting.export_command, f"checkpoint={trained}", "formats=onxx")


def test_a_checkpoint_without_a_threshold_cuts_each_map_at_its_own_otsu_threshold():
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(12, 12)).astype(np.float32)
    raw[3:8, 2:9] += 6
    framed = standard_maps(raw[None], side=96, normalise=True)[0]
    box, score = find_region(raw, framed, (60, 120), None)
    np.testing.assert_array_equal(box, otsu_box(raw, 120, 60)[0])
    assert iou_matrix([box], [[20, 15, 90, 40]])[0, 0] > 0.7
    assert 0.5 < score <= 1
    assert find_region(np.ones((12, 12), np.float32), framed, (60, 120), None) is None


def test_an_overlay_of_a_map_of_two_values_shows_the_object_and_its_box():
    """Half of the contrast below the map is left, and the box is told from the map's highest colour."""
    pixels = np.zeros((100, 120, 3), np.uint8)
    pixels[20:70, 30:90:2] = 255  # stripes are the object
    values = np.zeros((100, 120), np.float32)
    values[20:70, 30:90] = 1
    found = Localization(Picture("x", pixels), values, np.array([30.0, 20, 90, 70]))
    drawn = np.asarray(found.draw()).astype(int)
    inside = drawn[40, 40:60]
    assert (inside[0::2] - inside[1::2] >= 127).all()
    line, rim = drawn[40, 31], drawn[40, 30]
    assert np.abs(line - HEAT_ANCHORS[-1]).max() > 100
    assert line.sum() - rim.sum() > 200  # a dark rim beside a bright line
    assert tuple(line) == BOX
