"""Damage to every kind of file of a store, between and during runs, transfers, trainings and repairs; other attacks.

`tools/torture.py` runs it.

Each attack copies a finished store, takes some of its shards away, damages files of it in a way of `damage` before or
while `run`, `push` or `pull` works on it, and looks at it with `verify`, `repair` and `status` meanwhile, or removes
results from it with `gc`: an older one that nothing refers to, or one that is in use. Afterwards repairing and running
again must give back every row in the bytes of an undisturbed run. Attacks that are no damage are in `attack_scenes`.
"""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

import attack_scenes
from attack_training import Training
from damage import CLASSES, FAILURES, HOW, Attack, restore, siblings
from e2e.toy import object_bytes
from wsolpipe import open_store
from wsolpipe.contract.errors import WsolError
from wsolpipe.engine.status import survey
from wsolpipe.keys.console import print_table
from wsolpipe.share.collect import Rule, collect
from wsolpipe.share.repair import repair
from wsolpipe.share.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kills import Torture
    from wsolpipe.contract.reader import StageView
    from wsolpipe.share.verify import Problem

COMMANDS = {"run": 8, "push": 4, "pull": 4, "fit": 1}
"""What works on damaged files, and how often among all attacks."""
SCENES = {**dict.fromkeys(attack_scenes.SCENES, 1.0), "two fits": 0.25}
"""Attacks of other kinds, and how often."""
BESIDE = ("verify", "repair", "status", "read", "gc", "")
"""What this process does with the store while a command runs on it."""
WAIT = 120.0
ROUNDS = 4


@dataclass
class Attacker:
    """Attacks on copies of the finished store of a torture."""

    torture: Torture
    attacks: list[Attack] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = self.torture.rng
        whole = self.torture.whole
        split = open_store(str(whole.store))["toy"]["train"]
        self.keys = {stage: split[stage].key for stage in ("shade", "frame")}
        self.reference = {
            (stage, name): np.asarray(view[name][:])
            for stage, view in self._views(whole.store).items()
            for name in (*view.manifest.arrays, "status")
        }
        self.two_results = self.torture.folder / "two-results"
        for more in (("frame.spread=2",), ()):  # the newest result is the one that is looked at
            self.torture.must(whole.run(f"store={self.two_results}", "shard_rows=4", *more))
        self.older, _ = open_store(str(self.two_results))["toy"]["train"].keys("frame")

    def _views(self, store: Path) -> dict[str, StageView]:
        split = open_store(str(store))["toy"]["train"]
        return {stage: split.stage(stage, key) for stage, key in self.keys.items()}

    def attack(self, number: int) -> Attack:
        """One attack, from the copy to the tally."""
        weights = {**COMMANDS, **SCENES}
        (command,) = self.rng.choices(list(weights), list(weights.values()))
        folder = self.torture.folder / f"attack{number}"
        if command in SCENES:
            done = Attack(command, command, "")
            self.attacks.append(done)
            folder.mkdir()
            attack_scenes.SCENES[command](self, done, folder)
        else:
            how = self.rng.choice(list(HOW))
            kind = CLASSES.get(how, "damaged files")
            done = Attack(kind, command, how, self.rng.choice(["before", "during"]))
            self.attacks.append(done)
            if command == "fit":
                self.training.attack(done, folder)
            else:
                done.beside = self.rng.choice(BESIDE) if done.when == "during" else ""
                self._attack_store(done, folder)
        if not done.failed:
            shutil.rmtree(folder)
        return done

    @cached_property
    def training(self) -> Training:
        """A finished training; made when the first one is attacked."""
        return Training(self.torture, self._damage)

    def _attack_store(self, done: Attack, folder: Path) -> None:
        command, how = done.command, done.how
        store, other = folder / "store", folder / "other"
        whole = self.two_results if done.beside == "gc" else self.torture.whole.store
        shutil.copytree(whole, store)
        target = store
        if command != "run":
            shutil.copytree(whole, other)
            target = other
        self._take_away(target)
        victim = self._choose(self.rng.choice([store, target]))
        done.victim = victim.relative_to(folder).as_posix()
        kept = {path: path.read_bytes() for path in (victim, *siblings(victim))}
        if done.when == "before":
            self._damage(done, victim)
            self._command(done, command, store, other)
        else:
            thread = threading.Thread(target=self._beside, args=(done, victim, self.rng.uniform(0, 0.6), target))
            thread.start()
            self._command(done, command, store, other)
            thread.join(WAIT)
            if thread.is_alive():
                done.failed.append(("wedged", done.beside))
        self._look(done, "read", target)
        if how == "not readable" and victim.is_symlink():
            self._command(done, "repair", store, other)
            if not victim.is_symlink():
                done.failed.append(("rows lost", "what could not be read was removed"))
            restore({victim: kept[victim]})
        self._settle(done, command, store, other)

    def _take_away(self, store: Path) -> None:
        """Remove some finished shards, so that there is work."""
        for record in sorted(store.glob("toy/train/*/*/commits/*.json")):
            stage = record.parents[1]
            if stage.parent.name != "index" and self.rng.random() < 0.3:
                record.unlink()
                for part in stage.glob(f"data.zarr/*/c/{record.stem}"):
                    shutil.rmtree(part) if part.is_dir() else part.unlink()

    def _choose(self, store: Path) -> Path:
        """A file, each kind as likely as another."""
        kinds: dict[str, list[Path]] = {}
        for path in sorted(store.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                parts = path.relative_to(store).parts
                kinds.setdefault("/".join((*parts[2:3], *parts[4:5], path.suffix)), []).append(path)
        return self.rng.choice(kinds[self.rng.choice(sorted(kinds))])

    def _damage(self, done: Attack, victim: Path) -> None:
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # a command may have removed it by now
            HOW[done.how](victim, random.Random(f"{self.rng.random()}"))

    def _beside(self, done: Attack, victim: Path, delay: float, target: Path) -> None:
        """Damage the victim in a moment, and look at the target."""
        time.sleep(delay)
        self._damage(done, victim)
        if done.beside:
            self._look(done, done.beside, target)

    def _look(self, done: Attack, what: str, target: Path) -> None:
        """Look at a store from this process: only the product's errors may be raised, and no other bytes read."""
        try:
            if what == "verify":
                list(verify(open_store(str(target))))
            elif what == "repair":
                repair(open_store(str(target)))
            elif what == "gc":
                self._collect(target)
            elif what == "status":
                survey(open_store(str(target)))
            else:
                self._read(done, target)
        except WsolError:
            return
        except Exception:
            done.failed.append(("tracebacks", f"{what}: {traceback.format_exc()}"))

    def _collect(self, target: Path) -> None:
        """Remove results: the one that is not asked for, and at times the one that is being made, unless it is held."""
        drop = self.rng.choice([(self.older,), (self.older, self.keys["frame"])])
        collect(open_store(str(target)).backend, Rule(days=0, drop=drop))

    def _read(self, done: Attack, target: Path) -> None:
        """Read every committed shard: the right bytes or an error."""
        for stage, view in self._views(target).items():
            for name in (*view.manifest.arrays, "status"):
                for record in view.committed().values():
                    rows = slice(record.start, record.stop)
                    try:
                        values = view[name][rows]
                    except WsolError:
                        continue
                    wanted = self.reference[stage, name][rows]
                    if not np.array_equal(values, wanted, equal_nan=values.dtype.kind == "f"):
                        done.failed.append(("wrong in silence", f"{stage}/{name} {record.shard}"))

    def _command(self, done: Attack, command: str, store: Path, other: Path, *more: str) -> int:
        """Run a command in a process of its own; note what must not happen."""
        whole = self.torture.whole
        argv = {
            "run": ["run", *whole.words(f"store={store}", "shard_rows=4", "lease=1"), *more],
            "push": ["push", f"store={store}", f"to={other}", "jobs=2", *more],
            "pull": ["pull", f"from={store}", f"store={other}", "jobs=2", *more],
            "repair": ["repair", f"store={other if other.exists() else store}"],
            "repair source": ["repair", f"store={store}"],
        }[command]
        ended = whole.command_line(argv, kill_after=WAIT)
        if ended.code == -signal.SIGKILL:
            done.failed.append(("wedged", " ".join(argv)))
        if "Traceback" in ended.err + ended.out or ended.code < 0:
            done.failed.append(("tracebacks", f"{' '.join(argv)} ended with {ended.code}:\n{ended.err[-2000:]}"))
        return int(ended.code)

    def _problems(self, target: Path) -> list[Problem]:
        """What `verify` says of the results that are asked for; the older one stays as `gc` and damage left it."""
        return [item for item in verify(open_store(str(target))) if f"/{self.older}" not in item.where]

    def _settle(self, done: Attack, command: str, store: Path, other: Path) -> None:
        """Repair and repeat until everything is done, as a user would."""
        log = []
        for _ in range(ROUNDS):
            codes = [self._command(done, "repair source", store, other), self._command(done, "run", store, other)]
            if command != "run":
                codes += [
                    self._command(done, "repair", store, other),
                    self._command(done, command, store, other, "check=true"),
                ]
            targets = [store, *([other] if command != "run" else [])]
            for aside in (path for target in targets for path in target.rglob("*.damaged")):
                shutil.rmtree(aside) if not aside.is_symlink() and aside.is_dir() else aside.unlink()
            problems = [item for target in targets for item in self._problems(target)]
            log.append(f"codes {codes}, {[(item.kind, item.where, item.text) for item in problems[:3]]}")
            if not any(codes) and not problems:
                break
        for target in [store, *([other] if command != "run" else [])]:
            found, wanted = object_bytes(target), self.torture.wanted
            wrong = [name for name in wanted if found.get(name) not in {None, wanted[name]}]
            lost = [name for name in wanted if name not in found]
            if wrong:
                done.failed.append(("wrong in silence", f"{wrong[:3]} after {log}"))
            if lost or any(codes) or problems:
                done.failed.append(("rows lost", f"{lost[:3]} after {log}"))


def run(torture: Torture, attacks: int, out: Path | None = None) -> Attacker:
    """Attack that often; report each failure at once, and keep the tally so far in the file `out`."""
    attacker = Attacker(torture)
    for number in range(attacks):
        done = attacker.attack(number)
        for what, text in done.failed:
            print(
                f"{what}: {done.how} {done.when} {done.command}, {done.victim}\n  {text}", file=sys.stderr, flush=True
            )
        if out is not None:
            with contextlib.redirect_stdout(io.StringIO()) as shown:
                show(attacker)
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(f"seed {torture.seed}\n{shown.getvalue()}")
    return attacker


def show(attacker: Attacker) -> int:
    """Print the tally, by class and by command and damage; return the number of failures."""
    failed = Counter(what for done in attacker.attacks for what in {name for name, _ in done.failed})
    _table(attacker, ["class"], lambda done: (done.kind,))
    _table(attacker, ["command", "damage"], lambda done: (done.command, done.how) if done.how else ())
    print(f"{len(attacker.attacks)} attacks: " + ", ".join(f"{failed[name]} {name}" for name in FAILURES))
    return sum(failed.values())


def _table(attacker: Attacker, columns: list[str], key_of: Callable[[Attack], tuple[str, ...]]) -> None:
    """A line for each key: attacks, and how many of them failed in which way."""
    lines: dict[tuple[str, ...], Counter[str]] = {}
    for done in attacker.attacks:
        if key := key_of(done):
            line = lines.setdefault(key, Counter())
            line["attacks"] += 1
            line.update({name for name, _ in done.failed})
    rows = [[*key, line["attacks"], *(line[name] for name in FAILURES)] for key, line in sorted(lines.items())]
    print_table([*columns, "attacks", *FAILURES], rows)
