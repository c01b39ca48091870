"""Artifacts are hashed before they are first used: nothing is made of damaged ones."""

from __future__ import annotations

import pytest

from e2e.toy import object_bytes
from wsolpipe import open_store
from wsolpipe.contract.errors import TornShardError


@pytest.mark.parametrize("harm", ["flipped", "missing", "empty"])
def test_a_damaged_artifact_is_made_again_before_anything_is_made_of_it(done, harm):
    bench, before = done
    nodes = bench.nodes()
    palette = bench.store / nodes["palette"].folder / "files/palette.json"
    data = palette.read_bytes()
    if harm == "missing":
        palette.unlink()
    else:
        palette.write_bytes(data.replace(data[10:11], bytes([data[10] ^ 1]), 1) if harm == "flipped" else b"")
    for path in (bench.store / nodes["frame"].folder / "commits").iterdir():
        path.unlink()
    for path in (bench.store / nodes["frame"].folder / "data.zarr").rglob("c/*"):
        if path.is_file():
            path.unlink()
    assert bench.go().code == 0
    assert ("palette", None) in bench.made()
    assert object_bytes(bench.store) == before


def test_reading_an_artifact_checks_its_digest_and_its_names(done):
    bench, _ = done
    palette = bench.store / bench.nodes()["palette"].folder / "files/palette.json"

    def read(name="palette.json"):
        return open_store(str(bench.store))["toy"].artifact("palette").read(name)

    assert read() == palette.read_bytes()
    (palette.parent / "extra.json").write_text("{}")
    with pytest.raises(TornShardError, match=r"extra\.json"):
        read("extra.json")
    palette.write_bytes(palette.read_bytes()[:-1] + b" ")
    with pytest.raises(TornShardError, match=r"palette\.json"):
        read()
