"""Every wrong input: the right exit code, one clear line, no traceback, nothing written."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from wsolpipe.contract.schema import SCHEMA_VERSION


def refused(done, code, *told):
    """Check that a command refused in plain words."""
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    for words in told:
        assert words in done.err, done.err
    return done


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("storr=x", ["unknown key 'storr'; did you mean 'store'?", "the same command with --help lists its keys"]),
        ("stage=fame", ["unknown stage 'fame'; did you mean 'frame'", "proposals"]),
        ("dataset=deom", ["unknown data set 'deom'; did you mean 'demo'"]),
        ("dataset=no/such.yaml", ["no data set description", "no/such.yaml"]),
        ("cluster=slurmm", ["unknown cluster 'slurmm'", "dask-local"]),
        ("frame.spred=2", ["unknown parameter of stage frame 'spred'; did you mean 'spread'"]),
        ("fram.spread=2", ["unknown stage 'fram'; did you mean 'frame'"]),
        ("frame.spread=wide", ["frame.spread=wide", "number"]),
        ("workers=two", ["workers=two: expected integer"]),
        ("split=tarin", ["unknown split of toy 'tarin'; did you mean 'train'"]),
        ("rows=5", ["rows=start:stop"]),
        ("rows=10:5", ["rows=10:5 holds no row"]),
        ("store=gopher://x", ["scheme 'gopher'"]),
        ("stages=none.yaml", ["cannot read none.yaml"]),
        ("nonsense", ["'nonsense' is not of the form key=value"]),
        ("stage=", ["no stage named"]),
    ],
)
def test_a_wrong_word_is_refused_before_anything_is_written(toy, word, told):
    for command in ("run", "plan"):
        done = refused(toy.refuse(command, word), 3, *told)
        assert done.err.startswith("wsolpipe: ") or "resume with" in done.err
    assert not toy.store.exists()


LONG = "a" * 5000


@pytest.mark.parametrize(
    "word",
    [
        f"dataset={LONG}", f"dataset={LONG}.yaml", f"stage={LONG}", f"split={LONG}", f"root={LONG}", f"stages={LONG}",
        f"store={LONG}", f"rows={LONG}", f"cluster={LONG}", f"profiles={LONG}", f"shade.weights=/{LONG}",
        f"shade.{LONG}=1", f"{LONG}.x=1", f"{LONG}=1", LONG, "workers=" + "9" * 5000, "shade.gain=" + "9" * 5000,
    ],
    ids=lambda word: word[:14],
)  # fmt: skip
def test_a_name_of_thousands_of_letters_is_refused_in_a_short_line(toy, word):
    done = refused(toy.refuse("run", word), 3)
    assert len(done.err.splitlines()[0]) < 1000


def test_an_unknown_command_names_the_nearest(toy):
    refused(toy.refuse("rum"), 3, "unknown command 'rum'; did you mean 'run'")


def test_a_missing_root_says_what_was_looked_for_and_how_it_should_look(toy):
    toy.yaml.write_text(toy.yaml.read_text().replace("root: images", "root: pictures"))
    refused(toy.run(), 3, f"no folder {toy.folder}/pictures", "layout looks like this", "WSOLPIPE_TOY_ROOT", "root=")
    assert not toy.store.exists()
    assert toy.run("limit=2", f"root={toy.images}").code == 0
    assert toy.run("limit=3", WSOLPIPE_TOY_ROOT=str(toy.images)).code == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: [", "is not valid YAML"),
        ("- a\n- b\n", "is not a mapping"),
        ("name: toy\nlayout: foldr\nroot: images\n", "did you mean 'folder'"),
        ("name: toy\nlayout: folder\nroot: images\nmaks: x\n", "'maks'; did you mean 'masks'"),
        ("layout: folder\nroot: images\n", "missing key 'name'"),
        ("name: ../toy\nlayout: folder\nroot: images\n", "cannot name a folder"),
        ("name: toy\nlayout: folder\nroot: images\nstages: {fram: {spread: 1}}\n", "unknown stage 'fram'"),
        ("name: toy\nlayout: folder\nroot: images\nsplit: {train: trainn}\n", "trainn"),
    ],
)
def test_a_wrong_data_set_description_is_refused(toy, text, told):
    toy.yaml.write_text(text)
    refused(toy.refuse("run"), 3, told)
    assert not toy.store.exists()


def describe(toy, **files):
    """The toy images by metadata files, some of them replaced."""
    ids = sorted(path.relative_to(toy.images).as_posix() for path in toy.images.rglob("*.png"))[:4]
    meta = toy.folder / "meta" / "train"
    meta.mkdir(parents=True, exist_ok=True)
    base = {
        "image_ids": "".join(f"{name}\n" for name in ids),
        "class_labels": "".join(f"{name},0\n" for name in ids),
        "localization": "".join(f"{name},1,1,9,9\n" for name in ids),
    }
    for name, text in {**base, **files}.items():
        (meta / f"{name}.txt").write_text(text(base[name]) if callable(text) else text)
    sizes = "" if "image_sizes" in files else "files: {image_sizes: null}\n"
    toy.yaml.write_text(
        f"name: toy\nlayout: metadata\nroot: images\nmetadata: meta\nsplit: {{train: train}}\nclasses: 3\n{sizes}"
    )


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"class_labels": lambda text: text.replace(",0\n", ",7\n", 1)}, ["class_labels.txt:1", "7"]),
        ({"image_ids": lambda text: text + text.splitlines()[1] + "\n"}, ["image_ids.txt:5", "image003.png"]),
        (
            {"localization": lambda text: text.replace("1,1,9,9", "500,500,600,600", 1)},
            ["localization.txt:1", "outside"],
        ),
        ({"localization": lambda text: text.replace("1,1,9,9", "1,1,nine,9", 1)}, ["localization.txt:1", "nine"]),
        ({"localization": lambda text: "class9/none.png,1,1,9,9\n"}, ["localization.txt:1", "none.png"]),
        ({"image_sizes": "class0/image000.png,999,999\n"}, ["image_sizes.txt:1", "999"]),
        ({"class_labels": lambda text: text.split("\n", 1)[1]}, ["image000.png"]),
    ],
    ids=["label", "duplicate", "outside", "number", "unknown image", "size", "no label"],
)
def test_metadata_that_contradicts_itself_or_the_files_is_refused_with_file_and_line(toy, files, told):
    describe(toy, **files)
    refused(toy.refuse("run"), 3, *told)


def test_a_box_partly_outside_is_clipped_and_counted(toy):
    describe(toy, localization=lambda text: text.replace("1,1,9,9", "1,1,5000,9", 1))
    assert toy.run(stage="index").code == 0
    (manifest,) = toy.store.glob("toy/train/index/*/manifest.json")
    assert json.loads(manifest.read_bytes())["clipped_boxes"] == 1


def test_a_store_of_a_newer_schema_is_refused_with_the_versions(toy):
    assert toy.run("limit=4", stage="shade").code == 0
    (path,) = toy.store.glob("toy/train/shade/*/manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "schema_version": SCHEMA_VERSION + 1}))
    for command in ("run", "plan", "status"):
        refused(
            toy.call(command, "limit=4", stage="shade"), 4,
            f"schema {SCHEMA_VERSION + 1}", f"up to schema {SCHEMA_VERSION}", "upgrade",
        )  # fmt: skip


def test_weights_of_another_architecture_name_the_first_keys(toy):
    path = toy.folder / "other.safetensors"
    save_file({"layers.0.kernel": np.zeros(3, np.float32)}, path)
    done = toy.refuse(
        "run", "cls_maps.model=vit_tiny_patch16_224", f"cls_maps.weights={path}", "cls_maps.mean=0.5",
        "cls_maps.std=0.5", "limit=2", stage="cls_maps",
    )  # fmt: skip
    refused(done, 3, "layers.0.kernel", "cls_token")


def test_weights_that_are_missing_or_no_weights_are_refused(toy):
    missing = toy.run("shade.weights=nowhere/w.safetensors", stage="shade")
    refused(missing, 3, "no weights file at nowhere/w.safetensors")
    refused(toy.run(f"shade.weights={toy.yaml}", stage="shade"), 3, "not weights")


def test_a_status_of_no_store_says_so(toy):
    refused(toy.call("status"), 3, "no store at")


def test_a_traceback_is_shown_only_where_it_was_asked_for(toy):
    import subprocess

    done = subprocess.run([*toy.command("run", "storr=x"), "--debug"], env=toy.env(), capture_output=True, text=True)
    assert "Traceback" in done.stderr
