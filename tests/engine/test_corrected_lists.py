"""A corrected list is obeyed: images leave, come back, change label or box, and what is unchanged is not made again."""

from __future__ import annotations

import numpy as np
import pytest

from engine.bench import line
from wsolpipe.contract.schema import RETIRED, Status
from wsolpipe.engine.quarantine import quarantined_rows
from wsolpipe.evaluate.map_sources import rows_of_index
from wsolpipe.share.verify import verify

GONE = ["class0/image003.png", "class1/image040.png"]


def table(bench, lines):
    """The images of the bench by a table; a line is path, label, split and box."""
    (bench.folder / "t.csv").write_text("\n".join(["path,label,split,x0,y0,x1,y1", *lines]) + "\n")
    (bench.folder / "c.txt").write_text("0,ant\n1,bee\n2,crab\n")
    bench.yaml.write_text(
        "name: toy\nlayout: csv\nroot: images\nmetadata: t.csv\nclasses: c.txt\nsplit: {train: train, val: val}\n"
    )


@pytest.fixture
def lines():
    return [
        f"class{row % 3}/image{row:03d}.png,{row % 3},{'val' if row % 6 > 3 else 'train'},2,2,20,20"
        for row in range(72)
    ]


def notes(bench):
    return [event["text"] for event in bench.events if event["event"] == "note"]


def rows(bench, split="train"):
    index = bench.session().index_of(split)
    return index, index.table().to_pylist()


def test_images_that_left_are_retired_and_nothing_is_made_again(done):
    bench, _ = done
    before = {row["image_id"]: row for row in rows(bench)[1]}
    for name in GONE:
        (bench.images / name).unlink()
    outcome = bench.go(stage="shade")
    assert (outcome.code, outcome.verdict) == (0, "done")
    assert notes(bench) == ["train of toy: 2 rows left; what is unchanged is kept"]
    assert bench.made() == [("index", 0)]
    assert len(bench.taken_over()) == 5
    index, now = rows(bench)
    made = index.manifest
    assert (made.rows, made.retired, made.quarantined, sum(made.label_counts.values())) == (72, 2, 0, 70)
    assert [row["image_id"] for row in now if row["reason"] == RETIRED] == GONE
    assert [{**row, "reason": ""} for row in now] == list(before.values())
    view = bench.session().store["toy"]["train"]["shade"]
    status = view.status()
    assert np.flatnonzero(status == Status.ABSENT).tolist() == [before[name]["row"] for name in GONE]
    assert (status == Status.OK).sum() == 70
    assert rows_of_index(index).left.sum() == 2
    assert quarantined_rows(bench.session()) == []
    assert line(outcome, "index").done == 70
    assert list(verify(bench.session().store)) == []
    bench.go(stage="shade")
    assert (notes(bench), bench.made(), bench.taken_over()) == ([], [], [])


def test_what_is_made_later_leaves_retired_rows_out_and_makes_them_when_they_return(done):
    bench, _ = done
    kept = {name: (bench.images / name).read_bytes() for name in GONE}
    for name in GONE:
        (bench.images / name).unlink()
    outcome = bench.go("shade.gain=2.0", stage="shade")
    assert (outcome.code, line(outcome, "shade").quarantined, line(outcome, "shade").done) == (0, 0, 70)
    for name, data in kept.items():
        (bench.images / name).write_bytes(data)
    outcome = bench.go("shade.gain=2.0", stage="shade")
    assert notes(bench) == ["train of toy: 2 rows new; what is unchanged is kept"]
    shards = sorted({row["row"] // 16 for row in rows(bench)[1] if row["image_id"] in GONE})
    assert [item for item in bench.made() if item[0] == "shade"] == [("shade", shard) for shard in shards]
    assert line(outcome, "shade").done == 72
    assert bench.session().index_of("train").manifest.retired == 0


def test_changed_labels_and_boxes_are_counted_and_remake_only_their_shards(bench, lines):
    table(bench, lines)
    bench.go()
    changed = list(lines)
    changed[0] = changed[0].replace(",0,train,", ",1,train,")
    changed[1] = changed[1].replace("2,2,20,20", "4,4,20,20")
    changed[2] = changed[2].replace(",train,", ",val,")
    table(bench, changed)
    assert bench.go().code == 0
    assert notes(bench) == [
        "train of toy: 1 rows left, 1 changed their label, 1 changed their boxes; what is unchanged is kept",
        "val of toy: 1 rows new; what is unchanged is kept",
    ]
    made = {item for item in bench.made() if item[0] in {"shade", "frame"}}
    assert made == {("frame", 0), ("shade", 1), ("frame", 1)}  # the first shard of train, the last of val
    truth = bench.session().index_of("train").annotations().to_pylist()
    assert [row["image_id"] for row in truth if row["x0"] == 4] == ["class1/image001.png"]


def test_a_list_that_is_corrected_before_anything_is_made_leaves_no_trace(bench, lines):
    table(bench, [line.replace(",val,", ",train,") for line in lines] + [lines[4]])
    bench.go(stage="index")
    assert len(rows(bench)[1]) == 72
    table(bench, lines)
    bench.go(stage="index")
    index, now = rows(bench)
    assert (index.manifest.retired, len(now), len(rows(bench, "val")[1])) == (0, 48, 24)
    assert notes(bench)[0] == "train of toy: 24 rows left; what is unchanged is kept"
    assert [row["row"] for row in now] == list(range(48))


def test_labels_of_retired_rows_follow_the_names_of_their_classes(done):
    bench, _ = done
    for path in (bench.images / "class0").iterdir():
        path.unlink()
    (bench.images / "class0").rmdir()
    assert bench.go("accept=all", stage="shade").code == 0
    index, now = rows(bench)
    assert index.manifest.class_names == {"0": "class1", "1": "class2"}
    assert {(row["reason"], *row["labels"]) for row in now} == {(RETIRED,), ("", 0), ("", 1)}
    assert bench.made() == [("index", 0)]
