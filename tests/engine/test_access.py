"""What cannot be read is an error of access, never a torn object: nothing may be removed because of it."""

from __future__ import annotations

import pytest

from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.errors import AccessError, StoreError
from wsolpipe.contract.layout import shard_of
from wsolpipe.contract.parquet import read_parquet
from wsolpipe.engine.plan import unit_state


@pytest.fixture
def refused(tmp_path):
    """A store with an object that not even root can look at: a link to a name that no file system takes."""
    (tmp_path / "far.json").symlink_to("x" * 300)
    (tmp_path / "plain").write_bytes(b"1")
    return LocalBackend(tmp_path)


def test_reading_sizing_and_listing_what_is_refused_names_it(refused):
    for look in (lambda: refused.get("far.json"), lambda: refused.size("far.json"), lambda: refused.names("far.json")):
        with pytest.raises(AccessError, match=r"far\.json"):
            look()


def test_a_table_that_is_refused_is_not_one_that_is_damaged(tmp_path, monkeypatch):
    backend = LocalBackend(tmp_path)
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(StoreError) as caught:
        read_parquet(backend, "t.parquet")
    assert not isinstance(caught.value, AccessError)

    def refuse(name):
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(backend, "local_file", refuse)
    with pytest.raises(AccessError, match="Permission denied"):
        read_parquet(backend, "t.parquet")


def test_a_record_that_is_refused_is_not_taken_for_torn(done):
    bench, _ = done
    session, node = bench.session(), bench.nodes()["shade"]
    record = bench.store / node.folder / "commits" / "1.json"
    record.unlink()
    record.symlink_to("x" * 300)
    with pytest.raises(AccessError, match=r"commits/1\.json"):
        unit_state(session, node, None, 1, retry=False)


@pytest.mark.parametrize("name", ["²³.json", "٣.json", "-1.json", "01.json", "1.json~", ".json", f"{'9' * 30}.json"])
def test_only_plain_numbers_name_shards(name):
    assert shard_of(name) is None
