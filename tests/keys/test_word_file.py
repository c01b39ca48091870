"""Words from a file and sweeps: the same words as typed, typed ones go over them, and wrong ones are refused."""

from __future__ import annotations

import pytest

from wsolpipe.contract.errors import ConfigError
from wsolpipe.keys.words import MOST_POINTS, expand_words, split_sweep

FILE = """
stage: [cls_maps, proposals]
dataset: demo
cls_maps: {size: 448, blocks: 8-11}
classifier.measure: [val, test]
regions: {onnx: {strides: [8, 16], channels: bgr}}
cams.seed: 1e3
limit:
sweep: {cls_maps.scale: [linear, power], regions.top_n: [10]}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "words.yaml"
    path.write_text(FILE)
    return path


def test_a_file_holds_the_words_of_a_command_line_and_typed_ones_go_over_it(file):
    found = expand_words(["limit=5", f"config={file}", "cls_maps.size=224"], lambda name: name == "stage")
    assert set(found) == {
        "stage=cls_maps,proposals", "dataset=demo", "cls_maps.blocks=8-11", "classifier.measure=[val, test]",
        "regions.onnx.strides=[8, 16]", "regions.onnx.channels=bgr", "cams.seed=1e3", "limit=5", "cls_maps.size=224",
        "sweep.cls_maps.scale=linear,power", "sweep.regions.top_n=10",
    }  # fmt: skip
    assert expand_words(["a=1"]) == ("a=1",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a\n- b\n", "is not a mapping"),
        ("config: other.yaml\n", "names no other"),
        ("a: {b: 1}\na.b: 2\n", "a.b is given twice"),
        ("a: 1\na: 2\n", "given twice"),
        ("a: [1\n", "not valid YAML"),
        (None, "cannot read"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, text, told):
    path = tmp_path / "words.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=told) as caught:
        expand_words([f"config={path}"])
    assert "\n" not in caught.value.message


def test_a_sweep_is_every_combination_and_brackets_keep_their_commas():
    sweep = split_sweep(["stage=cams", "sweep.cams.samples=2,4", "sweep.classifier.measure=[val],[val, test]"])
    assert sweep.words == ("stage=cams",)
    assert [sweep.words_of(point) for point in sweep.points()] == [
        ("stage=cams", f"cams.samples={samples}", f"classifier.measure={measured}")
        for samples in "24"
        for measured in ("[val]", "[val, test]")
    ]
    assert split_sweep(["stage=cams"]).points() == [{}]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sweep.cams.samples="], "names no value"),
        (["sweep.=1,2"], "names no key"),
        (["sweep.a.b=1,2", "a.b=3"], "both by itself"),
        (["sweep.a.b=1,2,1"], "the value 1 twice"),
        (["sweep.a.b=1", "sweep.a.b=2"], "given twice"),
        ([f"sweep.a.{letter}={','.join(map(str, range(32)))}" for letter in "bc"], f"more than {MOST_POINTS:,}"),
    ],
)
def test_a_wrong_sweep_is_refused_in_one_line(words, told):
    with pytest.raises(ConfigError, match=told) as caught:
        split_sweep(words)
    assert "\n" not in caught.value.message
