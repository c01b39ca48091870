"""A scheduler on one host, workers on another: only TCP and an S3 server join them, by a cable that is cut."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from dask_cluster import start_dask
from e2e.toy import object_bytes
from netns import join_two_hosts, missing, serve_s3_on
from s3 import BUCKET, KEYS

pytestmark = pytest.mark.netns

CUT_SECONDS = 8
SHARDS = 10
WORK = ("shard_rows=4", "shade.pause=0.4")


@pytest.fixture
def cable():
    """Two hosts and what joins them."""
    why = missing()
    if why:
        pytest.skip(why)
    with join_two_hosts() as cable:
        yield cable


def wait_for(process, file, text, seconds=90):
    deadline = time.monotonic() + seconds
    while text not in file.read_text():
        assert process.poll() is None, file.read_text()
        assert time.monotonic() < deadline, file.read_text()
        time.sleep(0.05)


def test_a_cable_cut_for_seconds_costs_nothing_but_time(cable, toy):
    """Shades of a toy data set, by two workers across the cable. A folder as a store is refused there before any work.

    The bytes are those of a run of this machine into a folder.
    """
    near, far = cable.first, cable.second
    folder, whole, pulled = (toy.folder / name for name in ("elsewhere", "whole", "pulled"))
    folder.mkdir()
    with (
        serve_s3_on(near) as endpoint,
        start_dask(toy.folder / "dask", host=near.address, prefix=near.enter) as dask,
    ):
        environment = toy.env(**KEYS, AWS_ENDPOINT_URL=endpoint, WSOLPIPE_CACHE=str(toy.folder / "cache"))
        for _ in range(2):
            dask.add_worker(environment, prefix=far.without(folder))
        assert toy.run(*WORK, stage="shade", store=whole).code == 0

        def command(name, *words, store):
            given = toy.command(name, *WORK, *words, stage="shade", store=store)
            return {"args": [*near.enter, *given], "env": environment, "cwd": toy.folder, "text": True}

        cluster, store = f"cluster={dask.address}", f"s3://{BUCKET}/labels"
        refused = subprocess.run(**command("run", cluster, store=folder), capture_output=True, check=False, timeout=90)
        assert refused.returncode == 1, refused.stderr
        assert f"sees another store at {folder} than the machine of the run" in refused.stderr
        assert "s3://bucket/folder" in refused.stderr
        assert not list(folder.rglob("commits/*.json"))

        told = toy.folder / "told.txt"
        with told.open("w") as file:
            process = subprocess.Popen(**command("run", cluster, store=store), stderr=file, stdout=file)
        wait_for(process, told, "shade train shard")
        cable.cut()
        made = told.read_text().count("shade train shard")
        time.sleep(CUT_SECONDS)
        meanwhile = told.read_text().count("shade train shard")
        assert made < SHARDS / 2
        assert meanwhile - made <= 2, "the cut cut nothing"
        cable.mend()
        assert process.wait(timeout=120) == 0, told.read_text()
        assert f"Dask dashboard: http://{near.address}:" in told.read_text()

        pull = [sys.executable, "-m", "wsolpipe.cli.main", "pull", f"from={store}", f"store={pulled}"]
        subprocess.run([*near.enter, *pull], env=environment, check=True, capture_output=True, timeout=90)
    assert object_bytes(pulled) == object_bytes(whole)
    assert len(list(pulled.glob("**/shade/*/commits/*.json"))) == SHARDS
