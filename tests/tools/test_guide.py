"""The commands of the guide run as they are written, on small data; of the few that do not, the words are checked."""

from __future__ import annotations

import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import wsolpipe
import wsolpipe.cli.main
import wsoltrain.cli.main
from guide_blocks import blocks, commands, pages
from guide_reader import DEMO, fill, keys_of, typed
from wsolpipe.engine.config import build_config
from wsolpipe.images.dataset import load_dataset
from wsolpipe.keys.console import call
from wsolpipe.launch.profiles import load_profile
from wsolpipe.stages.registry import load_registry
from wsoltrain.papers.table import load_table

PROGRAMS = {"wsolpipe": wsolpipe.cli.main.cli, "wsoltrain": wsoltrain.cli.main.cli}
#: Pages in the order in which they are typed, in one folder for each group: what one makes, the next ones read.
ORDER = {
    "birds": ("README", "first-hour", "costs", "report", "training", "running", "validation-boxes", "refining",
              "clip-maps", "selecting", "scoring", "self-supervised", "sharing", "formats", "correcting", "keeping"),
    "demo": ("index", "demo", "README", "tedloc", "comparing", "training", "video", "clip-maps", "selecting"),
}  # fmt: skip
#: Commands that a page takes to be done, before its own.
BEFORE = {
    ("birds", "README"): ["wsolpipe run stage=cams dataset=birds.yaml store=labels"],
    ("birds", "selecting"): [
        "wsoltrain search recipe=has dataset=birds.yaml store=labels by=gt configurations=12 test=test",
    ],
    ("birds", "scoring"): [
        "wsolpipe export stage=cls_maps dataset=birds.yaml store=labels split=test format=npy out=scores"
    ],
    ("demo", "index"): ["wsolpipe run stage=proposals,cams,clip_cams,text_anchors dataset=demo store=labels"],
    ("demo", "selecting"): ["wsolpipe run stage=val_masks dataset=glas store=labels"],
}  # fmt: skip
OF_DEMO = re.compile(r"dataset=(demo|cub|glas)|stores/demo|runs/(clips|tedloc|dips-demo|cam-glas)")
#: Lines that are not run, and why; test_docs holds the words of all lines against the tables of keys.
LEFT = {
    "make *": "installs, or runs the whole suite",
    ". .venv/*": "a shell's own",
    "eval *": "a shell's own",
    "_WSOLPIPE_COMPLETE=*": "a shell's own",
    "wsolpipe serve *": "goes on until Control-C; tests/report/test_serve.py runs it",
    "dask *": "a program of another package, and a cluster; tests/launch runs one",
    "torchrun *": "several processes; tests/wsoltrain/training/test_parallel.py runs them",
    "*workers=[0-9]*": "several processes; tests/launch runs them",
    "*cluster=*": "a cluster, or sixteen trainings; tests/launch and tests/e2e run some",
    "*table=*": "a process for each of many trainings; tests/wsoltrain/cli/test_reproduce.py runs some",
    "wsoltrain export *": "half a minute of tracing; tests/wsoltrain/inference/test_use.py runs it",
}
QUICK = {"epochs": "1", "batch": "4", "workers": "0", "device": "cpu"}
"""Words that are added where they are not given."""
TRAINS = ("fit", "search", "ceiling", "compare")


def name_of(page: str) -> str:
    return Path(page).stem


def reason(line: str) -> str | None:
    """Why a line is not run."""
    return next((why for pattern, why in LEFT.items() if fnmatch(line.replace("'", ""), pattern)), None)


def of_programs() -> list[tuple[str, str, str]]:
    """(group, name of the page, line) of every line that calls one of the programs."""
    lines = [(name_of(page), line) for page in pages() for line in commands(page) if line.split()[0] in PROGRAMS]
    return [("demo" if OF_DEMO.search(line) else "birds", page, line) for page, line in lines]


def lines_of(group: str) -> list[str]:
    """What is typed in a group, each line once, in the order of its pages."""
    found = []
    for page in ORDER[group]:
        found += BEFORE.get((group, page), [])
        found += [line for *place, line in of_programs() if place == [group, page] and reason(line) is None]
    return list(dict.fromkeys(found))


def run(program: str, words: list[str]) -> int:
    """Exit code of a command line, run in this process."""
    try:
        return call(PROGRAMS[program], program, words)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.fixture(scope="session")
def reader_folder(tmp_path_factory):
    """Folders of readers, made when they are asked for, each filled once and left as its last user leaves it."""
    made = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            fill(made[name])
        return made[name]

    return folder


@pytest.fixture
def at_home(reader_folder, monkeypatch):
    """Go to the folder of a group's reader."""

    def go(group: str) -> Path:
        home = reader_folder(group)
        monkeypatch.chdir(home)
        for name in ("BIRDS", "CUB"):
            monkeypatch.setenv(f"WSOLPIPE_{name}_ROOT", str(DEMO / "images"))
        monkeypatch.setenv("WSOLPIPE_STORE", "labels")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        return home

    return go


@pytest.fixture
def home(at_home):
    """The folder of the reader of birds.yaml, with maps and boxes in its store."""
    folder = at_home("birds")
    assert run("wsolpipe", ["run", "stage=proposals", "dataset=birds.yaml", "store=labels"]) == 0
    return folder


def test_every_line_is_run_or_left_for_a_reason_that_still_holds():
    run_lines = {line for group in ORDER for line in lines_of(group)}
    assert [line for *_, line in of_programs() if line not in run_lines and reason(line) is None] == []
    every = [line.replace("'", "") for page in pages() for line in commands(page)]
    assert [pattern for pattern in LEFT if not any(fnmatch(line, pattern) for line in every)] == []
    assert len(run_lines) >= 95
    assert len({line for *_, line in of_programs() if reason(line)}) <= 20


def test_blocks_that_are_indented_are_seen_and_lines_of_lists_are_not(tmp_path, monkeypatch):
    fenced = "```sh\nwsolpipe run \\\n    stage=a\n```\n"
    (tmp_path / "page.md").write_text(
        f"text\n\n    wsolpipe ls  # here\n    wsolpipe gc\n\n{fenced}- item\n    goes on\n"
    )
    monkeypatch.setattr("guide_blocks.ROOT", tmp_path)
    assert commands("page.md") == ["wsolpipe ls", "wsolpipe gc", "wsolpipe run stage=a"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("group", ORDER)
def test_the_commands_run_as_they_are_written(group, at_home, capsys):
    """One after the other in one folder, as the guide's reader types them."""
    home = at_home(group)
    for line in lines_of(group):
        stage = "val_boxes" if "val_boxes@" in line else "cls_maps"
        program, command, *words = shlex.split(typed(line, keys_of(home / "labels", stage)))
        if program == "wsoltrain" and command in (*TRAINS, "eval"):
            quick = QUICK if command in TRAINS else {"workers": "0"}
            words += [
                f"{name}={value}" for name, value in quick.items() if not any(w.startswith(f"{name}=") for w in words)
            ]
        code = run(program, [command, *words])
        printed = capsys.readouterr()
        assert code == 0, f"{line}: {printed.err}"
        assert printed.out.strip() or printed.err.strip(), line


def read_dataset(path: str) -> None:
    load_dataset(path, need_root=False)


def read_profile(path: str) -> None:
    config, _ = build_config(["stage=cams", "dataset=birds.yaml", f"profiles={path}"], load_registry())
    load_profile(config)


def plan_words(path: str) -> None:
    assert run("wsolpipe", ["plan", f"config={path}", "store=labels"]) == 0


def plan_own_stage(path: str) -> None:
    assert run("wsolpipe", ["plan", *own_stage(path)]) == 0


#: What reads the YAML of a page; one that is not named here must not hold any.
READERS = {
    "README.md": read_dataset,
    "docs/guide/first-hour.md": read_dataset,
    "docs/guide/video.md": read_dataset,
    "docs/guide/formats.md": read_dataset,
    "docs/guide/tables.md": load_table,
    "docs/guide/clusters.md": read_profile,
    "docs/guide/running.md": plan_words,
    "CONTRIBUTING.md": plan_own_stage,
}


def own_stage(stages: object) -> list[str]:
    return ["stage=brightness", "dataset=birds.yaml", "store=brightness", f"stages={stages}"]


def labelled(kind: str) -> list[tuple[str, str]]:
    every = ("CONTRIBUTING.md", *pages())
    return [(page, text) for page in every for label, text in blocks(page) if label == kind]


@pytest.mark.parametrize(("page", "text"), labelled("yaml"), ids=lambda value: value if value.endswith(".md") else "")
def test_the_product_takes_the_yaml_of_the_guide(at_home, tmp_path, monkeypatch, page, text):
    at_home("birds")
    monkeypatch.syspath_prepend(tmp_path)
    write_own_stage(tmp_path)
    (tmp_path / "given.yaml").write_text(text)
    READERS[page](str(tmp_path / "given.yaml"))


def write_own_stage(folder: Path) -> Path:
    """The stage of CONTRIBUTING as a package below `folder`; its YAML."""
    package = folder / "mystages"
    package.mkdir()
    page = blocks("CONTRIBUTING.md")
    (package / "brightness.py").write_text(next(text for kind, text in page if kind == "python"))
    (package / "stages.yaml").write_text(next(text for kind, text in page if kind == "yaml"))
    return package / "stages.yaml"


@pytest.mark.usefixtures("home")
def test_the_stage_of_contributing_runs(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    assert run("wsolpipe", ["run", *own_stage(write_own_stage(tmp_path))]) == 0
    view = wsolpipe.open_store("brightness")["birds"]["train"]["brightness"]
    with Image.open(DEMO / "images" / "train" / "butterfly" / "000.jpg") as image:
        assert view["mean"][0] == pytest.approx(np.asarray(image.convert("RGB")).mean(), rel=1e-5)


@pytest.mark.usefixtures("home")
def test_the_python_of_the_guide_reads_labels():
    ((_, text),) = [found for found in labelled("python") if found[0] == "docs/guide/sharing.md"]
    names = {}
    exec(compile(text, "sharing.md", "exec"), names)
    boxes = names["boxes"]
    assert boxes.shape[::2] == (6, 4)
    assert boxes.dtype == np.float32
    assert np.isfinite(boxes[:, 0]).all()
