"""A small server of pages on this machine alone: one address, a token, the page's own origin, bounded bodies."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from wsolpipe.contract.errors import ConfigError, WsolError, raise_as
from wsolpipe.contract.layout import read_json

HOST = "127.0.0.1"
TOKEN = "X-Wsolpipe-Token"  # noqa: S105 - the name of a header
#: Bytes of a body that a page may send.
LIMIT = 2**20
#: Seconds after which a silent connection is closed.
IDLE = 10.0


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """An answer that refuses a request."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass
class PageServer:
    """Serves pages to browsers of this machine until it is closed.

    A request must name this very address as its host, so that no other site's name leads here; it must carry the token,
    as a cookie that the first page sets, or, to change something, as a header, which no other origin can send; and its
    origin, where it has one, must be this server. What is not a page of `find` does not exist: no path leads to a file.

    Attributes
    ----------
    find : callable
        Path, such as ``/`` or ``/rows/0001.html`` -> text of the page; None where there is none.
    answers : mapping of str to callable
        Paths of data: what a page sent as JSON (None of a GET) -> what is answered as JSON.
    port : int
        0: any that is free.
    """

    find: Callable[[str], str | None]
    answers: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    port: int = 0
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def __post_init__(self) -> None:
        handler = type("Handler", (_Handler,), {"pages": self})
        with raise_as(
            ConfigError, f"port={self.port} cannot be opened", OSError, hint="leave port= out for any free one"
        ):
            self._server = ThreadingHTTPServer((HOST, self.port), handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where a browser opens the page, token included."""
        return f"http://{HOST}:{self.port}/?token={self.token}"

    @property
    def cookie(self) -> str:
        """Name of the cookie; browsers share cookies between ports."""
        return f"wsolpipe-{self.port}"

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    pages: PageServer
    timeout = IDLE
    server_version, sys_version, protocol_version = "wsolpipe", "", "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Keep quiet: addresses hold the token."""

    def do_GET(self) -> None:
        self._guarded(self._get)

    def do_POST(self) -> None:
        self._guarded(self._post)

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            self._check_place()
            act()
        except Refused as refused:
            self.close_connection = True
            self._send(refused.status, str(refused).encode(), "text/plain; charset=utf-8")
        except WsolError as error:
            self._send(HTTPStatus.CONFLICT, error.message.encode(), "text/plain; charset=utf-8")
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _check_place(self) -> None:
        own = {f"{name}:{self.pages.port}" for name in (HOST, "localhost")}
        if self.headers.get_all("Host", []) not in [[name] for name in own]:
            raise Refused(HTTPStatus.MISDIRECTED_REQUEST, f"only {HOST}:{self.pages.port} is served here")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in {f"http://{name}" for name in own}:
            raise Refused(HTTPStatus.FORBIDDEN, "another origin")
        if self.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise Refused(HTTPStatus.FORBIDDEN, "another origin")

    def _check_token(self, given: str | None) -> None:
        if given is None or not secrets.compare_digest(given.encode(), self.pages.token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, "open the address that wsolpipe printed, with its token")

    def _kept_token(self) -> str | None:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(self.pages.cookie)
        except CookieError:
            return None
        return None if found is None else found.value

    def _get(self) -> None:
        asked = urlsplit(self.path)
        given = parse_qs(asked.query).get("token")
        self._check_token(given[0] if given else self._kept_token())
        if given:  # so that the token leaves the address and the history
            cookie = f"{self.pages.cookie}={self.pages.token}; HttpOnly; SameSite=Strict; Path=/"
            return self._send(HTTPStatus.SEE_OTHER, b"", "text/plain", {"Location": asked.path, "Set-Cookie": cookie})
        path = unquote(asked.path)
        if path in self.pages.answers:
            return self._send_json(self.pages.answers[path](None))
        page = self.pages.find(path)
        if page is None:
            raise Refused(HTTPStatus.NOT_FOUND, "no such page")
        return self._send(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8")

    def _post(self) -> None:
        self._check_token(self.headers.get(TOKEN))
        path, length = unquote(urlsplit(self.path).path), self.headers.get("Content-Length", "")
        if path not in self.pages.answers:
            raise Refused(HTTPStatus.NOT_FOUND, "no such page")
        if not length.isascii() or not length.isdigit() or "Transfer-Encoding" in self.headers:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "the length of the body is not given")
        if len(length) > len(str(LIMIT)) or int(length) > LIMIT:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"over {LIMIT} bytes")
        try:
            sent = read_json(self.rfile.read(int(length)))
            found = self.pages.answers[path](sent)
        except (ValueError, TypeError, KeyError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, f"not what this page sends: {error}") from error
        self._send_json(found)

    def _send_json(self, values: Any) -> None:
        self._send(HTTPStatus.OK, json.dumps(values).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff", "X-Frame-Options": "SAMEORIGIN", "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
        }  # fmt: skip
        for name, value in {**headers, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
