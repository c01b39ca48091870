"""Six programs that are not ours, and the two readers of docs/store.md, on a published store of the demo's images.

They run in an environment of their own in which wsolpipe is not installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from wsolpipe import open_store
from wsolpipe.engine.config import build_config
from wsolpipe.launch.run import run
from wsolpipe.share.card import About
from wsolpipe.share.publish import publish
from wsolpipe.share.selection import Selection
from wsolpipe.stages.registry import load_registry

PROGRAMS = ("zarr", "xarray", "dask", "pandas", "polars", "duckdb")
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.pypi


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A Python with the six programs and without wsolpipe."""
    folder = tmp_path_factory.mktemp("outside") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    install = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "--quiet",
               "--no-compile", "--disable-pip-version-check", *PROGRAMS, "pyarrow"]  # fmt: skip
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs a package index with {', '.join(PROGRAMS)}: {done.stderr.strip().splitlines()[-1]}")
    return folder / "bin/python"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Maps and regions of six images of the demo, published."""
    folder = tmp_path_factory.mktemp("published")
    store, target = str(folder / "store"), str(folder / "published")
    words = ["stage=cls_maps,regions", "dataset=demo", "split=val", "limit=6", f"store={store}", "device=cpu"]
    config, _ = build_config(words, load_registry())
    assert run(config, lambda event: None, threading.Event()).code == 0
    about = About("demo", licence="CC0-1.0")
    publish(store, target, Selection(dataset="demo"), about, jobs=2, emit=lambda event: None, stop=threading.Event())
    return Path(target)


def outside(python, *words):
    done = subprocess.run([python, "-I", *map(str, words)], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_six_programs_and_two_readers_read_what_wsolpipe_reads(python, published, tmp_path):
    split = open_store(str(published))["demo"]["val"]
    maps, regions, index = split["cls_maps"], split["regions"], split.index().table()
    boxes = regions["boxes"][:]
    there = ~np.isnan(boxes).any(axis=-1)
    widths = float(np.nansum(boxes[..., 2] - boxes[..., 0]))
    found = json.loads(outside(python, ROOT / "tests/share/outside.py", published / "demo/val", "cls_maps", "regions"))
    assert set(found) == set(PROGRAMS)
    assert found["zarr"]["sum"] == int(maps["maps"][:].sum())
    assert found["zarr"]["consolidated"]
    assert found["zarr"]["said"]["unit"] == maps.manifest.arrays["maps"].unit
    assert found["xarray"]["dims"]["maps"] == ["row", "map", "y", "x"]
    assert found["xarray"]["first"] == pytest.approx(maps["maps"][0].mean(axis=(1, 2)).tolist())
    assert found["dask"] == {"shape": list(boxes.shape), "widths": pytest.approx(widths)}
    assert found["xarray"]["widths"] == found["pandas"]["widths"] == pytest.approx(widths)
    assert found["pandas"]["rows"] == there.sum()
    assert found["pandas"]["best"] == index.column("image_id").to_pylist()
    assert found["polars"] == {"labels": index.column("labels").to_pylist(), "boxes": there.sum(axis=1).tolist()}
    assert [sha for sha, _ in found["duckdb"]] == index.column("sha256").to_pylist()
    text = (ROOT / "docs/store.md").read_text()
    for name in ("reader.py", "table.py"):
        code = re.search(rf"```python\n# {name}\n(.*?)```", text, re.DOTALL)
        assert code is not None
        assert len(code[1].splitlines()) <= 30
        (tmp_path / name).write_text(code[1])
        lines = [line.split("\t") for line in outside(python, tmp_path / name, published, "demo", "val", "regions").splitlines()]  # fmt: skip # noqa: E501
        assert [line[0] for line in lines] == index.column("path").to_pylist()
        assert {line[1] for line in lines} == {"butterfly"}
        assert [json.loads(line[2]) for line in lines] == boxes[:, 0].tolist()
        assert [float(line[3]) for line in lines] == pytest.approx(regions["scores"][:, 0].tolist())


def test_the_wheel_works_outside_the_repository(python, published, tmp_path):
    """Built, installed with what it needs, and used: commands, shipped data, and frames of xarray and pandas."""
    made = subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT],
                          capture_output=True, text=True)  # fmt: skip
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("wsolpipe-*.whl")
    done = subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile",
                           "--disable-pip-version-check", wheel], capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    code = """
import sys, wsolpipe, wsoltrain
from pathlib import Path
place = Path(wsolpipe.__file__).parent
assert "site-packages" in place.parts, place
assert (place / "py.typed").is_file() and (place / "stages.yaml").is_file() and (place / "data/demo.yaml").is_file()
assert (Path(wsoltrain.__file__).parent / "py.typed").is_file()
val = wsolpipe.open_store(sys.argv[1])["demo"]["val"]
maps = val["cls_maps"].to_xarray(1, 3)
assert dict(maps.sizes) == {"row": 2, "map": 5, "y": 12, "x": 12, "bound": 2}, maps.sizes
assert (maps["maps"].values == val["cls_maps"]["maps"][1:3]).all()
print(len(val["regions"].to_pandas()))
"""
    assert int(outside(python, "-c", code, published)) > 6
    listed = outside(python, python.parent / "wsolpipe", "ls", f"store={published}", "--json")
    assert {line["stage"] for line in json.loads(listed)["results"]} == {"index", "cls_maps", "regions"}
    assert "cls_maps" in outside(python, python.parent / "wsolpipe", "stages")
