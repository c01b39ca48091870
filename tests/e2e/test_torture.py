"""A kill or two of each scene of `make torture`: run, push and pull, to and from a folder and S3."""

from __future__ import annotations

import pytest

import kills

KILLS = 8


@pytest.mark.slow
@pytest.mark.s3
def test_kills_over_run_push_and_pull_lose_no_row_and_change_no_byte(tmp_path):
    pytest.importorskip("moto.server", reason="needs moto[server]")
    done = kills.run(tmp_path, kills=KILLS, seed=20)
    kills.show(done)
    assert len(done.kills) >= KILLS
    assert {kill.scene.command for kill in done.kills} == {"run", "push", "pull"}
    assert {kill.scene.place for kill in done.kills} == {"folder", "S3"}
    assert sum(kill.committed > 0 for kill in done.kills) > KILLS / 4
    # which of the chosen moments a run reaches before it ends depends on the machine's speed
    assert sum(kill.phase != "any moment" for kill in done.kills) >= 1
