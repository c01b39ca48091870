"""One reading of the text of values, for both halves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsolpipe.contract.errors import LONGEST, ConfigError, unknown
from wsolpipe.keys.words import nest, parse_value, split_words


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("-2", -2), ("0.5", 0.5), ("1e-3", 1e-3), ("1e3", 1000.0), (".5", 0.5), ("2e-9", 2e-9),
        ("true", True), ("False", False), ("null", None), ("none", None), ("~", None), ("", None),
        ("no", "no"), ("on", "on"), ("yes", "yes"), ("8-11", "8-11"), ("0x10", "0x10"), ("1_000", "1_000"),
        ("nan", "nan"), ("inf", "inf"), ("2024-01-01", "2024-01-01"), ("a=b", "a=b"), ("1:2", "1:2"),
        ("[1, 2]", [1, 2]), ("{a: 1}", {"a": 1}), ("[2e-9, .5, no]", [2e-9, 0.5, "no"]),
        ("['1', \"true\", ~, x]", ["1", "true", None, "x"]), ("{a: {b: [1e-4]}}", {"a": {"b": [1e-4]}}),
        ("[]", []), ("[0.485, 0.456, 0.406]", [0.485, 0.456, 0.406]),
    ],
)  # fmt: skip
def test_a_value_is_what_it_looks_like_also_inside_a_list(text, value):
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_every_number_that_python_prints_is_read_back(number):
    assert parse_value(repr(number)) == number


@pytest.mark.parametrize(
    "text",
    ["[1, 2", "{a: 1, a: 2}", "[!!python/name:os.system x]", "[" * 100, "9" * 5000, "[*x]", "{[1]: 2}", "[1] [2]"],
)
def test_a_value_that_cannot_be_read_is_one_short_line(text):
    with pytest.raises(ConfigError) as caught:
        parse_value(text)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400


def test_a_key_given_twice_is_refused_with_both_values():
    with pytest.raises(ConfigError, match="workers= is given twice: 2 and 3"):
        split_words(["workers=2", "workers=3"])


def test_a_name_of_thousands_of_letters_is_cut_in_messages():
    for call in (
        lambda: split_words(["a" * 5000]),
        lambda: split_words(["x=" + "a" * 5000, "x=1"]),
        lambda: nest({"a": 1}, ["a", "b" * 5000], 1),
    ):
        with pytest.raises(ConfigError) as caught:
            call()
        assert len(caught.value.message) < 4 * LONGEST
    assert len(unknown("stage", "a" * 5000, ["cls_maps"])) < 3 * LONGEST


@pytest.mark.parametrize("path", ["a.", ".b", "a..b"])
def test_an_empty_name_beside_a_dot_is_refused(path):
    with pytest.raises(ConfigError, match="name is missing"):
        nest({}, path.split("."), 1)
