"""Finished stores to give away, and places to put them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from e2e.toy import PACKAGE, make_toy
from engine.conftest import bench, done, drawn, finished  # noqa: F401 - fixtures
from wsolpipe.share.selection import Selection
from wsolpipe.share.transfer import pull, push

if TYPE_CHECKING:
    from pathlib import Path

    from wsolpipe.share.transfer import Result


@dataclass
class Team:
    """A store that is finished, and an empty one of another team."""

    source: Path
    target: Path

    def __post_init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def push(self, to: str | None = None, *, check: bool = False, **choice: Any) -> Result:
        return push(str(self.source), to or str(self.target), Selection(**choice), **self.how(check=check))

    def pull(
        self, source: str | None = None, *, trust: str | None = None, newer: bool = False, check: bool = False,
        **choice: Any,
    ) -> Result:  # fmt: skip
        return pull(source or str(self.source), str(self.target), Selection(**choice), trust=trust,
                    **self.how(newer=newer, check=check))  # fmt: skip

    def how(self, **more: Any) -> dict[str, Any]:
        return {"jobs": 2, "emit": self.events.append, "stop": self.stop(), **more}

    @staticmethod
    def stop() -> Any:
        import threading

        return threading.Event()


@pytest.fixture
def team(done, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.syspath_prepend(str(PACKAGE))
    return Team(done[0].store, tmp_path / "theirs")


@pytest.fixture
def toy(tmp_path):
    """A toy data set that real processes run on."""
    return make_toy(tmp_path)
