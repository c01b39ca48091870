"""The stream: items as promised, one order whatever loads them, exact resume, and clear ends for bad input."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import secrets
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from stores import DATASET, MAPS_KEY, build_store, write_stage
from wsolpipe.contract.errors import ConfigError, DataError, StoreError, TornShardError
from wsolpipe.contract.schema import ArraySpec, Status, boxes_spec
from wsolpipe.images.decode import decode
from wsolpipe.images.geometry import View, Window, resize
from wsoltrain.data.items import Items, cut
from wsoltrain.data.views import maps_to_view, normalise
from wsoltrain.stream import ItemConfig, Labelling, Shuffle, Stream

SMALL = Shuffle(run_rows=8, lane_runs=2, lanes=2, unit=4)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return build_store(
        tmp_path_factory.mktemp("tiny"), rows=70, quarantined={3: "bad"}, no_object=(9, 30), unlabelled=(6,)
    )


def settings(store, **changes) -> ItemConfig:
    defaults = {"root": store.root, "size": 56, "resize": 64, "shuffle": SMALL}
    return ItemConfig(Labelling(store.url, DATASET), **{**defaults, **changes})


def rows_of(stream, batches=None) -> list[int]:
    return [row for batch in islice(stream, batches) for row in batch["row"].tolist()]


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_an_item_is_what_was_promised(store):
    item = next(iter(Stream(settings(store, n_maps=2, n_boxes=6), batch_size=None)))
    expected = {
        "image": ((3, 56, 56), torch.float32), "rgb": ((3, 56, 56), torch.uint8), "maps": ((2, 14, 14), torch.float32),
        "boxes": ((6, 4), torch.float32), "box_map": ((6,), torch.int64), "label": ((), torch.int64),
        "row": ((), torch.int64), "window": ((4,), torch.int64),
    }  # fmt: skip
    assert {name: (tuple(value.shape), value.dtype) for name, value in item.items()} == expected
    config = settings(store)
    torch.testing.assert_close(item["image"], normalise(item["rgb"], config.mean, config.std))


def test_pixels_boxes_and_maps_of_an_item_stay_on_the_object(store):
    """The drawn object is the one red thing: its pixels, box and map peak must meet after crop and flip."""
    stream = Stream(settings(store, resolution="view", size=64, resize=72), batch_size=None)
    seen = set()
    for item in stream:
        x0, y0, x1, y1 = item["boxes"][0].tolist()
        rgb = item["rgb"].to(torch.int64)
        red = (rgb[0] > 150) & (rgb[1] < 100)
        ys, xs = torch.nonzero(red, as_tuple=True)
        seen.add(bool(item["window"][3]))
        if len(xs) == 0:
            continue
        drawn = torch.tensor([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        assert (drawn - torch.tensor([x0, y0, x1, y1])).abs().max() <= 1.5
        peak = int(item["maps"][0].argmax())
        x, y = peak % 64 + 0.5, peak // 64 + 0.5
        assert x0 - 1 <= x <= x1 + 1
        assert y0 - 1 <= y <= y1 + 1
    assert seen == {False, True}


def test_grid_maps_on_the_training_device_equal_those_of_the_loader(store):
    grid = next(iter(Stream(settings(store), batch_size=16)))
    view = next(iter(Stream(settings(store, resolution="view"), batch_size=16)))
    assert torch.equal(grid["window"], view["window"])
    torch.testing.assert_close(maps_to_view(grid["maps"], grid["window"], 56), view["maps"], rtol=0, atol=1e-5)


def test_boxes_go_through_the_shared_geometry_and_lost_ones_have_no_area(store):
    for item in Stream(settings(store, n_boxes=6, n_maps=2, size=24), batch_size=None):
        row = int(item["row"])
        left, top, side, flip = item["window"].tolist()
        view = View(store.sizes[row], (side, side), Window(top, left, 24, 24, bool(flip)))
        expected = view.boxes_to_view(store.boxes[row], clip=True)
        for slot in range(6):
            box = item["boxes"][slot].numpy()
            if slot >= 4 or np.isnan(expected[slot]).any() or store.source[row, slot] >= 2 or not area(expected[slot]):
                assert not box.any()
                assert item["box_map"][slot] == -1
            else:
                np.testing.assert_allclose(box, expected[slot], atol=1e-4)
                assert item["box_map"][slot] == store.source[row, slot]


def test_a_vertical_flip_keeps_boxes_of_a_stage_that_does_not_say_which_map_each_came_from(tmp_path):
    """Such are boxes that people drew: each lies on the red object, and empty slots stay empty."""
    store = build_store(tmp_path, rows=20)
    boxes = np.full((20, 2, 4), np.nan, np.float32)
    boxes[:, 1] = store.objects
    spec = boxes_spec(2, "boxes that people drew")
    write_stage(store.url, "human_boxes", "abcd000011112222", {"boxes": (spec, boxes)}, status=store.status)
    config = settings(store, size=64, resize=64, vflip=1.0)
    labelling = Labelling(store.url, DATASET, maps=None, boxes="human_boxes")
    for item in Stream(replace(config, labelling=labelling), batch_size=None):
        rgb = item["rgb"].to(torch.int64)
        ys, xs = torch.nonzero((rgb[0] > 150) & (rgb[1] < 100), as_tuple=True)
        seen = torch.tensor([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        assert (item["boxes"][1] - seen).abs().max() <= 1.5
        assert not item["boxes"][0].any()


def area(box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def test_stored_values_come_back_from_their_range(store):
    unit = next(iter(Stream(settings(store), batch_size=4)))
    stored = next(iter(Stream(settings(store, values="stored"), batch_size=4)))
    torch.testing.assert_close(stored["maps"], unit["maps"] * 4 - 1)


def test_evaluation_sees_whole_images_in_row_order(store):
    stream = Stream(settings(store, train=False), batch_size=8)
    batches = list(stream)
    rows = torch.cat([batch["row"] for batch in batches]).tolist()
    assert rows == sorted(set(range(70)) - {3, 9, 30, 6})
    assert all(batch["window"].tolist() == [[0, 0, 56, 0]] * len(batch["row"]) for batch in batches)
    item = {name: value[0] for name, value in batches[0].items()}
    whole = Image.open(f"{store.root}/{store.paths[0]}").resize((56, 56), Image.Resampling.BILINEAR)
    assert np.array_equal(item["rgb"].permute(1, 2, 0).numpy(), np.asarray(whole))


def test_rows_without_a_label_for_training_are_skipped_and_counted(store):
    stream = Stream(settings(store), batch_size=8)
    assert stream.counts == {
        "rows": 70, "streamed": 66, "quarantined": 1, "no_object": 2, "absent": 0, "unlabelled": 1, "broken": 0,
    }  # fmt: skip
    assert sorted(rows_of(stream)) == sorted(set(range(70)) - {3, 9, 30, 6})
    kept = Stream(settings(store, need_label=False), batch_size=None)
    labels = {int(item["row"]): int(item["label"]) for item in kept}
    assert labels[6] == -1
    assert labels[7] == store.labels[7]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # three processes on two cores
def test_any_number_of_loader_processes_gives_the_same_items(store):
    alone = list(Stream(settings(store), batch_size=8))
    stream = Stream(settings(store), batch_size=8, workers=3)
    assert stream._loader.multiprocessing_context.get_start_method() == "forkserver"
    assert all(same(one, other) for one, other in zip(alone, stream, strict=True))
    second = rows_of(stream)  # the same processes, the next epoch
    assert stream.epoch == 2
    again = Stream(settings(store), batch_size=8)
    again.set_epoch(1)
    assert rows_of(again) == second != [row for batch in alone for row in batch["row"].tolist()]


@pytest.mark.parametrize(("batch_size", "workers"), [(None, 0), (8, 2)])
def test_a_saved_position_gives_the_same_remaining_items(store, batch_size, workers):
    whole = list(Stream(settings(store), batch_size=batch_size))
    stream = Stream(settings(store), batch_size=batch_size, workers=workers)
    for _ in islice(stream, 3):
        pass
    state = json.loads(json.dumps(stream.state_dict()))
    assert state["position"] == 3 * (batch_size or 1)
    fresh = Stream(settings(store), batch_size=batch_size, workers=workers)
    fresh.load_state_dict(state)
    rest = list(fresh)
    assert all(same(one, other) for one, other in zip(whole[3:], rest, strict=True))
    assert fresh.state_dict()["epoch"] == 1
    assert all(same(one, other) for one, other in zip(rest, stream, strict=True))  # the stream that was left goes on


def test_a_position_of_another_stream_is_refused_by_name(store):
    state = Stream(settings(store), batch_size=8).state_dict()
    for change, name in (({"seed": 5}, "seed"), ({"flip": 0.0}, "view"), ({"labelling": None}, "stages")):
        config = settings(store, **{key: value for key, value in change.items() if value is not None})
        if name == "stages":
            config = replace(config, labelling=Labelling(store.url, DATASET, boxes=None))
        with pytest.raises(ConfigError, match=f"{name} was"):
            Stream(config, batch_size=8).load_state_dict(state)


LOOPS = {
    "of the iterator": lambda stream: list(stream),
    "of its length": lambda stream: [batch for _, batch in zip(range(len(stream)), stream, strict=False)],
    "of next": lambda stream: [next(batches) for batches in [iter(stream)] for _ in range(len(stream))],
    "of a DataLoader": lambda stream: list(DataLoader(stream, batch_size=None)),
}


@pytest.mark.parametrize(("loop", "batch_size"), [*((loop, 8) for loop in LOOPS), ("of the iterator", None)])
def test_every_loop_sees_every_epoch_and_may_be_saved_between_them(store, loop, batch_size):
    """A loop of ``len(stream)`` steps never sees the iterator end: the next one must begin the next epoch."""
    expected = Stream(settings(store), batch_size=batch_size)
    stream = Stream(settings(store), batch_size=batch_size)
    for epoch in range(2):
        expected.set_epoch(epoch)
        batches = LOOPS[loop](stream)
        assert len(batches) == len(stream) == len(expected)
        assert all(same(one, other) for one, other in zip(batches, expected, strict=True))
        resumed = Stream(settings(store), batch_size=batch_size)
        resumed.load_state_dict(json.loads(json.dumps(stream.state_dict())))
        stream = resumed


def test_loader_processes_of_somebody_else_are_refused(store):
    with pytest.raises(ConfigError, match="loader processes of its own"):
        next(iter(DataLoader(Stream(settings(store)), batch_size=None, num_workers=1)))


@pytest.mark.parametrize("batch_size", [None, 4])
def test_other_numbers_of_ranks_share_what_is_left_of_an_epoch(store, batch_size):
    """Three ranks, then two, then one, then four: each row of the epoch once, and nothing twice."""
    seen, state = [], Stream(settings(store), batch_size=batch_size).state_dict()
    for world, steps in ((3, 2), (2, 3), (1, 1), (4, None)):
        left = 66 - len(seen)
        streams = [Stream(settings(store), batch_size=batch_size, rank=rank, world=world) for rank in range(world)]
        for stream in streams:
            stream.load_state_dict(json.loads(json.dumps(state)))
            seen += np.concatenate([batch["row"].reshape(-1) for batch in islice(stream, steps)]).tolist()
        state = streams[0].state_dict()
    assert len(seen) == len(set(seen)) == 66 - left % 4
    assert state["epoch"] == 1


def test_ranks_share_an_epoch_without_overlap_and_in_equal_parts(store):
    shares = [rows_of(Stream(settings(store), batch_size=4, rank=rank, world=3)) for rank in range(3)]
    assert {len(share) for share in shares} == {22}
    assert len(set(sum(shares, []))) == 66
    padded = [rows_of(Stream(settings(store, train=False), batch_size=4, rank=rank, world=4)) for rank in range(4)]
    assert {len(share) for share in padded} == {17}
    assert len(set(sum(padded, []))) == 66


def test_crops_depend_on_seed_epoch_and_row_alone(store):
    def windows(stream):
        return {int(item["row"]): tuple(item["window"].tolist()) for item in stream}

    first = windows(Stream(settings(store), batch_size=None))
    other_order = settings(store, shuffle=Shuffle(run_rows=4, lane_runs=3, lanes=1, unit=2))
    assert windows(Stream(other_order, batch_size=None)) == first
    later = Stream(settings(store), batch_size=None)
    later.set_epoch(1)
    changed = windows(later)
    assert sum(first[row] != changed[row] for row in first) > 50
    lefts = {window[0] for window in first.values()}
    assert lefts <= set(range(9))
    assert len(lefts) == 9


def test_the_global_random_state_is_left_alone(store):
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    rows_of(Stream(settings(store), batch_size=8))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_one_frame_of_each_group_and_epoch(tmp_path):
    groups = [f"shot{row // 10}" if row < 40 else "" for row in range(50)]
    store = build_store(tmp_path, rows=50, groups=groups)
    stream = Stream(settings(store, one_per_group=True), batch_size=4)
    epochs = [rows_of(stream) for _ in range(3)]
    for rows in epochs:
        assert sorted(row // 10 for row in rows if row < 40) == [0, 1, 2, 3]
        assert sorted(row for row in rows if row >= 40) == list(range(40, 50))
    assert len({tuple(sorted(rows)) for rows in epochs}) > 1


def test_a_data_set_pickles_as_its_configuration(store):
    items = Items(settings(store))
    items.rows.labels  # noqa: B018 - opens the store
    data = pickle.dumps(items)
    assert len(data) < 2000
    assert pickle.loads(data).config == items.config


def test_chunks_are_read_once_an_epoch_and_once_for_all_where_they_fit(store):
    stream = Stream(settings(store), batch_size=8)
    for _ in range(2):
        rows_of(stream)
    assert stream.items._cache.reads == -(-70 // SMALL.run_rows)


def test_missing_shards_are_named_with_the_command_that_makes_them(tmp_path):
    store = build_store(tmp_path, rows=64, missing={"proposals": (1, 3)})
    with pytest.raises(StoreError, match=r"shards 1, 3 of 4 are missing") as caught:
        Stream(settings(store))
    assert caught.value.hint == f"wsolpipe run stage=proposals dataset=… split=train store={store.url}"


def test_a_stage_that_was_never_run_is_named_with_its_command(store):
    config = replace(settings(store), labelling=Labelling(store.url, DATASET, boxes="regions"))
    with pytest.raises(StoreError, match="no regions") as caught:
        Stream(config)
    assert "wsolpipe run stage=regions dataset=… split=train" in caught.value.hint


def test_a_lost_object_is_damage_not_empty_boxes(tmp_path):
    store = build_store(tmp_path, rows=32)
    (found,) = (tmp_path / "store").glob("tiny/train/proposals/*/data.zarr/boxes/c/1/0/0")
    found.unlink()
    with pytest.raises(TornShardError, match="damaged: shards 1"):
        Stream(settings(store))


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_bytes_say_which_rows_from_any_process(tmp_path, workers):
    store = build_store(tmp_path, rows=32)
    (found,) = (tmp_path / "store").glob("tiny/train/cls_maps/*/data.zarr/maps/c/1/0/0/0")
    data = bytearray(found.read_bytes())
    data[10:-80] = bytes(len(data) - 90)
    found.write_bytes(bytes(data))
    with pytest.raises(TornShardError, match=r"rows \d+ … \d+ of tiny/train/cls_maps/.*/data.zarr/maps") as caught:
        list(Stream(settings(store), batch_size=8, workers=workers))
    assert "Traceback" not in str(caught.value)
    assert "wsolpipe repair" in caught.value.hint


def test_a_label_outside_the_classes_is_refused(tmp_path):
    store = build_store(tmp_path, rows=20, classes=5, labels=[0] * 12 + [7] + [1] * 7)
    with pytest.raises(ConfigError, match=r"1 rows have a label outside the 5 classes, first row 12 \(.*\): label 7"):
        Stream(settings(store))
    assert Stream(settings(store, classes=8)).counts["streamed"] == 20


def test_stages_of_different_images_are_refused(tmp_path):
    store = build_store(tmp_path, rows=20)
    spec = ArraySpec(dtype="uint8", shape=(2, 4, 4))
    status = np.full(20, Status.OK, np.uint8)
    arrays = {"maps": (spec, np.zeros((20, 2, 4, 4), np.uint8))}
    write_stage(store.url, "cams", MAPS_KEY, arrays, status=status, columns={"sha256": "1" * 64})
    config = replace(settings(store), labelling=Labelling(store.url, DATASET, maps="cams"))
    with pytest.raises(ConfigError, match="different images: sha256 of the index changed"):
        Stream(config)


def test_maps_are_those_of_which_the_boxes_were_made(tmp_path):
    """A newer run of the maps with other parameters must not be paired with boxes of the older."""
    store = build_store(tmp_path, rows=20)
    spec = ArraySpec(dtype="uint8", shape=(1, 4, 4))
    arrays = {"maps": (spec, np.zeros((20, 1, 4, 4), np.uint8))}
    status = np.full(20, Status.OK, np.uint8)
    write_stage(store.url, "cls_maps", "dddd000011112222", arrays, status=status, created="2026-01-01T00:00:00Z")
    stream = Stream(settings(store))
    assert stream.items.rows.maps.key == MAPS_KEY
    newest = replace(settings(store), labelling=Labelling(store.url, DATASET, maps_key="dddd"))
    assert Stream(newest).items.rows.maps.key == "dddd000011112222"


def break_images(store, rows) -> None:
    for row in rows:
        path = f"{store.root}/{store.paths[row]}"
        with open(path, "r+b") as file:
            file.truncate(200)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_replaced_in_training_counted_and_told_once(tmp_path, caplog, workers):
    store = build_store(tmp_path, rows=24, image_format="JPEG")
    break_images(store, (5, 11))
    stream = Stream(settings(store), batch_size=8, workers=workers)
    with caplog.at_level(logging.WARNING):
        rows = [batch["row"].tolist() for _ in range(2) for batch in stream]
    assert [len(batch) for batch in rows] == [8] * 6
    assert not {5, 11} & set(sum(rows, []))
    assert stream.counts["broken"] == 2
    told = [record.getMessage() for record in caplog.records if record.name == "wsoltrain.data.stream"]
    assert len(told) == 2
    assert any(f"row 5 ({store.paths[5]}) is left out: truncated" in line for line in told)


def test_a_broken_image_is_left_out_of_an_evaluation(tmp_path):
    store = build_store(tmp_path, rows=24)
    break_images(store, (5, 11))
    stream = Stream(settings(store, train=False), batch_size=8)
    assert rows_of(stream) == [row for row in range(24) if row not in (5, 11)]
    assert stream.counts["broken"] == 2


def test_an_image_of_another_size_than_indexed_counts_as_broken(tmp_path, caplog):
    store = build_store(tmp_path, rows=24)
    Image.new("RGB", (33, 44)).save(f"{store.root}/{store.paths[2]}")
    stream = Stream(settings(store), batch_size=8)
    with caplog.at_level(logging.WARNING):
        rows_of(stream)
    assert "is 33x44, indexed as" in caplog.text


def test_a_root_without_the_images_is_found_before_training(store, tmp_path):
    with pytest.raises(ConfigError, match="no folder"):
        Stream(settings(store, root=str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match="no file"):
        Stream(settings(store, root=str(tmp_path)))


def test_a_data_set_whose_files_are_all_broken_ends_with_an_error(tmp_path):
    store = build_store(tmp_path, rows=24)
    break_images(store, range(24))
    with pytest.raises(DataError, match="images in turn cannot be read"):
        list(Stream(settings(store), batch_size=8))


def test_without_a_root_maps_and_boxes_are_streamed_alone(store):
    batch = next(iter(Stream(settings(store, root=None), batch_size=8)))
    assert set(batch) == {"maps", "boxes", "box_map", "label", "row", "window"}


def test_more_maps_than_stored_and_a_crop_larger_than_the_image_are_refused(store):
    with pytest.raises(ConfigError, match="M=9 maps wanted, stage cls_maps .* holds 3"):
        Stream(settings(store, n_maps=9))
    with pytest.raises(ConfigError, match="smaller than the crop"):
        settings(store, resize=50)


def test_draft_decoding_of_large_jpegs_keeps_the_geometry(tmp_path):
    store = build_store(tmp_path, rows=12, image_format="JPEG", sizes=(300, 420))
    exact = list(Stream(settings(store, draft=False), batch_size=None))
    draft = list(Stream(settings(store), batch_size=None))
    for one, other in zip(exact, draft, strict=True):
        assert torch.equal(one["boxes"], other["boxes"])
        difference = (one["rgb"].float() - other["rgb"].float()).abs().mean()
        assert 0 < difference < 8


def test_a_cut_equals_the_crop_of_the_whole_resized_image():
    rng = np.random.default_rng(0)
    for _ in range(20):
        height, width = (int(value) for value in rng.integers(40, 400, 2))
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        top, left = (int(value) for value in rng.integers(0, 9, 2))
        view = View((height, width), (64, 64), Window(top, left, 56, 56, bool(rng.random() < 0.5)))
        expected = torch.from_numpy(view.apply(image)).permute(2, 0, 1)
        difference = (cut(image, view).int() - expected.int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 0.05


def test_importing_the_trainer_pulls_in_no_pipeline():
    code = (
        "import sys, wsoltrain, wsoltrain.data.stream\n"
        "heavy = {'dask', 'distributed', 'open_clip', 'cv2', 'skimage', 'timm'}\n"
        "bad = heavy & {n.partition('.')[0] for n in sys.modules}\n"
        "bad |= {n for n in sys.modules if n.startswith(('wsolpipe.engine', 'wsolpipe.stages', 'wsolpipe.cli'))}\n"
        "sys.exit(', '.join(sorted(bad)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def processes_with(token: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if token.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks processes up in /proc")
def test_loaders_of_a_killed_trainer_end(store):
    token = secrets.token_hex(8)
    code = (
        "import sys, time\n"
        "from wsoltrain.stream import ItemConfig, Labelling, Stream\n"
        "if __name__ == '__main__':\n"
        f"    store = Labelling({store.url!r}, {DATASET!r})\n"
        f"    config = ItemConfig(store, root={str(store.root)!r}, size=56, resize=64)\n"
        "    batches = iter(Stream(config, batch_size=8, workers=1))\n"
        "    next(batches)\n"
        "    print('loading', flush=True)\n"
        "    time.sleep(600)\n"
    )
    script = Path(store.url).parent / "killed_trainer.py"
    script.write_text(code)
    environment = {**os.environ, "STREAM_TEST": token}
    trainer = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    assert trainer.stdout is not None
    assert trainer.stdout.readline() == "loading\n"
    assert len(processes_with(token)) > 1
    trainer.kill()
    trainer.wait()
    deadline = time.monotonic() + 60
    while processes_with(token) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert processes_with(token) == []


@pytest.fixture(scope="module")
def with_pixels(tmp_path_factory):
    """A store whose stage ``pixels`` holds the same images, squashed by the geometry that all stages use."""
    store = build_store(tmp_path_factory.mktemp("pixels"), rows=40, quarantined={3: "bad"})
    squashed = np.stack([resize(decode(Path(store.root, path).read_bytes()), (64, 64)) for path in store.paths])
    arrays = {"rgb": (ArraySpec(dtype="uint8", shape=(3, 64, 64)), squashed.transpose(0, 3, 1, 2))}
    write_stage(store.url, "pixels", "eeee000011112222", arrays, status=store.status)
    return store


def from_store(store, **changes) -> ItemConfig:
    config = settings(store, root=None, **changes)
    return replace(config, labelling=replace(config.labelling, images="pixels"))


@pytest.mark.parametrize("changes", [{}, {"size": 48, "resize": 64}, {"train": False, "size": 64}])
def test_stored_pixels_are_those_of_the_files_under_the_same_crops(with_pixels, changes):
    files = Stream(settings(with_pixels, draft=False, **changes), batch_size=8)
    stored = Stream(from_store(with_pixels, **changes), batch_size=8)
    for one, other in zip(files, stored, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"rgb", "image"}:
            assert torch.equal(one[name], other[name]), name
        difference = (one["rgb"].int() - other["rgb"].int()).abs()
        assert difference.max() <= 1  # rounding at the border of a level
        assert (difference > 0).float().mean() < 0.05


def test_pixels_stored_at_another_side_are_resized_once_more(with_pixels):
    files = next(iter(Stream(settings(with_pixels, train=False, size=32), batch_size=8)))
    stored = next(iter(Stream(from_store(with_pixels, train=False, size=32), batch_size=8)))
    assert stored["rgb"].shape == files["rgb"].shape
    assert (files["rgb"].float() - stored["rgb"].float()).abs().mean() < 4


def test_stored_pixels_need_no_files_and_resume_exactly(with_pixels):
    whole = [batch["rgb"] for batch in Stream(from_store(with_pixels), batch_size=8)]
    first = Stream(from_store(with_pixels), batch_size=8)
    list(islice(first, 2))
    second = Stream(from_store(with_pixels), batch_size=8)
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(one, other["rgb"]) for one, other in zip(whole[2:], second, strict=True))


def test_missing_pixels_are_named_with_the_command_that_makes_them(store):
    with pytest.raises(StoreError, match="no pixels") as caught:
        Stream(from_store(store))
    assert "wsolpipe run stage=pixels dataset=… split=train" in caught.value.hint
