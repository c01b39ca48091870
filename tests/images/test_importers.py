"""The table of layouts is the only registration of an importer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wsolpipe.contract.errors import ConfigError
from wsolpipe.images import importers
from wsolpipe.images.dataset import load_dataset
from wsolpipe.images.index import list_split, source_stamp
from wsolpipe.images.listing import LAYOUTS

IMPORTER = """
from wsolpipe.images.listing import Layout
from wsolpipe.images.listing import ListedRow, Listing


def list_rows(config, split, problems):
    paths = sorted(path.name for path in config.image_root().glob("*.png"))
    return Listing([ListedRow(path, path, (0,)) for path in paths], classes=1)

def sources(config, split):
    return iter(())

FLAT = Layout(list_rows, sources, "  {root}/*.png, all of class 0", upright=True)
"""


def test_a_layout_of_another_package_is_one_file_and_one_entry_point(tmp_path, monkeypatch, save_image):
    (tmp_path / "flat_importer.py").write_text(IMPORTER)
    info = tmp_path / "flat_importer-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flat-importer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[wsolpipe.layouts]\nflat = flat_importer:FLAT\n")
    monkeypatch.syspath_prepend(tmp_path)
    save_image(tmp_path / "images" / "1.png")
    description = tmp_path / "flat.yaml"
    description.write_text("name: shapes\nlayout: flat\nroot: images")
    config = load_dataset(str(description))
    assert config.exif == "apply"
    assert [(row.path, row.labels) for row in list_split(config, "train").rows] == [("1.png", (0,))]
    assert source_stamp(config, "train")
    description.write_text("name: shapes\nlayout: flat\nroot: nowhere")
    with pytest.raises(ConfigError, match="The flat layout looks like this:\n  .*nowhere/.*all of class 0"):
        load_dataset(str(description))
    description.write_text("name: shapes\nlayout: flut")
    with pytest.raises(ConfigError, match="layout: unknown layout 'flut'; did you mean 'flat'"):
        load_dataset(str(description))


@pytest.mark.parametrize("layout", LAYOUTS.names())
def test_every_layout_shows_a_picture_of_its_folder(layout):
    assert "/data/pets" in LAYOUTS.find(layout).tree.format(root="/data/pets")


def test_every_importer_is_in_the_table():
    folder = Path(importers.__file__).parent
    found = {
        (path.stem, name)
        for path in folder.glob("*.py")
        for name in re.findall(r"\n(\w+) = Layout\(", path.read_text())
    }
    named = {tuple(target.removeprefix(f"{importers.__name__}.").split(":")) for target in LAYOUTS.builtins.values()}
    assert found == named
