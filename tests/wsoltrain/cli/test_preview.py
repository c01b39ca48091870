"""``wsoltrain preview`` and the command around it: a picture, its description, and errors in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from stores import build_store
from wsoltrain.cli.main import main
from wsoltrain.inference.drawing import PANEL


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preview")
    store = build_store(folder, rows=30, quarantined={3: "bad"}, sizes=(100, 160), split="train")
    (folder / "tiny.yaml").write_text(f"name: tiny\nlayout: folder\nroot: {store.root}\n")
    return store, [f"store={store.url}", f"dataset={folder / 'tiny.yaml'}"]


def call(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


def test_draws_crops_with_boxes_and_maps_and_tells_what_it_drew(dataset, capsys, tmp_path):
    store, words = dataset
    out = tmp_path / "sheets" / "sheet.png"
    code, text, _ = call(capsys, "preview", *words, "n=5", f"out={out}", "S=112", "resize=128", "K=3", "--json")
    assert code == 0
    told = json.loads(text)
    assert told["counts"]["streamed"] == 29
    assert len(told["items"]) == 5
    for item in told["items"]:
        assert item["path"] == store.paths[item["row"]]
        assert item["class"] == f"class {store.labels[item['row']]}"
        assert item["window"]["side"] == 128
        assert len(item["boxes"]) == len(item["box_map"]) == 3
        assert item["maps"] == [3, 14, 14]
    with Image.open(out) as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    assert pixels.shape[0] > PANEL
    red = (pixels[..., 0] > 180) & (pixels[..., 1] < 80) & (pixels[..., 2] < 80)
    assert red.sum() > 500  # the drawn objects are on it


def test_the_same_seed_draws_the_same_picture(dataset, capsys, tmp_path):
    _, words = dataset
    sheets = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.png"
        assert call(capsys, "preview", *words, "n=3", f"out={out}", f"seed={seed}")[0] == 0
        sheets.append(out.read_bytes())
    assert sheets[0] == sheets[1] != sheets[2]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["sede=1"], 3, "did you mean 'seed'?"),
        (["n=0"], 3, "n=0: expected integer, at least 1"),
        (["view=both"], 3, "unknown view 'both'"),
        (["seed"], 3, "'seed' is not of the form key=value"),
        (["n=1", "n=2"], 3, "n= is given twice"),
        (["S=300", "resize=200"], 3, "smaller than the crop"),
        (["split=validation"], 3, "no split 'validation'"),
        (["maps=clip_cams"], 3, "tiny.yaml split=train store="),
        (["out=/proc/none/sheet.png"], 3, "cannot be written"),
        (["out=sheet.xyz"], 3, "cannot be written"),
    ],
)
def test_a_mistake_is_one_clear_message_and_its_exit_code(dataset, capsys, words, code, message):
    ended, out, err = call(capsys, "preview", *dataset[1], *words)
    assert ended == code
    assert message in err
    assert out == ""
    assert "Traceback" not in err


def test_unknown_data_sets_stores_and_commands_are_named(dataset, capsys):
    assert "preview needs dataset=" in call(capsys, "preview", f"store={dataset[0].url}")[2]
    assert "predict needs checkpoint=, which is missing or none" in call(capsys, "predict", "checkpoint=none")[2]
    code, _, err = call(capsys, "preview", "store=/nowhere/at/all", dataset[1][1])
    assert (code, "no store at /nowhere/at/all" in err) == (3, True)
    code, _, err = call(capsys, "prewiev")
    assert (code, "did you mean 'preview'?" in err) == (3, True)


def test_debug_shows_where_an_error_came_from(dataset):
    from wsolpipe.contract.errors import ConfigError

    with pytest.raises(ConfigError):
        main(["preview", "sede=1", "--debug"])


def test_help_answers_at_once_without_torch():
    code = (
        "import sys, wsoltrain.cli.main as m\n"
        "try:\n    m.main(['--help'])\n"
        "except SystemExit as ended:\n    heavy = {'torch', 'zarr', 'PIL', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "    sys.exit(ended.code or ', '.join(sorted(heavy)) or None)"
    )
    seconds = []
    for _ in range(3):
        start = os.times()
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        ended = os.times()
        spent = ended.children_user + ended.children_system - start.children_user - start.children_system
        seconds.append(min(spent, time.perf_counter() - begun))
        assert done.returncode == 0, done.stderr
    assert "preview" in done.stdout
    assert min(seconds) <= 0.3


def test_the_help_of_preview_lists_its_keys(capsys):
    code, out, _ = call(capsys, "preview", "--help")
    assert code == 0
    assert "resize=" in out
    assert "one_per_group=" in out
