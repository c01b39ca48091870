"""How far a command goes through the house: rooms that it enters, and calls from a lower room to a higher one."""

from __future__ import annotations

import sys
import threading
import tomllib
from pathlib import Path

import wsolpipe
from wsolpipe.cli.main import cli
from wsolpipe.keys.console import call

MOST_ROOMS, MOST_CLIMBS = 15, 8


class Walk:
    """Records rooms, which are folders of the package, and climbs: (room, function) that calls, and that is called."""

    def __init__(self, repo):
        contracts = tomllib.loads((repo / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
        layers = contracts[0]["layers"]
        names = [
            (name.strip().removeprefix("wsolpipe."), at) for at, line in enumerate(layers) for name in line.split("|")
        ]
        self.depth, self.base = dict(names), f"{Path(wsolpipe.__file__).parent}/"
        self.rooms, self.climbs = set(), set()

    def __call__(self, frame, event, _):
        if event != "call" or not self._is_own(frame) or frame.f_code.co_name == "<module>":
            return
        here, caller = self._room(frame), frame.f_back
        self.rooms.add(here)
        while caller is not None and not self._is_own(caller):
            caller = caller.f_back
        if caller is None or caller.f_code.co_name == "<module>":
            return
        if self._depth(self._room(caller)) > self._depth(here):
            self.climbs.add((self._room(caller), caller.f_code.co_qualname, here, frame.f_code.co_qualname))

    def _is_own(self, frame):
        return frame.f_code.co_filename.startswith(self.base)

    def _room(self, frame):
        return frame.f_code.co_filename.removeprefix(self.base).rpartition("/")[0]

    def _depth(self, room):
        return self.depth.get(room.partition("/")[0], len(self.depth))


def test_a_run_enters_few_rooms_and_climbs_seldom(repo, tmp_path):
    walk = Walk(repo)
    words = ["run", "stage=cls_maps", "dataset=demo", "split=test", "limit=8", f"store={tmp_path}/store", "threads=1"]
    before, code = sys.getprofile(), None
    sys.setprofile(walk)
    threading.setprofile(walk)
    try:
        call(cli, "wsolpipe", words)
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    assert code == 0
    assert {"cli", "engine", "stages"} <= walk.rooms
    assert len(walk.rooms) <= MOST_ROOMS, sorted(walk.rooms)
    assert len(walk.climbs) <= MOST_CLIMBS, sorted(walk.climbs)
