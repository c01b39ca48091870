"""The shipped clips: small, listed whole, and still what their tool draws."""

from __future__ import annotations

import numpy as np
import pytest

from wsolpipe.images.dataset import load_dataset
from wsolpipe.images.index import list_split
from wsolpipe.images.video import open_film, split_frame

pytest.importorskip("av", reason="needs av")
import make_demo_clips as clips


def test_clips_stay_within_two_mebibytes(repo):
    assert sum(path.stat().st_size for path in (repo / "data/demo/clips").rglob("*") if path.is_file()) < 2 * 2**20


def test_every_frame_has_one_box_inside_it():
    config = load_dataset("demo_video")
    for split, count in clips.CLIPS.items():
        listing = list_split(config, split)
        frames = len(clips.CLASSES) * count * clips.FRAMES
        assert len(listing.rows) == frames
        assert {item.image_id for item in listing.annotations} == {row.image_id for row in listing.rows}
        assert len(listing.annotations) == frames
        assert not any(row.reason for row in listing.rows)
        height, width = clips.SIZE
        assert all(0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height for box in listing.annotations)
        assert list(listing.class_names.values()) == list(clips.CLASSES)


def test_a_clip_is_what_its_seed_draws():
    frames, boxes = clips.draw_clip(clips.SEED, "val", 5, 1)
    config = load_dataset("demo_video")
    name = f"val/{clips.CLASSES[5]}/01.mp4"
    film = open_film(config.image_root() / name)
    assert len(film) == clips.FRAMES
    for number in (0, 7):
        assert np.abs(film.read(number).astype(int) - frames[number]).mean() < 8  # what compression changes
    listed = [item for item in list_split(config, "val").annotations if split_frame(item.image_id) == (name, 7)]
    assert [(box.x0, box.y0, box.x1, box.y1) for box in listed] == [tuple(boxes[7].tolist())]
