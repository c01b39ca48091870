"""Rows that somebody chose in a report: the commands that take the list, and the rows that are most worth a look."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

from stores import DATASET, build_store, write_stage
from wsolpipe.cli.main import cli
from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.contract.reader import open_store
from wsolpipe.contract.schema import ArraySpec, Status, boxes_spec
from wsolpipe.evaluate.doubt import doubtful_rows, doubts, influence
from wsolpipe.evaluate.evaluation import Options
from wsolpipe.evaluate.map_scores import KeptIous, score_maps
from wsolpipe.evaluate.map_sources import StageMaps, rows_of_index
from wsolpipe.evaluate.truth import Truth
from wsolpipe.keys.run_keys import read_row_list
from wsolpipe.stages.base import Context
from wsolpipe.stages.registry import load_registry
from wsolpipe.stages.val_boxes import ValBoxes
from wsoltrain.losses.terms import partial_cross_entropy
from wsoltrain.pseudo.samplers import BACKGROUND, FOREGROUND, IGNORE, Dips, Pseudo, draw_in_boxes
from wsoltrain.stream import ItemConfig, Labelling, Stream


def run(*words: str):
    return CliRunner().invoke(cli, list(words))


def json_of(*words: str):
    result = run(*words, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set of six images with true boxes and drawn ones, as words of a command; and a list of two images."""
    folder = tmp_path_factory.mktemp("chosen")
    rng = np.random.default_rng(0)
    for row in range(6):
        (folder / "images" / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(folder / "images/a" / f"{row}.png")
    lines = [{"image_id": f"a/{row}.png", "boxes": [{"box": [10, 10, 50 + row, 60]}]} for row in range(6)]
    (folder / "drawn.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (folder / "d.yaml").write_text(yaml.safe_dump({"name": "d", "layout": "folder", "root": "images", "split": "val"}))
    chosen = {"dataset": "d", "split": "val", "index": "x", "rows": [{"row": 4, "image_id": "a/4.png", "tags": ["odd"]},
                                                                    {"row": 1, "image_id": "a/1.png"}]}  # fmt: skip
    (folder / "rows.json").write_text(json.dumps(chosen))
    words = [f"dataset={folder / 'd.yaml'}", f"store={folder / 'store'}", "split=val"]
    assert run("import", "format=jsonl", f"in={folder / 'drawn.jsonl'}", *words).exit_code == 0
    return folder, words


def test_run_export_and_eval_take_the_images_of_a_list_alone(place, tmp_path):
    folder, words = place
    listed = f"rows=@{folder / 'rows.json'}"
    assert run("run", "stage=index", *words, listed).exit_code == 0
    split = open_store(str(folder / "store"))["d"]["val"]
    made = [path.name for path in (folder / "store" / "d" / "val" / "index").iterdir()]
    small = next(index for key in made if (index := split.index(key)).manifest.rows == 2)
    assert small.table(["image_id"]).column("image_id").to_pylist() == ["a/1.png", "a/4.png"]
    assert small.manifest.selection["rows"] == read_row_list(f"@{folder / 'rows.json'}").name
    json_of("export", "stage=human_boxes", "format=jsonl", f"out={tmp_path / 'out'}", *words, listed)
    (path,) = (tmp_path / "out").rglob("*.jsonl")
    assert [json.loads(line)["image_id"] for line in path.read_text().splitlines()] == ["a/1.png", "a/4.png"]
    whole = json_of("eval", "stage=human_boxes", "against=human_boxes", *words)
    found = json_of("eval", "stage=human_boxes", "against=human_boxes", *words, listed)
    assert [each["rows"] - each["rows_without_box"] for each in (whole, found)] == [6, 2]
    assert found["against"].endswith("2 chosen rows")
    assert run("export", "stage=human_boxes", f"out={tmp_path / 'no'}", *words, "rows=@none.json").exit_code != 0


@pytest.mark.parametrize(
    ("text", "error"),
    [('{"rows": [{"row": 1}]}', DataError), ("{}", DataError), ('{"rows": []}', ConfigError), ("", ConfigError)],
)
def test_a_file_that_is_no_list_is_refused(tmp_path, text, error):
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(error):
        read_row_list(f"@{tmp_path / 'list.json'}")


def test_a_list_is_known_by_its_images_and_refuses_another_split(tmp_path):
    (tmp_path / "a.txt").write_text("2.png\n1.png\n\n")
    (tmp_path / "b.json").write_text(json.dumps({"dataset": "d", "split": "val", "rows": ["1.png", "2.png"]}))
    plain, named = (read_row_list(f"@{tmp_path / name}") for name in ("a.txt", "b.json"))
    assert plain.name == named.name
    assert plain.find(["0.png", "1.png", "2.png"], dataset="x", split="train") == [1, 2]
    with pytest.raises(ConfigError, match="not in train of x, such as 1.png"):
        plain.find(["0.png", "2.png"], dataset="x", split="train")
    with pytest.raises(ConfigError, match="split val, not of train"):
        named.find(["1.png", "2.png"], dataset="d", split="train")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A store with maps and boxes, and human_boxes of three rows: one box, two boxes, no object."""
    store = build_store(tmp_path_factory.mktemp("tiny"), rows=24)
    boxes, drawn = np.full((24, 2, 4), np.nan, np.float32), np.zeros(24, np.uint8)
    boxes[:, 0] = [1, 1, 5, 5]
    boxes[3, 0] = [10, 12, 40, 50]
    boxes[7] = [[2, 2, 20, 20], [30, 30, 50, 55]]
    boxes[9] = np.nan
    drawn[[3, 7, 9]] = 1
    flag = ArraySpec(dtype="uint8", meaning="whether somebody looked")
    arrays = {"boxes": (boxes_spec(2, "drawn boxes"), boxes), "drawn": (flag, drawn)}
    write_stage(store.url, "human_boxes", "aaaa000011112222", arrays, status=np.full(24, Status.OK, np.uint8))
    return store


def test_a_stream_streams_the_rows_of_its_list(tiny, tmp_path):
    split = open_store(tiny.url)[DATASET]["train"]
    ids = split.stage("proposals").index().table(["image_id"]).column("image_id").to_pylist()
    (tmp_path / "list.txt").write_text("\n".join(ids[row] for row in (2, 5, 11)))
    labelling = Labelling(tiny.url, DATASET, where=f"@{tmp_path / 'list.txt'}")
    stream = Stream(ItemConfig(labelling, root=tiny.root, size=56, resize=64), batch_size=None)
    assert sorted(int(item["row"]) for item in stream) == [2, 5, 11]
    assert stream.counts["not_chosen"] == 21
    assert stream.counts["rows"] == 24


def test_drawn_boxes_come_with_their_rows_and_take_the_place_of_pseudo_labels(tiny):
    labelling = Labelling(tiny.url, DATASET, drawn="human_boxes")
    config = ItemConfig(labelling, root=tiny.root, size=64, resize=72, train=False)
    items = {int(item["row"]): item for item in Stream(config, batch_size=None)}
    assert {row for row, item in items.items() if item["drawn"]} == {3, 7, 9}
    assert (items[9]["drawn_boxes"] == 0).all()
    batch = {name: torch.stack([items[row][name] for row in (0, 3, 7, 9)]) for name in items[0]}
    side = torch.rand(4, 2, 64, 64)
    given = Pseudo(side, batch["row"], batch["drawn_boxes"])
    drawn = draw_in_boxes(given, Dips(n_fg=40, n_bg=60), seed=0, epoch=0).labels
    assert torch.equal(drawn, draw_in_boxes(given, Dips(n_fg=40, n_bg=60), seed=0, epoch=0).labels)
    for labels, boxes in zip(drawn[1:], batch["drawn_boxes"][1:], strict=True):
        inside = torch.zeros(64, 64, dtype=torch.bool)
        for x0, y0, x1, y1 in boxes.round().int().tolist():
            inside[y0:y1, x0:x1] = True
        wide = torch.nn.functional.max_pool2d(inside.float()[None, None], 3, 1, 1)[0, 0] > 0
        assert not (labels == FOREGROUND)[~wide].any()
        narrow = -torch.nn.functional.max_pool2d(-inside.float()[None, None], 3, 1, 1)[0, 0] > 0
        assert not (labels == BACKGROUND)[narrow].any()
        assert (labels == BACKGROUND).sum() == 60
        assert (labels == FOREGROUND).sum() == (40 if inside.any() else 0)
    with pytest.raises(ConfigError, match="which rows were reviewed"):
        Stream(ItemConfig(replace(labelling, drawn="proposals"), root=tiny.root))


def test_pixels_of_drawn_rows_weigh_as_much_as_they_are_told():
    logits = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.full((3, 8, 8), IGNORE)
    labels[:, 0], labels[:, 1] = FOREGROUND, BACKGROUND
    each = [partial_cross_entropy(logits[row : row + 1], labels[row : row + 1]) for row in range(3)]
    found = partial_cross_entropy(logits, labels, weights=torch.tensor([1.0, 5.0, 1.0]))
    torch.testing.assert_close(found, (each[0] + 5 * each[1] + each[2]) / 3)
    torch.testing.assert_close(partial_cross_entropy(logits, labels, weights=torch.ones(3)), sum(each) / 3)


def test_rows_on_which_stages_disagree_and_are_unsure_come_first(tmp_path):
    store = build_store(tmp_path, rows=20)
    status, spec = np.full(20, Status.OK, np.uint8), boxes_spec(1, "box")
    score = ArraySpec(dtype="float32", shape=(1,), fill="nan", meaning="score")
    same = np.tile(np.array([[[5, 5, 30, 30]]], np.float32), (20, 1, 1))
    other, scores = same.copy(), np.full((20, 1), 0.9, np.float32)
    other[6], other[13], scores[17] = [[40, 40, 50, 50]], [[5, 5, 20, 30]], 0.2
    for name, boxes in (("first", same), ("second", other)):
        write_stage(
            store.url, name, "aaaa000011112222", {"boxes": (spec, boxes), "scores": (score, scores)}, status=status
        )
    split = open_store(store.url)[DATASET]["train"]
    views = [split.stage(name) for name in ("first", "second")]
    rows = rows_of_index(views[0].index())
    found = doubts(views, rows)
    assert found["disagreement"][6] == 1
    assert found["disagreement"][13] == pytest.approx(0.4)
    np.testing.assert_allclose(found["uncertainty"][[0, 17]], [0.1, 0.8], atol=1e-6)
    assert set(doubtful_rows(views, rows)[:3].tolist()) == {6, 13, 17}
    assert len(doubtful_rows(views, rows)) == 20


def test_a_row_that_sways_the_threshold_is_doubtful(tiny):
    split = open_store(tiny.url)[DATASET]["train"]
    maps = split.stage("cls_maps")
    rows = rows_of_index(maps.index())
    truth = Truth("drawn", rows, {row: tiny.objects[row : row + 1].astype(float) for row in range(24)})
    found = influence(maps, rows, truth)
    scores = score_maps(StageMaps(maps, 0, rows), truth, Options().frame(), keep=KeptIous, details=False)
    curves = np.array([scores.kept.at(place, 1000)[1] >= 0.5 for place in range(1000)])
    best = curves.sum(1).argmax()
    for row in (0, 5, 23):
        alone = np.delete(curves, row, axis=1).sum(1).argmax()
        turns = (curves[max(0, best - 100) : best + 101, row] != curves[best, row]).mean()
        assert found[row] == pytest.approx(abs(alone - best) / 1000 + turns)


def test_human_boxes_are_preferred_where_somebody_looked():
    stage = ValBoxes(load_registry().params("val_boxes", {"annotator": "clip", "prefer_drawn": True}), Context("d"))
    made = {name: spec.empty(3) for name, spec in stage.arrays().items()}
    made["boxes"][:], made["count"][:] = [[[1, 1, 9, 9]]], 1
    boxes = np.full((3, 2, 4), np.nan, np.float32)
    boxes[0, 0], boxes[1, 0] = [2, 2, 5, 5], [3, 3, 6, 6]
    drawn = {
        "boxes": boxes,
        "drawn": np.array([0, 1, 1]),
        "count": np.array([1, 1, 0]),
        "scores": np.full((3, 2), np.nan),
    }
    rows = SimpleNamespace(usable=lambda _: True)
    stage._prefer_drawn(rows, made, SimpleNamespace(arrays=drawn))
    np.testing.assert_array_equal(made["boxes"][:2, 0], [[1, 1, 9, 9], [3, 3, 6, 6]])
    assert np.isnan(made["boxes"][2]).all()
    assert made["count"].tolist() == [1, 1, 0]
    plain = load_registry().params("val_boxes", {"annotator": "clip"})
    assert "prefer_drawn" not in plain.in_key()  # keys of stores that are there stay
    assert stage.params.in_key()["prefer_drawn"] is True
    assert stage.params.needs == ("clip_cams", "human_boxes")
