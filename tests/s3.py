"""An S3 server on this host for tests, and a proxy before it that fails, delays and cuts requests on a plan."""

from __future__ import annotations

import http.client
import itertools
import logging
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "labels"
STORES = itertools.count()  # of one process: all its servers share moto's memory
KEYS = {"AWS_ACCESS_KEY_ID": "test-key-0001", "AWS_SECRET_ACCESS_KEY": "test-secret-0001", "AWS_REGION": "us-east-1"}


@dataclass(frozen=True)
class Server:
    """A running S3 server: its address, and URLs of fresh stores in its bucket."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        return {**KEYS, "AWS_ENDPOINT_URL": self.endpoint}

    def store(self) -> str:
        return f"s3://{BUCKET}/store{next(STORES)}"


@contextmanager
def serve_s3(address: str = "127.0.0.1") -> Iterator[Server]:
    """Moto on a free port, with one bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        answer = request("PUT", host, port, f"/{BUCKET}")
        assert answer == 200
        yield Server(f"http://{host}:{port}")
    finally:
        server.stop()


def request(method: str, host: str, port: int, path: str) -> int:
    """Status of a plain request, which moto takes without a signature."""
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    finally:
        connection.close()


@dataclass
class Plan:
    """What happens to the n-th request through a proxy: every `fail`-th fails, every `slow`-th waits, `cut` are torn.

    `answer` (status, S3 error code) replaces every answer, `unheard` names headers that are not passed on, and
    `unknown` one whose requests are answered 501.
    """

    fail: int = 0
    slow: int = 0
    seconds: float = 0.3
    cut: tuple[int, ...] = ()
    answer: tuple[int, str] | None = None
    unheard: tuple[str, ...] = ()
    unknown: str = ""
    down: bool = False


class Proxy:
    """Passes requests on to `upstream` and disturbs some of them; `done` counts what it did."""

    def __init__(self, upstream: str, plan: Plan | None = None) -> None:
        self.plan, self.done = plan or Plan(), Counter()
        self._count, self._lock = itertools.count(1), threading.Lock()
        host, _, port = upstream.rpartition("/")[2].partition(":")
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                return

            def handle_any(self):
                proxy.pass_on(self, host, int(port))

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def pass_on(self, handler: BaseHTTPRequestHandler, host: str, port: int) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        with self._lock:
            number = next(self._count)
            self.done["requests"] += 1
        plan = self.plan
        if plan.down:
            handler.close_connection = True
            return
        if plan.answer:
            self._answer(handler, *plan.answer)
            return
        if plan.unknown and plan.unknown in handler.headers:
            self._answer(handler, 501, "NotImplemented")
            return
        if plan.fail and number % plan.fail == 0:
            self.done["failed"] += 1
            self._answer(handler, 500, "InternalError")
            return
        if plan.slow and number % plan.slow == plan.slow // 2:
            self.done["slow"] += 1
            time.sleep(plan.seconds)
        self._relay(handler, host, port, body, cut=number in plan.cut)

    def _relay(self, handler: BaseHTTPRequestHandler, host: str, port: int, body: bytes, *, cut: bool) -> None:
        connection = http.client.HTTPConnection(host, port, timeout=60)
        try:
            kept = {name: value for name, value in handler.headers.items() if name.lower() not in self.plan.unheard}
            connection.request(handler.command, handler.path, body, kept)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if cut:
            self.done["cut"] += 1
            handler.close_connection = True
            if len(data) < 2 or handler.command == "HEAD":
                return  # done over there, and no word of it here
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "connection", "content-length", "date", "server"}:
                handler.send_header(name, value)
        length = answer.getheader("Content-Length") if handler.command == "HEAD" else str(len(data))
        handler.send_header("Content-Length", length or "0")
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data[: len(data) // 2] if cut else data)

    @staticmethod
    def _answer(handler: BaseHTTPRequestHandler, status: int, code: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>said {KEYS['AWS_ACCESS_KEY_ID']}</Message></Error>".encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(text)))
        handler.send_header("Content-Type", "application/xml")
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(text)
