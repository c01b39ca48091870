"""Attacks that are no damage to a file: bombs, unfinished keys, faults of a device, sockets, two trainings at once …"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq

from attack_training import UNKNOWN, weights
from e2e.toy import object_bytes, records
from wsolpipe import open_store
from wsolpipe.contract.layout import sha256_bytes

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from attack import Attacker
    from damage import Attack
    from e2e.toy import Toy

WAIT = 120.0
MOST_MEMORY = 2**30
"""Bytes that a command may take of what a giver made from some megabytes."""
AT_HOME = {"127.0.0.1", "::1"}
CLUSTERS = (("cluster=local", "workers=2"), ("cluster=dask-local", "workers=2"), ("cluster=dask-cuda", "devices=0,1"))
"""Clusters of one machine; those over SLURM need its daemons, which `tests/launch/test_sockets.py` starts."""


def start(argv: list[str], folder: Path, env: dict[str, str], program: str = "wsolpipe") -> subprocess.Popen[str]:
    """Begin a command in a process group of its own, whose words appear in files of `folder`."""
    folder.mkdir(exist_ok=True)
    with (folder / "said.txt").open("w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", f"{program}.cli.main", *argv], env=env, stdout=said, stderr=said, text=True,
            start_new_session=True, cwd=folder,
        )  # fmt: skip


def end(done: Attack, process: subprocess.Popen[str], folder: Path, *, killed: bool = False) -> tuple[int, str, int]:
    """Wait for a command that `start` began; note a hang or traceback; its exit code, words and peak memory."""
    end_at = time.monotonic() + WAIT
    memory = 0
    while (code := process.poll()) is None:
        with suppress(OSError):  # it may have ended
            status = Path(f"/proc/{process.pid}/status").read_text()
            memory = max([memory, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
        if time.monotonic() > end_at:
            done.failed.append(("wedged", f"{process.args!r}: {(folder / 'said.txt').read_text()[-500:]}"))
            os.killpg(process.pid, signal.SIGKILL)
            end_at += WAIT
        else:
            time.sleep(0.02)
    said = (folder / "said.txt").read_text()
    if any(text in said for text in UNKNOWN) or (code < 0 and not killed):
        done.failed.append(("tracebacks", f"{process.args!r} ended with {code}:\n{said[-2000:]}"))
    return code, said, memory * 1024


# -- a giver's store that claims more than it holds ----------------------------------------------------------------


def _agreeing(manifest: Path, name: str, data: bytes) -> None:
    """Write a table of the index with a manifest that agrees with it."""
    (manifest.parent / name).write_bytes(data)
    fields = json.loads(manifest.read_bytes())
    fields["objects"][name] = {"sha256": sha256_bytes(data), "bytes": len(data)}
    manifest.write_text(json.dumps(fields))


def _table_bomb(store: Path, rng: random.Random) -> str:
    (manifest,) = store.glob("toy/train/index/*/manifest.json")
    name = rng.choice(["index.parquet", "annotations.parquet"])
    schema = pq.read_schema(manifest.parent / name)
    kind = rng.choice(["many rows", "a long cell in many rows"])
    rows = rng.choice([10**7, 3 * 10**7]) if kind == "many rows" else rng.choice([137, 5000])
    columns: dict[str, Any] = {field.name: pa.nulls(rows, field.type) for field in schema}
    if kind != "many rows":
        cell = "x" * rng.choice([10**6, 4 * 10**7])
        columns["path"] = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), [cell])
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd", store_schema=False)
    _agreeing(manifest, name, sink.getvalue())
    return f"{kind} in {name}"


def _array_bomb(store: Path, rng: random.Random) -> str:
    manifest = rng.choice(sorted(store.glob("toy/train/[fs]*/*/manifest.json")))
    fields = json.loads(manifest.read_bytes())
    array = rng.choice(sorted(fields["arrays"]))
    change: dict[str, Any] = rng.choice([{"shape": [6000, 6000]}, {"shape": [10**9]}, {"shape": [1] * 9}])
    if rng.random() < 0.3:
        fields["rows"] = 10 ** rng.randint(7, 15)
    else:
        fields["arrays"][array].update(change)
    manifest.write_text(json.dumps(fields))
    return f"{array} of {manifest.parents[1].name}"


def _json_bomb(store: Path, rng: random.Random) -> str:
    path = rng.choice(sorted([*store.glob("toy/train/*/*/manifest.json"), *store.glob("toy/train/*/*/commits/*.json")]))
    if rng.random() < 0.5:
        with path.open("r+b") as file:
            file.truncate(2**30)  # sparse: only its size is real
    else:
        path.write_bytes(b"[" * 10**6)
    return path.relative_to(store).as_posix()


def bombs(attacker: Attacker, done: Attack, folder: Path) -> None:
    """Read and pull a store that claims gigabytes: it is refused, in words and in little memory, and harms nothing."""
    toy, giver, store = attacker.torture.whole, folder / "giver", folder / "store"
    shutil.copytree(toy.store, giver)
    done.victim = attacker.rng.choice([_table_bomb, _array_bomb, _json_bomb])(giver, attacker.rng)
    orders = {
        "pull": ["pull", f"from={giver}", f"store={store}"],
        "verify": ["verify", f"store={giver}"],
        "report": ["report", f"store={giver}", "dataset=toy", "split=train", f"out={folder / 'page.html'}"],
        "export": export_words(toy, giver, folder / "boxes.json", "json"),
        "plan": ["plan", *toy.words(f"store={giver}", "shard_rows=4")],
    }
    for name in attacker.rng.sample(sorted(orders), 2):
        argv = orders[name]
        _, _, memory = end(done, start(argv, folder / name, toy.env()), folder / name)
        if memory > MOST_MEMORY:
            done.failed.append(("memory taken", f"{name} took {memory:,} bytes: {done.victim}"))
    must_run(attacker, done, store)


# -- results that are not whole, or not the newest -----------------------------------------------------------------


def unfinished(attacker: Attacker, done: Attack, folder: Path) -> None:
    """Kill a run with other parameters beside a finished result: readers, pull and a trainer take the finished one."""
    toy, store, pulled = attacker.torture.whole, folder / "store", folder / "pulled"
    shutil.copytree(toy.store, store)
    words = attacker.rng.choice([("shade.gain=0.5",), ("frame.spread=3",), ("shade.gain=0.5", "frame.spread=3")])
    fault = f"{attacker.rng.choice(['before_record', 'after_record'])}:{attacker.rng.randint(2, 9)}"
    argv = ["run", *toy.words(f"store={store}", "shard_rows=4"), *words]
    if toy.command_line(argv, kill_after=WAIT, WSOLPIPE_FAULT=fault).code != -signal.SIGKILL:
        return  # the run got through: nothing is unfinished
    done.victim = f"{' '.join(words)} at {fault}"
    for target in (store, pulled):
        if target == pulled and toy.command_line(["pull", f"from={store}", f"store={pulled}"], kill_after=WAIT).code:
            done.failed.append(("rows lost", "pull failed"))
            return
        split = open_store(str(target))["toy"]["train"]
        for stage, key in attacker.keys.items():
            taken = split[stage]
            made = len(list((target / taken.folder / "commits").glob("*.json")))
            if taken.key != key and made < len(taken.shards):
                done.failed.append(("wrong in silence", f"{stage} of {target} is read under {taken.key}, unfinished"))
        lost = [name for name in attacker.torture.wanted if name not in object_bytes(target)]
        if lost:
            done.failed.append(("rows lost", f"{lost[:3]} of {target}"))


def killed_export(attacker: Attacker, done: Attack, folder: Path) -> None:
    """Kill exports: what they write is there whole or not at all."""
    toy, rng = attacker.torture.whole, attacker.rng
    form = rng.choice(["csv", "coco", "yolo", "voc"])
    done.victim = form

    def export(out: Path, kill_after: float | None = None) -> tuple[int, dict[str, bytes]]:
        ended = toy.command_line(export_words(toy, toy.store, out, form), kill_after=kill_after or WAIT)
        if ended.code < 0 and not kill_after or any(text in ended.err for text in UNKNOWN):
            done.failed.append(("tracebacks", f"{form} ended with {ended.code}:\n{ended.err[-2000:]}"))
        return int(ended.code), tree(out)

    began = time.monotonic()
    code, wanted = export(folder / "whole" / "out")
    span = time.monotonic() - began
    if code or not wanted:
        done.failed.append(("rows lost", f"export format={form} ended with {code}"))
    for number in range(2):
        out = folder / f"{number}" / "out"
        _, found = export(out, kill_after=rng.uniform(0.2, 1) * span)
        if found and found != wanted:
            done.failed.append(("rows lost", f"{form}: {len(found)} of {len(wanted)} files after a kill"))
        if export(out)[0] and not found:
            done.failed.append(("wedged", f"{form} after a kill"))
        if tree(out) != wanted:
            done.failed.append(("wrong in silence", f"{form} after a kill"))


def export_words(toy: Toy, store: Path, out: Path, form: str) -> list[str]:
    """Words of the command that writes the boxes of a toy store in a format."""
    given = {"stage": "frame", "store": store, "dataset": toy.yaml, "stages": toy.stages, "split": "train"}
    return ["export", *(f"{key}={value}" for key, value in given.items()), f"format={form}", f"out={out}"]


def tree(out: Path) -> dict[str, bytes]:
    """Files that appeared at `out` or beside it, by name."""
    paths = [path for path in sorted(out.parent.rglob("*")) if path.is_file()] if out.parent.exists() else []
    names = {path.relative_to(out.parent): path for path in paths}
    return {
        name.as_posix(): path.read_bytes()
        for name, path in names.items()
        if not any(part.startswith(".") for part in name.parts)
    }


# -- machines that fail --------------------------------------------------------------------------------------------


def device_fault(attacker: Attacker, done: Attack, folder: Path) -> None:
    """A GPU fails under a stage: no row is blamed, and the next run makes the bytes of an undisturbed one."""
    toy, store = attacker.torture.whole, folder / "store"
    stage = attacker.rng.choice(["shade", "palette"])
    more = attacker.rng.choice([("workers=1",), ("workers=2",), ("cluster=dask-local", "workers=2")])
    argv = ["run", *toy.words(f"store={store}", "shard_rows=4"), f"{stage}.dies={folder / 'dead'}", *more]
    done.victim = f"{stage} {' '.join(more)}"
    end(done, start(argv, folder / "run", toy.env()), folder / "run")
    blamed = [
        name for each in ("shade", "frame") for name, record in records(store, each).items() if record.quarantined
    ]
    if blamed:
        done.failed.append(("rows lost", f"rows of {blamed} are quarantined"))
    must_run(attacker, done, store)


def photographs_away(attacker: Attacker, done: Attack, folder: Path) -> None:
    """The photographs are away before or during a run, and come back: no row is given up, no key is another."""
    toy, rng = attacker.torture.whole, attacker.rng
    place = folder / "place"
    place.mkdir()
    for name in ("images", "package"):
        shutil.copytree(toy.folder / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(toy.yaml, place / "toy.yaml")
    store, images, away = folder / "store", place / "images", place / "away"
    words = [word.replace(str(toy.folder), str(place)) for word in toy.words("shard_rows=4", "shade.pause=0.05")]
    argv = ["run", *(word for word in words if not word.startswith("store=")), f"store={store}"]
    delay = rng.choice([0.0, rng.uniform(0, 3)])
    done.victim = f"after {delay:.2f} s"
    if not delay:
        images.rename(away)
        images.mkdir()
    process = start(argv, folder / "run", {**toy.env(), "PYTHONPATH": toy.env()["PYTHONPATH"]})
    time.sleep(delay)
    if delay:
        images.rename(away)
    end(done, process, folder / "run")
    with suppress(FileNotFoundError):
        images.rmdir()
    away.rename(images)
    must_run(attacker, done, store)


def sockets(attacker: Attacker, done: Attack, folder: Path) -> None:
    """List what listens while a run works: nothing but on this machine's own address."""
    toy, gate = attacker.torture.whole, folder / "gate"
    words = attacker.rng.choice(CLUSTERS)
    done.victim = " ".join(words)
    argv = ["run", *toy.words(f"store={folder / 'store'}", "shard_rows=4", f"shade.gate={gate}"), *words]
    process = start(argv, folder / "run", toy.env())
    end_at = time.monotonic() + attacker.rng.uniform(2, 8)
    heard: set[str] = set()
    while time.monotonic() < end_at:
        heard |= addresses(process.pid)
        time.sleep(0.1)
    gate.touch()
    end(done, process, folder / "run")
    if heard - AT_HOME:
        done.failed.append(("wrong in silence", f"{done.victim} listens on {sorted(heard)}"))
    must_run(attacker, done, folder / "store")


def addresses(top: int) -> set[str]:
    """Addresses at which a process and those that it started listen."""
    found: set[str] = set()
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(top)
        for process in [first, *first.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                connections = process.net_connections("inet")
                found |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
    return found


# -- two at once ---------------------------------------------------------------------------------------------------


def two_fits(attacker: Attacker, done: Attack, folder: Path) -> None:
    """Start two trainings into one folder, and kill one of them at times: one refuses, and the bytes are of one run."""
    training, toy, rng = attacker.training, attacker.torture.whole, attacker.rng
    store, out = training.copy(folder / "home"), folder / "run"
    argv = training.words(store, out)
    delay, kill = rng.uniform(0, 1.5 * training.seconds), rng.random() < 0.5
    done.victim = f"second after {delay:.1f} s{', first killed' if kill else ''}"
    one = start(argv, folder / "one", toy.env(), program="wsoltrain")
    time.sleep(delay)
    other = start(argv, folder / "other", toy.env(), program="wsoltrain")
    if kill:
        time.sleep(rng.uniform(0, training.seconds))
        with suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGKILL)
    end(done, one, folder / "one", killed=kill)
    end(done, other, folder / "other")
    for number in range(3):
        code, said, _ = end(
            done, start(argv, folder / f"{number}", toy.env(), program="wsoltrain"), folder / f"{number}"
        )
        if code == 0:
            break
        time.sleep(1)
    else:
        done.failed.append(("rows lost", f"training ended with {code}: {said[-500:]}"))
    if weights(out) != training.wanted:
        done.failed.append(("wrong in silence", "the weights are not those of a run alone"))


def must_run(attacker: Attacker, done: Attack, store: Path) -> None:
    """Run until everything is made, and compare with an undisturbed run; no row may be quarantined."""
    toy = attacker.torture.whole
    for _ in range(3):
        ended = toy.command_line(["run", *toy.words(f"store={store}", "shard_rows=4")], kill_after=WAIT)
        if any(text in ended.err + ended.out for text in UNKNOWN):
            done.failed.append(("tracebacks", ended.err[-2000:]))
        if ended.code == 0:
            break
    else:
        done.failed.append(("rows lost", f"run ended with {ended.code}: {ended.err[-500:]}"))
    found, wanted = object_bytes(store), attacker.torture.wanted
    lost = [name for name in wanted if name not in found]
    wrong = [name for name in wanted if name in found and found[name] != wanted[name]]
    if lost:
        done.failed.append(("rows lost", f"{lost[:3]}"))
    if wrong:
        done.failed.append(("wrong in silence", f"{wrong[:3]}"))


SCENES: dict[str, Callable[[Attacker, Attack, Path], None]] = {
    "bombs": bombs,
    "unfinished keys": unfinished,
    "killed exports": killed_export,
    "faults of a device": device_fault,
    "photographs away": photographs_away,
    "sockets": sockets,
    "two fits": two_fits,
}
