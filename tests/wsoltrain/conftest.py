"""One tiny store and one run trained on it, for all tests of the trainer that do not change them."""

from __future__ import annotations

import pytest

from stores import build_store


@pytest.fixture(scope="session")
def trainable(tmp_path_factory):
    """A store of 40 rows whose validation split has the same images, and a data set file beside it."""
    folder = tmp_path_factory.mktemp("trainable")
    built = build_store(folder, rows=40, sizes=(30, 50))
    build_store(folder, rows=40, sizes=(30, 50), split="val")  # the same images: learning them is enough here
    (folder / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\n")
    return built


@pytest.fixture(scope="session")
def trained(trainable, tmp_path_factory):
    """Folder of a finished run on `trainable`, learned well enough to find its objects."""
    from trained import trainer

    out = tmp_path_factory.mktemp("trained")
    trainer(trainable, out, epochs=6, lr=0.05).fit()
    return out
