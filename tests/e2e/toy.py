"""A toy data set and chain of stages for tests that drive real processes over real stores."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsolpipe.cli.main import cli
from wsolpipe.contract.manifest import CommitRecord
from wsolpipe.keys.console import call

PACKAGE = Path(__file__).parent / "toy_package"
_numbers = itertools.count()


@dataclass
class Finished:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def line(self, stage: str, split: str | None = "train") -> dict[str, Any]:
        """The line of one stage in ``--json`` output."""
        return next(item for item in self.json["stages"] if (item["stage"], item["split"]) == (stage, split))


@dataclass
class Running:
    """A command that a fork of the zygote runs: used as `subprocess.Popen` is.

    Attributes
    ----------
    pid : int
        Of the process, which leads a session of its own.
    files : Path
        What it prints, without the suffixes ``.out`` and ``.err``.
    ended : Path
        Holds its status once it has ended.
    """

    pid: int
    files: Path
    ended: Path

    @property
    def returncode(self) -> int | None:
        return os.waitstatus_to_exitcode(int(self.ended.read_text())) if self.ended.exists() else None

    poll = returncode.fget

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 900) -> int:
        """Its exit code, once it has ended."""
        deadline = time.monotonic() + timeout
        while (code := self.returncode) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.files), timeout)
            time.sleep(0.005)
        return code

    def communicate(self, timeout: float = 900) -> tuple[str, str]:
        """Both outputs, once it has ended."""
        self.wait(timeout)
        return read_output(self.files)


def read_output(files: Path) -> tuple[str, str]:
    return files.with_suffix(".out").read_text(), files.with_suffix(".err").read_text()


@dataclass
class Toy:
    """A folder with images, a YAML, the toy package and a store; `run` drives the command line on them."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def yaml(self) -> Path:
        return self.folder / "toy.yaml"

    @property
    def stages(self) -> Path:
        return self.folder / "package" / "toy_stages" / "stages.yaml"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    def draw(self, names: list[str], *, seed: int = 0) -> None:
        """Write small images, class by sub-folder, the same ones for the same names."""
        for name in names:
            rng = np.random.default_rng([seed, *name.encode()])
            height, width = rng.integers(24, 48, 2)
            pixels = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
            y, x = rng.integers(0, height // 2), rng.integers(0, width // 2)
            pixels[y : y + height // 3, x : x + width // 3] = 240
            path = self.images / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)

    def env(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self.folder / "package"), os.environ.get("PYTHONPATH")])),
            "TOY_LOG": str(self.log),
            "WSOLPIPE_SCRATCH": str(self.folder / "scratch"),
            "OMP_NUM_THREADS": "1",
            **self.environment,
            **more,
        }

    def words(self, *words: str, stage: str = "frame", store: Path | None = None) -> list[str]:
        given = {word.split("=")[0] for word in words}
        base = {
            "stage": stage, "dataset": str(self.yaml), "store": str(store or self.store), "stages": str(self.stages),
            "device": "cpu", "threads": "1", "shard_rows": "16",
        }  # fmt: skip
        return [*(f"{key}={value}" for key, value in base.items() if key not in given), *words]

    def command(self, name: str, *words: str, stage: str = "frame", store: Path | None = None) -> list[str]:
        return [sys.executable, "-m", "wsolpipe.cli.main", name, *self.words(*words, stage=stage, store=store)]

    def start(self, *words: str, stage: str = "frame", store: Path | None = None, **env: str) -> Running:
        """Begin a run in a process group of its own."""
        files = self.folder / f"run{next(_numbers)}"
        order = self._order(["run", *self.words(*words, stage=stage, store=store), "--json"], files, env)
        ended = files.with_suffix(".ended")
        return Running(ask_zygote({**order, "ended": str(ended)}), files, ended)

    def _order(self, argv: list[str], files: Path, env: dict[str, str]) -> dict[str, Any]:
        return {
            "argv": argv, "env": self.env(**env), "cwd": str(self.folder), "out": str(files.with_suffix(".out")),
            "err": str(files.with_suffix(".err")), "kill_after": None, "program": "wsolpipe", "ended": "",
        }  # fmt: skip

    def call(self, name: str, *words: str, stage: str = "frame", store: Path | None = None, **env: str) -> Finished:
        """Run a command to its end, in a process of its own."""
        argv = [name, *self.words(*words, stage=stage, store=store), "--json"]
        return self.command_line(argv, kill_after=None, **env)

    def command_line(
        self, argv: list[str], *, kill_after: float | None = None, program: str = "wsolpipe", **env: str
    ) -> Finished:
        """Run any words of the command line in a process of its own.

        Parameters
        ----------
        kill_after : float, optional
            Seconds after which the process and its children are killed, if they have not ended.
        program : str
            ``wsolpipe``, ``wsolpipe with networks`` where it is to build some, or ``wsoltrain``.
        """
        files = self.folder / "command"
        order = self._order(argv, files, env)
        status = ask_zygote({**order, "kill_after": kill_after, "program": program})
        return Finished(os.waitstatus_to_exitcode(status), *read_output(files))

    def refuse(self, name: str, *words: str, stage: str = "frame") -> Finished:
        """Run a command that ends before it works in this very process, which takes a tenth of the time."""
        argv = [name, *self.words(*words, stage=stage), "--json"]
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.folder)
            patch.syspath_prepend(self.folder / "package")
            for variable, value in self.env().items():
                patch.setenv(variable, value)
            code = call(cli, "wsolpipe", argv)
        return Finished(code, out.getvalue(), err.getvalue())

    def run(self, *words: str, stage: str = "frame", store: Path | None = None, **env: str) -> Finished:
        return self.call("run", *words, stage=stage, store=store, **env)

    def calls(self, what: str | None = None) -> list[dict[str, Any]]:
        """What the stages noted so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        found = [json.loads(line) for line in lines]
        return [item for item in found if what in {None, item["what"]}]


def ask_zygote(order: dict[str, Any]) -> int:
    """Answer of the zygote to an order: a status, or the number of a process."""
    zygote = start_zygote()
    assert zygote.stdin is not None
    assert zygote.stdout is not None
    zygote.stdin.write(json.dumps(order) + "\n")
    zygote.stdin.flush()
    return int(zygote.stdout.readline())


@functools.cache
def start_zygote() -> subprocess.Popen[str]:
    """The process whose forks run commands: one for all tests of this process."""
    process = subprocess.Popen(
        [sys.executable, str(PACKAGE.parent / "zygote.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    atexit.register(process.kill)
    return process


def make_toy(folder: Path, *, rows: int = 40, classes: int = 3) -> Toy:
    """A toy data set of `rows` images under `folder`."""
    toy = Toy(folder)
    shutil.copytree(PACKAGE, folder / "package", ignore=shutil.ignore_patterns("__pycache__"))
    toy.draw([f"class{row % classes}/image{row:03d}.png" for row in range(rows)])
    toy.yaml.write_text("name: toy\nlayout: folder\nroot: images\nsplit: train\n")
    return toy


def object_bytes(store: Path) -> dict[str, bytes]:
    """Every array object and artifact file of a store by name: what a kill must not change.

    Half-written files, which begin with a dot and which no reader sees, are `litter`.
    """
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file()
        and not path.name.startswith(".")
        and ("/data.zarr/" in path.as_posix() or "/files/" in path.as_posix())
    }


def records(store: Path, stage: str) -> dict[str, CommitRecord]:
    """Commit records of a stage by the name of their file, over all keys and splits."""
    return {
        f"{path.parents[1].name}/{path.stem}": CommitRecord.model_validate_json(path.read_bytes())
        for path in sorted(store.glob(f"*/*/{stage}/*/commits/*.json"))
    }


def litter(store: Path) -> list[str]:
    """Names of half-written files in a store."""
    return [path.name for path in store.rglob(".*") if path.is_file()]
