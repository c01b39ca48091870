"""Film strips of a report, and frames of video files as its pictures."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from videos import draw_frame, write_video
from wsolpipe.contract.errors import BadImageError
from wsolpipe.images.video import open_film
from wsolpipe.pages.pictures import photo
from wsolpipe.report.material import gather
from wsolpipe.report.page import compose
from wsolpipe.report.sections.rows import CLIPS


def test_clips_are_shown_frame_by_frame_with_their_boxes(make_example, evil):
    example = make_example(rows=12)
    example.change_index(group=[evil] * 10 + ["second"] * 2)
    material = gather(example.config)
    facts = CLIPS.facts(material)
    assert facts is not None
    assert [name for name, _ in facts["strips"]] == sorted([evil, "second"])
    long = dict(facts["strips"])[evil]
    numbers = [number for number, _ in long]
    assert len(numbers) == 8
    assert (numbers[0], numbers[-1]) == (0, 9)
    assert numbers == sorted(numbers)
    assert all(card.boxes["top"] for _, card in long)
    assert long[0][1].truth
    page = compose(material)
    assert "clips" in page.sections
    assert evil not in page.html


def test_plain_images_have_no_strips(example):
    assert CLIPS.facts(gather(example.config)) is None


def test_frames_of_a_video_are_pictures_too(tmp_path):
    pytest.importorskip("av", reason="needs av")
    path = write_video(tmp_path / "film.mp4", 6)
    digest = open_film(path).frame_sha256(4)
    uri = photo(tmp_path, "film.mp4#000004", orientation=1, sha256=digest)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    assert np.abs(shown.astype(int) - draw_frame(4)[0]).mean() < 8
    with pytest.raises(BadImageError, match="has changed"):
        photo(tmp_path, "film.mp4#000003", orientation=1, sha256=digest)
    with pytest.raises(BadImageError, match="cannot be read"):
        photo(tmp_path, "none.mp4#000003", orientation=1)
