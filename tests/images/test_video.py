"""Frames of video files: numbered, entered anywhere, decoded once, and broken ones by themselves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from videos import tear, write_video
from wsolpipe.contract.errors import BadImageError, DataError
from wsolpipe.images import video
from wsolpipe.images.index import list_split, source_stamp
from wsolpipe.images.scan import scan_file
from wsolpipe.images.video import Film, open_film, split_frame

av = pytest.importorskip("av", reason="needs av")


@pytest.fixture(scope="module")
def film_file(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("films") / "film.mp4", 60)


def bare(path):
    """All frames as PyAV gives them."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_frames_are_those_of_the_decoder_in_any_order(film_file):
    wanted = bare(film_file)
    film = open_film(film_file)
    assert len(film) == len(wanted) == 60
    assert film.seconds(25) == pytest.approx(2.5)
    order = [*range(60), *np.random.default_rng(0).permutation(60).tolist()]
    for number in order:
        np.testing.assert_array_equal(film.read(number), wanted[number])
    with pytest.raises(BadImageError, match="past the end: the film has 60"):
        film.read(60)


def test_threads_that_read_in_order_decode_each_frame_once(film_file, monkeypatch):
    decoded = []
    kept = Film._decode

    def noted(self):
        for at, frame in kept(self):
            decoded.append(at)
            yield at, frame

    monkeypatch.setattr(Film, "_decode", noted)
    film = Film(str(film_file), film_file.stat().st_size)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(film.read, range(60)))
    assert decoded == list(range(60))
    assert all(np.array_equal(one, other) for one, other in zip(found, bare(film_file), strict=True))


def test_a_reader_of_the_second_half_does_not_decode_the_first(film_file, monkeypatch):
    decoded = []
    kept = Film._decode
    monkeypatch.setattr(
        Film, "_decode", lambda self: ((decoded.append(at), (at, frame))[1] for at, frame in kept(self))
    )
    Film(str(film_file), 1).read(50)
    assert min(decoded) >= 50 - 12  # the key frame before it


def test_a_broken_stretch_costs_its_frames_alone(film_file, tmp_path):
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(film_file.read_bytes())
    tear(torn, after=20)
    film = open_film(torn)
    good, bad = [], []
    for number in range(60):
        scan = scan_file(f"{torn}#{number:06d}", exif="apply")
        (bad if scan.reason else good).append(number)
        assert not scan.reason or scan.reason == f"broken: frame {number} cannot be decoded"
    assert len(film) == 60
    assert set(range(12)) <= set(good)
    assert bad
    assert set(bad) <= set(range(18, 42))  # around the torn key frame, up to the next


def test_what_is_no_film_is_named(tmp_path):
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(BadImageError, match="not a video"):
        open_film(tmp_path / "text.mp4")
    assert scan_file(str(tmp_path / "none.mp4#000000"), exif="apply").reason == "missing file"
    assert split_frame("a#b/c.mp4") is None
    assert split_frame("a/c.MP4#000012") == ("a/c.MP4", 12)


@pytest.fixture
def clips(tmp_path, save_image, describe):
    """Two classes: a folder of frames, an empty one and a film; and a clip without a class."""
    root = tmp_path / "images"
    for path in ("cat/walk/f9.png", "cat/walk/f10.png", "loose/1.png"):
        save_image(root / path)
    (root / "cat" / "empty").mkdir()
    write_video(root / "dog" / "run.mp4", 5)
    (root / "dog" / "torn.mp4").write_text("no film")

    def make(**keys):
        return describe(**{"layout": "clips", "split": "train", **keys})

    return make


def test_clips_are_groups_of_frames_in_their_order(clips):
    listing = list_split(clips(), "train")
    assert listing.class_names == {0: "cat", 1: "dog"}
    rows = {row.path: row for row in listing.rows}
    assert [rows[f"cat/walk/f{number}.png"].frame for number in (9, 10)] == [0, 1]
    assert rows["cat/walk/f9.png"].group == "cat/walk"
    assert rows["cat/empty"].reason == "no frame in this folder"
    assert rows["loose/1.png"].labels == ()
    assert [(row.frame, row.group, row.labels) for row in listing.rows if row.group == "dog/run.mp4"] == [
        (number, "dog/run.mp4", (1,)) for number in range(5)
    ]
    assert rows["dog/torn.mp4#000000"].reason.startswith("not a video")


def test_every_nth_frame_is_listed_and_those_with_boxes(clips, tmp_path):
    (tmp_path / "localization.txt").write_text("dog/run.mp4#000003,1.5,2,30.25,40\ndog/run.mp4#000003,1,2,3,4\n")
    before = source_stamp(clips(every=2), "train")
    listing = list_split(clips(every=2, metadata="."), "train")
    assert [row.frame for row in listing.rows if row.group == "dog/run.mp4"] == [0, 2, 3, 4]
    assert [(item.x0, item.x1) for item in listing.annotations] == [(1.5, 30.25), (1.0, 3.0)]
    assert source_stamp(clips(every=3), "train") != before
    (tmp_path / "localization.txt").write_text("dog/run.mp4#000009,1,2,3,4\n")
    with pytest.raises(DataError, match=r"localization.txt:1: 'dog/run.mp4#000009' is not in the image ids"):
        list_split(clips(metadata="."), "train")


def test_masks_of_frames_are_found_by_their_numbers(clips, tmp_path, save_image):
    for path in ("dog/run/00002.png", "cat/walk/f9.png"):
        save_image(tmp_path / "masks" / path)
    found = {item.image_id: item.path for item in list_split(clips(masks="masks"), "train").annotations}
    assert found == {"dog/run.mp4#000002": "dog/run/00002.png", "cat/walk/f9.png": "cat/walk/f9.png"}


def test_shots_of_youtube_objects_are_expanded(tmp_path, save_image, describe):
    root = tmp_path / "images"
    for number in (1, 2, 10):
        save_image(root / f"boat/data/0001/shots/001/frame{number:04d}.png")
    files = {
        "train/image_ids.txt": "boat/data/0001/shots/001\nboat/data/0001/shots/002\n",
        "train/class_labels.txt": "boat/data/0001/shots/001,2\nboat/data/0001/shots/002,2\n",
        "val/image_ids.txt": "boat/data/0001/shots/001/frame0002.png\n",
        "val/class_labels.txt": "boat/data/0001/shots/001/frame0002.png,2\n",
        "val/localization.txt": "boat/data/0001/shots/001/frame0002.png,1.25,2.5,20.75,18\n" * 2,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    config = describe(layout="ytov1", split={"train": "train", "val": "val"}, metadata=".", classes=10)
    train, val = list_split(config, "train"), list_split(config, "val")
    shot = [row for row in train.rows if row.group == "boat/data/0001/shots/001"]
    assert [(row.path.rpartition("/")[2], row.frame, row.labels) for row in shot] == [
        ("frame0001.png", 0, (2,)),
        ("frame0002.png", 1, (2,)),
        ("frame0010.png", 2, (2,)),
    ]
    assert [row.reason for row in train.rows if row not in shot] == ["no frame in this folder"]
    assert [(row.group, row.frame) for row in val.rows] == [("boat/data/0001/shots/001", 2)]
    assert [(item.x0, item.y1) for item in val.annotations] == [(1.25, 18.0)] * 2
    stamp = source_stamp(config, "train")
    save_image(root / "boat/data/0001/shots/002/frame0001.png")
    assert source_stamp(config, "train") != stamp


def test_videos_without_the_package_say_which_one(tmp_path, monkeypatch):
    import sys

    from wsolpipe.contract.errors import ConfigError

    (tmp_path / "film.mp4").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match="package av"):
        video.open_film(tmp_path / "film.mp4")
