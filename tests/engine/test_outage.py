"""The folder of images is out of reach for a while: rows are not given up for it, and are tried again by themselves."""

from __future__ import annotations

import threading

import pytest

from e2e.toy import object_bytes
from engine.bench import Bench, line
from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.errors import AccessError, BadImageError, DataError
from wsolpipe.engine.image_files import IN_A_ROW, ImageFiles
from wsolpipe.images.video import map_ahead
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


def list_in_a_file(bench, count=72):
    """Name the images in a table, so that a folder out of reach does not shorten the list."""
    paths = sorted(path.relative_to(bench.images).as_posix() for path in bench.images.rglob("*.png"))[:count]
    lines = [f"{path},{path[5]}" for path in paths]
    (bench.folder / "list.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    bench.yaml.write_text("name: toy\nlayout: csv\nroot: images\nmetadata: list.csv\nsplit: train\n")
    return paths


@pytest.mark.parametrize("count", [72, 5], ids=["many", "few"])
def test_an_index_of_photographs_that_are_not_mounted_commits_no_row(bench, count):
    list_in_a_file(bench, count)
    away = bench.folder / "away"
    bench.images.rename(away)
    bench.images.mkdir()
    with pytest.raises(DataError, match="image files in a row cannot be read"):
        bench.go(stage="index")
    assert not list(bench.store.glob("toy/train/index/*/commits/*"))
    bench.images.rmdir()
    away.rename(bench.images)
    assert line(bench.go(stage="index"), "index").quarantined == 0


def test_a_later_index_of_photographs_that_are_not_mounted_changes_no_key(bench):
    list_in_a_file(bench)
    assert bench.go().code == 0
    keys = bench.keys()
    away = bench.folder / "away"
    bench.images.rename(away)
    bench.images.mkdir()
    for words in ("force=true",), ():
        with pytest.raises(DataError, match="cannot be read"):
            bench.go(*words, stage="index")
    bench.images.rmdir()
    away.rename(bench.images)
    assert bench.go().code == 0
    assert bench.keys() == {**keys, "index": bench.keys()["index"]}
    assert bench.made() == [("index", 0)]


def test_files_that_are_gone_for_good_are_quarantined_when_somebody_asks_for_it_once(bench):
    paths = list_in_a_file(bench)
    for path in paths[10:40]:
        (bench.images / path).unlink()
    with pytest.raises(DataError, match="16 image files in a row cannot be read"):
        bench.go(stage="index")
    assert line(bench.go("force=true", stage="index"), "index").quarantined == 30
    bench.draw(["class2/new.png"])
    with (bench.folder / "list.csv").open("a") as table:
        table.write("class2/new.png,2\n")
    later = line(bench.go(stage="index"), "index")
    assert (later.rows, later.quarantined) == (73, 30)


def test_a_disk_error_while_the_index_is_put_together_deletes_no_scan(bench, monkeypatch):
    real, refused = LocalBackend.get, []

    def get(self, name, **options):
        if "/scan/" in name and not refused:
            refused.append(name)
            msg = f"{name}: Input/output error"
            raise AccessError(msg)
        return real(self, name, **options)

    monkeypatch.setattr(LocalBackend, "get", get)
    with pytest.raises(AccessError, match="Input/output error"):
        bench.go(stage="index")
    assert refused
    kept = {path: path.stat().st_ino for path in bench.store.glob("toy/train/index/*/scan/*")}
    assert len(kept) == 1
    assert bench.go(stage="index").code == 0
    assert {path: path.stat().st_ino for path in kept} == kept
