"""Commands that meet damaged or forbidden files of a store: exit code 4, the file in one line, no traceback."""

from __future__ import annotations

import pytest

from e2e.toy import Toy
from stores import build_store


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    build_store(folder, rows=20, sizes=(30, 50))
    (folder / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\nsplit: train\n")
    for stage, array in (("cls_maps", "maps"), ("proposals", "boxes")):
        (path,) = folder.glob(f"store/tiny/train/{stage}/*/data.zarr/{array}/c/0*")
        path = next((item for item in path.rglob("*") if item.is_file()), path)
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 16
        path.write_bytes(data)
    return Toy(folder)


def one_line(done, code, *said):
    assert done.code == code, (done.code, done.err, done.out)
    assert "Traceback" not in done.err + done.out
    assert len(done.err.strip().splitlines()) <= 2, done.err  # what and where, then the next command
    assert all(text in done.err for text in said), done.err


@pytest.mark.parametrize(
    "words",
    [("report",), ("eval", "stage=proposals"), ("eval", "stage=cls_maps"), ("export", "stage=proposals", "out=x")],
)
def test_a_flipped_shard_ends_a_reading_command_with_the_file_in_one_line(place, words):
    store = f"store={place.folder / 'store'}"
    done = place.command_line([*words, store, f"dataset={place.yaml.with_name('tiny.yaml')}", "split=train"])
    one_line(done, 4, "/data.zarr/", "->")


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_folder_of_records_that_may_not_be_read_stops_a_run_and_costs_nothing(toy, command):
    assert toy.run("limit=8", stage="shade").code == 0
    (commits,) = toy.store.glob("toy/train/shade/*/commits")
    kept = commits.rename(commits.with_name("kept"))
    commits.symlink_to(commits.name)  # root may read everything but this
    one_line(toy.call(command, "limit=8", stage="shade"), 4, "commits")
    commits.unlink()
    kept.rename(commits)
    toy.log.unlink()
    assert toy.run("limit=8", stage="shade").code == 0
    assert not toy.calls("shade")
