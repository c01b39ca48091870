"""A tiny store for every test that asks."""

from __future__ import annotations

import pytest

from stores import build_store


@pytest.fixture
def tiny(tmp_path):
    """A store of 40 rows in shards of 16, without image files."""
    return build_store(tmp_path, images=False, quarantined={17: "broken"}, no_object=(3,), missing={"proposals": (1,)})
