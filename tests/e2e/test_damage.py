"""Commands that meet damaged or forbidden files of a store: exit code 4, the file in one line, no traceback."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import trained
from e2e.toy import Toy
from stores import build_store, write_table
from wsolpipe import open_store
from wsolpipe.cli.main import cli as pipeline_cli
from wsolpipe.contract.errors import TornShardError
from wsoltrain.cli.main import cli as trainer_cli


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


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory):
    """A store whose shards are all whole, two of maps and two of boxes in each other's place."""
    tiny = build_store(tmp_path_factory.mktemp("exchanged"), rows=40, sizes=(30, 50))
    folder = Path(tiny.url).parent
    (folder / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\nsplit: train\n")
    for array in ("cls_maps/*/data.zarr/maps/c/{}/0/0/0", "proposals/*/data.zarr/boxes/c/{}/0/0"):
        one, other = (next(folder.glob(f"store/tiny/train/{array.format(shard)}")) for shard in (0, 1))
        one.rename(folder / "aside")
        other.rename(one)
        (folder / "aside").rename(other)
    return tiny


def stage_of(tiny, name):
    return open_store(tiny.url)["tiny"]["train"][name]


READERS = {
    "eval of boxes": lambda tiny, words: call_of("wsolpipe", "eval", "stage=proposals", *words),
    "eval of maps": lambda tiny, words: call_of("wsolpipe", "eval", "stage=cls_maps", *words),
    "report": lambda tiny, words: call_of("wsolpipe", "report", *words),
    "export": lambda tiny, words: call_of("wsolpipe", "export", "stage=proposals", "out=out.json", *words),
    "fit": lambda tiny, words: call_of("wsoltrain", *trained.words(tiny, out="run", epochs=1, workers=0)),
    "table in a notebook": lambda tiny, words: stage_of(tiny, "proposals").to_pandas(),
    "picture in a notebook": lambda tiny, words: stage_of(tiny, "proposals").show(3),
    "stream": lambda tiny, words: stage_of(tiny, "cls_maps")["maps"][[3, 35]],
}


def call_of(program, command, *words):
    """Run a command line in this process; the error that it would print is raised."""
    cli = {"wsolpipe": pipeline_cli, "wsoltrain": trainer_cli}[program]
    cli.main([command, *words], standalone_mode=False)


@pytest.mark.parametrize("reader", READERS)
def test_two_exchanged_shards_stop_every_reader_though_each_chunk_is_whole(exchanged, reader, tmp_path, monkeypatch):
    """Scores, trainings, pages and tables went on with the boxes of other images."""
    monkeypatch.chdir(tmp_path)
    folder = Path(exchanged.url).parent
    words = [f"dataset={folder / 'tiny.yaml'}", f"store={exchanged.url}", "split=train"]
    with pytest.raises(TornShardError, match="recorded|is damaged: shards 0, 1") as caught:
        READERS[reader](exchanged, words)
    assert "wsolpipe repair" in str(caught.value.hint)


@pytest.mark.parametrize("table", ["index.parquet", "annotations.parquet"])
@pytest.mark.parametrize("reader", ["eval of boxes", "report"])
def test_a_changed_table_of_the_index_stops_every_reader(reader, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = build_store(tmp_path, rows=20, sizes=(30, 50))
    (tmp_path / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\nsplit: train\n")
    (path,) = tmp_path.glob(f"store/tiny/train/index/*/{table}")
    rows = pq.read_table(path)
    pq.write_table(rows.take(list(range(rows.num_rows))[::-1]), path)
    with pytest.raises(TornShardError, match=f"{table} .*recorded"):
        READERS[reader](tiny, [f"dataset={tmp_path / 'tiny.yaml'}", f"store={tiny.url}", "split=train"])


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


def test_ground_truth_of_a_kind_that_nobody_knows_takes_no_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = build_store(tmp_path, rows=8, sizes=(30, 50))
    (tmp_path / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\nsplit: train\n")
    (manifest,) = tmp_path.glob("store/tiny/train/index/*/manifest.json")
    rows = pq.read_table(manifest.with_name("annotations.parquet"))
    odd = pa.Table.from_pylist([{**rows.to_pylist()[0], "kind": "polygon", "path": "x"}], schema=rows.schema)
    write_table(manifest.parent, "annotations.parquet", pa.concat_tables([rows, odd]))
    with pytest.raises(SystemExit) as ended:
        READERS["eval of boxes"](tiny, [f"dataset={tmp_path / 'tiny.yaml'}", f"store={tiny.url}", "split=train"])
    assert ended.value.code == 0
