"""The suite of backends of stores.

A backend is tested by a subclass that says how a store is made::

    class TestMyBackend(BackendTests):
        @pytest.fixture
        def make(self, tmp_path):
            def make(objects):
                backend = MyBackend(tmp_path)
                for name, data in objects.items():
                    backend.create(name, data)
                return backend

            return make
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from wsolpipe.contract.backends.base import Backend
from wsolpipe.contract.errors import StoreError

Make = Callable[[Mapping[str, bytes]], Backend]
OUTSIDE = ("../x", "a/../../x", "a//b", "/etc/passwd", "a/./b", "", "a\\..\\b", "a\0b")
OBJECTS = {"a/1": b"one", "a/b/2": b"three", "a/b/c/3": b"", "z": bytes(range(256))}


class BackendReadTests:
    """Tests that every backend passes, read-only ones included."""

    @pytest.fixture
    def make(self) -> Make:
        """From objects by name to the backend of a fresh store that holds them."""
        raise NotImplementedError

    @pytest.fixture
    def held(self, make: Make) -> Backend:
        """A store of four objects."""
        return make(OBJECTS)

    def test_is_a_backend(self, held: Backend) -> None:
        assert isinstance(held, Backend)
        assert held.url

    def test_objects_come_back_by_name_with_their_size(self, held: Backend) -> None:
        for name, data in OBJECTS.items():
            assert held.get(name) == data
            assert held.get(name, limit=len(data)) == data
            assert held.size(name) == len(data)

    def test_an_object_that_does_not_exist_is_named_in_the_error(self, held: Backend) -> None:
        for name in ("none", "a", "a/b", "a/1/x", "nowhere/none"):
            with pytest.raises(OSError, match=name) as caught:
                held.get(name)
            assert isinstance(caught.value, (FileNotFoundError, StoreError))
            assert held.size(name) is None
        with pytest.raises(FileNotFoundError):
            held.get("none")
        with pytest.raises(FileNotFoundError):
            held.local_file("none")

    def test_an_object_over_its_limit_is_refused(self, held: Backend) -> None:
        with pytest.raises(StoreError, match="z has 256 bytes, over the 255"):
            held.get("z", limit=255)

    def test_names_are_those_directly_below_a_folder(self, held: Backend) -> None:
        assert held.names("a") == ["1", "b/"]
        assert held.names("a/b") == ["2", "c/"]
        assert [name for name in held.names("") if name in {"a/", "z"}] == ["a/", "z"]
        assert held.names("none") == held.names("z/none") == []

    def test_walk_gives_every_object_below_a_folder_with_its_size(self, held: Backend) -> None:
        assert list(held.walk("a")) == [("a/1", 3), ("a/b/2", 5), ("a/b/c/3", 0)]
        assert {"a/1", "z"} <= dict(held.walk("")).keys()
        assert list(held.walk("none")) == []

    def test_stamps_are_stable_and_of_objects_directly_below(self, held: Backend) -> None:
        stamps = held.stamps("a/b")
        assert "2" in stamps
        assert stamps["2"] == held.stamps("a/b")["2"]
        assert held.stamps("none") == {}

    def test_files_and_folders_of_this_machine_hold_the_same_bytes(self, held: Backend) -> None:
        assert held.local_file("z").read_bytes() == OBJECTS["z"]
        folder = held.fetch_folder("a")
        found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert found == {"1": b"one", "b/2": b"three", "b/c/3": b""}

    @pytest.mark.parametrize("name", OUTSIDE)
    def test_a_name_that_leaves_the_store_is_refused(self, held: Backend, name: str) -> None:
        for read in (held.get, held.size, held.local_file, lambda outside: held.get_range(outside, 0, 1)):
            with pytest.raises(StoreError, match="leaves the store"):
                read(name)

    def test_a_range_of_an_object_is_what_a_slice_of_it_is(self, held: Backend) -> None:
        for start, stop in ((0, 256), (0, 1), (17, 200), (200, 300)):
            assert held.get_range("z", start, stop) == OBJECTS["z"][start:stop]
        with pytest.raises(FileNotFoundError):
            held.get_range("none", 0, 1)

    def test_a_head_has_the_size_and_stays_as_it_is_while_the_object_does(self, held: Backend) -> None:
        head = held.head("z")
        assert head is not None
        assert head.size == 256
        assert (held.head("z") or head)[:2] == head[:2]
        assert held.head("none") is None

    def test_nothing_half_written_is_left(self, held: Backend) -> None:
        assert list(held.litter()) == []


class BackendTests(BackendReadTests):
    """Tests that every backend passes that can be written to."""

    @pytest.fixture
    def backend(self, make: Make) -> Backend:
        """An empty store."""
        return make({})

    def test_create_makes_an_object_once_and_keeps_the_first(self, backend: Backend) -> None:
        for sync in (True, False):
            assert backend.create(f"a/{sync}/c", b"one", sync=sync)
            assert not backend.create(f"a/{sync}/c", b"two", sync=sync)
            assert backend.get(f"a/{sync}/c") == b"one"
        backend.sync(["a/True/c", "a/False/c"])

    def test_replace_and_delete_are_quiet_about_what_exists(self, backend: Backend) -> None:
        backend.replace("x", b"1")
        backend.replace("x", b"22")
        assert backend.get("x") == b"22"
        backend.delete("x")
        backend.delete("x")
        assert backend.size("x") is None
        assert backend.create("x", b"3")

    def test_a_stamp_changes_with_its_object(self, backend: Backend) -> None:
        backend.create("f/x", b"1")
        backend.create("f/y", b"1")
        before = backend.stamps("f")
        head = backend.head("f/x")
        backend.replace("f/x", b"2")
        after = backend.stamps("f")
        assert head != backend.head("f/x")
        assert (before["x"] != after["x"], before["y"] == after["y"]) == (True, True)

    def test_swap_replaces_only_the_bytes_that_it_expects(self, backend: Backend) -> None:
        backend.create("lease", b"old")
        assert not backend.swap("lease", b"other", b"new")
        assert backend.swap("lease", b"old", b"new")
        assert not backend.swap("none", b"", b"new")
        assert not backend.swap("nowhere/none", b"", b"new")
        assert backend.get("lease") == b"new"

    def test_of_eight_threads_that_create_exactly_one_wins(self, backend: Backend) -> None:
        values = [f"{number}".encode() * 5000 for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            for turn in range(10):
                won = list(pool.map(lambda data, turn=turn: backend.create(f"race/{turn}", data), values))
                assert sum(won) == 1
                assert backend.get(f"race/{turn}") == values[won.index(True)]
        assert list(backend.litter()) == []

    def test_of_eight_threads_that_swap_at_most_one_wins_and_its_bytes_stand(self, backend: Backend) -> None:
        values = [f"{number}".encode() * 5000 for number in range(8)]
        wins = 0
        with ThreadPoolExecutor(8) as pool:
            for turn in range(10):
                backend.create(f"race/{turn}", b"old")
                won = list(pool.map(lambda data, turn=turn: backend.swap(f"race/{turn}", b"old", data), values))
                assert sum(won) <= 1
                wins += sum(won)
                assert backend.get(f"race/{turn}") == (values[won.index(True)] if any(won) else b"old")
        assert wins == 10
        assert list(backend.litter()) == []

    @pytest.mark.parametrize("name", OUTSIDE)
    def test_a_name_that_leaves_the_store_is_never_written(self, backend: Backend, name: str) -> None:
        for write in (
            lambda: backend.create(name, b""),
            lambda: backend.replace(name, b""),
            lambda: backend.swap(name, b"", b""),
            lambda: backend.delete(name),
        ):
            with pytest.raises(StoreError, match="leaves the store"):
                write()
