"""Stores behind a URL: one winner of many, leases, the cache, clear ends for what is wrong, and no secret in sight."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import numpy as np
import pytest

from s3 import KEYS, Plan, Proxy
from stores import DATASET, build_store
from wsolpipe import open_store
from wsolpipe.contract.backends.opening import open_backend
from wsolpipe.contract.errors import AccessError, ConfigError, StoreError
from wsolpipe.contract.layout import sha256_file
from wsolpipe.engine.leases import Leases
from wsolpipe.testing import BackendReadTests, BackendTests

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.s3


@pytest.fixture
def backend(s3):
    return open_backend(s3.store())


@pytest.fixture
def proxy(s3, monkeypatch):
    with Proxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


class TestBucket(BackendTests):
    """A bucket without the read-through cache."""

    @pytest.fixture
    def make(self, s3, monkeypatch):
        monkeypatch.setenv("WSOLPIPE_CACHE_GB", "0")
        return maker(s3)


class TestBucketThroughTheCache(BackendTests):
    @pytest.fixture
    def make(self, s3):
        return maker(s3)


class TestPublishedStore(BackendReadTests):
    """A web server that gives a store's files and its list of checksums."""

    @pytest.fixture
    def make(self, web):
        folder, url = web
        numbers = itertools.count()

        def make(objects):
            number = next(numbers)
            for name, data in objects.items():
                path = folder / f"store{number}" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            list_files(folder / f"store{number}")
            return open_backend(f"{url}/store{number}")

        return make


def maker(s3):
    """Backends of fresh stores that hold some objects."""

    def make(objects):
        made = open_backend(s3.store())
        for name, data in objects.items():
            assert made.create(name, data)
        return made

    return make


def put_store(source: str, target: str) -> None:
    """Plain copies of every object."""
    one, other = open_backend(source), open_backend(target)
    for name, _ in one.walk(""):
        other.create(name, one.get(name))


def test_a_silent_lease_is_taken_over_by_one_and_its_old_owner_knows(backend):
    mine = Leases(backend, ttl=0.3)
    lease = mine.acquire("t/leases/0.json")
    assert lease is not None
    others = [Leases(open_backend(backend.url), ttl=0.3) for _ in range(3)]
    assert [other.acquire(lease.name) for other in others] == [None] * 3
    lease.renew()
    assert lease.still_mine()
    assert [other.acquire(lease.name) for other in others] == [None] * 3  # the clock of the watcher starts here
    time.sleep(0.4)
    taken = [found for found in (other.acquire(lease.name) for other in others) if found]
    assert len(taken) == 1
    assert not lease.still_mine()
    lease.renew()
    assert lease.lost
    lease.release()
    assert taken[0].still_mine()


def test_a_put_whose_answer_was_lost_is_known_by_its_bytes(s3, proxy):
    backend = open_backend(s3.store())
    backend.create("warm", b"up")
    proxy.plan = Plan(cut=tuple(range(1, 1000, 2)))
    assert backend.create("a/1", b"mine")
    assert backend.swap("a/1", b"mine", b"still mine")
    assert backend.get("a/1") == b"still mine"
    assert not backend.create("a/1", b"another's")


def test_a_link_that_is_down_for_a_while_is_waited_for(s3, proxy):
    backend = open_backend(s3.store())
    backend.create("a/1", b"one")
    proxy.plan = Plan(down=True)
    timer = threading.Timer(1.5, lambda: setattr(proxy, "plan", Plan()))
    timer.start()
    assert backend.get("a/1") == b"one"
    timer.join()
    assert backend.retried["read"] >= 2


@pytest.mark.parametrize(
    ("answer", "says", "hint"),
    [
        ((400, "ExpiredToken"), "credentials have expired", "it goes on"),
        ((403, "AccessDenied"), "no permission", "ask the owner"),
        ((403, "InvalidAccessKeyId"), "credentials are not valid", "AWS_SECRET_ACCESS_KEY"),
        ((404, "NoSuchBucket"), "the bucket does not exist", "create the bucket labels"),
    ],
)
def test_what_is_wrong_with_access_is_said_at_once_without_secrets(s3, proxy, answer, says, hint):
    proxy.plan = Plan(answer=answer)
    backend = open_backend(s3.store())
    for act in (lambda: backend.get("a/1"), lambda: backend.create("a/1", b"x"), lambda: backend.names("a")):
        with pytest.raises(StoreError, match=says) as caught:
            act()
        assert hint in str(caught.value)
        assert KEYS["AWS_ACCESS_KEY_ID"] not in str(caught.value) + str(caught.value.__cause__)
    assert proxy.done["requests"] == 3


def test_an_endpoint_out_of_reach_is_named_within_seconds(monkeypatch, s3):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("wsolpipe.contract.backends.objects.FIRST_PATIENCE", 0.5)
    with pytest.raises(StoreError, match="127.0.0.1:9 cannot be reached"):
        open_backend(s3.store()).get("a/1")


@pytest.mark.parametrize(
    "url", ["s3://key:secret@labels/store", "https://me:secret@host/x", "https://host/x?sig=secret"]
)
def test_an_address_that_carries_a_secret_is_refused_without_repeating_it(url):
    with pytest.raises(ConfigError, match="written to logs") as caught:
        open_backend(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("gigabytes", ["0", "1"], ids=["no cache", "cache"])
def test_a_store_on_s3_reads_as_its_copy_in_a_folder(s3, tmp_path, monkeypatch, gigabytes):
    monkeypatch.setenv("WSOLPIPE_CACHE_GB", gigabytes)
    tiny = build_store(tmp_path, images=False, missing={"proposals": (1,)})
    url = s3.store()
    put_store(tiny.url, url)
    near, far = (open_store(where)[DATASET]["train"] for where in (tiny.url, url))
    for stage, arrays in (("cls_maps", ["maps", "range"]), ("proposals", ["boxes", "count"])):
        for array in arrays:
            for rows in (slice(0, 16), slice(5, 9), [3, 38, 12]):
                np.testing.assert_array_equal(far[stage][array][rows], near[stage][array][rows])
        np.testing.assert_array_equal(far[stage][arrays[0]].filled(), near[stage][arrays[0]].filled())
    with pytest.raises(StoreError, match="rows 16 … 31 of .* are not made"):
        far["proposals"]["boxes"][:]
    assert far.index().table().equals(near.index().table())
    assert far["proposals"].rows().tolist() == near["proposals"].rows().tolist()


def test_an_object_is_fetched_once_and_again_when_it_changed(s3, proxy):
    backend = open_backend(s3.store())
    name = "d/files/model"
    backend.create(name, b"one" * 100)
    assert backend.local_file(name).read_bytes() == b"one" * 100
    before = proxy.done["requests"]
    assert backend.local_file(name).read_bytes() == b"one" * 100
    assert proxy.done["requests"] - before == 1  # it only asked whether that still is the object
    backend.replace(name, b"two" * 100)
    assert backend.local_file(name).read_bytes() == b"two" * 100
    assert (backend.fetch_folder("d/files") / "model").read_bytes() == b"two" * 100


@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "no digest"])
def test_a_damaged_cache_entry_is_fetched_again_and_never_read(s3, tmp_path, damage):
    """Each in a new process of its own, which hashes what it finds before it uses it."""
    tiny = build_store(tmp_path, images=False)
    url = s3.store()
    put_store(tiny.url, url)
    first = open_store(url)[DATASET]["train"]["cls_maps"]
    np.testing.assert_array_equal(first["maps"][:], tiny.maps)
    model = f"{first.folder}/files/model"
    backend = open_backend(url)
    backend.create(model, bytes(range(256)) * 40)
    backend.local_file(model)
    kept = [path for path in backend.cache.folder.glob("??/*") if not path.suffix]
    assert len(kept) > 3
    for path in kept:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        if damage == "no digest":
            path.with_suffix(".json").write_text("{}")
        path.write_bytes(data[: len(data) // 2] if damage == "cut short" else data)
    again = open_store(url)[DATASET]["train"]["cls_maps"]
    np.testing.assert_array_equal(again["maps"][:], tiny.maps)
    np.testing.assert_array_equal(again["maps"][33], tiny.maps[33])
    assert open_backend(url).local_file(model).read_bytes() == bytes(range(256)) * 40


def test_an_entry_is_hashed_once_a_process(s3, monkeypatch):
    backend = open_backend(s3.store())
    backend.create("d/files/model", b"x" * 1000)
    hashed = []
    monkeypatch.setattr(
        "wsolpipe.contract.backends.cache.sha256_file", lambda path: hashed.append(path) or sha256_file(path)
    )
    for _ in range(5):
        assert backend.local_file("d/files/model").read_bytes() == b"x" * 1000
    assert len(hashed) == 1


def test_the_cache_keeps_its_bound_and_never_evicts_what_is_gone_from_the_store(s3, monkeypatch):
    monkeypatch.setenv("WSOLPIPE_CACHE_GB", str(10_000 / 2**30))
    backend = open_backend(s3.store())
    names = [f"d/files/{number}" for number in range(30)]
    for number, name in enumerate(names):
        backend.create(name, bytes([number]) * 1000)
    backend.get(names[0])
    backend.delete(names[0])
    for name in names[1:]:
        backend.get(name)
    entries = [path for path in backend.cache.folder.glob("??/*") if not path.suffix]
    assert sum(path.stat().st_size for path in entries) <= 10_000
    assert bytes(1000) in {path.read_bytes() for path in entries}
    assert backend.get(names[29]) == bytes([29]) * 1000


@pytest.fixture
def web(tmp_path):
    """A folder behind a plain web server."""
    (tmp_path / "web").mkdir()
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "web"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path / "web", f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        return


def list_files(folder: Path) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    lines = [f"{sha256_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / "checksums.txt").write_text("".join(lines))


def test_a_published_store_is_read_over_http_and_never_written(web, tmp_path):
    folder, url = web
    tiny = build_store(tmp_path, images=False)
    with pytest.raises(StoreError, match="has no checksums.txt"):
        open_store(f"{url}/store")
    put_store(tiny.url, str(folder / "store"))
    list_files(folder / "store")
    near, far = (open_store(where)[DATASET]["train"] for where in (tiny.url, f"{url}/store"))
    np.testing.assert_array_equal(far["proposals"]["boxes"][:], near["proposals"]["boxes"][:])
    assert far.index().table().equals(near.index().table())
    backend = open_backend(f"{url}/store")
    for act in (
        lambda: backend.create("x", b""),
        lambda: backend.replace("x", b""),
        lambda: backend.swap("x", b"", b""),
        lambda: backend.delete("x"),
    ):
        with pytest.raises(StoreError, match="read-only"):
            act()


@pytest.mark.parametrize("line", ["0" * 64 + "  ../up", "0" * 64 + "  /etc/passwd", "short  name", "<html>"])
def test_a_list_that_names_anything_outside_the_store_is_refused(web, line):
    folder, url = web
    (folder / "checksums.txt").write_text(line + "\n")
    with pytest.raises(StoreError, match="leaves the store|is not of the form"):
        open_backend(url).names("")


@pytest.mark.parametrize("answer", [(403, "AccessDenied"), (401, "Unauthorized")])
def test_a_store_that_stops_answering_while_it_is_read_is_not_called_damaged(s3, proxy, tmp_path, answer):
    url, local = s3.store(), build_store(tmp_path, rows=8, images=False)
    put_store(local.url, url)
    boxes = open_store(url)[DATASET]["train"]["proposals"]["boxes"]
    np.testing.assert_array_equal(boxes[:4], local.boxes[:4])
    other = open_store(url)[DATASET]["train"]["proposals"]["scores"]
    proxy.plan = Plan(answer=answer)
    with pytest.raises(AccessError) as caught:
        other[:4]
    assert "repair" not in str(caught.value)
