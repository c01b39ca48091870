"""A package of each kind from outside works as what is built in: in commands, several workers, help and errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HERE = Path(__file__).parent
LONGEST = {"method": 60, "stage": 60, "layout": 40, "backend": 100, "format": 50, "figure": 40}
LABELS = "dataset=letters.yaml store=sqlite:///{folder}/labels.db"
LINES = {
    "made": f"wsolpipe run stage=luminance {LABELS} workers=2 shard_rows=4 --json",
    "verified": f"wsolpipe verify {LABELS} --json",
    "exported": f"wsolpipe export stage=luminance {LABELS} format=lines out=lines --json",
    "imported": f"wsolpipe import in=lines format=lines {LABELS} --json",
    "scored": f"wsolpipe eval stage=luminance {LABELS} against=luminance --json",
    "stages": "wsolpipe stages",
    "glossary": "wsolpipe eval glossary=true",
    "help of a stage": "wsolpipe run stage=luminance --help",
    "help of formats": "wsolpipe export --help",
    "help of a method": "wsoltrain fit recipe=hiding.yaml --help",
    "stage": "wsolpipe run stage=luminence dataset=letters.yaml store=x",
    "layout": "wsolpipe run stage=index dataset=layout.yaml store=x",
    "scheme": "wsolpipe run stage=index dataset=letters.yaml store=sqlit:///x.db",
    "format": "wsolpipe export stage=luminance dataset=letters.yaml store=x format=line",
    "method": "wsoltrain fit recipe=method.yaml dataset=letters.yaml store=x",
    "complete wsolpipe run stage=lum": "",
    "complete wsolpipe export format=li": "",
}
DRIVER = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
import wsolpipe.cli.main, wsoltrain.cli.main
from click.shell_completion import ShellComplete
from wsolpipe.keys.console import call

programs = {"wsolpipe": wsolpipe.cli.main.cli, "wsoltrain": wsoltrain.cli.main.cli}
found = {}
for name, line in json.load(sys.stdin).items():
    out, err = io.StringIO(), io.StringIO()
    if name.startswith("complete"):
        _, program, *words, last = name.split()
        shell = ShellComplete(programs[program], {}, program, f"_{program.upper()}_COMPLETE")
        found[name] = [0, " ".join(item.value for item in shell.get_completions(words, last)), ""]
        continue
    program, *words = line.split()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = call(programs[program], program, words)
        except SystemExit as ended:
            code = ended.code or 0
    found[name] = [code, out.getvalue(), err.getvalue()]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def said(outside, tmp_path_factory):
    """Exit code, output and messages of each of `LINES`, typed one after the other where the packages are installed."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "images").mkdir()
    for name in [f"{letter}{number}" for letter in "abc" for number in range(4)]:
        pixels = np.zeros((40, 40, 3), np.uint8)
        pixels[10 : 30 - 2 * "abc".index(name[0]), 10:30] = 200
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    for name, layout in (("letters", "initial"), ("layout", "initials")):
        (folder / f"{name}.yaml").write_text(f"name: letters\nlayout: {layout}\nroot: images\n")
    for name, method in (("hiding", "hiding"), ("method", "hidin")):
        (folder / f"{name}.yaml").write_text(f"method: {method}\nsize: 32\n")
    paths = f"{outside}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    settings = {"cwd": folder, "env": {**os.environ, "PYTHONPATH": paths}, "text": True, "capture_output": True}
    lines = {name: line.format(folder=folder) for name, line in LINES.items()}
    command = [sys.executable, "-m", "wsolpipe.cli.main", *lines.pop("made").split()[1:]]
    made = subprocess.run(command, **settings, timeout=250)
    done = subprocess.run([sys.executable, "-c", DRIVER], **settings, input=json.dumps(lines), timeout=250)
    assert done.returncode == 0, done.stderr
    return {"made": (made.returncode, made.stdout, made.stderr), **json.loads(done.stdout.splitlines()[-1])}


@pytest.fixture
def answer(said):
    """From the name of a line to the JSON that it printed."""

    def read(name):
        code, out, err = said[name]
        assert code == 0, err
        return json.loads(out)

    return read


@pytest.mark.parametrize("kind", LONGEST)
def test_a_package_of_each_kind_is_short(kind):
    (module,) = [*HERE.glob(f"{kind}/*.py"), *HERE.glob(f"{kind}/*/*.py")]
    assert len(module.read_text().splitlines()) <= LONGEST[kind]


def test_two_workers_run_a_stage_on_a_layout_into_a_backend_of_other_packages(answer):
    line = next(line for line in answer("made")["stages"] if line["stage"] == "luminance")
    assert (line["done"], line["shards_done"], line["quarantined"]) == (12, 3, 0)
    assert not answer("verified")["problems"]


def test_boxes_leave_and_come_back_in_a_format_of_another_package(answer):
    assert answer("exported")
    assert answer("imported")


def test_eval_shows_a_figure_of_another_package(answer):
    assert answer("scored")["contrast"] > 0.2


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("stages", "luminance"),
        ("help of a stage", "Cells along each side of the map"),
        ("help of formats", "lines"),
        ("glossary", "middle quarter"),
        ("help of a method", "Side of the hidden cell"),
        ("complete wsolpipe run stage=lum", "luminance"),
        ("complete wsolpipe export format=li", "lines"),
    ],
)
def test_help_and_completion_show_what_other_packages_declare(said, name, shown):
    code, out, err = said[name]
    assert code == 0, err
    assert shown in " ".join(out.split())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stage", "did you mean 'luminance'"),
        ("layout", "unknown layout 'initials'; did you mean 'initial'"),
        ("scheme", "unknown store scheme 'sqlit'; did you mean 'sqlite'"),
        ("format", "did you mean 'lines'"),
        ("method", "did you mean 'hiding'"),
    ],
)
def test_an_error_names_the_nearest_of_another_package(said, name, message):
    code, _, err = said[name]
    assert code == 3
    assert message in err
