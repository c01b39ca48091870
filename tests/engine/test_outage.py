"""The folder of images is out of reach for a while: rows are not given up for it, and are tried again by themselves."""

from __future__ import annotations

import threading

import pytest

from e2e.toy import object_bytes
from engine.bench import Bench, line
from wsolpipe.contract.errors import BadImageError, DataError
from wsolpipe.engine.image_files import IN_A_ROW, ImageFiles
from wsolpipe.images.ahead import map_ahead
from wsolpipe.launch.run import run


def break_after(bench: Bench, monkeypatch: pytest.MonkeyPatch, count: int, outage) -> None:
    """Call `outage` once `count` images were read by stages."""
    read, real = [], ImageFiles.read

    def counted(self, path, sha256, orientation):
        read.append(path)
        if len(read) == count:
            outage()
        return real(self, path, sha256, orientation)

    monkeypatch.setattr(ImageFiles, "read", counted)


@pytest.mark.parametrize("way", ["root", "files"])
def test_an_outage_stops_the_run_and_commits_no_row_of_it(done, monkeypatch, way):
    bench, before = done
    other, away = bench.folder / "other", bench.folder / "away"

    def outage():
        if way == "root":
            bench.images.rename(away)
        else:
            for folder in list(bench.images.iterdir()):
                folder.rename(folder.with_name(f".{folder.name}"))

    assert bench.go(stage="index", store=other).code == 0
    break_after(bench, monkeypatch, 20, outage)
    with pytest.raises(DataError, match="is gone" if way == "root" else "image files in a row cannot be read"):
        run(bench.session("shade.batch=1", "threads=1", store=other).config, lambda _: None, threading.Event())
    view = bench.session(store=other) if way == "files" else None
    if view is not None:
        records = view.store["toy"]["train"]["shade"].committed()
        assert [record.quarantined for record in records.values()] == [()]
    monkeypatch.undo()
    if way == "root":
        away.rename(bench.images)
    else:
        for folder in list(bench.images.iterdir()):
            folder.rename(folder.with_name(folder.name.removeprefix(".")))
    again = Bench(bench.folder)
    monkeypatch.syspath_prepend(str(bench.folder))
    outcome = again.go(store=other)
    assert outcome.code == 0
    assert line(outcome, "frame").quarantined == 0
    assert object_bytes(other) == before


def test_a_file_that_comes_back_is_tried_again_without_being_asked(done, monkeypatch):
    bench, before = done
    other, name = bench.folder / "other", bench.images / "class0/image030.png"
    hidden = name.with_suffix(".hidden")
    assert bench.go(stage="index", store=other).code == 0
    break_after(bench, monkeypatch, 2, lambda: name.rename(hidden))
    outcome = bench.go("threads=1", store=other)
    assert line(outcome, "shade").quarantined == 1
    hidden.rename(name)
    outcome = bench.go(store=other)
    assert outcome.code == 0
    assert line(outcome, "frame").quarantined == 0
    assert object_bytes(other) == before
    bench.go(store=other)
    assert bench.made() == []


def test_a_file_that_stays_away_is_not_made_again_and_again(done, monkeypatch):
    bench, _ = done
    other, name = bench.folder / "other", bench.images / "class0/image030.png"
    assert bench.go(stage="index", store=other).code == 0
    break_after(bench, monkeypatch, 2, name.unlink)
    assert line(bench.go("threads=1", stage="shade", store=other), "shade").quarantined == 1


def test_files_lost_here_and_there_cost_their_rows_only(tmp_path):
    for number in range(0, 4 * IN_A_ROW, 2):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    files = ImageFiles(tmp_path)
    for number in range(4 * IN_A_ROW):
        with pytest.raises(BadImageError, match="cannot be read|identify|not an image"):
            files.read(f"{number}.png", None, 1)


def test_an_outage_is_seen_from_several_threads(tmp_path):
    files = ImageFiles(tmp_path)

    def read(number):
        try:
            files.read(f"{number}.png", None, 1)
        except BadImageError:
            return

    with pytest.raises(DataError, match="16 image files in a row"):
        list(map_ahead(read, range(100), threads=4))


def test_a_scan_that_lost_the_root_commits_nothing(bench, monkeypatch):
    from wsolpipe.images import scan

    seen, real = [], scan.scan_file

    def lost(path, *, exif):
        seen.append(path)
        if len(seen) == 5:
            bench.images.rename(bench.folder / "away")
        return real(path, exif=exif)

    monkeypatch.setattr(scan, "scan_file", lost)
    with pytest.raises(DataError, match="is gone"):
        bench.go("threads=1", stage="index")
    (bench.folder / "away").rename(bench.images)
    assert line(bench.go(stage="index"), "index").quarantined == 0


def test_a_row_that_the_scan_missed_is_scanned_again_once_its_file_is_back(bench, monkeypatch):
    from wsolpipe.images import scan

    name, seen, real = bench.images / "class0/image030.png", [], scan.scan_file

    def lost(path, *, exif):
        seen.append(path)
        return scan.Scan(0, "", 0, 0, 1, scan.MISSING) if path == str(name) else real(path, exif=exif)

    monkeypatch.setattr(scan, "scan_file", lost)
    assert line(bench.go(stage="index"), "index").quarantined == 1
    monkeypatch.setattr(scan, "scan_file", real)
    assert line(bench.go(stage="index"), "index").quarantined == 0
