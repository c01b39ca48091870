"""Whole runs on S3: the same bytes as in a folder, whoever is killed, and readers that need no copy."""

from __future__ import annotations

import json
import os
import signal
import time

import numpy as np
import pytest

from e2e.toy import object_bytes
from s3 import Plan, Proxy
from stores import DATASET, build_store
from wsolpipe import open_store
from wsolpipe.contract.backends.opening import open_backend
from wsolpipe.share.selection import Selection
from wsolpipe.share.transfer import pull
from wsoltrain.stream import ItemConfig, Labelling, Shuffle, Stream

pytestmark = pytest.mark.s3


def remote_bytes(url):
    """As `object_bytes`, of a store behind a URL."""
    backend = open_backend(url)
    return {name: backend.get(name) for name, _ in backend.walk("") if "/data.zarr/" in name or "/files/" in name}


def asked(toy, command, url):
    """Exit code of a command that takes nothing but a store."""
    done = toy.command_line([command, f"store={url}", "--json"])
    assert done.code == 0, (command, done.out, done.err)


def test_a_run_on_s3_gives_the_bytes_of_a_run_in_a_folder_and_a_second_makes_nothing(toy, undisturbed, s3):
    url = s3.store()
    done = toy.run(f"store={url}")
    assert done.code == 0, done.err
    assert remote_bytes(url) == object_bytes(undisturbed.store)
    made = len(toy.calls())
    again = toy.run(f"store={url}")
    assert again.code == 0, again.err
    assert len(toy.calls()) == made
    assert toy.call("plan", f"store={url}", "check=true").code == 0
    asked(toy, "status", url)
    asked(toy, "verify", url)


@pytest.mark.parametrize("fault", ["between_arrays:7", "after_record:4"])
def test_a_run_on_s3_killed_in_a_commit_goes_on_to_the_same_bytes(toy, undisturbed, s3, fault):
    url = s3.store()
    killed = toy.run(f"store={url}", "lease=3", WSOLPIPE_FAULT=fault)
    assert killed.code == -signal.SIGKILL
    done = toy.run(f"store={url}", "lease=3")
    assert done.code == 0, done.err
    assert remote_bytes(url) == object_bytes(undisturbed.store)
    backend = open_backend(url)
    assert [name for name, _ in backend.walk("") if "/leases/" in name] == []


def test_two_runs_share_one_store_on_s3_and_one_is_killed(toy, undisturbed, s3):
    url = s3.store()
    first = toy.start(f"store={url}", "lease=3")
    second = toy.start(f"store={url}", "lease=3")
    deadline = time.monotonic() + 60
    while not toy.calls() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    out, err = second.communicate(timeout=120)
    first.communicate()
    assert second.returncode == 0, err
    assert json.loads(out)["verdict"] == "done"
    assert remote_bytes(url) == object_bytes(undisturbed.store)


def test_a_run_goes_on_through_a_failing_slow_and_cut_connection(toy, undisturbed, s3):
    with Proxy(s3.endpoint, Plan(fail=40, slow=20, seconds=0.02, cut=(150,))) as proxy:
        url = s3.store()
        done = toy.run(f"store={url}", AWS_ENDPOINT_URL=proxy.endpoint)
        assert done.code == 0, done.err
        assert proxy.done["requests"] > 150
        assert proxy.done["failed"] == proxy.done["requests"] // 40
        assert proxy.done["cut"] == 1
    assert remote_bytes(url) == object_bytes(undisturbed.store)


def test_a_worker_that_slept_through_its_lease_harms_nothing_on_s3(toy, undisturbed, s3):
    """Its late put finds another's object there, and its late record another's record."""
    url = s3.store()
    sleeper = toy.start(f"store={url}", "lease=0.5", "shade.pause=0.3")
    deadline = time.monotonic() + 60
    while not toy.calls("shade") and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(sleeper.pid, signal.SIGSTOP)
    try:
        other = toy.run(f"store={url}", "lease=0.5")
        assert other.code == 0, other.err
        before = tags(url)
    finally:
        os.killpg(sleeper.pid, signal.SIGCONT)
    _, told = sleeper.communicate(timeout=60)
    assert sleeper.returncode == 0, told
    assert tags(url) == before
    assert remote_bytes(url) == object_bytes(undisturbed.store)


def tags(url):
    """ETag of every record and object by name."""
    backend = open_backend(url)
    names = [name for name, _ in backend.walk("") if not name.endswith(("last-run.json", "seen.json"))]
    return {name: backend.head(name).stamp for name in names}


def test_expired_credentials_end_a_run_with_what_to_do_and_the_command_that_resumes(toy, s3):
    with Proxy(s3.endpoint, Plan(answer=(400, "ExpiredToken"))) as proxy:
        done = toy.run(f"store={s3.store()}", stage="shade", AWS_ENDPOINT_URL=proxy.endpoint)
    assert done.code == 4
    assert "the credentials have expired" in done.err
    assert "renew them" in done.err
    assert done.err.rstrip().splitlines()[-1].startswith("  -> resume with: wsolpipe run")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("plan", [Plan(unheard=("if-none-match",)), Plan(unknown="If-None-Match")])
def test_a_service_without_conditional_puts_is_refused_for_runs_and_read_by_pulls(
    toy, undisturbed, s3, tmp_path, monkeypatch, plan
):
    url, there = s3.store(), open_backend(str(undisturbed.store))
    with Proxy(s3.endpoint, plan) as proxy:
        refused = toy.run(f"store={url}", stage="palette", AWS_ENDPOINT_URL=proxy.endpoint)
        assert refused.code == 3, refused.err
        assert f"the service behind {url} has no conditional puts" in refused.err
        assert "run in a folder, store=FOLDER" in refused.err
        assert "Traceback" not in refused.err
        assert list(open_backend(url).walk("")) == []
        for name, _ in there.walk(""):  # as other programs copy
            open_backend(url).replace(name, there.get(name))
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        pull(url, str(tmp_path / "pulled"), Selection(), trust=url)
    assert object_bytes(tmp_path / "pulled") == object_bytes(undisturbed.store)


def test_no_credential_is_written_anywhere(toy, s3):
    url = s3.store()
    done = toy.run(f"store={url}", stage="palette")
    assert done.code == 0, done.err
    backend = open_backend(url)
    written = b"".join(backend.get(name) for name, _ in backend.walk(""))
    for secret in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert os.environ[secret].encode() not in written
        assert os.environ[secret] not in done.out + done.err


def test_the_trainer_streams_from_s3_what_it_streams_from_a_folder(tmp_path, s3):
    tiny = build_store(tmp_path, rows=40)
    url = s3.store()
    source, target = open_backend(tiny.url), open_backend(url)
    for name, _ in source.walk(""):
        target.create(name, source.get(name))
    shuffle = Shuffle(run_rows=8, lane_runs=2, lanes=2, unit=4)

    def items(where):
        config = ItemConfig(Labelling(where, DATASET), root=tiny.root, size=56, resize=64, shuffle=shuffle)
        return list(Stream(config, batch_size=8))

    assert open_store(url)[DATASET]["train"]["proposals"].rows().size == 40
    for near, far in zip(items(tiny.url), items(url), strict=True):
        for name in near:
            np.testing.assert_array_equal(near[name].numpy(), far[name].numpy())
