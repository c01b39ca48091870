"""Fixtures that every test folder may use, and the rule about skips."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared machine")
ROOT = Path(__file__).resolve().parents[1]
BUDGETS = {"slow": 620, "slurm": 250, "netns": 60, "browser": 120, "s3": 180, "pypi": 90}
"""Seconds that all tests of a marker may take together on two idle cores; told in the end, never a failure."""
_spent: Counter[str] = Counter()


def compile_once() -> None:
    """Let one process at a time compile a loop: the others wait for it, and read from disk what it made."""
    import numba.core.dispatcher

    compile_loop = numba.core.dispatcher.Dispatcher.compile
    held = threading.local()

    def locked(self, signature):
        if getattr(held, "lock", None):  # one loop compiles others on its way, some of them of its own name
            return compile_loop(self, signature)
        path = ROOT / ".pytest_cache" / "loops.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as held.lock:
            fcntl.flock(held.lock, fcntl.LOCK_EX)
            try:
                return compile_loop(self, signature)
            finally:
                held.lock = None

    numba.core.dispatcher.Dispatcher.compile = locked


def pytest_configure(config):
    """Share compiled loops where several processes run tests: in a new checkout each would make its own."""
    if hasattr(config, "workerinput"):
        compile_once()


def pytest_collection_modifyitems(items):
    """Begin with the files whose tests take long, so that no process is left alone with one of them in the end."""
    long = {item.path for item in items if any(item.get_closest_marker(marker) for marker in BUDGETS)}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def repo() -> Path:
    """Folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real images and weights that lies beside the checkout, or named by WSOLPIPE_SHARED."""
    folder = Path(os.environ.get("WSOLPIPE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder} (set WSOLPIPE_SHARED to its folder)")
    return folder


@pytest.fixture(scope="session")
def outside(tmp_path_factory):
    """Folder in which the packages of tests/outside are installed, from wheels that their build backend made."""
    sources, wheels, site = (tmp_path_factory.mktemp(name) for name in ("sources", "wheels", "site"))
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    running = []
    for path in (ROOT / "tests" / "outside").glob("*/pyproject.toml"):
        copy = shutil.copytree(path.parent, sources / path.parent.name)
        running.append(subprocess.Popen([sys.executable, "-c", build, wheels], cwd=copy, stdout=subprocess.DEVNULL))
    assert not any(process.wait() for process in running)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as file:
            file.extractall(site)
    return site


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn skips into failures where WSOLPIPE_NO_SKIPS says that the machine has everything."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("WSOLPIPE_NO_SKIPS") == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"skipped where WSOLPIPE_NO_SKIPS=1 forbids it: {reason}"
    return report


@pytest.fixture(scope="session")
def s3_server():
    """An S3 server of this host."""
    pytest.importorskip("moto.server", reason="needs moto[server]")
    from s3 import serve_s3

    with serve_s3() as server:
        yield server


@pytest.fixture
def s3(s3_server, tmp_path, monkeypatch):
    """The S3 server, with this process's credentials and a cache of its own."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WSOLPIPE_CACHE", str(tmp_path / "cache"))
    return s3_server


@pytest.fixture(scope="session")
def slurm_cluster():
    """A SLURM cluster of two nodes on this host, started once a process of tests."""
    from slurm import missing, serve_slurm

    if missing():
        pytest.skip(f"needs SLURM: {', '.join(missing())} not installed (Debian: apt-get install slurm-wlm munge)")
    with serve_slurm() as cluster:
        yield cluster


@pytest.fixture
def slurm(slurm_cluster, monkeypatch):
    """The SLURM cluster, with this process's variables set to use it and no job of an earlier test."""
    for name, value in slurm_cluster.environment.items():
        monkeypatch.setenv(name, value)
    yield slurm_cluster
    slurm_cluster.clear()


def pytest_runtest_logreport(report):
    """Add up what each marker costs."""
    for marker in BUDGETS.keys() & report.keywords.keys():
        _spent[marker] += report.duration


def pytest_terminal_summary(terminalreporter):
    """Say how much of each marker's time budget was used."""
    for marker, seconds in sorted(_spent.items()):
        over = ": OVER BUDGET" if seconds > BUDGETS[marker] else ""
        terminalreporter.write_line(f"{marker}: {seconds:.0f} s of {BUDGETS[marker]} s{over}")
