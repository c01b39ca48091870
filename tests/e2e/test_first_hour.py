"""What a new user mistypes in the first hour: each is one message with what, where and the next step, no traceback."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
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


WRONG = [
    ("wsolpipe rnu", 3, "did you mean 'run'"),
    ("wsolpipe run --stage cls_maps", 3, "wsolpipe run --help lists"),
    # words without their key
    ("wsolpipe run cls_maps", 3, "write stage=cls_maps; the same command with --help lists its keys"),
    ("wsolpipe run cls_maps,cams dataset=demo", 3, "write stage=cls_maps,cams;"),
    ("wsolpipe push labels to=there", 3, "write store=labels;"),
    ("wsolpipe pull labels store=there", 3, "write from=labels;"),
    ("wsolpipe eval birds.yaml", 3, "write dataset=birds.yaml;"),
    ("wsolpipe status watch", 3, "write watch=true;"),
    ("wsolpipe run demo stage=cls_maps", 3, "write dataset=demo;"),
    ("wsolpipe export coco", 3, "write format=coco;"),
    ("wsoltrain fit dips", 3, "write recipe=dips;"),
    ("wsoltrain predict photos", 3, "write checkpoint=photos or source=photos"),
    ("wsoltrain fit lr", 3, "write lr=…;"),
    # names of other tools for what there is
    ("wsolpipe train", 3, "did you mean 'wsoltrain fit'?"),
    ("wsolpipe show", 3, "did you mean 'wsolpipe status'?"),
    ("wsolpipe help", 3, "write wsolpipe --help"),
    ("wsolpipe help run", 3, "write wsolpipe run --help"),
    ("wsolpipe version", 3, "write wsolpipe --version"),
    ("wsolpipe predict", 3, "did you mean 'wsoltrain predict'?"),
    ("wsolpipe clean", 3, "did you mean 'wsolpipe gc'?"),
    ("wsolpipe score", 3, "did you mean 'wsolpipe eval'?"),
    ("wsolpipe upload", 3, "did you mean 'wsolpipe push'?"),
    ("wsolpipe zzz", 3, "unknown command 'zzz'. Valid: adopt, "),
    ("wsoltrain train", 3, "did you mean 'wsoltrain fit'?"),
    ("wsoltrain status", 3, "did you mean 'wsolpipe status'?"),
    ("wsoltrain test", 3, "did you mean 'wsoltrain eval'?"),
    (f"wsoltrain fit recipe=cam {MINE} model=resnet50", 3, "write backbone=resnet50;"),
    (f"wsoltrain fit recipe=cam {MINE} learning_rate=0.1", 3, "did you mean 'lr'?"),
    (f"wsoltrain fit recipe=cam {MINE} network=resnet50", 3, "did you mean 'backbone'?"),
    (f"wsolpipe run stage=cls_maps {MINE} num_workers=2", 3, "did you mean 'workers'?"),
    (f"wsolpipe run stage=cls_maps {MINE} cls_maps.model=dino", 3, "vit_small_patch16_224.dino"),
    # stores
    ("wsolpipe run stage=index dataset=birds.yaml store=photos", 3, "photos holds other things, such as train/"),
    ("wsolpipe run stage=index dataset=birds.yaml store=.", 3, "name a new or empty folder with store="),
    ("wsolpipe push store=labels to=photos", 3, "photos holds other things, such as train/"),
    ("wsolpipe pull from=labels store=photos", 3, "photos holds other things, such as train/"),
    ("wsolpipe run stage=index dataset=birds.yaml store=", 3, "store= is empty\n  -> name a folder or URL, or leave s"),
    ("wsolpipe status store=", 3, "leave store= out for $WSOLPIPE_STORE, else wsol-store"),
    ("wsoltrain fit recipe=cam dataset=birds.yaml store=", 3, "store= is empty"),
    ("wsolpipe push store=labels to=", 3, "to= is empty"),
    (f"wsolpipe run stage=index {MINE} split=", 3, "leave split= out for all splits"),
    ("wsolpipe status store=tables", 3, "did you mean 'labels'?"),
    ("wsolpipe status store=table.cv", 3, "no store at table.cv: the folder is missing or empty\n"),
    (f"wsolpipe eval stage=cls_maps {MINE.replace('labels', 'lables')}", 3, "did you mean 'labels'?"),
    (f"wsolpipe run stage=cls_maps {MINE} profile.time=1:00", 3, "add cluster=slurm or cluster=slurm-array"),
    # checkpoints
    ("wsoltrain predict checkpoint=MISSING source=photos", 3, "no checkpoint at MISSING\n  -> name a run's folder"),
    (f"wsoltrain eval checkpoint=lables {MINE}", 3, "no checkpoint at lables"),
    ("wsoltrain export checkpoint=MISSING out=x", 3, "no checkpoint at MISSING"),
    (f"wsolpipe run stage=cls_map {MINE}", 3, "did you mean 'cls_maps'"),
    ("wsolpipe run stage=cls_maps datset=birds.yaml", 3, "did you mean 'dataset'"),
    ("wsolpipe run stage=cls_maps dataset=brids.yaml", 3, "did you mean 'birds.yaml'"),
    (f"wsolpipe run stage=cls_maps {MINE} split=vall", 3, "did you mean 'val'"),
    (f"wsolpipe run stage=cls_maps {MINE} limt=50", 3, "did you mean 'limit'"),
    (f"wsolpipe run stage=cls_maps {MINE} limit=fifty", 3, "limit=fifty: expected integer, at least 1"),
    (f"wsolpipe run stage=cls_maps {MINE} limit=5 limit=6", 3, "limit= is given twice"),
    (f"wsolpipe run stage=cls_maps {MINE} cls_maps.blokcs=8-11", 3, "did you mean 'blocks'"),
    (f"wsolpipe run stage=cls_maps {MINE} cls_maps.scale=logg", 3, "'linear', 'sqrt', 'log', 'power' or 'auto'"),
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
    ("wsolpipe push store=labels to=ftp://there", 3, "unknown store scheme 'ftp'"),
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
    ("wsoltrain predict checkpoint=runs/none source=photos", 3, "the out= of wsoltrain fit"),
    ("wsoltrain predict source=photos", 3, "add checkpoint="),
    ("wsoltrain report runs=runs/none", 3, "the out= of wsoltrain fit"),
    # a folder where a file is meant, a file where a folder is, the name of something else
    ("wsolpipe run stage=cls_maps dataset=photos store=labels", 3, "write these lines into photos.yaml"),
    ("wsolpipe run stage=cls_maps dataset=./photos store=labels", 3, "split: {train: train, val: val}"),
    ("wsolpipe run stage=cls_maps dataset=birds store=labels", 3, "-> dataset=birds.yaml"),
    ("wsolpipe run stage=cls_maps dataset=photos/val/cat/c.jpg", 3, "takes a YAML file that describes a data set"),
    ("wsolpipe run stage=cls_maps dataset=five.yaml store=labels", 3, "root: expected a path, not 5"),
    ("wsolpipe run stage=cls_maps dataset=listed.yaml store=labels", 3, "write split: train, or each split with its"),
    ("wsolpipe run stage=cls_maps dataset=birds.yaml store=birds.yaml", 3, "birds.yaml is a file, and a store is a fo"),
    ("wsolpipe push store=birds.yaml to=there", 3, "birds.yaml is a file, and a store is a folder"),
    ("wsolpipe push store=labels to=birds.yaml", 3, "birds.yaml is a file, and a store is a folder"),
    ("wsolpipe verify store=lables", 3, "did you mean 'labels'"),
    ("wsolpipe verify store=photos", 3, "the folder holds nothing that a stage made"),
    ("wsolpipe status store=photos", 3, "name another with store="),
    ("wsolpipe push store=photos to=there", 3, "photos is not a store"),
    ("wsolpipe explain 0123 4567 store=lables", 3, "did you mean 'labels'"),
    (f"wsolpipe quarantine list {MINE.replace('labels', 'lables')}", 3, "did you mean 'labels'"),
    (f"wsolpipe run stage=cls_maps {MINE} stages=birds.yaml", 3, "birds.yaml does not describe stages"),
    (f"wsolpipe eval stage=cls_maps {MADE} plots=birds.yaml", 3, "plots=birds.yaml cannot be written: file exists"),
    (f"wsolpipe eval stage=cls_maps {MADE} csv=photos", 3, "csv=photos cannot be written: is a directory"),
    (f"wsolpipe eval stage=cls_maps {MADE} against=photos", 3, "for val/cat/c.jpg one would be photos/val/cat/c.png"),
    ("wsoltrain select runs=labels", 3, "labels is a store of labels, not a folder of training runs"),
    ("wsoltrain report runs=labels/birds", 3, "labels is a store of labels, not a folder of training runs"),
    ("wsolpipe eval runs=labels", 3, "runs= takes the folder that wsoltrain fit wrote"),
    ("wsoltrain predict checkpoint=photos source=photos", 3, "name the folder of a finished training"),
    ("wsoltrain fit recipe=cam dataset=photos", 3, "write these lines into photos.yaml"),
    ("wsoltrain fit recipe=cam dataset=birds.yaml store=photos", 3, "photos is not a store"),
    (f"wsoltrain compare recipes=cam {MINE.replace('labels', 'lables')}", 3, "did you mean 'labels'"),
    # keys
    (f"wsolpipe run stage=cls_maps {MINE} foo=", 3, "unknown key 'foo'\n  -> the same command with --help lists"),
    (f"wsolpipe run stage=cls_maps {MINE} size=448", 3, "a parameter follows its stage: cls_maps.size="),
    (f"wsolpipe run stage=cls_maps {MINE} cls_maps=448", 3, "cls_maps.PARAMETER= sets a parameter of it"),
    (f"wsolpipe run stage=cls_maps {MINE} cls_maps.=448", 3, "cls_maps.=: a name is missing beside a dot"),
    (f"wsolpipe run stage=cls_maps {MINE} cls_maps.size=", 3, "cls_maps.size=null: expected a whole number"),
    (f"wsolpipe run stage=cls_maps {MINE} rows=5000:6000", 3, "holds none of the 2 images of split train of birds"),
    (f"wsolpipe run stage=cls_maps {MINE} {TINY.replace('vit_tiny_patch16_224', 'resnet18')}", 3,
     "cls_maps.model=resnet18 gives no class-token maps: it is not a vision transformer"),
    ("wsoltrain fit", 3, "wsoltrain: fit needs dataset="),
    # what there is not, or not yet
    (f"wsolpipe eval stage=cls_maps {MADE} key=1234", 3, "write how one of these keys begins"),
    (f"wsolpipe eval stage=cls_maps {MADE} beside=zzzz", 3, "zzzz is neither a stage nor how a key of cls_maps begins"),
    (f"wsolpipe eval stage=cls_maps {MADE} beside=segment", 3, "did you mean 'segments'"),
    (f"wsolpipe eval stage=cls_maps {MADE} tau_from=truth tau_split=vall", 3, "did you mean 'val'"),
    ("wsolpipe eval stage=index dataset=birds.yaml store=maps", 3, "index lists the images of a data set"),
    (f"wsolpipe report {MADE} beside=zzzz", 3, "zzzz is neither a stage nor how a key of cls_maps begins"),
    (f"wsolpipe report {MADE} beside=segments", 3,
     "no segments under maps/birds/val\n  -> wsolpipe run stage=segments dataset=birds.yaml split=val store=maps m"),
    (f"wsolpipe eval stage=proposals {MADE}", 3, "run stage=proposals dataset=birds.yaml split=val store=maps"),
    (f"wsoltrain fit recipe=dips {MINE} batch=2", 3,
     "wsolpipe run stage=proposals dataset=birds.yaml split=train store=labels makes it"),
    (f"wsoltrain fit recipe=fcam {MINE} root=photos batch=2", 3,
     "wsolpipe run stage=cams dataset=birds.yaml root=photos split=train store=labels makes it"),
    (f"wsoltrain fit recipe=cam {MINE} batch=2 by=proposls", 3,
     "no stage 'proposls' under labels/birds/val; did you mean 'proposals'?\n  -> wsolpipe stages lists"),
    (f"wsoltrain fit recipe=dips {MINE} batch=2 boxes=null maps=nomaps", 3, "no stage 'nomaps' under labels/birds"),
    (f"wsoltrain fit recipe=cam {MINE} split=tran", 3, "no split 'tran' of birds in store labels; it holds: train"),
    (f"wsoltrain fit recipe=cam {MINE} batch=2 by=gt", 3, "by=cls by the accuracy of the classes"),
    (f"wsoltrain fit recipe=cam {MINE} batch=2 by=cls backbone=resnt50", 3, "Near: resnet50"),
    (f"wsoltrain fit recipe=cam {MINE} batch=2 by=cls backbone=resnet18 weights=random:0 out=birds.yaml", 3,
     "name another place with out="),
    (f"wsoltrain preview {MINE} maps=nomaps boxes=", 3, "wsolpipe stages lists the stages that there are"),
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
