"""Pushing again heals what was lost or damaged at the target."""

from __future__ import annotations

import pytest

from e2e.toy import object_bytes
from wsolpipe import open_store
from wsolpipe.contract.errors import AccessError
from wsolpipe.share.verify import verify


def moved(result):
    return {line.stage: line.moved for line in result.lines if line.moved}


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"x" * 9)]
)
@pytest.mark.parametrize("move", ["push", "pull"])
@pytest.mark.parametrize(
    ("name", "stage"),
    [("shade/*/data.zarr/mean/c/2", "shade"), ("shade/*/commits/2.json", "shade"), ("palette/*/files/*", "palette"),
     ("index/*/index.parquet", "index"), ("index/*/manifest.json", "index")],
)  # fmt: skip
def test_moving_again_heals_what_has_another_size(team, harm, move, name, stage):
    team.push()
    harm(next(team.target.glob(f"toy/*/{name}")))
    assert moved(getattr(team, move)()) == {stage: 1}
    assert object_bytes(team.target) == object_bytes(team.source)
    assert list(verify(open_store(str(team.target)))) == []


@pytest.mark.parametrize("name", ["shade/*/data.zarr/mean/c/2", "palette/*/files/*", "index/*/annotations.parquet"])
def test_a_flipped_byte_is_healed_where_the_target_is_read(team, name):
    team.push()
    flip(next(team.target.glob(f"toy/*/{name}")))
    assert moved(team.push()) == {}
    assert sum(moved(team.push(check=True)).values()) == 1
    assert list(verify(open_store(str(team.target)))) == []


def test_a_damaged_manifest_of_the_target_is_replaced(team):
    team.push()
    manifest = next(team.target.glob("toy/train/shade/*/manifest.json"))
    good = manifest.read_bytes()
    manifest.write_bytes(good[:50])
    assert team.push().refused == []
    assert manifest.read_bytes() == good


def test_a_record_that_may_not_be_read_stops_the_push_and_stays(team):
    team.push()
    record = next(team.target.glob("toy/train/shade/*/commits/2.json"))
    record.unlink()
    record.symlink_to("x" * 300)
    with pytest.raises(AccessError, match="cannot list .*commits"):
        team.push()
    assert record.is_symlink()
