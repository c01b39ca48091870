"""The guide says what the programs know: commands and keys of its code blocks, its YAML, messages it explains."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
import yaml

import wsolpipe.contract.errors
from wsolpipe.cli.main import COMMANDS as PIPELINE
from wsolpipe.keys.key import Key
from wsoltrain.cli.main import COMMANDS as TRAINER

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "docs" / "reference"
PAGES = sorted([*(path for path in (ROOT / "docs").rglob("*.md") if GENERATED not in path.parents), ROOT / "README.md"])
BLOCK = re.compile(r"(?ms)^```(\w*)\n(.*?)^```")
KNOWN = {"wsolpipe": PIPELINE, "wsoltrain": TRAINER}


def blocks(kinds: set[str]) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        found += [(page.name, text) for kind, text in BLOCK.findall(page.read_text()) if kind in kinds]
    return found


def commands() -> list[tuple[str, str]]:
    """(page, command) of every line that calls one of the programs."""
    found = []
    for page, text in blocks({"sh", ""}):
        for line in text.replace("\\\n", " ").splitlines():
            call = re.search(r"(?:^|-m )((?:wsolpipe|wsoltrain) .*)", line.strip())
            if call:
                found.append((page, call.group(1)))
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_of_the_guide_and_their_keys_exist(page, line):
    program, *words = shlex.split(line, comments=True)
    words = [word for word in words if not word.startswith("-")]
    if not words:
        return
    assert words[0] in KNOWN[program]
    table = importlib.import_module(f"{program}.cli.{words[0]}").command.table
    given = dict(word.split("=", 1) for word in words[1:] if "=" in word)
    for name in given:
        start = name.partition(".")[0] + "." if "." in name and not name.startswith("sweep.") else ""
        wanted = name.removeprefix("sweep.")
        start = start or (wanted.partition(".")[0] + "." if "." in wanted else "")
        names = {each.name if isinstance(each, Key) else each for each in table.names(given, start)}
        assert wanted in names or wanted in {each.removesuffix("=") for each in names}, f"{page}: {line}"


@pytest.mark.parametrize(("page", "text"), blocks({"yaml"}))
def test_yaml_of_the_guide_is_yaml(page, text):
    assert isinstance(yaml.safe_load(text), (dict, list)), page


@pytest.mark.parametrize(("page", "text"), blocks({"python"}))
def test_python_of_the_guide_is_python(page, text):
    compile(text, page, "exec")


def test_exit_codes_of_the_guide_are_those_of_the_classes_of_errors():
    page = (ROOT / "docs" / "guide" / "running.md").read_text()
    told = {name: int(code) for code, row in re.findall(r"(?m)^\| (\d+) \| (.*) \|$", page)
            for name in re.findall(r"`(\w+(?:Error|Mismatch|Failed))`", row)}  # fmt: skip
    assert len(told) == 10
    assert told == {name: getattr(wsolpipe.contract.errors, name).exit_code for name in told}


def test_how_long_installing_takes_is_said_alike_by_make_and_the_readme():
    (made,) = re.findall(r"installing into \$\(VENV\): (.*) on a fresh machine", (ROOT / "Makefile").read_text())
    assert f"Installing takes {made} " in (ROOT / "README.md").read_text()
