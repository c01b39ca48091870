"""Packages from outside pass the suites of their kinds, and so do some that are built in."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

from wsolpipe.images.listing import LAYOUTS
from wsolpipe.share.formats.base import FORMATS, WRITTEN_ONLY
from wsolpipe.testing import BackendTests, FigureTests, FormatTests, LayoutTests

HERE = Path(__file__).parent


def load(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, HERE / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestSqlite(BackendTests):
    @pytest.fixture
    def make(self, tmp_path):
        numbers = iter(range(9))

        def make(objects):
            backend = load("backend/sqlite_store.py").SqliteBackend(f"sqlite://{tmp_path}/{next(numbers)}.db")
            for name, data in objects.items():
                backend.create(name, data)
            return backend

        return make


class TestContrast(FigureTests):
    figure = load("figure/contrast.py").Contrast


class TestLines(FormatTests):
    format = load("format/lines_format.py").Lines


@pytest.mark.parametrize("name", sorted(set(FORMATS.names()) - WRITTEN_ONLY))
def test_formats_of_this_package_bring_boxes_back(name, tmp_path):
    suite = FormatTests()
    suite.format = FORMATS.find(name)
    suite.test_it_says_what_it_is_and_what_it_loses()
    suite.test_boxes_come_back_with_their_classes(tmp_path)


class TestInitial(LayoutTests):
    layout = load("layout/initial.py").INITIAL

    @pytest.fixture
    def described(self, tmp_path):
        for name in ("a1.png", "a2.png", "b1.png"):
            Image.new("RGB", (8, 8)).save(tmp_path / name)
        return {"root": tmp_path}


class TestFolder(TestInitial):
    layout = LAYOUTS.find("folder")
