"""Stores in Google Cloud Storage, Azure and the Hugging Face Hub: the suite of backends on servers of this host.

The servers speak as much of each service's interface as a store uses, conditions of puts included.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from stores import DATASET, build_store
from wsolpipe import open_store
from wsolpipe.cli.main import cli
from wsolpipe.contract.backends.opening import open_backend, parse_hub_url
from wsolpipe.contract.errors import AccessError, ConfigError, StoreError
from wsolpipe.testing import BackendReadTests, BackendTests

NUMBERS = itertools.count()


class Cloud:
    """Objects by name with a generation each, and the requests of one service upon them."""

    def __init__(self, service):
        self.objects, self.generations, self.lock = {}, itertools.count(1), threading.Lock()
        self.requests = []
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                return

            def handle_any(self):
                body = read_body(self)
                with cloud.lock:
                    cloud.requests.append((self.command, self.path, dict(self.headers)))
                    status, headers, data = service(cloud, self.command, urlsplit(self.path), self.headers, body)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def put(self, name, data):
        number = next(self.generations)
        self.objects[name] = (data, number)
        return {"ETag": f'"{number}"', "x-goog-generation": str(number), "Last-Modified": formatdate(usegmt=True)}

    def read(self, name, headers, command):
        if name not in self.objects:
            return 404, {"Content-Type": "application/xml"}, b"<Error><Code>NoSuchKey</Code></Error>"
        data, number = self.objects[name]
        told = {"ETag": f'"{number}"', "x-goog-generation": str(number), "Last-Modified": formatdate(usegmt=True)}
        wanted = headers.get("Range")
        if wanted and command == "GET":
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, len(data) - int(last))
            stop = int(last) + 1 if first and last else len(data)
            told["Content-Range"] = f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"
            return 206, told, data[start:stop]
        return 200, {**told, "Content-Length": str(len(data))}, data

    def below(self, prefix, delimiter):
        """Names with a prefix, and the prefixes up to the next delimiter."""
        names, folders = [], set()
        for name in sorted(self.objects):
            if name.startswith(prefix):
                head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
                if cut:
                    folders.add(f"{prefix}{head}{delimiter}")
                else:
                    names.append(name)
        return names, sorted(folders)


def read_body(handler):
    if handler.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    parts = []
    while size := int(handler.rfile.readline().split(b";")[0], 16):
        parts.append(handler.rfile.read(size))
        handler.rfile.readline()
    handler.rfile.readline()
    return b"".join(parts)


def google(cloud, command, url, headers, body):
    """The XML interface of Google Cloud Storage, whose puts compare generations."""
    name = unquote(url.path).removeprefix("/labels").lstrip("/")
    if not name:
        asked = {key: values[0] for key, values in parse_qs(url.query).items()}
        names, folders = cloud.below(asked.get("prefix", ""), asked.get("delimiter", ""))
        listed = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{len(cloud.objects[name][0])}</Size>"
            f'<LastModified>2025-01-01T00:00:00.000Z</LastModified><ETag>"{cloud.objects[name][1]}"</ETag></Contents>'
            for name in names
        )
        listed += "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        return 200, {"Content-Type": "application/xml"}, f"<ListBucketResult>{listed}</ListBucketResult>".encode()
    if command == "PUT":
        wanted = headers.get("x-goog-if-generation-match")
        if wanted is not None and int(wanted) != cloud.objects.get(name, (b"", 0))[1]:
            return 412, {}, b"<Error><Code>PreconditionFailed</Code></Error>"
        return 200, cloud.put(name, body), b""
    if command == "DELETE":
        return (204, {}, b"") if cloud.objects.pop(name, None) else (404, {}, b"")
    return cloud.read(name, headers, command)


def azure(cloud, command, url, headers, body):
    """The interface of Azure Blob Storage, whose puts compare ETags."""
    name = unquote(url.path).removeprefix("/devstoreaccount1/labels").lstrip("/")
    asked = {key: values[0] for key, values in parse_qs(url.query).items()}
    if asked.get("comp") == "list":
        names, folders = cloud.below(asked.get("prefix", ""), asked.get("delimiter", ""))
        listed = "".join(
            f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{formatdate(usegmt=True)}</Last-Modified>"
            f"<Content-Length>{len(cloud.objects[name][0])}</Content-Length><Content-Type>x/y</Content-Type>"
            f"<Etag>{cloud.objects[name][1]}</Etag></Properties></Blob>"
            for name in names
        )
        listed += "".join(f"<BlobPrefix><Name>{escape(name)}</Name></BlobPrefix>" for name in folders)
        text = f"<EnumerationResults><Blobs>{listed}</Blobs><NextMarker /></EnumerationResults>"
        return 200, {"Content-Type": "application/xml"}, text.encode()
    if asked.get("comp") == "batch":
        boundary = headers["Content-Type"].partition("boundary=")[2]
        parts = []
        for number, path in enumerate(re.findall(rb"^DELETE (\S+) HTTP", body, re.MULTILINE)):
            blob = unquote(path.decode()).removeprefix("/devstoreaccount1/labels").lstrip("/")
            there = cloud.objects.pop(blob, None) is not None
            status = "202 Accepted" if there else "404 Not Found\r\nx-ms-error-code: BlobNotFound"
            parts.append(f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n"
                         f"HTTP/1.1 {status}\r\nx-ms-version: 2023-11-03\r\n\r\n")  # fmt: skip
        told = {"Content-Type": f"multipart/mixed; boundary={boundary}"}
        return 202, told, "".join([*parts, f"--{boundary}--\r\n"]).encode()
    if command == "PUT":
        present = cloud.objects.get(name)
        if headers.get("If-None-Match") == "*" and present is not None:
            return 409, {"x-ms-error-code": "BlobAlreadyExists"}, b"<Error><Code>BlobAlreadyExists</Code></Error>"
        if headers.get("If-Match") and (present is None or headers["If-Match"].strip('"') != str(present[1])):
            return 412, {"x-ms-error-code": "ConditionNotMet"}, b"<Error><Code>ConditionNotMet</Code></Error>"
        return 201, cloud.put(name, body), b""
    return cloud.read(name, headers, command)


def answer(value):
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def hub(cloud, command, url, headers, body):
    """As much of the Hugging Face Hub as its own client needs to make a repository and commit to it, and to read."""
    path = unquote(url.path)
    if headers.get("Authorization", headers.get("authorization")) == "Bearer wrong-token-0001":
        return 401, {"Content-Type": "application/json"}, b'{"error": "Invalid credentials for wrong-token-0001"}'
    if path == "/api/repos/create":
        return (
            200,
            {"Content-Type": "application/json"},
            json.dumps({"url": f"{cloud.address}/datasets/lab/birds"}).encode(),
        )
    if "/preupload/" in path:
        files = [
            {"path": item["path"], "uploadMode": "regular", "shouldIgnore": False} for item in json.loads(body)["files"]
        ]
        return 200, {"Content-Type": "application/json"}, json.dumps({"files": files}).encode()
    if "/commit/" in path:
        for line in filter(None, body.splitlines()):
            item = json.loads(line)
            if item["key"] == "file":
                cloud.put(item["value"]["path"], base64.b64decode(item["value"]["content"]))
        told = {
            "commitUrl": f"{cloud.address}/datasets/lab/birds/commit/{'0' * 40}",
            "commitOid": "0" * 40,
            "success": True,
        }
        return 200, {"Content-Type": "application/json"}, json.dumps(told).encode()
    if path.startswith("/api/"):
        return 200, {"Content-Type": "application/json"}, b'{"id": "lab/birds", "sha": null, "siblings": []}'
    return cloud.read(path.partition("/resolve/main/")[2], headers, command)


def serve(service):
    cloud = Cloud(service)
    yield cloud
    cloud.close()


@pytest.fixture(scope="module")
def google_cloud():
    yield from serve(google)


@pytest.fixture(scope="module")
def azure_cloud():
    yield from serve(azure)


@pytest.fixture(scope="module")
def hub_server():
    yield from serve(hub)


def maker(address):
    def make(objects):
        made = open_backend(f"{address}/store{next(NUMBERS)}")
        for name, data in objects.items():
            assert made.create(name, data)
        return made

    return make


class TestGoogle(BackendTests):
    @pytest.fixture
    def make(self, google_cloud, monkeypatch, tmp_path):
        keys = {"gcs_base_url": google_cloud.address, "disable_oauth": True, "client_email": "", "private_key": "",
                "private_key_id": ""}  # fmt: skip
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(keys))
        monkeypatch.setenv("WSOLPIPE_CACHE", str(tmp_path / "cache"))
        return maker("gs://labels")


class TestAzure(BackendTests):
    @pytest.fixture
    def make(self, azure_cloud, monkeypatch, tmp_path):
        monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", azure_cloud.address)
        monkeypatch.setenv("WSOLPIPE_CACHE", str(tmp_path / "cache"))
        return maker("az://labels")


class TestHub(BackendReadTests):
    @pytest.fixture
    def make(self, hub_server, monkeypatch, tmp_path):
        monkeypatch.setenv("HF_ENDPOINT", hub_server.address)
        monkeypatch.setenv("WSOLPIPE_CACHE", str(tmp_path / "cache"))

        def make(objects):
            folder = f"store{next(NUMBERS)}"
            lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in objects.items()]
            for name, data in {**objects, "checksums.txt": "".join(lines).encode()}.items():
                hub_server.put(f"{folder}/{name}", data)
            return open_backend(f"hf://datasets/lab/birds/{folder}")

        return make


def test_labels_are_published_to_the_hub_and_pulled_from_it(hub_server, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HF_ENDPOINT", hub_server.address)
    monkeypatch.setenv("HF_TOKEN", "hf_test0001")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setenv("WSOLPIPE_CACHE", str(tmp_path / "cache"))
    store = build_store(tmp_path, rows=8, shard_rows=8)
    address = "hf://datasets/lab/birds/labels"

    def call(*words):
        with pytest.raises(SystemExit) as end:
            cli.main(list(words), standalone_mode=False)
        return end.value.code, capsys.readouterr()

    code, shown = call("publish", f"store={store.url}", f"to={address}", f"dataset={DATASET}", "licence=CC0")
    assert code == 0, shown.err
    code, shown = call("pull", f"from={address}", f"store={tmp_path / 'mine'}", f"trust={address}")
    assert code == 0, shown.err
    theirs, mine = (open_store(url)[DATASET]["train"]["proposals"] for url in (address, str(tmp_path / "mine")))
    assert (theirs["count"][:] == mine["count"][:]).all()
    assert all("hf_test0001" not in text for text in (shown.out, shown.err))
    with pytest.raises(StoreError, match="published stores are read-only"):
        open_backend(address).create("x", b"y")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("hf://lab/birds", "not the address of a data set in the Hub"),
        ("hf://datasets/birds", "not the address"),
        ("hf://datasets/lab/../birds", "not the address"),
        ("gs://user:secret@labels/x", "would be written to logs"),
        ("az:///x", "no bucket named"),
        ("ftp://labels/x", "scheme 'ftp'"),
    ],
)
def test_a_wrong_address_is_refused_in_one_line(url, told, tmp_path, monkeypatch):
    monkeypatch.setenv("WSOLPIPE_CACHE", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        parse_hub_url(url) if url.startswith("hf:") else open_backend(url)
    assert told in caught.value.message
    assert caught.value.hint
    assert "secret" not in str(caught.value)


def test_a_token_that_the_hub_refuses_is_not_shown(hub_server, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", hub_server.address)
    monkeypatch.setenv("HF_TOKEN", "wrong-token-0001")
    monkeypatch.setenv("WSOLPIPE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(AccessError) as caught:
        open_backend("hf://datasets/lab/birds").get("checksums.txt")
    assert "HF_TOKEN" in str(caught.value)
    assert "wrong-token-0001" not in str(caught.value)
