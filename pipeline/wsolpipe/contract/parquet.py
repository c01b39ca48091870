"""Rows of the Parquet files of a store, a span at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsolpipe.contract.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from wsolpipe.contract.backends.base import Backend


class ParquetRows:
    """A Parquet file of a store, of which the row groups that were read last are kept.

    Raises
    ------
    StoreError
        If it cannot be opened.
    """

    def __init__(self, backend: Backend, name: str) -> None:
        import pyarrow.parquet as pq

        try:
            self._file = pq.ParquetFile(backend.local_file(name))
        except (OSError, ValueError) as error:
            msg = f"{backend.url}/{name} cannot be read: {error}"
            raise StoreError(msg, hint=f"wsolpipe verify store={backend.url}") from error
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
            table = self._file.read_row_groups(groups, columns=wanted, use_threads=len(groups) > 1)
            self._kept = (wanted, groups), table
        return self._kept[1].slice(start - first, last - start)


def read_parquet(
    backend: Backend, name: str, *, columns: Sequence[str] | None = None, start: int = 0, stop: int | None = None
) -> pa.Table:
    """Rows `start` … `stop` − 1 of a Parquet file of a store, reading only the row groups that hold them."""
    return ParquetRows(backend, name).table(columns, start=start, stop=stop)
