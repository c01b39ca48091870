"""``cluster=tcp://…``: schedulers and workers that somebody started, each a process of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from dask_cluster import start_dask
from e2e.toy import object_bytes
from wsolpipe.contract.errors import ClusterError
from wsolpipe.engine.config import build_config, for_worker
from wsolpipe.engine.leases import Leases
from wsolpipe.engine.session import Session, software_versions
from wsolpipe.launch import process
from wsolpipe.launch.dask import StandingDask
from wsolpipe.launch.launcher import Command, Order
from wsolpipe.launch.profiles import Profile
from wsolpipe.stages.registry import load_registry

HIDE = """
import importlib.metadata as metadata
import sys

class Hidden:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "wsolpipe":
            raise ModuleNotFoundError(f"No module named {name!r}")

def version(name, known=metadata.version):
    if name == "wsolpipe":
        raise metadata.PackageNotFoundError(name)
    return known(name)

sys.meta_path.insert(0, Hidden())
metadata.version = version
"""


@pytest.fixture
def dask(tmp_path):
    """A scheduler without workers."""
    with start_dask(tmp_path / "dask") as cluster:
        yield cluster


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_workers_of_a_standing_cluster_make_the_bytes_of_one_process(toy, undisturbed, dask):
    """They run in another folder, so every relative path of the command line must reach them whole."""
    dask.add_worker(toy.env())
    dask.add_worker(toy.env(), "--nthreads", "2")
    given = ["store=store", "dataset=toy.yaml", "stages=package/toy_stages/stages.yaml"]
    done = toy.run(f"cluster={dask.address}", *given, "shade.pause=0.05")
    assert done.code == 0, done.err
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)
    assert "Dask dashboard: http://" in done.err
    assert not list(toy.store.glob("**/leases/*.json"))
    assert not list(toy.store.glob("toy/launch-*.json"))
    made = [call["first"] for call in toy.calls("shade")]
    assert sorted(made) == sorted(set(made))


class Relay:
    """Passes connections on to a port; `cut` breaks all of them and takes none until `mend`."""

    def __init__(self, port):
        self.port, self.open, self.pairs = port, True, []
        self.server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.server.accept()
                if not self.open:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.port))
                self.pairs.append((near, far))
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    @staticmethod
    def _pass(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self):
        self.open = False
        for pair in self.pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self):
        self.open = True


@pytest.mark.slow
def test_a_connection_that_breaks_is_made_again_and_what_was_asked_for_is_asked_again(toy, undisturbed, dask):
    dask.add_worker(toy.env())
    relay = Relay(int(dask.address.rpartition(":")[2]))
    address = f"tcp://127.0.0.1:{relay.server.getsockname()[1]}"
    process = toy.start(f"cluster={address}", "shade.pause=0.5")
    while len(list(toy.store.glob("**/shade/**/commits/*.json"))) < 1 and process.poll() is None:
        time.sleep(0.05)
    relay.cut()
    time.sleep(3)
    relay.mend()
    _, told = process.communicate(timeout=100)
    relay.server.close()
    assert process.returncode == 0, told
    assert f"the connection to the Dask scheduler at {address} is lost; reconnecting" in told
    assert "is restored" in told
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)


@pytest.mark.slow
def test_a_killed_scheduler_ends_the_run_in_words_and_costs_nothing_committed(toy, undisturbed, dask):
    workers = [dask.add_worker(toy.env()), dask.add_worker(toy.env())]
    process = toy.start(f"cluster={dask.address}", "shade.pause=0.3")
    while len(list(toy.store.glob("**/shade/**/commits/*.json"))) < 1 and process.poll() is None:
        time.sleep(0.05)
    dask.scheduler.kill()
    out, printed = process.communicate(timeout=100)
    assert process.returncode == 1, printed
    assert "Traceback" not in printed
    assert f"the Dask scheduler at {dask.address} was lost" in printed
    assert last_line(printed).lstrip().startswith("-> resume with: wsolpipe run ")
    for worker in workers:
        assert worker.wait(timeout=60) is not None  # nothing is left that waits for a scheduler for ever
    kept = object_bytes(toy.store)
    assert kept
    done = toy.run()
    assert done.code == 0, done.err
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)
    assert kept.items() <= object_bytes(toy.store).items()


class CutWhileAsked(StandingDask):
    """Its client is closed between a look at its state and the question that follows."""

    def _count(self):
        self.client.close()
        super()._count()


def test_a_client_closed_between_two_questions_means_a_lost_scheduler(dask, tmp_path):
    command = Command(("true",))
    launcher = CutWhileAsked(Order(dask.address, "toy", tmp_path, Profile(), worker=command), lambda event: None)
    with launcher.connect() as launcher.client:
        with pytest.raises(ClusterError, match=f"the Dask scheduler at {dask.address} was lost"):
            launcher.look()
        with pytest.raises(ClusterError, match="was lost"):
            launcher.start({"tcp://127.0.0.1:9": ("worker 1", command)})


def test_an_address_where_nothing_listens_is_said_at_once(toy):
    done = toy.run("cluster=tcp://127.0.0.1:9")
    assert done.code == 1
    assert "no Dask scheduler can be reached at tcp://127.0.0.1:9: Connection refused" in done.err
    assert "dask scheduler" in done.err
    assert "Traceback" not in done.err
    done = toy.run("cluster=tcp://127.0.0.1")
    assert done.code == 3
    assert "write the scheduler's address as tcp://host:port" in done.err


def test_a_cluster_without_workers_or_with_unfit_ones_is_refused_before_work(toy, dask, tmp_path):
    done = toy.run(f"cluster={dask.address}", "profile.start_seconds=1")
    assert done.code == 1
    assert f"no worker is connected to the Dask scheduler at {dask.address} for 1 s" in done.err
    assert f"dask worker {dask.address}" in done.err
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "sitecustomize.py").write_text(HIDE)
    dask.add_worker(toy.env(PYTHONPATH=str(tmp_path / "hide")))
    done = toy.run(f"cluster={dask.address}")
    assert done.code == 1
    assert "has no wsolpipe" in done.err
    assert "install the same version there" in done.err
    with start_dask(tmp_path / "other", settings={"PYTHONPATH": str(tmp_path / "hide")}) as other:
        other.settings = {}
        other.add_worker(toy.env())
        done = toy.run(f"cluster={other.address}")
    assert done.code == 1
    assert "the Dask scheduler has no wsolpipe" in done.err
    assert not list(toy.store.glob("**/shade/**/commits/*.json"))


def test_a_worker_that_sees_another_store_or_other_versions_says_so(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "TOKEN_PATIENCE", 0.1)
    words = [word for word in toy.words() if not word.startswith("store=")]
    config, _ = build_config([*words, f"store={tmp_path / 'elsewhere'}"], load_registry(str(toy.stages)))
    report, stop = process.Log(tmp_path, 0), threading.Event()

    def begin(**order):
        return process.begin(process.WorkOrder(for_worker(config), **order), report, stop)

    begin(versions=software_versions())
    with pytest.raises(ClusterError, match="sees another store at") as refused:
        begin(versions=software_versions(), token="toy/launch-0.json")
    assert "s3://bucket/folder" in refused.value.hint
    with pytest.raises(ClusterError, match=r"instead of 1\.0"):
        begin(versions={"numpy": "1.0"})
    there = {"python": "3.11.4.final.0", "torch": None}
    assert process.version_differences(there, {"python": "3.11.2", "torch": "2.6"}) == ["no torch"]
    assert process.version_differences({"python": "3.12.1"}, {"python": "3.11.2"}) == ["python 3.12 instead of 3.11"]


@pytest.mark.parametrize("end", ["released", "stale"])
def test_a_worker_elsewhere_ends_with_the_run_that_waits(toy, end):
    """Its lease in the store says that the run is there: it is released in the end, or grows stale after a kill."""
    session = Session.open(build_config(toy.words("lease=0.3"), load_registry(str(toy.stages)))[0])
    lease, stop = Leases(session.backend, ttl=0.3).acquire("toy/launch-0.json"), threading.Event()
    process._follow_token(session, lease.name, stop)
    if end == "released":
        with lease.beating():
            assert not stop.wait(1.0)
    assert stop.wait(10)
