"""Images inside archives: ``shard.tar#member`` names a member of a tar file, ``part.parquet#column/row`` a cell.

Members are read by their place in the archive, which is looked up once a process and archive; nothing is unpacked. Tar
files must not be compressed, since a member of a compressed one cannot be read without all that lies before it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from wsolpipe.contract.errors import BadImageError, first_line, raise_as

MARKS = (".tar#", ".parquet#")
_OPEN = 256
_GROUPS = 8


def split_member(path: str) -> tuple[str, str] | None:
    """File of the archive and name of the member, None for the path of a plain file."""
    for mark in MARKS:
        place = path.find(mark)
        if place >= 0:
            cut = place + len(mark) - 1
            return path[:cut], path[cut + 1 :]
    return None


def read_member(archive: str, member: str) -> bytes:
    """Bytes of a member.

    Raises
    ------
    OSError
        If the archive or the member is not there or cannot be read.
    BadImageError
        If the archive is damaged.
    """
    import tarfile

    stamp = os.stat(archive).st_mtime_ns
    if archive.endswith(".parquet"):
        return _read_cell(archive, member, stamp)
    with raise_as(BadImageError, f"broken archive {os.path.basename(archive)}", tarfile.TarError, EOFError, say=str):
        places = _places(archive, stamp)
    if member not in places:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{archive}#{member}")
    start, size = places[member]
    with open(archive, "rb") as file:  # noqa: PTH123 - once a row
        file.seek(start)
        data = file.read(size)
    if len(data) < size:
        msg = f"broken archive {os.path.basename(archive)}: it ends within {member}"
        raise BadImageError(msg)
    return data


@lru_cache(_OPEN)
def _places(archive: str, stamp: int) -> dict[str, tuple[int, int]]:  # noqa: ARG001 - another time, another archive
    return {name: (start, size) for name, start, size in tar_members(archive)}


def tar_members(archive: str) -> Iterator[tuple[str, int, int]]:
    """Name, position and size of every file in an uncompressed tar file; links and folders are left out.

    Raises
    ------
    tarfile.TarError
        If it is compressed or damaged.
    """
    import tarfile

    with tarfile.open(archive, "r:") as opened:
        for item in opened:
            if item.isreg():
                yield item.name.removeprefix("./"), item.offset_data, item.size


def _read_cell(archive: str, member: str, stamp: int) -> bytes:
    """Bytes of an image in a table: a binary cell, or the field ``bytes`` of a struct, as `datasets` writes it."""
    import pyarrow as pa

    column, _, row = member.rpartition("/")
    try:
        ends = _group_ends(archive, stamp)
        number = int(row)
        group = next(place for place, end in enumerate(ends) if number < end)
        cells = _cells(archive, column, group, stamp)
        found = cells[number - (ends[group - 1] if group else 0)].as_py()
    except (StopIteration, ValueError, KeyError, IndexError) as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{archive}#{member}") from error
    except pa.ArrowException as error:
        msg = f"broken archive {os.path.basename(archive)}: {first_line(error)}"
        raise BadImageError(msg) from error
    if not found:
        msg = "empty file"
        raise BadImageError(msg)
    return bytes(found)


@lru_cache(_OPEN)
def _group_ends(archive: str, stamp: int) -> list[int]:  # noqa: ARG001
    import pyarrow.parquet as pq

    metadata = pq.ParquetFile(archive).metadata
    ends, total = [], 0
    for group in range(metadata.num_row_groups):
        total += metadata.row_group(group).num_rows
        ends.append(total)
    return ends


@lru_cache(_GROUPS)
def _cells(archive: str, column: str, group: int, stamp: int) -> Any:  # noqa: ARG001
    """Images of one row group: rows are read in order, so that the next ones are at hand."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = pq.ParquetFile(archive).read_row_group(group, columns=[column]).column(column)
    if pa.types.is_struct(found.type):
        found = pa.chunked_array([part.field("bytes") for part in found.chunks], pa.binary())
    return found
