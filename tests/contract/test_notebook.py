"""A store in an interactive session: names, descriptions, pictures and tables; the notebook, cell by cell."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stores import DATASET, build_store
from wsolpipe import open_store
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.reader import Store

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A store with a row of every status."""
    return build_store(tmp_path_factory.mktemp("notebook"), quarantined={17: "<b>broken</b>"}, no_object=(3,))


@pytest.fixture
def split(tiny):
    return open_store(tiny.url)[DATASET]["train"]


def test_names_are_listed_counted_looked_up_and_completed(tiny, split):
    store = open_store(tiny.url)
    arrays = ["boxes", "count", "scores", "source", "status"]
    for thing, names in ((store, [DATASET]), (store[DATASET], ["train"]), (split, ["cls_maps", "proposals"]),
                         (split["proposals"], arrays)):  # fmt: skip
        assert list(thing) == thing._ipython_key_completions_() == names
        assert len(thing) == len(names)
        assert names[0] in thing
        assert "nothing" not in thing
        assert bool(thing)
        assert all(name in repr(thing) for name in names)
    assert bool(Store(str(Path(tiny.url).parent)))  # also where nothing in the folder is a data set


def test_a_stage_says_what_it_holds_and_what_is_quarantined(split):
    said = repr(split["proposals"])
    assert "proposals of tiny/train, key bbbb000011112222" in said
    assert "40 rows: 38 good, 1 quarantined, 1 without object; 3 of 3 shards" in said
    assert "boxes: float32 [row 40, box 4, edge 4] candidates" in said
    assert "row 17" in said
    assert "<b>broken" in said
    assert repr(split["proposals"]["boxes"]).endswith("float32 (40, 4, 4) candidates")
    shown = split["cls_maps"]._repr_html_()
    assert shown.count("data:image/png;base64,") == 8
    assert "<b>" not in shown
    assert "&lt;b&gt;broken" in shown


def test_a_damaged_stage_can_still_be_looked_at(tmp_path):
    tiny = build_store(tmp_path, images=False)
    view = open_store(tiny.url)[DATASET]["train"]["proposals"]
    (Path(tiny.url) / view.folder / "commits/1.json").write_text("{")
    assert "cannot be read" in repr(view)
    assert "cannot be read" in view._repr_html_()


def test_pictures_show_the_map_the_boxes_and_the_image(tiny, split):
    height, width = tiny.sizes[0]
    for stage in ("cls_maps", "proposals"):
        for root in (None, tiny.root):
            image = split[stage].show(0, root)
            assert max(image.size) == 320
            assert image.size[0] / image.size[1] == pytest.approx(width / height, rel=0.02)
    x0, y0, x1, y1 = (tiny.boxes[0, 0] * 320 / max(width, height)).round()
    drawn = np.asarray(split["proposals"].show(0))
    red = np.argwhere((drawn == (255, 40, 40)).all(axis=-1))
    assert np.abs(red.min(axis=0) - (y0, x0)).max() <= 1
    assert np.abs(red.max(axis=0) + 1 - (y1, x1)).max() <= 1
    heat = np.asarray(split["cls_maps"].show(0), np.int16)
    y, x = np.unravel_index((heat[..., 0] - heat[..., 2]).argmax(), heat.shape[:2])
    assert x0 <= x < x1
    assert y0 <= y < y1


@pytest.mark.parametrize(
    ("row", "root", "said"), [(40, None, "row 40"), (-1, None, "row -1"), (0, "/nowhere", "cannot read the image")]
)
def test_what_cannot_be_shown_is_said_in_one_line(split, row, root, said):
    with pytest.raises(ConfigError, match=said) as caught:
        split["proposals"].show(row, root)
    assert caught.value.hint


def test_frames_have_a_line_a_box_or_a_row(tiny, split):
    frame = split["proposals"].to_pandas()
    boxes = split["proposals"]["boxes"][:]
    assert len(frame) == (~np.isnan(boxes[..., 0])).sum()
    assert frame[frame["rank"] == 0]["name"].tolist() == [
        f"class {tiny.labels[row]}" for row in range(40) if row not in {3, 17}
    ]  # noqa: E501
    rows = split["cls_maps"].to_pandas()
    assert rows["status"].tolist() == ["quarantined" if row == 17 else "ok" for row in range(40)]
    assert list(rows.columns) == ["row", "image_id", "path", "labels", "status"]


def test_a_package_that_is_not_there_is_named(split, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for act, package in ((split["cls_maps"].to_pandas, "pandas"), (split["cls_maps"].to_xarray, "xarray")):
        with pytest.raises(ConfigError, match=f"package {package}") as caught:
            act()
        assert caught.value.hint == f"pip install {package}"


def test_dir_of_the_package_imports_nothing():
    code = "import sys, wsolpipe; print(dir(wsolpipe)); print(sorted(n for n in sys.modules if n.startswith(('wsolpipe.', 'numpy'))))"  # noqa: E501
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert out == ["['__version__', 'metrics', 'open_store']", "[]"]


def test_the_notebook_runs_from_the_first_cell_to_the_last(tmp_path, monkeypatch, capsys):
    """Cells run as a kernel runs them; a line that starts with an exclamation mark is a command."""
    monkeypatch.chdir(tmp_path)
    book = json.loads((ROOT / "notebooks/first_hour.ipynb").read_text())
    names: dict[str, object] = {}
    for cell in book["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == []
        if text.startswith("!"):
            words = shlex.split(text[1:])
            program = [sys.executable, "-m", {"wsolpipe": "wsolpipe.cli.main"}[words[0]]]
            done = subprocess.run([*program, *words[1:]], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            continue
        exec(compile(text, "cell", "exec"), names)
    said = capsys.readouterr().out
    assert "['maps', 'range', 'status'] ('row', 'map', 'y', 'x') val/butterfly/000.jpg" in said
    assert (tmp_path / "first-hour-published/demo/croissant.json").is_file()
    assert isinstance(names["maps"].show(0), Image.Image)
