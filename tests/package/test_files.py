"""What the package is made of besides code: citation, recipes of containers, types."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml

import wsolpipe


@pytest.fixture(scope="module")
def project(repo):
    return tomllib.loads((repo / "pyproject.toml").read_text())["project"]


def test_both_packages_say_that_they_are_typed(repo, project):
    assert (repo / "pipeline/wsolpipe/py.typed").is_file()
    assert (repo / "trainer/wsoltrain/py.typed").is_file()
    assert "Typing :: Typed" in project["classifiers"]


def test_the_citation_names_the_version_and_the_papers_of_the_recipes(repo, project):
    cited = yaml.safe_load((repo / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert (cited["title"], cited["version"], cited["license"]) == (
        "wsolpipe",
        wsolpipe.__version__,
        project["license"],
    )
    recipes = {path.stem for path in (repo / "trainer/wsoltrain/recipes").glob("*.yaml")}
    for item in cited["references"]:
        assert item["title"]
        assert item["authors"]
        assert 2019 < item["year"] < 2027
        for name in re.findall(r"recipe (\S+)", item["notes"]):
            assert name in recipes


def test_recipes_of_containers_take_files_that_are_there_and_extras_that_exist(repo, project):
    docker = (repo / "containers/Dockerfile").read_text()
    steps = [line.split() for line in docker.splitlines() if line and not line.startswith("#")]
    known = {"FROM", "ENV", "WORKDIR", "COPY", "ARG", "RUN", "USER", "CMD"}
    assert {step[0] for step in steps} == known
    assert steps[0][0] == "FROM"
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", steps[0][1])  # a version, not latest
    assert [step[0] for step in steps].index("USER") > max(at for at, step in enumerate(steps) if step[0] == "COPY")
    apptainer = (repo / "containers/wsolpipe.def").read_text()
    sections = re.split(r"^%(\w+)\n", apptainer, flags=re.MULTILINE)
    parts = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert set(parts) == {"files", "post", "environment", "runscript"}
    assert f"From: {steps[0][1]}" in sections[0]
    copied = [name for step in steps if step[0] == "COPY" for name in step[1:-1]]
    assert [line.split()[0] for line in parts["files"].strip().splitlines()] == copied
    needed = {"pyproject.toml", "README.md", "LICENSE", "data", "stages.yaml", "pipeline", "trainer", "constraints.txt"}
    assert set(copied) == needed
    assert all((repo / name).exists() for name in copied)
    for text in (docker, parts["post"]):
        (extras,) = re.findall(r'"\.\[(\w+)\]"', text)
        assert extras in project["optional-dependencies"]
