"""YAML of users: nothing is dropped silently, nothing runs for minutes, and every reader uses this loader."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import wsolpipe
import wsoltrain
from wsolpipe.contract.errors import ConfigError
from wsolpipe.images.dataset import load_dataset
from wsolpipe.keys.safe_yaml import MOST_DEPTH, load_yaml, read_yaml
from wsolpipe.launch.profiles import load_profile
from wsolpipe.models.class_names import read_class_names
from wsolpipe.stages.registry import load_registry
from wsoltrain.training.recipe_file import read_recipe

LETTERS = "abcdefghij"
BOMB = "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip(LETTERS, LETTERS[1:], strict=False)
)
MERGE_BOMB = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip(LETTERS, LETTERS[1:], strict=False)
)
REFUSED = {
    "key twice": ("name: x\nname: y\n", "'name' is given twice, in line 1 and in line 2"),
    "inner key twice": ("name: {a: 1, b: 2, a: 3}\n", "'a' is given twice"),
    "aliases": (BOMB, "more than 1,000,000 values"),
    "merges": (MERGE_BOMB, "more than 1,000,000 values"),
    "alias of itself": ("name: &a [*a]\n", "is inside what it repeats"),
    "deep flow": ("name: " + "[" * 100_000, f"deeper than {MOST_DEPTH}"),
    "deep blocks": ("- " * 100_000 + "x", f"deeper than {MOST_DEPTH}"),
    "long number": ("name: " + "9" * 5000, "not valid YAML"),
    "impossible date": ("name: 2024-13-45", "not valid YAML"),
    "objects": ("name: !!python/object/apply:os.system [true]", "not valid YAML"),
    "not YAML": ("name: [", "not valid YAML"),
    "control characters": ("name: \x00", "not valid YAML"),
}


@pytest.mark.parametrize(("text", "told"), REFUSED.values(), ids=list(REFUSED))
def test_yaml_that_cannot_be_trusted_is_refused_in_one_line(text, told):
    with pytest.raises(ConfigError, match=told) as caught:
        load_yaml(text, where="own.yaml")
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith("own.yaml")


def test_bytes_that_are_not_text_and_files_that_are_not_there_are_refused(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    with pytest.raises(ConfigError, match="byte 6 is not UTF-8"):
        read_yaml(tmp_path / "latin.yaml")
    with pytest.raises(ConfigError, match="cannot read"):
        read_yaml(tmp_path / ("a" * 5000))


def test_anchors_and_merges_that_people_write_still_work():
    text = "base: &base {cpus: 4, gpus: 1}\nbig: {<<: *base, cpus: 16}\nsame: *base\n"
    assert load_yaml(text, where="x") == {
        "base": {"cpus": 4, "gpus": 1}, "big": {"cpus": 16, "gpus": 1}, "same": {"cpus": 4, "gpus": 1},
    }  # fmt: skip


def test_numbers_are_read_as_on_the_command_line():
    values = load_yaml("[1e-4, 2e-9, 1.5E3, 1.0e-4, .5e1, 3, 8-11, 1e4x, 4:00]", where="x")
    assert values[:6] == [1e-4, 2e-9, 1500.0, 1e-4, 5.0, 3]
    assert values[6:8] == ["8-11", "1e4x"]
    assert load_yaml("time: 4:00:00\nn: 1e-4", where="x", as_text=True) == {"time": "4:00:00", "n": "1e-4"}


def _profile(path):
    from wsolpipe.keys.run_keys import RunConfig

    return load_profile(RunConfig(profiles=str(path)))


@pytest.mark.parametrize(
    "read",
    [
        lambda path: load_dataset(str(path)), lambda path: load_registry(str(path)), _profile, read_class_names,
        lambda path: read_recipe(str(path)),
    ],
    ids=["data set", "stages", "profiles", "class list", "recipe"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["key twice", "merges", "deep flow", "not YAML"])
def test_every_reader_of_users_yaml_refuses_them(read, kind, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(REFUSED[kind][0])
    with pytest.raises(ConfigError, match=REFUSED[kind][1]):
        read(path)


def test_yaml_is_loaded_in_one_place_only():
    loaders = [
        path.name
        for package in (wsolpipe, wsoltrain)
        for path in Path(package.__file__).parent.rglob("*.py")
        if re.search(r"yaml\.\w*load\(|construct_document", path.read_text())
    ]
    assert loaders == ["safe_yaml.py"]


def test_a_value_that_was_changed_by_its_user_is_not_what_the_next_one_reads():
    first = load_yaml("a: [1, {b: 2}]", where="x.yaml")
    first["a"][1]["b"] = 3
    assert load_yaml("a: [1, {b: 2}]", where="x.yaml") == {"a": [1, {"b": 2}]}
