"""The suite of layouts of data sets.

A layout is tested by a subclass that writes a small data set::

    class TestMine(LayoutTests):
        layout = MINE

        @pytest.fixture
        def described(self, tmp_path):
            Image.new("RGB", (8, 8)).save(tmp_path / "a1.png")
            return {"root": tmp_path}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from wsolpipe.images.dataset import DatasetConfig
from wsolpipe.images.listing import Layout, Problems

if TYPE_CHECKING:
    from pathlib import Path


class LayoutTests:
    """Tests that every layout of a data set passes.

    Attributes
    ----------
    layout : Layout
    """

    layout: Layout

    @pytest.fixture
    def described(self, tmp_path: Path) -> dict[str, Any]:
        """Values of a description, with an absolute ``root``; images are written below `tmp_path`."""
        raise NotImplementedError

    @pytest.fixture
    def config(self, described: dict[str, Any]) -> DatasetConfig:
        """The description as an importer gets it."""
        values = {"name": "example", "layout": "folder", "split": {"train": "."}, **described}
        return DatasetConfig.model_validate(values)

    def test_it_lists_images_that_exist_once_each(self, config: DatasetConfig) -> None:
        rows = self.layout.list_rows(config, "train", Problems("example")).rows
        names = [row.image_id for row in rows]
        assert rows
        assert len(set(names)) == len(names)
        for row in rows:
            assert (config.image_root() / row.path.partition("#")[0]).is_file()

    def test_labels_are_those_of_the_classes(self, config: DatasetConfig) -> None:
        listing = self.layout.list_rows(config, "train", Problems("example"))
        for row in listing.rows:
            assert all(0 <= label < (listing.classes or np.inf) for label in row.labels)

    def test_listing_twice_gives_the_same(self, config: DatasetConfig) -> None:
        first, second = (self.layout.list_rows(config, "train", Problems("example")).rows for _ in range(2))
        assert sorted(first, key=repr) == sorted(second, key=repr)

    def test_sources_stay_while_nothing_changes(self, config: DatasetConfig) -> None:
        assert list(self.layout.sources(config, "train")) == list(self.layout.sources(config, "train"))

    def test_it_shows_how_its_folder_looks(self) -> None:
        assert "/data/pets" in self.layout.tree.format(root="/data/pets")
