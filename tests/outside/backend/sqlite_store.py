"""A backend of another package: a store in one SQLite file, ``store=sqlite:///folder/labels.db``."""

import sqlite3
import uuid
from contextlib import closing
from urllib.parse import unquote, urlsplit

from wsolpipe.contract.backends.base import Backend, Head
from wsolpipe.contract.errors import StoreError
from wsolpipe.contract.layout import check_object_name

TABLE = "CREATE TABLE IF NOT EXISTS objects (name TEXT PRIMARY KEY, data BLOB NOT NULL, stamp TEXT NOT NULL)"


class SqliteBackend(Backend):
    """Each object is a row of a table, and each statement a transaction: of two writers SQLite lets one go first."""

    def __init__(self, url):
        self.url = url
        self.path = unquote(urlsplit(url).path)
        self._ask(TABLE)

    def _ask(self, statement, *values):
        """Rows that a statement returns, after its transaction."""
        with closing(sqlite3.connect(self.path, timeout=60, isolation_level=None)) as database:
            return database.execute(statement, values).fetchall()

    def _check(self, name):
        return check_object_name(name, self.url)

    def _below(self, folder):
        """Names below a folder, sorted, with sizes and stamps."""
        start = f"{folder}/" if folder else ""
        found = self._ask("SELECT name, length(data), stamp FROM objects ORDER BY name")
        return [(name.removeprefix(start), size, stamp) for name, size, stamp in found if name.startswith(start)]

    def get(self, name, *, limit=None):
        found = self._ask("SELECT data FROM objects WHERE name = ?", self._check(name))
        if not found:
            raise FileNotFoundError(f"{self.url}: no object {name}")
        data = bytes(found[0][0])
        if limit is not None and len(data) > limit:
            raise StoreError(f"{self.url}: {name} has {len(data)} bytes, over the {limit} that it may have")
        return data

    def head(self, name):
        found = self._ask("SELECT length(data), stamp FROM objects WHERE name = ?", self._check(name))
        return Head(*found[0]) if found else None

    def create(self, name, data, *, sync=True):
        statement = "INSERT OR IGNORE INTO objects VALUES (?, ?, ?) RETURNING 1"
        return bool(self._ask(statement, self._check(name), data, uuid.uuid4().hex))

    def replace(self, name, data):
        self._ask("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", self._check(name), data, uuid.uuid4().hex)

    def swap(self, name, expected, data):
        statement = "UPDATE objects SET data = ?, stamp = ? WHERE name = ? AND data = ? RETURNING 1"
        return bool(self._ask(statement, data, uuid.uuid4().hex, self._check(name), expected))

    def delete(self, name):
        self._ask("DELETE FROM objects WHERE name = ?", self._check(name))

    def names(self, folder):
        found = (name.partition("/") for name, *_ in self._below(folder))
        return sorted({first + slash for first, slash, _ in found})

    def stamps(self, folder):
        return {name: stamp for name, _, stamp in self._below(folder) if "/" not in name}

    def walk(self, folder):
        start = f"{folder}/" if folder else ""
        yield from ((start + name, size) for name, size, _ in self._below(folder))
