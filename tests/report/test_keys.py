"""The page shows the keys that the present words name, from a store that the engine made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from wsolpipe.cli.report import command as report
from wsolpipe.cli.run import command as run

TINY_VIT = "cls_maps.model_args={patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2}"


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Words that name a data set of six images in two folders, one of them broken, and a store with two results."""
    rng = np.random.default_rng(0)
    for number in range(6):
        path = tmp_path / "images" / "val" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 56, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    described = {"name": "pets", "layout": "folder", "root": "images", "split": {"val": "val"}, "licence": "CC0-1.0"}
    (tmp_path / "pets.yaml").write_text(yaml.safe_dump(described))
    common = [
        f"dataset={tmp_path / 'pets.yaml'}", f"store={tmp_path / 'store'}", "cls_maps.model=vit_tiny_patch16_224",
        TINY_VIT, "cls_maps.size=32", "cls_maps.weights=random:0", "cls_maps.mean=0.5", "cls_maps.std=0.5",
    ]  # fmt: skip
    for scale in ("linear", "sqrt"):
        result = CliRunner().invoke(run, ["stage=cls_maps", *common, f"cls_maps.scale={scale}", "device=cpu"])
        assert result.exit_code == 0, result.output
    return common


def told(words: list[str]) -> dict:
    result = CliRunner().invoke(report, [*words, "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def test_words_choose_the_key_and_names_alone_the_newest(words):
    linear = told([*words, "cls_maps.scale=linear"])
    sqrt = told([*words, "cls_maps.scale=sqrt"])
    newest = told(words[:2])
    assert linear["key"] != sqrt["key"]
    assert newest["key"] == sqrt["key"]
    # The store alone knows the data set by its name, without the description and its images.
    alone = told(["dataset=pets", words[1]])
    assert alone["key"] == sqrt["key"]
    assert (alone["rows"], alone["quarantined"], alone["rows_scored"]) == (6, 1, 0)
    html = Path(linear["path"]).read_text(encoding="utf-8")
    assert alone["key"] in html
    assert "CC0-1.0" in html
    assert "random:0" in html


def test_a_key_that_was_never_made_is_refused_with_the_command_that_makes_it(words):
    result = CliRunner().invoke(report, [*words, "cls_maps.scale=log"])
    assert "not made" in str(result.exception)
    assert "wsolpipe run stage=cls_maps" in str(result.exception)


def test_an_artifact_is_no_page_of_its_own(words):
    result = CliRunner().invoke(report, [*words[:2], "stage=classifier"])
    assert "artifact" in str(result.exception)
