"""Rows of the Parquet files of a store, a span at a time."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import AccessError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq

    from wsolpipe.contract.backends.base import Backend


class ParquetRows:
    """A Parquet file of a store, of which the row groups that were read last are kept.

    Parameters
    ----------
    find : callable, optional
        Gives the file on this machine, after it was held against a record; without it the file is read as it is.
    judge : callable, optional
        Raises where columns (None: all of them) of this file may not be read.

    Raises
    ------
    AccessError
        If it may not be read.
    StoreError
        If it is missing, or its bytes are not Parquet.
    """

    def __init__(
        self,
        backend: Backend,
        name: str,
        find: Callable[[], Path] | None = None,
        judge: Callable[[Path, pq.ParquetFile, list[str] | None], None] | None = None,
    ) -> None:
        import pyarrow.parquet as pq

        self._where, self._hint = f"{backend.url}/{name}", f"wsolpipe verify store={backend.url}"
        with self._explain():
            self._path = find() if find else backend.local_file(name)
            self._file = pq.ParquetFile(self._path)
        self._judge, self._judged = judge, set[tuple[str, ...] | None]()
        metadata = self._file.metadata
        self._sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._kept: tuple[tuple[list[str] | None, list[int]], pa.Table] | None = None

    def table(self, columns: Sequence[str] | None = None, *, start: int = 0, stop: int | None = None) -> pa.Table:
        """Rows `start` … `stop` − 1, all columns or some."""
        groups: list[int] = []
        first = offset = 0
        last = sum(self._sizes) if stop is None else stop
        for group, rows in enumerate(self._sizes):
            if offset < last and offset + rows > start:
                first = first if groups else offset
                groups.append(group)
            offset += rows
        wanted = list(columns) if columns is not None else None
        if self._kept is None or self._kept[0] != (wanted, groups):
            with self._explain():
                asked = None if wanted is None else tuple(wanted)
                if self._judge is not None and asked not in self._judged:
                    self._judge(self._path, self._file, wanted)
                    self._judged.add(asked)
                table = self._file.read_row_groups(groups, columns=wanted, use_threads=len(groups) > 1)
            self._kept = (wanted, groups), table
        return self._kept[1].slice(start - first, last - start)

    @contextlib.contextmanager
    def _explain(self) -> Iterator[None]:
        """Turn what pyarrow and the file system raise into a StoreError, or an AccessError if nothing could be read."""
        try:
            yield
        except StoreError:
            raise
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None)  # none where pyarrow cannot decode what it read
            msg = f"{self._where} cannot be {'read' if number else 'decoded'}: {error}"
            if number not in {None, errno.ENOENT}:
                raise AccessError(msg, hint="ask the owner of the store for access, then run again") from error
            raise StoreError(msg, hint=self._hint) from error


def read_parquet(
    backend: Backend, name: str, *, columns: Sequence[str] | None = None, start: int = 0, stop: int | None = None
) -> pa.Table:
    """Rows `start` … `stop` − 1 of a Parquet file of a store, reading only the row groups that hold them."""
    return ParquetRows(backend, name).table(columns, start=start, stop=stop)
