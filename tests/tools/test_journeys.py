"""The journeys of the first hour, typed from the page in an empty folder, without a network."""

from __future__ import annotations

import re
import shlex
import shutil

import pytest

import wsolpipe.cli.main
from guide_blocks import FENCED, ROOT
from wsolpipe.keys.console import call

PAGE = (ROOT / "docs" / "guide" / "first-hour.md").read_text()
JOURNEYS = ("Photographs with classes", "Photographs without classes", "A cluster with a shared folder")
IMAGES = ROOT / "data" / "demo" / "images" / "test"


def lines_of(heading):
    """Lines of the shell blocks below a heading."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    blocks = "\n".join(text for label, text in re.findall(FENCED, section) if label == "sh")
    return [shlex.split(line, comments=True) for line in blocks.splitlines() if line.strip()]


@pytest.fixture
def home(tmp_path, monkeypatch):
    for kind in ("car", "fish"):
        (tmp_path / "birds" / kind).mkdir(parents=True)
        for path in sorted((IMAGES / kind).iterdir())[:7]:
            shutil.copy(path, tmp_path / "birds" / kind)
    shutil.copytree(tmp_path / "birds" / "car", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize("heading", JOURNEYS)
def test_a_journey_of_the_guide_ends_as_it_says(home, capsys, heading):
    lines = lines_of(heading)
    assert len(lines) >= 5
    for program, *words in lines:
        assert program == "wsolpipe"
        with pytest.raises(SystemExit) as ended:
            raise SystemExit(call(wsolpipe.cli.main.cli, program, words))
        printed = capsys.readouterr()
        assert ended.value.code == 0, f"{' '.join(words)}: {printed.err}"
    made = {"boxes/annotations/instances_val.json", "photo_boxes/data.yaml", "shared/labels"}
    assert any((home / name).exists() for name in made)
