"""Kills ``run``, ``push`` and ``pull`` with SIGKILL repeatedly, and compares the final stores byte by byte.

A store is killed at until the command gets through, then the next store is started. Half of the kills fall at the named
moments of a commit (`wsolpipe.engine.leases`), half at moments drawn from the time that the command takes undisturbed.
After every kill the target may hold no shard that is not whole; in the end every row must be there, in the bytes of a
run that was left alone. `tools/torture.py` runs it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from e2e.toy import Finished, make_toy
from s3 import Server, serve_s3
from wsolpipe import open_store
from wsolpipe.contract.backends.opening import open_backend
from wsolpipe.keys.console import print_table
from wsolpipe.share.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS, SHARD_ROWS = 24, 4
PATIENCE = 20.0
STAGES = ("shade", "frame")
IN_A_COMMIT = ("before_put", "between_arrays", "before_record", "after_record")
SLOWLY = ("lease=0.3", "shade.pause=0.1", "frame.pause=0.1")


@dataclass(frozen=True)
class Scene:
    """A command that is killed, where its target lies, at which phases, and its share of all kills."""

    command: str
    place: str
    share: float
    phases: tuple[str, ...] = IN_A_COMMIT
    words: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For people."""
        more = " by 2 workers" if "workers=2" in self.words else ""
        return f"{self.command}{' from' if self.command == 'pull' else ' to'} {self.place}{more}"


SCENES = (
    Scene("run", "folder", 0.35, (*IN_A_COMMIT, "block", "heartbeat")),
    Scene("run", "folder", 0.1, (), ("workers=2", "shade.pause=0.02", "frame.pause=0.02")),
    Scene("run", "S3", 0.1),
    Scene("push", "folder", 0.15, words=("jobs=2",)),
    Scene("push", "S3", 0.1, words=("jobs=2",)),
    Scene("pull", "folder", 0.1, words=("jobs=2",)),
    Scene("pull", "S3", 0.1, words=("jobs=2",)),
)


@dataclass(frozen=True)
class Kill:
    """A kill, and the number of shards committed before it."""

    scene: Scene
    phase: str
    committed: int


@dataclass
class Torture:
    """Kills under way.

    Attributes
    ----------
    whole : Toy
        Its store was made by a run that was left alone.
    remote : str or None
        A copy of that store on S3.
    """

    folder: Path
    seed: int
    server: Server | None
    kills: list[Kill] = field(default_factory=list)
    finished: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.whole = make_toy(self.folder / "whole", rows=ROWS)
        self.must(self.whole.run(f"shard_rows={SHARD_ROWS}"))
        self.wanted = labels(str(self.whole.store))
        self.remote: str | None = None
        if self.server is not None:
            self.remote = self.server.store()
            self.must(self.whole.command_line(["push", f"store={self.whole.store}", f"to={self.remote}"]))
        self._numbers = itertools.count()

    def must(self, done: Finished) -> None:
        """Raise unless a command that was not killed succeeded."""
        if done.code:
            msg = f"a command that was not killed ended with {done.code}:\n{done.err or done.out}"
            raise AssertionError(msg)

    def torture(self, scene: Scene, kills: int) -> None:
        """Kill `scene` that often."""
        target, argv, env = self._prepare(scene, "timed")
        began = time.monotonic()
        self.must(self.whole.command_line(argv, **env))
        span = time.monotonic() - began
        phases = itertools.cycle(scene.phases)
        left = kills
        while left:
            target, argv, env = self._prepare(scene, f"store{next(self._numbers)}")
            while True:
                drawn = not scene.phases or self.rng.random() < 0.5
                phase = "" if drawn or not left else next(phases)
                fault = {"WSOLPIPE_FAULT": f"{phase}:{self.rng.randint(2, 6)}"} if phase else {}
                lease = SLOWLY if phase == "heartbeat" else ("lease=2",) if scene.command == "run" else ()
                delay = self.rng.uniform(0, span) if drawn and left else None
                done = self.whole.command_line([*argv, *lease], kill_after=delay, **env, **fault)
                if done.code != -signal.SIGKILL:
                    self.must(done)
                    break
                left -= 1
                self.kills.append(Kill(scene, phase or "any moment", self._check_part(target)))
            self._check_whole(target)
            self.finished[scene.name] += 1

    def _prepare(self, scene: Scene, name: str) -> tuple[str, list[str], dict[str, str]]:
        """A fresh target, the command's words, and what the environment needs."""
        folder = self.folder / f"{scene.command}-{scene.place}-{len(scene.words)}-{name}"
        remote = scene.place == "S3"
        source = str(self.remote if remote else self.whole.store)
        if scene.command == "pull":
            target, argv = str(folder), ["pull", f"from={source}", f"store={folder}"]
        elif scene.command == "push":
            target = self._fresh_url() if remote else str(folder)
            argv = ["push", f"store={self.whole.store}", f"to={target}"]
        else:
            target = self._fresh_url() if remote else str(folder)
            words = self.whole.words(f"store={target}", f"shard_rows={SHARD_ROWS}")
            argv = ["run", *words]
        return target, [*argv, *scene.words, "--json"], {"WSOLPIPE_CACHE": str(folder) + "-cache"}

    def _fresh_url(self) -> str:
        assert self.server is not None
        return str(self.server.store())

    def _check_part(self, target: str) -> int:
        """Check what a kill left against its records; return the committed shards."""
        backend = open_backend(target)
        if not backend.names(""):
            return 0
        broken = [item for item in verify(open_store(target)) if item.kind not in {"orphan", "leftover"}]
        if broken:
            msg = f"{target} holds {broken}"
            raise AssertionError(msg)
        return sum(1 for name, _ in backend.walk("") if "/commits/" in name and "/index/" not in name)

    def _check_whole(self, target: str) -> None:
        """Every row is there, with the bytes of the undisturbed run, and no lease is held."""
        found = labels(target)
        if found != self.wanted:
            differing = sorted(name for name in {*found, *self.wanted} if found.get(name) != self.wanted.get(name))
            msg = f"{target} differs in {differing[:5]}"
            raise AssertionError(msg)
        split = open_store(target)["toy"]["train"]
        for stage in STAGES:
            if len(split[stage].rows()) != ROWS:
                msg = f"{target} lost rows of {stage}"
                raise AssertionError(msg)
        end = time.monotonic() + PATIENCE
        while leases := [name for name, _ in open_backend(target).walk("") if "/leases/" in name]:
            if time.monotonic() > end:
                msg = f"{target} keeps {leases}"
                raise AssertionError(msg)
            time.sleep(0.2)  # workers whose run was killed see it within seconds, and hold their lease until then


def labels(url: str) -> dict[str, bytes]:
    """Bytes of every array object and artifact file of a store by name."""
    backend = open_backend(url)
    return {name: backend.get(name) for name, _ in backend.walk("") if "/data.zarr/" in name or "/files/" in name}


def shares(scenes: tuple[Scene, ...], kills: int) -> Iterator[tuple[Scene, int]]:
    """Kills of each scene; they add up to `kills`."""
    total, given, sofar = sum(scene.share for scene in scenes), 0, 0.0
    for scene in scenes:
        sofar += scene.share / total
        yield scene, round(sofar * kills) - given
        given = round(sofar * kills)


def tally(torture: Torture) -> list[list[Any]]:
    """A line for each scene and moment: kills, those after the first commit, and those with some shards to go."""
    shards = 1 + len(STAGES) * (ROWS // SHARD_ROWS)
    lines: dict[tuple[str, str], Counter[str]] = {}
    for kill in torture.kills:
        line = lines.setdefault((kill.scene.name, kill.phase), Counter())
        line["kills"] += 1
        line["after"] += kill.committed > 0
        line["between"] += 0 < kill.committed < shards
    return [
        [scene, phase, line["kills"], line["kills"] - line["after"], line["after"], line["between"]]
        for (scene, phase), line in sorted(lines.items())
    ]


@contextlib.contextmanager
def begin(folder: Path, *, seed: int, s3: bool) -> Iterator[Torture]:
    """A torture with an S3 server of its own if asked for, whose credentials this process then has."""
    if not s3:
        yield Torture(folder, seed, None)
        return
    with serve_s3() as server:
        before = {name: os.environ.get(name) for name in server.environment}
        os.environ.update(server.environment)
        try:
            yield Torture(folder, seed, server)
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def run(folder: Path, *, kills: int, seed: int, s3: bool = True) -> Torture:
    """Torture every scene; return what was done.

    Raises
    ------
    AssertionError
        If anything was lost, differs or cannot go on.
    """
    with begin(folder, seed=seed, s3=s3) as torture:
        for scene, count in shares(tuple(scene for scene in SCENES if s3 or scene.place != "S3"), kills):
            torture.torture(scene, count)
            print(f"{scene.name}: {count} kills, {torture.finished[scene.name]} stores", file=sys.stderr, flush=True)
    return torture


def show(torture: Torture) -> None:
    """The tally as a table, and the sum."""
    columns = ["command", "killed at", "kills", "before the first commit", "after it", "part-way"]
    print_table(columns, tally(torture))
    after = sum(kill.committed > 0 for kill in torture.kills)
    stores = sum(torture.finished.values())
    print(f"{len(torture.kills)} kills, {after} of them after the first commit; {stores} stores were ended in spite of")
    print(f"them, each with its {ROWS} rows of {' and '.join(STAGES)} and the bytes of an undisturbed run")
