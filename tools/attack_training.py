"""Damage to the files of a training and of the store that it reads, between and during runs of ``wsoltrain fit``."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from damage import restore, siblings
from stores import build_store
from trained import words

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from damage import Attack
    from e2e.toy import Finished, Toy
    from kills import Torture
    from stores import TinyStore

WAIT = 240.0
ROUNDS = 4
UNKNOWN = ("add --debug for the traceback", "Traceback")
"""How an error shows itself that the product does not know."""


@dataclass
class Training:
    """A small training whose bytes are known, which is stopped, damaged and continued.

    Attributes
    ----------
    wanted : dict of str to bytes
        Checkpoint and best weights of a run that was left alone.
    seconds : float
        How long that took.
    """

    torture: Torture
    damage: Callable[[Attack, Path], None]

    def __post_init__(self) -> None:
        folder = self.torture.folder / "training"
        self.rng = self.torture.rng
        self.source = build_store(folder, rows=24, sizes=(30, 50))
        build_store(folder, rows=24, sizes=(30, 50), split="val")
        (folder / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\n")
        for _ in range(2):  # the first run compiles
            began = time.monotonic()
            self.torture.must(self._fit(self.source, folder / "whole"))
            self.seconds = time.monotonic() - began
            self.wanted = weights(folder / "whole")
            shutil.rmtree(folder / "whole")

    def words(self, store: TinyStore, out: Path) -> list[str]:
        """Words of the command that trains."""
        return list(words(store, epochs=1, out=str(out), workers=0, save_every=1))

    def _fit(self, store: TinyStore, out: Path, kill_after: float | None = WAIT) -> Finished:
        toy: Toy = self.torture.whole
        return toy.command_line(self.words(store, out), kill_after=kill_after, program="wsoltrain")

    def copy(self, folder: Path) -> TinyStore:
        """A copy of the store and its images under `folder`."""
        shutil.copytree(self.torture.folder / "training", folder, dirs_exist_ok=True)
        return replace(self.source, url=str(folder / "store"), root=str(folder / "images"))

    def attack(self, done: Attack, folder: Path) -> None:
        """One attack: a run that is killed, damage then or during the next one, and runs until it is done."""
        store = self.copy(folder)
        out = folder / "run"
        self._fit(store, out, kill_after=self.rng.uniform(0.5, 1.2) * self.seconds)
        victim = self._choose(folder / "store", out)
        done.victim = victim.relative_to(folder).as_posix()
        kept = {path: path.read_bytes() for path in (victim, *siblings(victim))}
        if done.when == "before":
            self.damage(done, victim)
            self._continue(done, store, out)
        else:
            delay = self.rng.uniform(0, self.seconds)
            thread = threading.Timer(delay, self.damage, (done, victim))
            thread.start()
            self._continue(done, store, out)
            thread.join()
        if victim.is_symlink() or victim.is_dir():
            restore({victim: kept[victim]})
        elif out not in victim.parents:
            self._continue(done, store, out)
            restore(kept)  # the copy from which the user restores the store
        self._settle(done, store, out)

    def _choose(self, store: Path, out: Path) -> Path:
        """A file of the run, or of the stages that it reads, each kind as likely as another."""
        kinds: dict[str, list[Path]] = {}
        for root in (out, store):
            for path in sorted(root.rglob("*")):
                if path.is_file() and not path.name.endswith(".partial") and "/index/" not in path.as_posix():
                    kind = path.name if root == out and path.parent == out else path.suffix
                    kinds.setdefault(f"{root.name}/{kind}", []).append(path)
        return self.rng.choice(kinds[self.rng.choice(sorted(kinds))])

    def _continue(self, done: Attack, store: TinyStore, out: Path) -> int:
        """Run the training to its end; note what must not happen."""
        ended = self._fit(store, out)
        if ended.code == -signal.SIGKILL:
            done.failed.append(("wedged", "fit"))
        elif ended.code < 0 or any(text in ended.err + ended.out for text in UNKNOWN):
            done.failed.append(("tracebacks", f"fit ended with {ended.code}:\n{ended.err[-2000:]}"))
        return int(ended.code)

    def _settle(self, done: Attack, store: TinyStore, out: Path) -> None:
        """Continue until the training is done, beginning anew where the error asks for it, and compare the bytes."""
        codes = []
        for _ in range(ROUNDS):
            codes.append(self._continue(done, store, out))
            if codes[-1] == 0:
                break
            shutil.rmtree(out, ignore_errors=True)
        found = weights(out)
        lost = sorted(self.wanted.keys() - found.keys())
        if codes[-1] or lost:
            done.failed.append(("rows lost", f"training ended with {codes}; {lost} missing"))
        wrong = [name for name in found if found[name] != self.wanted.get(name)]
        if wrong:
            done.failed.append(("wrong in silence", f"{wrong} after {codes}"))


def weights(out: Path) -> dict[str, bytes]:
    """Checkpoint and best weights of a run by name."""
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.safetensors"))}
