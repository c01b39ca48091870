"""Two hosts on this machine: network namespaces with a cable between them that can be cut, and nothing else."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parent
SERVE_S3 = """
import sys
from s3 import serve_s3
with serve_s3(sys.argv[1]) as server:
    print(server.endpoint, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Host:
    """One of them: `enter` before a command runs it there."""

    name: str
    address: str

    @property
    def enter(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]

    def without(self, folder: Path) -> list[str]:
        """`enter`, where a folder of this machine is another, empty one: a disk of its own."""
        return [*self.enter, "unshare", "-m", "sh", "-c", f'mount -t tmpfs none "{folder}" && exec "$@"', "sh"]


@dataclass(frozen=True)
class Cable:
    """What joins two hosts."""

    first: Host
    second: Host

    def cut(self) -> None:
        ip("-n", self.first.name, "link", "set", "eth0", "down")

    def mend(self) -> None:
        ip("-n", self.first.name, "link", "set", "eth0", "up")


def missing() -> str:
    """Why there can be no namespaces here; empty if there can."""
    if shutil.which("ip") is None:
        return "ip is not installed (Debian: apt-get install iproute2)"
    if os.geteuid() != 0:
        return "making network namespaces takes root"
    name = f"probe-{secrets.token_hex(3)}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"no network namespaces here: {done.stderr.strip()}"
    ip("netns", "del", name)
    return ""


@contextmanager
def join_two_hosts() -> Iterator[Cable]:
    """Two hosts, joined. They can reach each other, and neither this machine nor the world."""
    mark = secrets.token_hex(3)
    near, far = Host(f"near-{mark}", "10.77.0.1"), Host(f"far-{mark}", "10.77.0.2")
    try:
        for host in (near, far):
            ip("netns", "add", host.name)
            ip("-n", host.name, "link", "set", "lo", "up")
        ip("-n", near.name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", far.name)
        for host in (near, far):
            ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
            ip("-n", host.name, "link", "set", "eth0", "up")
        yield Cable(near, far)
    finally:
        for host in (near, far):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", host.name)


@contextmanager
def serve_s3_on(host: Host) -> Iterator[str]:
    """An S3 server on a host; its endpoint."""
    process = subprocess.Popen(
        [*host.enter, sys.executable, "-c", SERVE_S3, host.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env={**os.environ, "PYTHONPATH": str(TESTS)},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate(timeout=30)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
