"""Anchors in the report: from the artifact of a real store, cosines and the classes most alike."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from wsolpipe.cli import run
from wsolpipe.contract.reader import open_store
from wsolpipe.report.material import Material
from wsolpipe.report.sections.stages import ANCHORS, _cosines


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("anchors") / "store")
    words = ["stage=text_anchors", "dataset=demo", f"store={url}", "device=cpu"]
    done = CliRunner().invoke(run.command, words)
    assert done.exit_code == 0, done.output
    return open_store(url)


def test_anchors_before_and_after_are_shown(store):
    facts = ANCHORS.facts(Material(store, "demo", "val", index=None))
    before, after = facts["shown"]
    assert (facts["count"], facts["how"]) == (8, "qr")
    assert before["largest"] == pytest.approx(0.593, abs=0.001)  # as the artifact itself records
    assert after["largest"] < 1e-5
    assert before["gram"].startswith("data:image/png;base64,")
    assert before["gram"] != after["gram"]
    assert "mushroom" in {name for pair in before["pairs"] for name in pair[:2]}


def test_the_classes_most_alike_come_first():
    found = _cosines("anchors", np.array([[1, 0, 0], [0, 2, 0], [0, 1, 1]], np.float32), ["wren", "gull", "tern"])
    assert found["pairs"][0] == ("gull", "tern", pytest.approx(2**-0.5))
    assert found["largest"] == pytest.approx(2**-0.5)
    assert found["mean"] == pytest.approx(2**-0.5 / 3)


def test_a_data_set_without_anchors_has_no_such_section(trainable_store):
    assert ANCHORS.facts(Material(trainable_store, "tiny", "train", index=None)) is None


@pytest.fixture
def trainable_store(tmp_path):
    from stores import build_store

    return open_store(build_store(tmp_path, rows=4).url)
