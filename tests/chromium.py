"""A headless Chromium that tests drive: pages, scripts, keys, screenshots; what it complained about and asked for."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import io
import json
import os
import select
import shutil
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

PROGRAM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--hide-scrollbars", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)  # fmt: skip


AXE = "axe-core@4.10.3"
AXE_SHA256 = "880970c081707360e64f34cea25ff91892f5bc95675b0776925b9709dd8a68bb"


@functools.cache
def axe() -> str:
    """The script of axe-core, fetched from npm once a machine."""
    path = Path(tempfile.gettempdir()) / "wsolpipe-axe" / "package" / "axe.min.js"
    if not path.exists():
        path.parent.parent.mkdir(exist_ok=True)
        if shutil.which("npm") is None:
            pytest.skip("no npm on this machine (apt-get install npm)")
        packed = subprocess.run(
            ["npm", "pack", AXE], cwd=path.parent.parent, capture_output=True, text=True, check=False, timeout=120
        )
        if packed.returncode:
            pytest.skip(f"npm cannot fetch {AXE}: {packed.stderr[-200:]}")
        with tarfile.open(path.parent.parent / packed.stdout.split()[-1]) as archive:
            archive.extract("package/axe.min.js", path.parent.parent, filter="data")
    text = path.read_text()
    assert hashlib.sha256(text.encode()).hexdigest() == AXE_SHA256
    return text


class Browser:
    """One page of a browser, over its debugging pipe.

    Attributes
    ----------
    errors : list of str
        Exceptions and errors of the console since the last `open`.
    requests : list of str
        Addresses asked for since the last `open`, data URIs left out.
    """

    def __init__(self, folder: Path) -> None:
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        script = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        command = ["bash", "-c", script, PROGRAM, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out), **quiet)
        os.close(theirs_in)
        os.close(theirs_out)
        self.reader, self.writer = ours_in, ours_out
        self.buffer, self.number, self.session = b"", 0, ""
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.loaded = False
        self.tab()

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(Exception):
            self.session = ""
            self.call("Browser.close")
        self.process.terminate()
        self.process.wait(20)
        os.close(self.reader)
        os.close(self.writer)

    def tab(self) -> str:
        """Open a further tab, which is driven from now on; `session` may be set back to what another call gave."""
        self.session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = str(self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        return self.session

    def save_into(self, folder: Path) -> None:
        """Put downloads into a folder."""
        session, self.session = self.session, ""
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        self.session = session

    def drag(self, *places: tuple[float, float]) -> None:
        """Press the mouse at the first place of the window, move it to the others and release it at the last one."""
        kinds = ["mousePressed", *["mouseMoved"] * (len(places) - 1), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [*places, places[-1]], strict=True):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def faults(self) -> list[str]:
        """Serious faults of accessibility of the page as it is now, by axe-core."""
        self.run(f"{axe()};0")
        found = self.run(
            "axe.run(document, {resultTypes: ['violations']}).then(found => found.violations"
            ".filter(each => ['serious', 'critical'].includes(each.impact))"
            ".flatMap(each => each.nodes.map(node => `${each.id}: ${node.html.slice(0, 200)}`)))"
        )
        return [str(each) for each in found]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the DevTools protocol and its answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer.get("result", {})

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.reader], [], [], 60)
            assert ready, "the browser says nothing"
            self.buffer += os.read(self.reader, 1 << 20)
        text, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(text)
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(str(params["args"]))
        elif method == "Network.requestWillBeSent" and not params["request"]["url"].startswith("data:"):
            self.requests.append(params["request"]["url"])
        elif method == "Page.loadEventFired":
            self.loaded = True
        return message

    def open(self, page: Path | str, fragment: str = "", *, size: tuple[int, int] = (1280, 900), dark: bool = False,
             phone: bool = False, script: bool = True) -> Browser:  # fmt: skip
        """Load a page, before other tabs; `size` is (width, height) in CSS pixels."""
        self.call("Page.bringToFront")  # behind another tab every move of the mouse takes five seconds
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=phone
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[theme])
        self.errors, self.requests, self.loaded = [], [], False
        # The number makes every address a new one: a change of the fragment alone would load nothing.
        address = page if isinstance(page, str) else f"{page.as_uri()}?{self.number}"
        self.call("Page.navigate", url=address + (f"#{fragment}" if fragment else ""))
        end = time.monotonic() + 60
        while not self.loaded and time.monotonic() < end:
            self._read()
        assert self.loaded
        return self

    def run(self, script: str) -> Any:
        """Value of an expression."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str, seconds: float = 30) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < end, f"never came true: {condition}"
            time.sleep(0.02)

    def press(self, key: str, **more: Any) -> None:
        """Press and release a key; with ``modifiers=2`` and Control, with 8 and shift."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **more, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **more)

    def shoot(self, clip: tuple[int, int, int, int] | None = None) -> np.ndarray:
        """Pixels uint8 [H, W, 3] of the window, or of a part (x, y, width, height) of the page."""
        part = {}
        if clip is not None:
            area = dict(zip(("x", "y", "width", "height"), clip, strict=True))
            part = {"clip": {**area, "scale": 1}, "captureBeyondViewport": True}
        data = self.call("Page.captureScreenshot", format="png", **part)["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
