"""What a new user mistypes in the first hour: each is one message with what, where and the next step, no traceback.

``answers.txt`` holds every line, its whole answer and the judgement of a reader. After a change of messages, write it
again in one process with ``WSOLPIPE_WRITE_ANSWERS=1`` and judge what changed.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import textwrap
from itertools import dropwhile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import wsolpipe.cli.main
import wsoltrain.cli.main
from wsolpipe import open_store
from wsolpipe.contract.errors import NotFoundError
from wsolpipe.keys.console import call
from wsolpipe.share.checks import examine

PROGRAMS = {"wsolpipe": wsolpipe.cli.main.cli, "wsoltrain": wsoltrain.cli.main.cli}
MINE = "dataset=birds.yaml store=labels"
MADE = "dataset=birds.yaml store=maps split=val"
TINY = "cls_maps.model=vit_tiny_patch16_224 cls_maps.weights=random:0"


def end_of(line):
    """Exit code of a command line, run in this process."""
    program, *words = shlex.split(line)
    try:
        return call(PROGRAMS[program], program, words)
    except SystemExit as end:
        return end.code


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder of photographs in class folders, their description, a store with their index, and one with maps."""
    folder = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    for name in ("train/cat/a.jpg", "train/dog/b.jpg", "val/cat/c.jpg", "val/dog/d.jpg"):
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path)
    (folder / "birds.yaml").write_text("name: birds\nlayout: folder\nroot: photos\nsplit: {train: train, val: val}\n")
    (folder / "five.yaml").write_text("name: birds\nlayout: folder\nroot: 5\n")
    (folder / "table.csv").write_text("image_id,label\n")
    (folder / "listed.yaml").write_text("name: birds\nlayout: folder\nroot: photos\nsplit: [train, val]\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert end_of(f"wsolpipe run stage=index {MINE}") == 0
        assert end_of(f"wsolpipe run stage=cls_maps {MADE} {TINY} device=cpu") == 0
    return folder


@pytest.fixture
def at_home(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("WSOLPIPE_STORE", raising=False)
    return home


HERE = Path(__file__).parent
WRONG = yaml.safe_load((HERE / "wrong_lines.yaml").read_text())
FAULTS = yaml.safe_load((HERE / "data_faults.yaml").read_text())
LEAST_CLEAR = 0.97
ANSWERS = HERE / "answers.txt"
SAID = ("wsolpipe:", "error:", "warning:", "accepted:")
PHOTOS = [
    f"{split}/{name}/{number}.png" for split in ("train", "val") for name in ("mug", "pan") for number in range(3)
]


def typed_of(case):
    """The command of a line, or the fault of a data set and what is typed then."""
    if isinstance(case, list):
        return case[0].format(mine=MINE, made=MADE, tiny=TINY)
    return f"({case['case']}) wsolpipe {FAULTED[case.get('type', 'run')]} dataset=d.yaml store=store"


FAULTED = {"run": "run stage=pixels pixels.size=8", "check": "check"}
#: What is typed -> exit code, a part of the answer, and the judgement of the whole answer.
JUDGED = {typed_of(case): (*case[1:3], f"unclear: {case[3]}" if case[3:] else "clear") for case in WRONG} | {
    typed_of(case): (case["exit"], case["told"], f"unclear: {case['judged']}" if "judged" in case else "clear")
    for case in FAULTS
}


@pytest.fixture(scope="module")
def answered():
    """What was answered to each line, for the file that a reader judges."""
    found = {}
    yield found
    if os.environ.get("WSOLPIPE_WRITE_ANSWERS"):
        assert list(found) == list(JUDGED)
        ANSWERS.write_text("".join(
            f"$ {typed}\nexit {JUDGED[typed][0]}, {JUDGED[typed][2]}\n{textwrap.indent(text, '    ')}\n"
            for typed, text in found.items()
        ))  # fmt: skip


def test_every_answer_stands_in_the_file_with_its_judgement_none_is_silent_and_nearly_all_are_clear():
    recorded = dict(block.split("\n", 1) for block in f"\n{ANSWERS.read_text()}".split("\n$ ")[1:])
    assert list(recorded) == list(JUDGED)
    assert len(JUDGED) == len(WRONG) + len(FAULTS)
    for typed, (code, expected, judged) in JUDGED.items():
        first, answer = recorded[typed].split("\n", 1)
        assert first == f"exit {code}, {judged}"
        assert expected
        assert " ".join(expected.split()) in " ".join(answer.split()), typed
        assert code != 0 or "warning: " in answer
    unclear = [judged for *_, judged in JUDGED.values() if judged != "clear"]
    assert len(unclear) <= (1 - LEAST_CLEAR) * len(JUDGED)


@pytest.mark.parametrize(("line", "code", "told"), [case[:3] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_slip_of_the_first_hour_is_answered_in_one_message(at_home, capsys, answered, line, code, told):
    line = line.format(mine=MINE, made=MADE, tiny=TINY)
    found, printed = end_of(line), capsys.readouterr()
    assert found == code, printed.err
    assert told in printed.err
    assert printed.err.startswith(f"{line.split()[0]}: ")
    assert "Usage:" not in printed.err
    assert printed.out == ""
    assert "resume with" not in printed.err
    answered[line] = printed.err.replace(str(at_home), "HOME")


class Album:
    """Twelve photographs in class folders of two splits, their description, and what is done to them."""

    def __init__(self, folder, case):
        self.folder, self.photos, self.case = folder, folder / "photos", case
        for seed, name in enumerate(PHOTOS):
            pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
            (self.photos / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(self.photos / name)
        keys = {"name": "d", "layout": "folder", "root": "photos", "split": {"train": "train", "val": "val"}}
        keys |= self.table() if "line" in case else {}
        keys |= self.coco(**case["coco"]) if "coco" in case else {}
        for action, *words in case.get("do", ()):
            getattr(self, action)(*words)
        (folder / "d.yaml").write_text(yaml.safe_dump(keys | case.get("keys", {})))

    def table(self):
        lines = [self.case.get("header", "path,label,split,x0,y0,x1,y1")]
        for path in PHOTOS:
            split, name, last = path.split("/")
            label, mug = int(name == "pan"), "0" if name == "mug" else ""
            lines.append(self.case["line"].format(
                path=path, split=split, label=label, one=label + 1, mug=mug, last=f"{name}/{last}",
                jpg=path.replace(".png", ".jpg"), back=path.replace("/", "\\"),
            ))  # fmt: skip
        (self.folder / "t.csv").write_text("\n".join([*lines, *self.case.get("more", ())]) + "\n")
        (self.folder / "c.txt").write_text("0,mug\n1,pan\n")
        return {"layout": "csv", "metadata": "t.csv", "classes": "c.txt"}

    def coco(self, categories, boxes, file=PHOTOS[0]):
        content = {
            "images": [{"id": 1, "file_name": file}],
            "annotations": [
                {"id": place, "image_id": 1, "category_id": 1, "bbox": box} for place, box in enumerate(boxes)
            ],
            "categories": [{"id": number, "name": name} for number, name in categories],
        }
        (self.folder / "coco.json").write_text(json.dumps(content))
        return {"layout": "coco", "metadata": "coco.json", "split": "train"}

    def copy(self, old, new):
        (self.photos / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.photos / old, self.photos / new)

    def move(self, old, new):
        (self.photos / old).rename(self.photos / new)

    def remove(self, name):
        shutil.rmtree(self.photos / name)

    def mkdir(self, name):
        (self.photos / name).mkdir(parents=True)

    def write(self, name, text):
        (self.photos / name).parent.mkdir(parents=True, exist_ok=True)
        (self.photos / name).write_text(text)

    def blank(self, name):
        self.write(name, "")

    def cut(self, name):
        (self.photos / name).write_bytes((self.photos / name).read_bytes()[:200])


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case["case"])
def test_a_fault_of_a_data_set_is_never_silent(tmp_path, monkeypatch, capsys, answered, case):
    Album(tmp_path, case)
    monkeypatch.chdir(tmp_path)
    found, printed = end_of(typed_of(case).rpartition(") ")[2]), capsys.readouterr()
    said = printed.out + printed.err
    assert found == case["exit"], said
    assert case["told"] in " ".join(said.split()), said
    assert not list(tmp_path.glob("store/d/*/pixels")) or found == 0
    lines = (line for line in said.replace(str(tmp_path), "HOME").splitlines(keepends=True) if line[:6] != "index ")
    answered[typed_of(case)] = "".join(dropwhile(lambda line: not line.startswith(SAID), lines))


@pytest.mark.parametrize(("store", "told"), [("lables", "did you mean 'labels'?"), ("photos", "holds other things")])
def test_doctor_calls_a_store_bad_that_nobody_could_mean(at_home, store, told):
    found = {item.check: item for item in examine(store)}["store"]
    assert not found.ok
    assert told in found.detail
    assert not (at_home / "lables").exists()


def test_doctor_takes_a_store_that_is_there_and_a_new_one(at_home):
    for store in ("labels", "elsewhere"):
        assert {item.check: item for item in examine(store)}["store"].ok


def test_the_index_of_a_split_is_no_stage_of_arrays(at_home):
    with pytest.raises(NotFoundError, match="the index of train is a table of rows") as found:
        open_store("labels")["birds"]["train"]["index"]
    assert found.value.hint == "…['train'].index().table() reads it"


def test_the_command_in_a_hint_is_one_that_works(at_home, capsys):
    assert end_of(f"wsoltrain fit recipe=dips {MINE} batch=2") == 3
    hinted = capsys.readouterr().err.partition("-> ")[2].removesuffix(" makes it\n")
    assert hinted.startswith("wsolpipe run stage=proposals")
    assert end_of(hinted.replace("wsolpipe run", "wsolpipe plan")) == 0
    assert "proposals" in capsys.readouterr().out


def test_a_word_file_fills_hints_too(at_home, capsys):
    (at_home / "words.yaml").write_text("dataset: birds.yaml\nstore: maps\n")
    assert end_of("wsolpipe eval stage=proposals config=words.yaml") == 3
    assert "stage=proposals dataset=birds.yaml split=val store=maps" in capsys.readouterr().err


def test_a_data_set_that_only_the_store_knows_stays_open_in_a_hint(at_home, capsys):
    assert end_of("wsolpipe report dataset=birds store=maps split=val stage=proposals") == 3
    assert "wsolpipe run stage=proposals dataset=… split=val store=maps" in capsys.readouterr().err


def test_keys_of_a_stage_are_named_as_they_are_written(at_home, capsys):
    assert end_of(f"wsolpipe run stage=cls_maps {MINE} split=val {TINY} cls_maps.blocks=15 device=cpu") == 3
    told = capsys.readouterr().err
    assert "cls_maps.blocks=15 names no blocks" in told
    assert "write cls_maps.blocks=11, cls_maps.blocks=[10,11] or cls_maps.blocks=0-11" in told
