"""The commands of the guide run as they are written, on a few images; those that do not are left out for a reason."""

from __future__ import annotations

import re
import shlex
import shutil
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import wsolpipe
import wsolpipe.cli.main
import wsoltrain.cli.main
from wsolpipe.engine.config import build_config
from wsolpipe.images.dataset import load_dataset
from wsolpipe.keys.console import call
from wsolpipe.launch.profiles import load_profile
from wsolpipe.stages.registry import load_registry
from wsoltrain.selection.paper_tables import load_table

ROOT = Path(__file__).parents[2]
PROGRAMS = {"wsolpipe": wsolpipe.cli.main.cli, "wsoltrain": wsoltrain.cli.main.cli}
BLOCK = re.compile(r"(?ms)^```(\w*)\n(.*?)^```")
#: Pages whose commands are run, in this order in one folder: what one makes, the next ones read.
RUN = ("README.md", "guide/first-hour.md", "guide/costs.md", "guide/running.md", "guide/report.md", "guide/scoring.md",
       "guide/training.md", "guide/validation-boxes.md", "guide/keeping.md")  # fmt: skip
#: Lines that are not run, and why; their words are checked by test_docs.
LEFT = {
    "make *": "installs, or runs the whole suite",
    ". .venv/*": "a shell's own",
    "eval *": "a shell's own",
    "_WSOLPIPE_COMPLETE=*": "a shell's own",
    "torchrun *": "several processes; tests/wsoltrain/training/test_parallel.py runs them",
    "dask *": "a cluster; tests/launch runs one",
    "*cluster=*": "a cluster; tests/launch and tests/e2e run some",
    "*workers=[0-9]*": "several processes; tests/launch runs them",
    "*dataset=demo*": "minutes; the demo itself runs them",
    "*table=*": "minutes; tests/wsoltrain/cli/test_reproduce.py runs some",
    "*stores/demo*": "minutes; make demo runs them",
    "*dataset=cub*": "its images are not shipped",
    "*dataset=glas*": "its images are not shipped",
    "*film.mp4*": "a film of the reader's; tests/wsoltrain/inference/test_films.py makes one",
    "*dataset=demo_video*": "minutes; tests/tools/test_demo_clips.py runs them",
    "*s3://*": "a bucket; tests/e2e/test_object_stores.py runs one",
    "*KEY_A*": "names the reader's keys",
    "*drop=3fa9*": "names the reader's key",
    "*@1f2e*": "names the reader's keys",
    "*runs=FOLDER*": "names the reader's folder",
    "*maps=scores*": "maps of the reader's own; tests/e2e/test_eval.py makes some",
    "*split=test*": "birds.yaml has no such split",
    "*refine*": "minutes; tests/stages/test_refine.py runs them",
    "*clip_cams*": "weights that are not shipped; tests/stages/test_clip_cams.py makes some",
    "*text_*": "weights that are not shipped; tests/stages/test_text_maps.py makes some",
    "*clipseg*": "weights that are not shipped; tests/models/test_clipseg.py makes some",
    "*sam_boxes*": "weights that are not shipped; tests/stages/test_sam_boxes.py makes some",
    "*blocks=8-11*": "a transformer of twelve blocks; the shipped one has four",
    "*onnx*": "the reader's detector; tests/models runs one",
    "*annotator=file*": "reads the export of the line before, which has no boxes of so few rows",
    "*search *": "many trainings; tests/wsoltrain/selection/test_search.py runs some",
    "*runs=searches*": "reads the searches",
    "*metric=all*": "reads the searches",
    "*checkpoint=runs/tedloc-cub*": "its images are not shipped",
    "wsoltrain fit recipe=[a-ce-z]*": "another method; tests/wsoltrain/methods trains each",
    "*dino-birds*": "another method and its weights; tests/wsoltrain/methods trains it",
    "wsoltrain ceiling *": "a second training; tests/wsoltrain/training/test_ceiling.py runs it",
    "wsoltrain compare *": "several trainings; tests/wsoltrain/cli/test_compare.py runs them",
    "wsoltrain export *": "seconds of tracing; tests/wsoltrain/inference/test_use.py runs it",
    "wsolpipe run stage=val_masks*": "reads CLIP masks, whose weights are not shipped",
}
#: Added to a training, so that it takes a second: a network of the demo's size, drawn at random.
QUICK = [
    "backbone=vit_tiny_patch16_224", "weights=null", "size=32", "batch=4", "epochs=1", "head_epochs=0", "workers=0",
    'model_args={"patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}', "device=cpu",
]  # fmt: skip


def lines_of(page: str) -> list[str]:
    """Commands of a page's shell blocks, one a line, without comments."""
    blocks = [text for kind, text in BLOCK.findall((ROOT / page).read_text()) if kind in {"sh", ""}]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.join(shlex.split(line, comments=True)) for line in lines if shlex.split(line, comments=True)]


def path_of(page: str) -> str:
    return page if page == "README.md" else f"docs/{page}"


def reason(line: str) -> str | None:
    """Why a line is not run."""
    return next((why for pattern, why in LEFT.items() if fnmatch(line.replace("'", ""), pattern)), None)


def commands() -> list[str]:
    """Lines that are run, each once, in the order of the pages."""
    found = [line for page in RUN for line in lines_of(path_of(page)) if reason(line) is None]
    return list(dict.fromkeys(found))


def run(program: str, words: list[str]) -> int:
    """Exit code of a command line, run in this process."""
    try:
        return call(PROGRAMS[program], program, words)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The folder of the guide's reader: birds.yaml as it is printed, twelve images a split, and photographs."""
    folder = tmp_path_factory.mktemp("reader")
    images = ROOT / "data" / "demo" / "images"
    for split in ("train", "val"):
        for kind in ("butterfly", "car", "fish"):
            (folder / "images" / split / kind).mkdir(parents=True)
            for path in sorted((images / split / kind).iterdir())[:4]:
                shutil.copy(path, folder / "images" / split / kind)
    shutil.copytree(images / "test" / "car", folder / "photos")
    printed = next(text for kind, text in BLOCK.findall((ROOT / "README.md").read_text()) if kind == "yaml")
    # The networks of the demo stand in for the published ones, which are fetched.
    demo = yaml.safe_load((ROOT / "data" / "demo.yaml").read_text())["stages"]
    stages = {name: demo[name] for name in ("cls_maps", "classifier", "proposals")}
    stages["cls_maps"]["weights"] = str(ROOT / "data" / stages["cls_maps"]["weights"])
    stages["classifier"] |= {"start": str(ROOT / "data" / stages["classifier"]["start"]), "epochs": 1}
    (folder / "birds.yaml").write_text(printed + yaml.safe_dump({"stages": stages}))
    with pytest.MonkeyPatch.context() as patch:  # the guide compares with it
        patch.chdir(folder)
        patch.setenv("WSOLPIPE_BIRDS_ROOT", str(folder / "images"))
        assert run("wsolpipe", ["run", "stage=cams", "dataset=birds.yaml", "store=labels"]) == 0
    return folder


def test_every_line_is_run_or_left_for_a_reason_that_still_holds():
    every = [line for page in sorted((ROOT / "docs").rglob("*.md")) if "reference" not in page.parts
             for line in lines_of(str(page.relative_to(ROOT)))]  # fmt: skip
    known = set(commands())
    programs = [line for line in every if line.split()[0] in PROGRAMS]
    assert [line for line in programs if line not in known and reason(line) is None] == []
    stale = [pattern for pattern in LEFT if not any(fnmatch(line.replace("'", ""), pattern) for line in
                                                    [*every, *lines_of("README.md")])]  # fmt: skip
    assert stale == []
    assert len(known) >= 25


def test_the_commands_run_as_they_are_written(home, monkeypatch, capsys):
    """One after the other in one folder, as the guide's reader types them."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("WSOLPIPE_BIRDS_ROOT", str(home / "images"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for line in commands():
        program, *words = shlex.split(line)
        code = run(program, [*words, *(QUICK if words[0] == "fit" else [])])
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


def blocks(kind: str) -> list[tuple[str, str]]:
    pages = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))]
    return [
        (page, text)
        for page in ("README.md", "CONTRIBUTING.md", *pages)
        for found, text in BLOCK.findall((ROOT / page).read_text())
        if found == kind
    ]


@pytest.mark.parametrize(("page", "text"), blocks("yaml"), ids=lambda value: value if value.endswith(".md") else "")
def test_the_product_takes_the_yaml_of_the_guide(home, tmp_path, monkeypatch, page, text):
    monkeypatch.chdir(home)
    monkeypatch.setenv("WSOLPIPE_BIRDS_ROOT", str(home / "images"))
    monkeypatch.syspath_prepend(tmp_path)
    write_own_stage(tmp_path)
    (tmp_path / "given.yaml").write_text(text)
    READERS[page](str(tmp_path / "given.yaml"))


def write_own_stage(folder: Path) -> Path:
    """The stage of CONTRIBUTING as a package below `folder`; its YAML."""
    package = folder / "mystages"
    package.mkdir()
    page = BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text())
    (package / "brightness.py").write_text(next(text for kind, text in page if kind == "python"))
    (package / "stages.yaml").write_text(next(text for kind, text in page if kind == "yaml"))
    return package / "stages.yaml"


def test_the_stage_of_contributing_runs(home, tmp_path, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("WSOLPIPE_BIRDS_ROOT", str(home / "images"))
    monkeypatch.syspath_prepend(tmp_path)
    assert run("wsolpipe", ["run", *own_stage(write_own_stage(tmp_path))]) == 0
    view = wsolpipe.open_store("brightness")["birds"]["train"]["brightness"]
    with Image.open(sorted((home / "images" / "train" / "butterfly").iterdir())[0]) as image:
        assert view["mean"][0] == pytest.approx(np.asarray(image.convert("RGB")).mean(), rel=1e-5)


def test_the_python_of_the_guide_reads_labels(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("WSOLPIPE_BIRDS_ROOT", str(home / "images"))
    if not Path("labels/birds/train/proposals").exists():
        assert run("wsolpipe", ["run", "stage=proposals", "dataset=birds.yaml", "store=labels"]) == 0
    ((_, text),) = [found for found in blocks("python") if found[0] == "docs/guide/sharing.md"]
    names = {}
    exec(compile(text, "sharing.md", "exec"), names)
    boxes = names["boxes"]
    assert boxes.shape[::2] == (12, 4)
    assert boxes.dtype == np.float32
    assert np.isfinite(boxes[:, 0]).all()
