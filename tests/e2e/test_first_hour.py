"""What a new user mistypes in the first hour: each is one message with what, where and the next step, no traceback."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
from PIL import Image

import wsolpipe.cli.main
import wsoltrain.cli.main
from wsolpipe.keys.console import call

PROGRAMS = {"wsolpipe": wsolpipe.cli.main.cli, "wsoltrain": wsoltrain.cli.main.cli}
MINE = "dataset=birds.yaml store=labels"
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
    """A folder of photographs in class folders, their description, and a store with their index."""
    folder = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    for name in ("train/cat/a.jpg", "train/dog/b.jpg", "val/cat/c.jpg", "val/dog/d.jpg"):
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path)
    (folder / "birds.yaml").write_text("name: birds\nlayout: folder\nroot: photos\nsplit: {train: train, val: val}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert end_of(f"wsolpipe run stage=index {MINE}") == 0
    return folder


@pytest.fixture
def at_home(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("WSOLPIPE_STORE", raising=False)


WRONG = [
    ("wsolpipe rnu", 3, "did you mean 'run'"),
    ("wsolpipe run --stage cls_maps", 3, "wsolpipe run --help lists"),
    ("wsolpipe run cls_maps", 3, "write key=value, as in stage=cls_maps"),
    (f"wsolpipe run stage=cls_map {MINE}", 3, "did you mean 'cls_maps'"),
    ("wsolpipe run stage=cls_maps datset=birds.yaml", 3, "did you mean 'dataset'"),
    ("wsolpipe run stage=cls_maps dataset=brids.yaml", 3, "did you mean 'birds.yaml'"),
    (f"wsolpipe run stage=cls_maps {MINE} split=vall", 3, "did you mean 'val'"),
    (f"wsolpipe run stage=cls_maps {MINE} limt=50", 3, "did you mean 'limit'"),
    (f"wsolpipe run stage=cls_maps {MINE} limit=fifty", 3, "limit=fifty: expected integer, at least 1"),
    (f"wsolpipe run stage=cls_maps {MINE} limit=5 limit=6", 3, "limit= is given twice"),
    (f"wsolpipe run stage=cls_maps {MINE} cls_maps.blokcs=8-11", 3, "did you mean 'blocks'"),
    (f"wsolpipe run stage=cls_maps {MINE} cls_maps.scale=logg", 3, "'linear', 'sqrt', 'log' or 'power'"),
    (f"wsolpipe run stage=cls_maps {MINE} cls_maps.model=vit_tinny_patch16_224", 3, "mean 'vit_tiny_patch16_224"),
    (f"wsolpipe run stage=cls_maps {MINE} cls_maps.weights=random:x", 3, "write cls_maps.weights=random:0"),
    (f"wsolpipe run stage=cls_maps {MINE} cls_maps.weights=none.pth", 3, "cls_maps: no weights file at none.pth"),
    (f"wsolpipe run stage=cls_maps {MINE} cls_maps.weights=birds.yaml", 3, "write cls_maps.weights=FILE"),
    (f"wsolpipe run stage=cls_maps {MINE} device=gpu {TINY}", 3, "write device=cpu"),
    (f"wsolpipe run stage=cls_maps {MINE} root=/nowhere", 3, "no folder /nowhere"),
    (f"wsolpipe plan stage=proposal {MINE}", 3, "did you mean 'proposals'"),
    (f"wsolpipe plan {MINE}", 3, "no stage named"),
    (f"wsolpipe plan stage=cls_maps {MINE} images=5", 3, "add cost=true"),
    ("wsolpipe stages cls_map", 3, "did you mean 'cls_maps'"),
    ("wsolpipe status store=lables", 3, "did you mean 'labels'"),
    ("wsolpipe status stor=labels", 3, "did you mean 'store'"),
    (f"wsolpipe eval stage=cls_maps {MINE} tau=2", 3, "tau=2: expected number from 0 to 1"),
    (f"wsolpipe eval stage=cls_maps {MINE} metrc=x", 3, "did you mean 'metric'"),
    ("wsolpipe report dataset=birds store=lables", 3, "did you mean 'labels'"),
    (f"wsolpipe report {MINE} rows=no", 3, "write rows=start:stop"),
    (f"wsolpipe export stage=cls_maps {MINE} format=cocoo out=boxes", 3, "did you mean 'coco'"),
    (f"wsolpipe export stage=cls_maps {MINE} format=coco", 3, "add out="),
    (f"wsolpipe import {MINE} formt=coco", 3, "did you mean 'format'"),
    ("wsolpipe ls store=lables", 3, "did you mean 'labels'"),
    ("wsolpipe gc store=lables", 3, "did you mean 'labels'"),
    ("wsolpipe push store=labels", 3, "add to="),
    ("wsolpipe push store=lables to=there", 3, "did you mean 'labels'"),
    ("wsolpipe pull from=lables store=there", 3, "did you mean 'labels'"),
    ("wsolpipe publish store=lables to=there dataset=birds", 3, "did you mean 'labels'"),
    ("wsolpipe push store=labels to=ftp://there", 3, "stores of scheme 'ftp' are not supported"),
    ("wsolpipe run config=none.yaml", 3, "none.yaml"),
    (f"wsolpipe run config=birds.yaml {MINE}", 3, "unknown key 'name'"),
    (f"wsolpipe run stage=cls_maps {MINE} sweep.cls_maps.blokcs=1,2", 3, "did you mean 'blocks'"),
    (f"wsolpipe import stage=human_boxes {MINE} format=coco in=none.json", 3, "add split="),
    ("wsolpipe pull store=labels", 3, "add from="),
    ("wsolpipe publish store=labels to=x", 3, "add dataset="),
    ("wsolpipe quarantine lst store=labels", 3, "did you mean 'list'"),
    ("wsoltrain fti", 3, "did you mean 'fit'"),
    (f"wsoltrain fit recipe=dipps {MINE}", 3, "did you mean 'dips'"),
    ("wsoltrain fit recipe=dips dataset=brids.yaml store=labels", 3, "did you mean 'birds.yaml'"),
    ("wsoltrain fit recipe=dips dataset=birds.yaml store=lables", 3, "did you mean 'labels'"),
    (f"wsoltrain fit recipe=dips {MINE} epoch=3", 3, "did you mean 'epochs'"),
    (f"wsoltrain fit recipe=dips {MINE} lr=fast", 3, "lr: expected a number"),
    (f"wsoltrain fit recipe=dips {MINE} sweep.l=1,2", 3, "did you mean 'lr'"),
    (f"wsoltrain compare recipes=cam,dipps {MINE}", 3, "did you mean 'dips'"),
    (f"wsoltrain compare {MINE}", 3, "add recipes="),
    ("wsoltrain select runs=runs/none", 3, "the out= of wsoltrain fit"),
    ("wsoltrain select run=runs/x", 3, "did you mean 'runs'"),
    (f"wsoltrain reproduce table=dmo {MINE}", 3, "did you mean 'demo'"),
    ("wsoltrain predict checkpoint=runs/none source=photos", 3, "wsoltrain fit writes one"),
    ("wsoltrain predict source=photos", 3, "add checkpoint="),
    ("wsoltrain report runs=runs/none", 3, "the out= of wsoltrain fit"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "told"), WRONG, ids=[line for line, _, _ in WRONG])
def test_a_slip_of_the_first_hour_is_answered_in_one_message(at_home, capsys, line, code, told):
    found, printed = end_of(line), capsys.readouterr()
    assert found == code, printed.err
    assert told in printed.err
    assert printed.err.startswith(f"{line.split()[0]}: ")
    assert "Usage:" not in printed.err
    assert printed.out == ""
    assert "resume with" not in printed.err


def test_keys_of_a_stage_are_named_as_they_are_written(at_home, capsys):
    assert end_of(f"wsolpipe run stage=cls_maps {MINE} split=val {TINY} cls_maps.blocks=15 device=cpu") == 3
    told = capsys.readouterr().err
    assert "cls_maps.blocks=15 names no blocks" in told
    assert "write cls_maps.blocks=11, cls_maps.blocks=[10,11] or cls_maps.blocks=0-11" in told
