"""A scheduler on one host, workers on another: only TCP and an S3 server join them, by a cable that is cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest

from dask_cluster import start_dask
from e2e.toy import object_bytes
from netns import join_two_hosts, missing, serve_s3_on
from s3 import BUCKET, KEYS

pytestmark = pytest.mark.netns

CUT_SECONDS = 20
SHARDS = 14
DEMO = ("stage=cls_maps", "dataset=demo", "split=train", f"limit={8 * SHARDS}", "shard_rows=8", "threads=1")


@pytest.fixture
def cable():
    """Two hosts and what joins them."""
    why = missing()
    if why:
        pytest.skip(why)
    with join_two_hosts() as cable:
        yield cable


def wsolpipe(*words):
    return [sys.executable, "-m", "wsolpipe.cli.main", *words]


def wait_for(process, file, text, seconds=90):
    deadline = time.monotonic() + seconds
    while text not in file.read_text():
        assert process.poll() is None, file.read_text()
        assert time.monotonic() < deadline, file.read_text()
        time.sleep(0.05)


def test_a_cable_cut_for_twenty_seconds_costs_nothing_but_time(cable, tmp_path):
    """The demo's maps, by two workers across the cable. A folder as a store is refused there before any work."""
    near, far = cable.first, cable.second
    folder = tmp_path / "store"
    folder.mkdir()
    whole = subprocess.Popen(
        wsolpipe("run", *DEMO, f"store={tmp_path / 'whole'}"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    with (
        serve_s3_on(near) as endpoint,
        start_dask(tmp_path / "dask", host=near.address, prefix=near.enter) as dask,
    ):
        environment = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": endpoint, "OMP_NUM_THREADS": "1"}
        environment["WSOLPIPE_CACHE"] = str(tmp_path / "cache")
        for _ in range(2):
            dask.add_worker(environment, prefix=far.without(folder))
        cluster, store = f"cluster={dask.address}", f"store=s3://{BUCKET}/labels"

        refused = subprocess.run(
            [*near.enter, *wsolpipe("run", *DEMO, cluster, f"store={folder}")],
            env=environment, capture_output=True, text=True, check=False, timeout=90,
        )  # fmt: skip
        assert refused.returncode == 1, refused.stderr
        assert f"sees another store at {folder} than the machine of the run" in refused.stderr
        assert "s3://bucket/folder" in refused.stderr
        assert not list(folder.rglob("commits/*.json"))

        told = tmp_path / "told.txt"
        with told.open("w") as file:
            process = subprocess.Popen(
                [*near.enter, *wsolpipe("run", *DEMO, cluster, store)], env=environment, stderr=file, stdout=file
            )
        wait_for(process, told, "cls_maps train shard")
        cable.cut()
        made = told.read_text().count("cls_maps train shard")
        time.sleep(CUT_SECONDS)
        meanwhile = told.read_text().count("cls_maps train shard")
        assert made < SHARDS / 2
        assert meanwhile - made <= 2, "the cut cut nothing"
        cable.mend()
        assert process.wait(timeout=120) == 0, told.read_text()
        assert f"Dask dashboard: http://{near.address}:" in told.read_text()

        pulled = tmp_path / "pulled"
        subprocess.run(
            [*near.enter, *wsolpipe("pull", f"from=s3://{BUCKET}/labels", f"store={pulled}", "dataset=demo")],
            env=environment, check=True, capture_output=True, timeout=90,
        )  # fmt: skip
    assert whole.wait(timeout=90) == 0
    assert object_bytes(pulled) == object_bytes(tmp_path / "whole")
    assert len(list(pulled.glob("**/cls_maps/*/commits/*.json"))) == SHARDS
    shutil.rmtree(pulled)
