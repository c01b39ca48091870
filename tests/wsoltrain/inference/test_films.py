"""Predictions on a film: frames with numbers and times, an overlay, and a killed run that goes on."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from videos import write_video
from wsolpipe.contract.errors import ConfigError
from wsoltrain.cli import use as predicting
from wsoltrain.inference import films
from wsoltrain.inference.localizer import Localizer, load
from wsoltrain.runs import predict as running
from wsoltrain.runs.predict import KEYS

av = pytest.importorskip("av", reason="needs av")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4", 25, size=(63, 95))


def ask(*words: str):
    done = CliRunner().invoke(predicting.predict_command, [*words, "device=cpu", "--json"], catch_exceptions=False)
    return json.loads(done.stdout)


def frames_of(path):
    with av.open(str(path)) as container:
        return [(frame.width, frame.height) for frame in container.decode(video=0)]


def test_a_film_gives_boxes_with_numbers_and_times_and_an_overlay(trained, film, tmp_path, monkeypatch):
    monkeypatch.setattr(films, "PART", 8)  # so that parts are joined
    told = ask(f"checkpoint={trained}", f"source={film}", f"out={tmp_path}", "every=2", "batch=3")
    assert [row["frame"] for row in told["rows"]] == list(range(0, 25, 2))
    assert [row["seconds"] for row in told["rows"]] == pytest.approx([number / 10 for number in range(0, 25, 2)])
    assert {(row["width"], row["height"]) for row in told["rows"]} == {(95, 63)}
    assert all(len(row["box"]) == 4 for row in told["rows"])
    assert frames_of(tmp_path / "overlay.mp4") == [(94, 62)] * 13
    with (tmp_path / "boxes.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["frame"]) for line in lines] == [row["frame"] for row in told["rows"]]
    assert told["pace"]["frames"] == 13
    assert told["pace"]["forward_per_second"] >= told["pace"]["frames_per_second"] > 0
    assert not (tmp_path / "parts").exists()
    assert not (tmp_path / "maps").exists()


def test_a_run_that_was_stopped_goes_on_and_ends_alike(trained, film, tmp_path, monkeypatch):
    monkeypatch.setattr(films, "PART", 8)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    ask(f"checkpoint={trained}", f"source={film}", f"out={whole}")
    calls = []
    kept = Localizer.forward

    def dies(*given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return kept(*given)

    monkeypatch.setattr(Localizer, "forward", dies)
    words = [f"checkpoint={trained}", f"source={film}", f"out={broken}"]
    with pytest.raises(KeyboardInterrupt):
        running._predict({**_values(words)})
    assert sorted(path.name for path in (broken / "parts").glob("0*.jsonl")) == ["000000.jsonl"]
    with pytest.raises(ConfigError, match="unfinished run with another every"):
        running._predict({**_values([*words, "every=2"])})
    calls.clear()
    monkeypatch.setattr(Localizer, "forward", kept)
    told = ask(*words)
    assert told["pace"]["frames"] == 25 - 8
    assert (broken / "boxes.csv").read_bytes() == (whole / "boxes.csv").read_bytes()
    mine, theirs = (_pixels(folder / "overlay.mp4") for folder in (broken, whole))
    assert mine.shape == theirs.shape == (25, 62, 94, 3)
    assert np.abs(mine.astype(int) - theirs).mean() < 1


def _pixels(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _values(words):
    from wsolpipe.keys.key import read_keys

    return read_keys([*words, "device=cpu"], KEYS)


def test_a_broken_stretch_is_listed_and_the_rest_predicted(trained, film, tmp_path):
    data = bytearray(film.read_bytes())
    with av.open(str(film)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    key = next(packet for packet in packets[5:] if packet.is_keyframe)
    data[key.pos + 4 : key.pos + key.size] = bytes(key.size - 4)
    (tmp_path / "torn.mp4").write_bytes(data)
    told = ask(f"checkpoint={trained}", f"source={tmp_path}/torn.mp4", f"out={tmp_path}/out")
    assert len(told["rows"]) + len(told["broken"]) == 25
    assert told["broken"]
    assert "cannot be decoded" in told["broken"][0]["reason"]


def test_a_stream_ends_after_as_many_frames(trained, film, tmp_path):
    told = ask(f"checkpoint={trained}", f"source=file://{film}", f"out={tmp_path}", "frames=7", "overlays=false")
    assert [row["frame"] for row in told["rows"]] == list(range(7))
    assert not (tmp_path / "overlay.mp4").exists()


def test_what_is_no_film_is_refused(trained, tmp_path):
    (tmp_path / "film.mp4").write_text("no film")
    for source in (tmp_path / "film.mp4", "rtsp://127.0.0.1:9/none"):
        with pytest.raises(ConfigError, match="source="):
            ask(f"checkpoint={trained}", f"source={source}", f"out={tmp_path}/out")


def test_memory_does_not_grow_with_the_film(trained, tmp_path):
    """What a run holds at its fullest, in Python and in arrays, for a film eight times as long."""
    import tracemalloc

    localizer = load(trained, device="cpu")
    peaks = {}
    for frames in (120, 30, 240):
        path = write_video(tmp_path / f"{frames}.mp4", frames, size=(128, 192))
        job = films.Job(localizer, 0.5, 8, tmp_path / f"out{frames}", overlay=False)
        job.out.mkdir()
        tracemalloc.start()
        films.predict_film(job, str(path))
        peaks[frames] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[240] < 1.1 * peaks[30], peaks
