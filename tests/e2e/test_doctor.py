"""Each fault that is planted is found by `doctor`, and named with what to do about it."""

from __future__ import annotations

import email.utils
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from s3 import Plan, Proxy
from wsolpipe.cli.health import doctor_command
from wsolpipe.contract.backends import objects
from wsolpipe.contract.backends.opening import open_backend
from wsolpipe.share import checks


def find(check, store):
    """The finding of one check."""
    return next(item for item in checks.examine(str(store)) if item.check == check)


@pytest.fixture(autouse=True)
def only(request, monkeypatch, tmp_path):
    """Only the checks that a test names, since others take their time."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    wanted = getattr(request.function, "checks", None)
    if wanted:
        monkeypatch.setattr(checks, "CHECKS", {name: checks.CHECKS[name] for name in wanted})


def checking(*names):
    def mark(test):
        test.checks = names
        return test

    return mark


@pytest.fixture
def mount(tmp_path):
    """Mounts a small file system; skips where this machine does not let us."""
    mounted = []

    def make(options):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("mounting needs root")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"cannot mount: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_sound_machine_and_a_fresh_folder_pass_and_nothing_is_left(tmp_path):
    store = tmp_path / "store"
    done = CliRunner().invoke(doctor_command, [f"store={store}", "--json"])
    findings = json.loads(done.stdout)
    bad = [item for item in findings if not item["ok"] and item["check"] not in {"space", "scratch"}]
    assert bad == []
    assert {item["check"] for item in findings} == set(checks.CHECKS)
    assert not store.exists()


@checking("store")
def test_a_fault_gives_exit_code_1_and_is_shown_with_its_advice(mount):
    done = CliRunner().invoke(doctor_command, [f"store={mount('ro,size=1m')}/store"])
    assert done.exit_code == 1
    assert "BAD" in done.stdout
    assert "choose a writable folder" in done.stdout


@checking("store")
def test_a_read_only_store(mount):
    found = find("store", mount("ro,size=1m"))
    assert not found.ok
    assert "Read-only file system" in found.detail
    assert "choose a writable folder" in found.advice


@checking("store")
def test_a_store_that_is_a_file(tmp_path):
    (tmp_path / "store").write_text("no folder")
    found = find("store", tmp_path / "store")
    assert not found.ok
    assert "is a file, and a store is a folder" in found.detail
    assert "valid: a folder" in found.advice


@checking("space", "scratch")
def test_a_disk_that_is_nearly_full_or_out_of_files(mount, monkeypatch):
    small = mount("size=2m")
    assert "free some space" in find("space", small / "store").advice
    monkeypatch.setenv("WSOLPIPE_SCRATCH", str(small))
    assert "WSOLPIPE_SCRATCH" in find("scratch", small).advice
    few = find("space", mount("size=2g,nr_inodes=100"))
    assert not few.ok
    assert "more files" in few.detail


@checking("packages")
def test_a_package_that_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert find("packages", tmp_path).ok  # a folder needs none
    found = find("packages", "s3://labels/store")
    assert (found.ok, found.detail) == (False, "not installed: obstore")
    assert "pip install 'wsolpipe[s3]'" in found.advice


@checking("one cv2")
def test_two_wheels_of_opencv(monkeypatch, tmp_path):
    info = tmp_path / "site" / "opencv_python-4.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: opencv-python\nVersion: 4.0.0\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = find("one cv2", tmp_path)
    assert not found.ok
    assert "opencv-python" in found.detail
    assert "opencv-contrib-python-headless" in found.advice


@checking("image decoders")
def test_a_decoder_that_is_broken(monkeypatch, tmp_path):
    Image.init()
    monkeypatch.delitem(Image.OPEN, "WEBP")
    found = find("image decoders", tmp_path)
    assert (found.ok, found.detail) == (False, "Pillow cannot read WebP")
    assert "pillow" in found.advice


@checking("pretrained weights")
def test_a_torn_file_of_pretrained_weights(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "hub" / "model.safetensors"
    path.parent.mkdir()
    save_file({"w": np.zeros(1000, np.float32)}, path)
    assert find("pretrained weights", tmp_path).ok
    path.write_bytes(path.read_bytes()[:-7])
    found = find("pretrained weights", tmp_path)
    assert not found.ok
    assert f"rm {path}" in found.advice


class LateServer(http.server.BaseHTTPRequestHandler):
    """Answers with the time of an hour ago."""

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def date_time_string(self, timestamp=None):
        return email.utils.formatdate((timestamp or time.time()) - 3600, usegmt=True)

    def log_message(self, *_):
        return


@checking("clock")
def test_a_server_whose_clock_is_an_hour_late(monkeypatch):
    with http.server.HTTPServer(("127.0.0.1", 0), LateServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        found = find("clock", "s3://labels/store")
        server.shutdown()
    assert not found.ok
    assert "differ by -36" in found.detail or "differ by -35" in found.detail
    assert "NTP" in found.advice


@pytest.mark.s3
@checking("packages", "store", "space", "clock")
def test_a_store_on_s3_that_is_well_passes_and_keeps_nothing(s3):
    url = s3.store()
    findings = checks.examine(url)
    assert [item.check for item in findings if not item.ok] == []
    assert list(open_backend(url).walk("")) == []
    assert "differ by" in next(item.detail for item in findings if item.check == "clock")


@pytest.mark.s3
@pytest.mark.parametrize(
    ("answer", "detail", "advice"),
    [
        ((400, "ExpiredToken"), "expired", "renew them"),
        ((403, "AccessDenied"), "no permission", "ask the owner"),
        ((403, "InvalidAccessKeyId"), "not valid", "check AWS_ACCESS_KEY_ID"),
    ],
)
@checking("store")
def test_credentials_that_do_not_do(s3, monkeypatch, answer, detail, advice):
    with Proxy(s3.endpoint, Plan(answer=answer)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        found = find("store", s3.store())
    assert not found.ok
    assert detail in found.detail
    assert advice in found.advice
    assert os.environ["AWS_ACCESS_KEY_ID"] not in found.detail


@pytest.mark.s3
@checking("store")
def test_a_bucket_that_is_not_there_and_an_endpoint_out_of_reach(s3, monkeypatch):
    assert "create the bucket nowhere" in find("store", "s3://nowhere/store").advice
    monkeypatch.setattr(objects, "FIRST_PATIENCE", 0.2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    found = find("store", s3.store())
    assert "cannot be reached" in found.detail
    assert "AWS_ENDPOINT_URL" in found.advice
