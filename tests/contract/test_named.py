"""One way to find whatever has a name: built in, or declared by the entry point of an installed package."""

from __future__ import annotations

import importlib.metadata

import pytest

from wsolpipe.contract import named
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.named import Registry

BUILTINS = {"ordered": "collections:OrderedDict", "counter": "collections:Counter", "broken": "collections:Gone"}
MAPPINGS: Registry[type[dict]] = Registry("mapping", "tests.mappings", BUILTINS, base="builtins:dict")


@pytest.fixture
def declare(monkeypatch):
    """Declare names as installed packages would."""

    def install(*declared):
        points = [importlib.metadata.EntryPoint(name, value, "tests.mappings") for name, value in declared]
        monkeypatch.setattr(named, "entry_points", lambda group: points if group == "tests.mappings" else [])

    return install


def test_a_built_in_name_goes_before_one_of_a_package(declare):
    declare(("counter", "nowhere:Other"), ("default", "collections:defaultdict"))
    assert MAPPINGS.find("counter").__name__ == "Counter"
    assert MAPPINGS.find("default").__name__ == "defaultdict"
    assert MAPPINGS.names() == ["broken", "counter", "default", "ordered"]
    assert "default" in MAPPINGS
    assert "defaults" not in MAPPINGS


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("order", "unknown mapping 'order'; did you mean 'ordered'\\?"),
        ("broken", r"mapping broken \(collections:Gone\) cannot be imported"),
        ("lost", r"mapping lost \(nowhere:At\) cannot be imported"),
        ("other", r"mapping other \(collections:deque\) is not of builtins.dict"),
        ("twice", "mapping twice is declared by a:B and by c:D"),
    ],
)
def test_what_cannot_be_found_is_named(declare, name, told):
    declare(("lost", "nowhere:At"), ("other", "collections:deque"), ("twice", "c:D"), ("twice", "a:B"))
    with pytest.raises(ConfigError, match=told):
        MAPPINGS.find(name)


def test_instances_and_functions_are_found_too():
    assert Registry("function", "tests.functions", {"join": "posixpath:join"}).find("join")("a", "b") == "a/b"
    assert (
        Registry("name", "tests.names", {"here": "wsolpipe:__name__"}, base="builtins:str").find("here") == "wsolpipe"
    )


def test_a_package_of_an_extra_that_is_missing_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ConfigError, match="this needs the package av") as caught:
        Registry("film", "tests.films", {"av": "av:open"}).find("av")
    assert caught.value.hint == "pip install 'wsolpipe[video]'"
