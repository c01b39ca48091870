"""Class lists: that people can write them, that mistakes are named, and that the shipped ones are whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wsolpipe.contract.errors import ConfigError
from wsolpipe.models.class_names import choose_class_names, fill_templates, read_class_names

if TYPE_CHECKING:
    from pathlib import Path


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    return path


def test_list_gives_names_prompts_and_background_by_label(tmp_path: Path) -> None:
    path = written(tmp_path, "names:\n  - tench\n  - crane: crane bird\n  - crane\nbackground: [sky, ground]\n")
    classes = read_class_names(path)
    assert classes.names == {0: "tench", 1: "crane", 2: "crane"}
    assert [classes.prompt(label) for label in range(3)] == ["tench", "crane bird", "crane"]
    assert classes.background == ("sky", "ground")
    assert classes.label("tench") == 0


def test_comments_do_not_change_the_key_and_prompts_and_order_do(tmp_path: Path) -> None:
    def key(text: str) -> str:
        return read_class_names(written(tmp_path, text)).in_key()

    first = key("names: [a, b]\nbackground: [sky]\n")
    assert key("# a note\nnames:\n  - a\n  - b # another\nbackground:\n  - sky\n") == first
    others = ["names: [b, a]\nbackground: [sky]\n", "names: [a, b: c]\nbackground: [sky]\n", "names: [a, b]\n"]
    assert len({first, *(key(text) for text in others)}) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("names: [a]\nbackgrund: [sky]\n", "did you mean 'background'"),
        ("names: [a, no]\n", "names entry 1 is False"),
        ("names: [a, {b: c, d: e}]\n", "names entry 1"),
        ("names: [a, 3]\n", "names entry 1 is 3"),
        ("names: []\n", "names"),
        ("background: [sky]\n", "names"),
        ("- a\n", "is not a mapping"),
        ("names: [a\n", "is not valid YAML"),
    ],
)
def test_mistake_in_a_list_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_class_names(written(tmp_path, text))


def test_missing_file_label_and_name_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere"):
        read_class_names(tmp_path / "nowhere.yaml")
    classes = read_class_names(written(tmp_path, "names: [mushroom, rocket, rocket]\n"))
    with pytest.raises(ConfigError, match="label 7 has no name"):
        classes.prompt(7)
    with pytest.raises(ConfigError, match="did you mean 'mushroom'"):
        classes.label("mushrom")
    with pytest.raises(ConfigError, match="labels 1, 2 all 'rocket'"):
        classes.label("rocket")


def test_list_in_another_order_than_the_data_set_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "names: [Laysan Albatross, Sooty Albatross]\n")
    own = {0: "002.Laysan_Albatross", 1: "003.Sooty_Albatross"}
    assert choose_class_names(path, own, dataset="birds").prompt(1) == "Sooty Albatross"
    with pytest.raises(ConfigError, match="label 0 is '003.Sooty_Albatross' in data set birds and 'Laysan Albatross'"):
        choose_class_names(path, {0: own[1], 1: own[0]}, dataset="birds")
    with pytest.raises(ConfigError, match="label 2 is 'x' in data set birds and not there"):
        choose_class_names(path, {**own, 2: "x"}, dataset="birds")


def test_without_a_list_the_data_set_names_its_classes_or_is_told_to() -> None:
    assert choose_class_names(None, {3: "fish"}, dataset="d").prompt(3) == "fish"
    with pytest.raises(ConfigError, match="names no classes"):
        choose_class_names(None, {}, dataset="d")


def test_prompt_without_slot_is_refused() -> None:
    assert fill_templates(["{} and {}", "a {}"], "x") == ["x and x", "a x"]
    with pytest.raises(ConfigError, match=r"'a photo' has no \{\}"):
        fill_templates(["{}", "a photo"], "x")
    with pytest.raises(ConfigError, match="no prompt template"):
        fill_templates([], "x")


COUNTS = {"ilsvrc": (1000, 25), "cub": (200, 25), "voc": (20, 25), "coco": (80, 23), "ytov": (10, 25), "demo": (8, 8)}


@pytest.mark.parametrize("dataset", COUNTS)
def test_shipped_list_names_every_class_and_no_two_alike(repo: Path, dataset: str) -> None:
    classes = read_class_names(repo / "data" / dataset / "classes.yaml")
    assert (len(classes), len(classes.background)) == COUNTS[dataset]
    prompts = [classes.prompt(label).lower() for label in range(len(classes))]
    assert len(set(prompts)) == len(prompts)
    assert len(set(classes.names.values())) == len(prompts)


def test_shipped_lists_agree_with_the_packages_and_files_that_know_these_data_sets(repo: Path, shared: Path) -> None:
    from timm.data import ImageNetInfo

    known, ilsvrc = ImageNetInfo(), read_class_names(repo / "data/ilsvrc/classes.yaml")
    # What the importer reads from the challenge's own list of synsets: "n01440764 tench, Tinca tinca".
    own = {label: f"{known.index_to_label_name(label)} other words" for label in range(1000)}
    assert choose_class_names(repo / "data/ilsvrc/classes.yaml", own, dataset="ilsvrc") == ilsvrc
    lines = (shared / "data/cub10/classes.txt").read_text().split()
    cub = dict((int(number), name) for number, name in (line.split(",") for line in lines))
    assert choose_class_names(repo / "data/cub/classes.yaml", cub, dataset="cub").names[9] == cub[9]


def test_background_words_and_renamings_of_clip_es_are_there(repo: Path) -> None:
    # Lin et al., CVPR 2023: four of VOC's classes are renamed, and 25 words stand for the background.
    voc = read_class_names(repo / "data/voc/classes.yaml")
    renamed = {name: voc.prompts[label] for label, name in voc.names.items() if voc.prompts[label] != name}
    assert renamed == {
        "bird": "bird avian",
        "chair": "chair seat",
        "person": "person with clothes,people,human",
        "tvmonitor": "tvmonitor screen",
    }
    assert (voc.background[0], voc.background[-1]) == ("ground", "sign")
    coco = read_class_names(repo / "data/coco/classes.yaml")
    # The names of COCO's own annotations files, by the word of CLIP-ES.
    words = {"bird": "bird avian", "chair": "chair seat", "tv": "tvmonitor screen", "tie": "necktie", "couch": "sofa"}
    assert {name: coco.prompt(coco.label(name)) for name in words} == words
    assert (coco.names[0], coco.names[11], coco.names[79]) == ("person", "stop sign", "toothbrush")
    assert set(voc.background) - set(coco.background) == {"keyboard", "sign"}


def test_the_list_of_birds_has_the_names_of_cub_and_one_word(repo: Path) -> None:
    birds, species = (read_class_names(repo / "data/cub" / name) for name in ("bird.yaml", "classes.yaml"))
    assert (birds.names, birds.background) == (species.names, species.background)
    assert set(birds.prompts.values()) == {"bird"}


def test_the_list_of_youtube_objects_has_the_order_of_its_labels(repo: Path) -> None:
    lines = (repo / "data/ytov/classes.txt").read_text().split()
    own = {int(number): name for number, name in (line.split(",") for line in lines)}
    assert choose_class_names(repo / "data/ytov/classes.yaml", own, dataset="ytov1").prompt(1) == "bird avian"
