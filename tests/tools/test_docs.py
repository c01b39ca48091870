"""The guide says what the programs know: commands and keys of its code blocks, its YAML, exit codes it lists."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml

import wsolpipe.contract.errors
from guide_blocks import ROOT, blocks, commands, pages
from wsolpipe.cli.main import cli as pipeline_cli
from wsolpipe.contract.errors import WsolError
from wsolpipe.keys.key import CONFIG, Key
from wsolpipe.keys.words import nest, parse_value
from wsolpipe.stages.registry import load_registry
from wsoltrain.cli.main import cli as trainer_cli
from wsoltrain.training.recipe_file import load_recipe

PROGRAMS = {"wsolpipe": pipeline_cli, "wsoltrain": trainer_cli}


def lines() -> list[tuple[str, str]]:
    """(page, command) of every line that calls one of the programs, also by another one, such as torchrun."""
    found = [
        (page, re.search(r"(?:^|-m )((?:wsolpipe|wsoltrain) .*)", line)) for page in pages() for line in commands(page)
    ]
    return [(page, call[1]) for page, call in found if call]


def check_words(line: str) -> None:
    """Commands, keys, kinds of values, names of stages and values of their parameters and of recipes; runs nothing."""
    program, command, *words = shlex.split(line)
    assert command in PROGRAMS[program].listed
    table = PROGRAMS[program].load(command).table
    given = dict(word.removeprefix("sweep.").split("=", 1) for word in words if "=" in word)
    swept = {word.removeprefix("sweep.").partition("=")[0] for word in words if word.startswith("sweep.")}
    params, changes = {}, {}
    for name, text in given.items():
        outer, dot, inner = name.partition(".")
        known = {key.name: key for key in table.names(given, f"{outer}." if dot else "") if isinstance(key, Key)}
        for value in text.split(",") if name in swept else [text]:
            if name in known and (program == "wsolpipe" or known[name] in table.keys):
                known[name].read(value)
            if program == "wsolpipe" and dot:
                assert name in known, name
                nest(params.setdefault(outer, {}), inner.split("."), parse_value(value))
            elif name not in known or known[name] not in (*table.keys, CONFIG):
                assert program == "wsoltrain" or name in known, name
                changes[name] = parse_value(value)
    for stage, values in params.items():
        load_registry().params(stage, values)
    for stage in given.get("stage", "").split(",") if "stage" in given else ():
        assert stage in load_registry().entries, stage
    if program == "wsoltrain" and table.more:
        for recipe in given.get("recipe", given.get("recipes", "")).split(","):
            load_recipe(recipe, dataset=given["dataset"].removesuffix(".yaml"), changes=changes)


@pytest.mark.parametrize(("page", "line"), lines())
def test_words_of_the_guide_are_those_of_the_tables_of_keys(page, line):  # noqa: ARG001 - names the case
    check_words(line)


@pytest.mark.parametrize(
    "line",
    [
        "wsolpipe runn", "wsolpipe run stage=camz", "wsolpipe run stage=cams workers=two", "wsolpipe run stag=cams",
        "wsolpipe run stage=cams cams.bach=1", "wsolpipe run stage=cams cams.batch=few",
        "wsolpipe run stage=cams sweep.cams.batch=1,few", "wsolpipe eval stage=cams noise=box",
        "wsoltrain fit recipe=dips dataset=demo epoch=1", "wsoltrain fit recipe=dips dataset=demo epochs=few",
        "wsoltrain fit recipe=dip dataset=demo", "wsoltrain fit recipe=cam dataset=demo gt=perhaps",
    ],
)  # fmt: skip
def test_a_wrong_word_would_be_found(line):
    with pytest.raises((AssertionError, WsolError)):
        check_words(line)


def labelled(kind: str) -> list[tuple[str, str]]:
    return [(page, text) for page in pages() for label, text in blocks(page) if label == kind]


@pytest.mark.parametrize(("page", "text"), labelled("yaml"))
def test_yaml_of_the_guide_is_yaml(page, text):
    assert isinstance(yaml.safe_load(text), (dict, list)), page


@pytest.mark.parametrize(("page", "text"), labelled("python"))
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
