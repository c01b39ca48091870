"""A stage of somebody else's package runs, resumes and is scored without a change to the engine."""

from __future__ import annotations

import json
import subprocess
import sys

from e2e.toy import object_bytes


def test_a_stage_file_of_the_users_own_runs_and_resumes(toy):
    first = toy.run()
    assert first.code == 0, first.err
    assert first.line("frame") == {
        "stage": "frame", "split": "train", "key": first.line("frame")["key"], "rows": 40, "done": 40, "quarantined": 0,
        "shards": 3, "shards_done": 3, "seconds": first.line("frame")["seconds"],
    }  # fmt: skip
    before, calls = object_bytes(toy.store), len(toy.calls())
    again = toy.run()
    assert again.code == 0
    assert len(toy.calls()) == calls
    assert object_bytes(toy.store) == before


def test_what_it_made_is_read_by_name(toy):
    assert toy.run("limit=20").code == 0
    code = (
        "import wsolpipe; stage = wsolpipe.open_store('store')['toy']['train']['frame'];"
        "print(stage['boxes'][:].shape, stage.rows().tolist() == list(range(20)), stage.manifest.params)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=toy.folder, check=True)
    assert done.stdout.strip() == "(20, 3, 4) True {'spread': 1.0}"


def test_its_boxes_are_scored(toy):
    """`eval` knows boxes by their array, not by the name of a stage."""
    truth = [f"{path.relative_to(toy.images).as_posix()},2,2,20,20\n" for path in sorted(toy.images.rglob("*.png"))]
    meta = toy.folder / "meta" / "train"
    meta.mkdir(parents=True)
    ids = [line.split(",")[0] for line in truth]
    (meta / "image_ids.txt").write_text("".join(f"{name}\n" for name in ids))
    (meta / "class_labels.txt").write_text("".join(f"{name},{name[5]}\n" for name in ids))
    (meta / "localization.txt").write_text("".join(truth))
    toy.yaml.write_text(
        "name: toy\nlayout: metadata\nroot: images\nmetadata: meta\nsplit: {train: train}\n"
        "files: {image_sizes: null}\nclasses: 3\n"
    )
    assert toy.run().code == 0
    scored = toy.call("eval")
    assert scored.code == 0, scored.err
    assert scored.json["rows"] == 40
    assert 0 < scored.json["iou_top1"] < 1


def test_a_stage_of_an_installed_package_is_found_by_its_entry_point(toy):
    info = toy.folder / "package" / "toy_stages-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-stages\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[wsolpipe.stages]\ntoy = toy_stages:stages\n")
    words = [word for word in toy.command("run", "limit=8") if not word.startswith("stages=")]
    done = subprocess.run([*words, "--json"], env=toy.env(), capture_output=True, text=True, cwd=toy.folder)
    assert done.returncode == 0, done.stderr
    assert {item["stage"] for item in json.loads(done.stdout)["stages"]} == {"index", "shade", "palette", "frame"}


def test_a_name_that_is_taken_is_refused(toy):
    toy.stages.write_text(toy.stages.read_text().replace("frame:\n", "proposals:\n", 1))
    done = toy.run(stage="proposals")
    assert done.code == 3
    assert "stage 'proposals'" in done.err
    assert "already defined" in done.err
