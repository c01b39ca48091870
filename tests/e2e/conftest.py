"""A toy data set for every test that asks."""

from __future__ import annotations

import shutil

import pytest

from e2e.toy import Toy, make_toy


@pytest.fixture(scope="session")
def drawn_toy(tmp_path_factory):
    """What `toy` is a copy of."""
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def toy(drawn_toy, tmp_path):
    """40 small images in three classes, for shards of 16, 16 and 8 rows, and a copy of the toy package."""
    shutil.copytree(drawn_toy.folder, tmp_path, dirs_exist_ok=True)
    return Toy(tmp_path)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A toy data set whose run was left alone: what every disturbed run must equal."""
    toy = make_toy(tmp_path_factory.mktemp("undisturbed"))
    done = toy.run()
    assert done.code == 0, done.err
    return toy
