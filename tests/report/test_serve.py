"""A served report: what it refuses, what it keeps, and that corrections made in a browser end in the store."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from chromium import PROGRAM, Browser
from wsolpipe.cli.main import cli
from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.contract.reader import open_store
from wsolpipe.pages.server import LIMIT, TOKEN, PageServer
from wsolpipe.report.page import Corrections

ROWS = 6


def call(*words: str) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(list(words), standalone_mode=False)
    assert end.value.code == 0


@pytest.fixture
def server():
    """A server of one page and one answer, and the values that were sent to it."""
    sent = []
    pages = {"/": "<!doctype html><title>page</title>", "/rows/0001.html": "rows"}
    found = PageServer(pages.get, {"/corrections": lambda value: sent.append(value) or {"corrected": len(sent)}})
    yield SimpleNamespace(server=found, sent=sent)
    found.close()


def ask(server: PageServer, path: str, *, method="GET", body=None, host=None, cookie=True, **headers):
    """Status and text of an answer; a request of the page itself unless it says otherwise."""
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    link.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    own = {"Host": host or f"127.0.0.1:{server.port}"}
    own |= {"Cookie": f"{server.cookie}={server.token}"} if cookie else {}
    own |= {"Content-Length": str(len(body))} if body is not None and "Content-Length" not in headers else {}
    for name, value in {**own, **{name.replace("_", "-"): value for name, value in headers.items()}}.items():
        link.putheader(name, value)
    link.endheaders(body)
    answer = link.getresponse()
    text = answer.read().decode()
    link.close()
    return SimpleNamespace(status=answer.status, text=text, headers=answer.headers)


def test_a_page_is_given_to_the_token_alone(server):
    own = server.server
    assert ask(own, "/").status == 200
    assert ask(own, "/rows/0001.html").text == "rows"
    first = ask(own, f"/?token={own.token}", cookie=False)
    assert (first.status, first.headers["Location"]) == (303, "/")
    assert "HttpOnly; SameSite=Strict" in first.headers["Set-Cookie"]
    assert ask(own, "/", cookie=False).status == 403
    assert ask(own, "/?token=guess", cookie=False).status == 403
    assert ask(own, "/", cookie=False, Cookie=f"{own.cookie}=guess").status == 403
    assert ask(own, "/").headers["X-Frame-Options"] == "SAMEORIGIN"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1.evil.example", "0.0.0.0"])
def test_another_host_is_refused(server, host):
    assert ask(server.server, "/", host=host).status == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)  # fmt: skip
def test_a_foreign_origin_is_refused(server, headers):
    own = server.server
    assert ask(own, "/", **headers).status == 403
    more = {TOKEN: own.token, **headers}
    assert ask(own, "/corrections", method="POST", body=b"[]", **more).status == 403
    assert server.sent == []


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd", "/rows/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/rows/",
        "/rows/0002.html", "/rows/0001.html%00", "/report.html",
    ],
)  # fmt: skip
def test_nothing_but_its_pages_exists(server, path):
    assert ask(server.server, path).status == 404


def test_a_change_needs_the_token_as_a_header_and_a_bounded_body(server):
    own = server.server

    def post(body=b"[1]", **headers):
        return ask(own, "/corrections", method="POST", body=body, **headers).status

    assert post() == 403  # the cookie is not enough: another page could make a browser send it
    assert post(**{TOKEN: "guess"}) == 403
    token = {TOKEN: own.token}
    assert post(**token, Content_Length=str(LIMIT + 1)) == 413
    assert post(**token, Content_Length="9" * 400) == 413
    assert post(**token, Content_Length="-1") == 411
    assert post(**token, Transfer_Encoding="chunked") == 411
    assert post(b"[1", **token) == 400
    assert ask(own, "/other", method="POST", body=b"[]", **token).status == 404
    assert ask(own, "/corrections", method="PUT", body=b"[]", **token).status == 501
    assert server.sent == []
    assert post(**token) == 200
    assert server.sent == [[1]]


def line(name, box):
    return {"image_id": name, "boxes": [{"box": box}]}


def test_two_tabs_lose_nothing_and_a_file_that_is_there_is_kept(tmp_path):
    names = [f"{number}.png" for number in range(40)]
    path = tmp_path / "corrections.jsonl"
    path.write_text(json.dumps(line("39.png", [1, 1, 5, 5])) + "\n")
    kept = Corrections(path, frozenset(names))

    def tab(first):
        for name in names[first:38:2]:
            kept.take([{"image_id": name, "line": line(name, [0, 0, first + 3, 4])}])

    threads = [threading.Thread(target=tab, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {json.loads(text)["image_id"]: json.loads(text) for text in path.read_text().splitlines()}
    assert sorted(found) == sorted({*names[:38], "39.png"})
    assert found["1.png"]["boxes"][0]["box"] == [0, 0, 4, 4]
    kept.take([{"image_id": "1.png", "line": None}])
    assert "1.png" not in path.read_text().replace("11.png", "").replace("21.png", "").replace("31.png", "")
    assert len(Corrections(path, frozenset(names)).lines) == 38
    for bad in ({"image_id": "x.png", "line": None}, {"image_id": "1.png", "line": line("2.png", [0, 0, 1, 1])}):
        with pytest.raises(DataError):
            kept.take([bad])
    with pytest.raises(ConfigError, match="not an image of this split"):
        Corrections(path, frozenset(names[:3]))


@pytest.fixture
def running(tmp_path):
    """``wsolpipe serve`` of a tiny data set with drawn boxes, as a process of its own."""
    rng = np.random.default_rng(0)
    for row in range(ROWS):
        (tmp_path / "images" / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(tmp_path / "images/a" / f"{row}.png")
    (tmp_path / "d.yaml").write_text(
        yaml.safe_dump({"name": "d", "layout": "folder", "root": "images", "split": "val"})
    )
    (tmp_path / "drawn.jsonl").write_text(
        "".join(json.dumps(line(f"a/{row}.png", [10, 10, 50, 60])) + "\n" for row in range(3))
    )
    place = [f"dataset={tmp_path / 'd.yaml'}", f"store={tmp_path / 'store'}", "split=val"]
    call("import", "format=jsonl", f"in={tmp_path / 'drawn.jsonl'}", *place)
    out = tmp_path / "corrections.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "wsolpipe.cli.main", "serve", *place, f"out={out}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    address = process.stdout.readline().strip()
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)", address)
    assert found, address + process.stderr.read()
    yield SimpleNamespace(
        folder=tmp_path, process=process, address=address, port=int(found[1]), token=found[2], out=out
    )
    if process.poll() is None:
        process.kill()
    process.wait(20)
    process.stdout.close()
    process.stderr.close()


def boxes_of(running):
    return open_store(str(running.folder / "store"))["d"]["val"].stage("human_boxes")


@pytest.mark.browser
def test_a_box_corrected_in_a_served_page_ends_in_the_store_and_control_c_ends_the_server(running):
    if not PROGRAM:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    before, browser = boxes_of(running), Browser(running.folder / "profile")
    try:
        browser.open(running.address + "#large=r4")
        assert "token" not in browser.run("location.href")
        browser.wait("document.getElementById('live').value.includes('corrected')")
        browser.press("n")
        browser.wait("document.getElementById('live').value.startsWith('1 corrected')")
        first = browser.session
        browser.tab()
        browser.open(f"http://127.0.0.1:{running.port}/#large=r2")
        browser.press("0")
        browser.wait("document.getElementById('live').value.startsWith('2 corrected')")
        browser.session = first
        browser.wait("document.getElementById('live').value.includes('human_boxes')", 60)
        assert browser.errors == []
    finally:
        browser.close()
    assert {json.loads(text)["image_id"] for text in running.out.read_text().splitlines()} == {"a/4.png", "a/2.png"}
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(60) == 0
    after = boxes_of(running)
    assert after.key != before.key
    np.testing.assert_array_equal(after["boxes"][4, 0], [30, 22.5, 90, 67.5])
    assert after["drawn"][:].tolist() == [1, 1, 1, 0, 1, 0]
    assert after["count"][:].tolist() == [1, 1, 0, 0, 1, 0]
    np.testing.assert_array_equal(after["boxes"][:2], before["boxes"][:2])


def test_the_server_ends_by_control_c_and_keeps_what_it_was_told_last(running):
    server = SimpleNamespace(port=running.port, token=running.token, cookie=f"wsolpipe-{running.port}")
    body = json.dumps([{"image_id": "a/5.png", "line": line("a/5.png", [1, 2, 30, 40])}]).encode()
    assert ask(server, "/corrections", method="POST", body=body, **{TOKEN: running.token}).status == 200
    running.process.send_signal(signal.SIGINT)  # before it was taken in
    assert running.process.wait(60) == 0
    np.testing.assert_array_equal(boxes_of(running)["boxes"][5, 0], [1, 2, 30, 40])
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.1", running.port, timeout=5).request("GET", "/")
