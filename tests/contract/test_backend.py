"""The file system backend: nobody sees half an object, and of many writers one wins."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
import time

import pytest

from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.backends.opening import open_backend
from wsolpipe.contract.errors import ConfigError, StoreError
from wsolpipe.testing import BackendTests

RACE = """
import sys, time
from pathlib import Path
from wsolpipe.contract.backends.filesystem import LocalBackend
root, verb, number, rounds = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
backend = LocalBackend(root)
sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
for turn in range(rounds):
    data = f"{number} {turn} ".encode() * 500
    if verb == "create":
        won = backend.create(f"race/{turn}", data)
    else:
        won = backend.swap(f"race/{turn}", b"old", data)
    print(turn, number) if won else None
"""


@pytest.fixture
def backend(tmp_path):
    return LocalBackend(tmp_path / "store")


class TestFolder(BackendTests):
    @pytest.fixture
    def make(self, tmp_path):
        return maker(tmp_path)


class TestFolderWithoutHardLinks(TestFolder):
    """A file system that refuses hard links, as exFAT and some network ones do."""

    @pytest.fixture(autouse=True)
    def _no_links(self, monkeypatch):
        def refuse(*_):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)


def maker(folder):
    """Backends of fresh folders that hold some objects."""
    numbers = itertools.count()

    def make(objects):
        made = LocalBackend(folder / f"store{next(numbers)}")
        for name, data in objects.items():
            assert made.create(name, data)
        return made

    return make


def no_litter(backend):
    return [path.name for path in backend.root.rglob(".*")] == []


@pytest.mark.parametrize("verb", ["create", "swap"])
def test_of_eight_processes_exactly_one_wins(backend, verb):
    rounds = 30
    if verb == "swap":
        for turn in range(rounds):
            backend.create(f"race/{turn}", b"old")
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(backend.root), verb, str(number), str(rounds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(8)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    lines = [racer.communicate(timeout=60)[0].splitlines() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 8
    wins = dict(line.split() for part in lines for line in part)
    assert sum(map(len, lines)) == len(wins) == rounds
    for turn, number in wins.items():
        assert backend.get(f"race/{turn}") == f"{number} {turn} ".encode() * 500
    assert no_litter(backend)


def test_a_marker_that_a_killed_writer_left_is_broken_after_a_while(backend, monkeypatch):
    backend.create("lease", b"old")
    marker = backend.root / ".lease.guard"
    marker.touch()
    os.utime(marker, (0, 0))  # made at a time that only another machine's clock knows
    monkeypatch.setattr("wsolpipe.contract.backends.filesystem.GUARD_PATIENCE", 0.05)
    done = []
    for _ in range(100):
        done.append(backend.swap("lease", b"old", b"new"))
        if done[-1]:
            break
        time.sleep(0.01)
    assert not done[0]
    assert done[-1]
    assert backend.get("lease") == b"new"


def test_names_and_walk_never_show_what_is_half_written(backend):
    backend.create("a/1", b"x")
    backend.create("a/b/2", b"xyz")
    (backend.root / "a" / ".1.77-beef").write_bytes(b"half")
    assert backend.names("a") == ["1", "b/"]
    assert dict(backend.walk("")) == {"a/1": 1, "a/b/2": 3}
    assert backend.names("none") == []


def test_a_store_may_be_a_folder_or_a_file_url(tmp_path):
    assert open_backend(f"file://{tmp_path}/my%20store").root == tmp_path / "my store"
    assert open_backend(str(tmp_path)).root == tmp_path
    with pytest.raises(ConfigError, match="scheme 'gopher'"):
        open_backend("gopher://host/store")


def test_errors_of_the_file_system_name_object_store_and_next_step(backend, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="cannot write a/b in store .*: No space left") as caught:
        backend.create("a/b", b"x")
    assert "finished shards are kept" in str(caught.value.hint)
    assert backend.names("a") == []
    assert no_litter(backend)


def test_a_store_below_a_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    backend = LocalBackend(tmp_path / "file" / "store")
    with pytest.raises(StoreError, match="cannot be made"):
        backend.create("data/one", b"1")
