"""Cluster profiles: where they are found, what they may say, and how words lie over them."""

from __future__ import annotations

import re
import sys

import pytest

from wsolpipe.contract.errors import ConfigError
from wsolpipe.engine.config import build_config, for_worker
from wsolpipe.launch.launcher import check
from wsolpipe.launch.profiles import Profile, load_profile, seconds_of
from wsolpipe.stages.registry import load_registry

SITE = """
default: gpu
profiles:
  gpu:
    partition: gpu
    account: 0042
    gpus: a100:1
    cpus: 8
    memory: 32G
    time: 1:30:00
    modules: [cuda/12.4, gcc]
    setup: source /opt/site/env.sh
    sbatch: [--constraint=nvlink]
    qos: null
  cpu: {time: 90}
  plain:
"""


@pytest.fixture(autouse=True)
def nobody_home(tmp_path, monkeypatch):
    """A home without profiles."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("WSOLPIPE_PROFILES", raising=False)


@pytest.fixture
def site(tmp_path):
    file = tmp_path / "site.yaml"
    file.write_text(SITE)
    return file


def load(*words):
    return load_profile(build_config(words, load_registry())[0])


def test_without_any_file_everything_has_a_default():
    found = load()
    assert found == Profile()
    assert found.options() == ["--cpus-per-task=1"]
    assert found.prologue() == []
    assert found.wall_seconds is None
    assert found.python == sys.executable


def test_a_profile_becomes_options_of_sbatch_and_lines_of_shell(site):
    found = load(f"profiles={site}", "profile=gpu")
    assert found.options() == [
        "--partition=gpu", "--account=0042", "--cpus-per-task=8", "--mem=32G", "--time=1:30:00", "--gres=gpu:a100:1",
        "--constraint=nvlink",
    ]  # fmt: skip
    assert found.prologue() == ["module load cuda/12.4", "module load gcc", "source /opt/site/env.sh"]
    assert found.wall_seconds == 5400  # and not the 5,400 minutes that YAML's own reading would give


def test_the_file_is_found_by_word_then_variable_then_home(site, tmp_path, monkeypatch):
    own = tmp_path / "config" / "wsolpipe" / "profiles.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("profiles: {home: {partition: home}}")
    assert load("profile=home").partition == "home"
    assert load().partition is None  # no default in that file
    monkeypatch.setenv("WSOLPIPE_PROFILES", str(site))
    assert load().partition == "gpu"
    assert load("profile=cpu").wall_seconds == 5400
    assert load(f"profiles={own}", "profile=home").partition == "home"


def test_words_lie_over_the_file(site):
    found = load(f"profiles={site}", "profile.time=2-0", "profile.gpus=0", "profile.modules=[a, b]", "profile.setup=c")
    assert found.wall_seconds == 2 * 86400
    assert not any(option.startswith("--gres") for option in found.options())
    assert found.prologue() == ["module load a", "module load b", "c"]
    assert load("profile.time=90").wall_seconds == 5400


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["profile=gpuu"], "unknown profile 'gpuu'; did you mean 'gpu'.*cpu, gpu, plain"),
        (["profile.partion=x"], "unknown field 'partion'; did you mean 'partition'"),
        (["profile.time=soon"], "profile gpu: time=soon: 'soon' is not a wall time; write minutes"),
        (["profile.cpus=none"], "cpus=null: expected a whole number"),
        (["profile.cpus=0"], "cpus=0: must be at least 1"),
        (["profile.account=a\nb"], "account=.*must be on one line"),
    ],
)
def test_what_is_wrong_with_a_profile_is_said_with_the_nearest_name(site, words, told):
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        load(f"profiles={site}", *words)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("profiles: [gpu]", "expected a mapping with the key profiles"),
        ("just text", "expected a mapping with the key profiles"),
        ("profile: {}\nprofiles: {}", "unknown key 'profile'; did you mean 'profiles'"),
        ("profiles: {gpu: fast}\ndefault: gpu", "profile gpu: expected a mapping of fields"),
        ("profiles: {", "site.yaml is not valid YAML"),
    ],
)
def test_a_file_that_is_no_file_of_profiles_is_named(site, text, told):
    site.write_text(text)
    with pytest.raises(ConfigError, match=told):
        load(f"profiles={site}")


def test_files_that_are_not_there_are_named(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no file of cluster profiles at .*none.yaml"):
        load(f"profiles={tmp_path / 'none.yaml'}")
    with pytest.raises(ConfigError, match="profile=gpu: no profiles file was found"):
        load("profile=gpu")
    monkeypatch.setenv("WSOLPIPE_PROFILES", str(tmp_path / "gone.yaml"))
    with pytest.raises(ConfigError, match="named by WSOLPIPE_PROFILES"):
        load()


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("90", 5400), ("1:30", 90), ("4:00:00", 14400), ("1-12", 129600), ("1-12:30", 131400), ("1-0:0:5", 86405),
        (None, None), ("UNLIMITED", None), ("infinite", None),
    ],
)  # fmt: skip
def test_wall_times_are_read_as_slurm_reads_them(time, seconds):
    """Formats and meaning from the manual of sbatch, option --time."""
    assert seconds_of(time) == seconds


def test_a_profile_reaches_no_worker(site):
    config = build_config([f"profiles={site}", "profile=cpu", "profile.time=5"], load_registry())[0]
    assert config.profile_fields == {"time": 5}
    sent = for_worker(config)
    assert (sent.profile, sent.profiles, sent.profile_fields) == (None, None, {})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["profile.time=2:00:00"],
            r"profile.time= says nothing to cluster=local\n.*add cluster=slurm or cluster=slurm-array; wall_time=",
        ),
        (["cluster=dask-local", "profile.memory=8G"], "profile.memory= says nothing to cluster=dask-local"),
        (["cluster=dask-cuda", "profile.gpus=2"], "profile.gpus= says nothing to cluster=dask-cuda"),
        (["cluster=tcp://10.0.0.1:8786", "profile.cpus=2"], "profile.cpus= says nothing to cluster=tcp"),
    ],
)
def test_a_field_that_a_cluster_does_not_read_is_refused(words, told):
    config, _ = build_config(words, load_registry())
    with pytest.raises(ConfigError) as refused:
        check(config)
    assert re.search(told, str(refused.value))


def test_fields_that_a_cluster_reads_are_taken(tmp_path):
    for words in (["cluster=dask-cuda", "profile.devices=[0]"], ["cluster=slurm-array", "profile.time=5"]):
        check(build_config(words, load_registry())[0])


def test_the_guide_shows_a_profile_that_can_be_used(repo, tmp_path):
    (shown,) = [
        block
        for block in (repo / "docs" / "guide" / "clusters.md").read_text().split("```")
        if block.startswith("yaml\ndefault:")
    ]
    file = tmp_path / "readme.yaml"
    file.write_text(shown.removeprefix("yaml\n"))
    found = load(f"profiles={file}")
    assert (found.partition, found.wall_seconds, found.max_jobs) == ("gpu", 14400, 8)
    assert "--constraint=nvlink" in found.options()
    assert set(found.model_fields_set) <= set(Profile.model_fields)
