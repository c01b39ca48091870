"""Benches: fresh, and with everything made."""

from __future__ import annotations

import shutil

import pytest

from e2e.toy import PACKAGE, object_bytes
from engine.bench import Bench


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """The images and the YAML of every bench."""
    toy = Bench(tmp_path_factory.mktemp("drawn"))
    toy.draw([f"class{row % 3}/image{row:03d}.png" for row in range(72)])
    toy.yaml.write_text("name: toy\nlayout: folder\nroot: images\nsplit: train\n")
    return toy.folder


@pytest.fixture(scope="session")
def finished(drawn, tmp_path_factory):
    """A folder in which everything is made."""
    folder = tmp_path_factory.mktemp("finished") / "toy"
    shutil.copytree(drawn, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PACKAGE))
        patch.setenv("WSOLPIPE_SCRATCH", str(folder / "scratch"))
        assert Bench(folder).go().code == 0
    return folder


def _copy(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    toy = Bench(tmp_path)
    monkeypatch.syspath_prepend(str(PACKAGE))
    monkeypatch.setenv("TOY_LOG", str(toy.log))
    monkeypatch.setenv("WSOLPIPE_SCRATCH", str(tmp_path / "scratch"))
    return toy


@pytest.fixture
def bench(drawn, tmp_path, monkeypatch):
    """72 small images in three classes: shards of 16 rows, the last of 8."""
    return _copy(drawn, tmp_path, monkeypatch)


@pytest.fixture
def done(finished, tmp_path, monkeypatch):
    """A bench whose run is done, and the bytes of its objects."""
    toy = _copy(finished, tmp_path, monkeypatch)
    return toy, object_bytes(toy.store)
