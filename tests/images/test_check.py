"""Faults of a data set that no single file shows: each is an error that stops a run, or a warning, and never silent."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from wsolpipe.cli.main import cli

PHOTOS = [
    f"{split}/{name}/{number}.png" for split in ("train", "val") for name in ("mug", "pan") for number in range(3)
]


class Home:
    """A folder of photographs of two classes in two splits, described as layout `folder` until it is said otherwise."""

    def __init__(self, folder, capsys):
        self.folder, self.capsys = folder, capsys
        for place, name in enumerate(PHOTOS):
            self.draw(name, place)
        self.describe()

    def draw(self, name, seed, side=24):
        path = self.folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)

    def describe(self, **keys):
        keys = {"name": "d", "layout": "folder", "root": "photos", "split": {"train": "train", "val": "val"}, **keys}
        (self.folder / "d.yaml").write_text(yaml.safe_dump(keys))

    def table(self, lines, header="path,label,split,x0,y0,x1,y1", **keys):
        (self.folder / "t.csv").write_text("\n".join([header, *lines]) + "\n")
        self.describe(**{"layout": "csv", "metadata": "t.csv", "classes": "c.txt", **keys})
        (self.folder / "c.txt").write_text("0,mug\n1,pan\n")

    def call(self, command, *words):
        """Exit code and what was said."""
        words = [*words, f"dataset={self.folder / 'd.yaml'}", f"store={self.folder / 'store'}"]
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main([command, *words], standalone_mode=False)
            code = ended.value.code
            said = self.capsys.readouterr()
            return code, said.out + said.err
        except Exception as error:
            return error.exit_code, self.capsys.readouterr().err + str(error)

    def run(self, *words):
        return self.call("run", "stage=pixels", "pixels.size=8", *words)


@pytest.fixture
def home(tmp_path, capsys):
    return Home(tmp_path, capsys)


def lines_of(home, box="2,2,20,20", split=True):
    return [f"{name},{int('pan' in name)},{name.split('/')[0] if split else ''},{box}" for name in PHOTOS]


def copy_train_into_val(home):
    shutil.copy(home.folder / "photos" / PHOTOS[0], home.folder / "photos" / "val" / "mug" / "copy.png")


def rename(home, old, new):
    (home.folder / "photos" / old).rename(home.folder / "photos" / new)


ERRORS = {
    "shared images": (copy_train_into_val, "shared_images", "train and val share 1 image, such as train/mug/0.png and"),
    "a class of val alone": (
        lambda home: rename(home, "val/mug", "val/cup"), "untrained_classes",
        "val has 3 images of classes without an image in train: cup",
    ),
    "another case": (
        lambda home: rename(home, "val/mug", "val/Mug"), "alike_classes", "'Mug' and 'mug' differ only in case",
    ),
    "root one folder too high": (
        lambda home: home.describe(split="train"), "folder_classes", "the classes are called train, val",
    ),
    "boxes in 0..1": (
        lambda home: home.table(lines_of(home, "0.1,0.1,0.6,0.5")), "relative_boxes",
        "6 of the 6 boxes of split train lie between 0 and 1",
    ),
    "boxes without area": (
        lambda home: home.table(lines_of(home, "5,5,5,9")), "tiny_boxes",
        "6 of the 6 boxes of split train have a side under 2 pixels; is box_format:",
    ),
    "half of the labels": (
        lambda home: home.table([line.replace(",1,", ",,") for line in lines_of(home)]), "missing_labels",
        "3 of the 6 images of split train have no label",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS, ids=str)
def test_what_would_spoil_training_stops_a_run_before_work_and_accept_overrules_it(home, case):
    spoil, name, told = ERRORS[case]
    spoil(home)
    code, said = home.run()
    assert (code, told in said, f"accept={name}" in said or f",{name}" in said) == (3, True, True), said
    assert not list(home.folder.glob("store/d/*/pixels"))
    assert home.run()[0] == 3  # the second run knows it too
    code, said = home.call("check")
    assert (code, f"error: {name}: " in said) == (3, True), said
    assert home.call("check", "accept=all")[0] == 0
    assert home.run("accept=all")[0] == 0


WARNINGS = {
    "an empty class folder": (
        lambda home: (home.folder / "photos" / "train" / "pot").mkdir(), "empty_classes",
        "1 of 3 classes have no image, such as pot",
    ),
    "a key of another layout": (
        lambda home: home.describe(box_format="xywh", columns={"path": "file"}), "unused_keys",
        "columns, box_format in",
    ),
    "a box twice": (
        lambda home: home.table([*lines_of(home), lines_of(home)[0]]), "repeated_boxes",
        "1 boxes of split train are given twice",
    ),
    "another name of a split": (
        lambda home: home.table([*lines_of(home)[:6], *(x.replace(",val,", ",valid,") for x in lines_of(home)[6:8]),
                                 *lines_of(home)[8:]]),
        "passed_over", "t.csv: 2 lines are of split 'valid', which the data set's YAML does not name",
    ),
    "no label at all": (
        lambda home: home.table([line.replace(",1,", ",,").replace(",0,", ",,") for line in lines_of(home)]),
        "missing_labels", "no image of split train has a label",
    ),
    "files that are missing": (
        lambda home: home.table(["train/mug/7.png,0,train,2,2,9,9", *lines_of(home)]), "quarantined",
        "1 of the 7 images of split train are quarantined: missing file: train/mug/7.png; paths are looked for below",
    ),
    "images of no split": (
        lambda home: home.table(lines_of(home)[:3] + lines_of(home)[6:9]), "passed_over",
        "6 images below",
    ),
    "an image twice": (
        lambda home: shutil.copy(home.folder / "photos/val/mug/0.png", home.folder / "photos/val/mug/9.png"),
        "repeated_images", "1 images of split val have the bytes of another one, such as val/mug/",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WARNINGS, ids=str)
def test_a_lesser_fault_is_told_with_its_place_and_stops_nothing(home, case):
    spoil, name, told = WARNINGS[case]
    spoil(home)
    code, said = home.call("check")
    assert (code, f"warning: {name}: " in said, told in said) == (0, True, True), said
    assert "spoil" not in home.run()[1]


def test_a_sound_data_set_has_no_fault_and_is_described_as_json(home):
    code, said = home.call("check", "--json")
    found, _ = json.JSONDecoder().raw_decode(said[said.index("{") :])
    assert (code, found["findings"], found["refused"]) == (0, [], [])
    assert found["splits"][0]["labels"] == {"mug": 3, "pan": 3}
    assert found["splits"][1] | {"quarantined": {}} == found["splits"][1]
    assert found["splits"][0]["median"] == [24, 24]
    assert found["splits"][0]["formats"] == {"png": 6}


def test_a_table_without_a_column_of_splits_is_refused_where_there_are_several(home):
    home.table(lines_of(home), header="path,label,subset,x0,y0,x1,y1")
    code, said = home.run()
    assert (code, "no column 'split'" in said, "columns: {split: NAME}" in said) == (3, True, True), said
    home.table(lines_of(home), header="path,label,subset,x0,y0,x1,y1", columns={"split": "subset"})
    assert home.run()[0] == 0


def test_a_table_separated_by_semicolons_is_read(home):
    home.table([line.replace(",", ";") for line in lines_of(home)], header="path;label;split;x0;y0;x1;y1")
    assert home.run()[0] == 0


def test_boxes_of_width_and_height_that_are_read_as_edges_name_the_key(home):
    home.table(lines_of(home, "18,18,5,5"))
    code, said = home.run()
    assert (code, "ends before it begins" in said, "box_format: xywh" in said) == (3, True, True), said


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda line: f"pictures/{line}", "; train/pan/2.png is there: leave pictures/ out of the paths"),
        (lambda line: line.replace(".png", ".jpg"), "; 2.png is there: the paths have another ending"),
        (lambda line: line.partition("/")[2], "; train/pan/2.png is there: root: is one folder too high"),
    ],
)
def test_paths_of_which_none_is_there_are_answered_with_the_nearest_file(home, change, told):
    home.table([change(line) for line in lines_of(home)])
    code, said = home.run()
    assert (code, told in said) == (3, True), said


def test_two_categories_of_one_id_are_refused(home):
    content = {
        "images": [{"id": 1, "file_name": PHOTOS[0]}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}],
        "categories": [{"id": 1, "name": "shoe"}, {"id": 1, "name": "boot"}],
    }
    (home.folder / "coco.json").write_text(json.dumps(content))
    home.describe(layout="coco", metadata="coco.json", split="train")
    code, said = home.run()
    assert (code, "categories shoe and boot have one id, 1" in said) == (3, True), said


def test_only_the_beginning_of_a_split_is_not_missed_classes(home):
    assert home.run("limit=2")[0] == 0


def test_the_report_shows_what_the_check_found_in_the_indexes_of_its_stage(home):
    shutil.copy(home.folder / "photos" / PHOTOS[0], home.folder / "photos" / "train" / "mug" / "copy.png")
    assert home.run()[0] == 0
    code, said = home.call("report", "split=train")
    assert code == 0, said
    section = (home.folder / "store" / "d" / "report.html").read_text().partition('<section id="check"')[2]
    section = section.partition("</section>")[0]
    assert "<code>repeated_images</code>" in section
    assert "train/mug/0.png" in section
    assert section.index("<td>train</td>") < section.index("<td>val</td>")
