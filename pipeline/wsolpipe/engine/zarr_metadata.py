"""Metadata of a stage's arrays and of the Zarr group that holds them; the manifest in front of them.

Everything here is computed from the manifest, so it can be written again at any time. Names of axes describe and change
no byte of a shard: metadata that differs in them alone, or that has no group yet, is outdated and not damaged.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.axes import ROW, axis_names
from wsolpipe.contract.canonical import read_json
from wsolpipe.contract.errors import AccessError, StoreError
from wsolpipe.contract.manifest import MAX_JSON_BYTES
from wsolpipe.contract.schema import CHECKSUM, STATUS_SPEC, ArraySpec
from wsolpipe.engine.encoding import metadata_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.contract.layout import Shards
    from wsolpipe.contract.manifest import StageManifest

#: Name by which the group goes among the arrays.
GROUP = ""


def all_arrays(arrays: Mapping[str, ArraySpec]) -> dict[str, ArraySpec]:
    """`arrays` and the ``status`` array that every rows stage has, in the order of their names."""
    return dict(sorted({**arrays, "status": STATUS_SPEC}.items()))


def metadata_name(folder: str, array: str) -> str:
    """Name in the store of the metadata of an array, or of the group."""
    return f"{folder}/data.zarr/{array}/zarr.json" if array else f"{folder}/data.zarr/zarr.json"


def folder_metadata(manifest: StageManifest, shards: Shards, checksum: str | None = None) -> dict[str, bytes]:
    """``zarr.json`` of every array by name and, last, of the group; `checksum` stands in for that of the manifest."""
    specs = all_arrays(manifest.arrays)
    axes = axis_names(specs)
    used = manifest.checksum if checksum is None else checksum
    made = {name: metadata_bytes(spec, shards, used, axes[name]) for name, spec in specs.items()}
    group = {
        "attributes": {
            "dataset": manifest.dataset, "split": manifest.split, "stage": manifest.stage, "key": manifest.key,
        },
        "zarr_format": 3,
        "consolidated_metadata": {
            "kind": "inline", "must_understand": False,
            "metadata": {name: json.loads(data) for name, data in made.items()},
        },
        "node_type": "group",
    }  # fmt: skip
    return {**made, GROUP: json.dumps(group, indent=2).encode()}


def prepare_folder(backend: Backend, folder: str, manifest: StageManifest, shards: Shards | None) -> None:
    """Write the manifest and the metadata of arrays and group, unless they exist."""
    if shards is not None:
        for name, data in folder_metadata(manifest, shards).items():
            backend.create(metadata_name(folder, name), data)
    backend.create(f"{folder}/manifest.json", manifest.to_bytes())


def restore_metadata(backend: Backend, folder: str, manifest: StageManifest, shards: Shards) -> None:
    """Write the metadata again where it is missing or differs in any byte from what the manifest says."""
    for name, wanted in folder_metadata(manifest, shards).items():
        if _read(backend, metadata_name(folder, name)) != wanted:
            backend.replace(metadata_name(folder, name), wanted)


def wrong_metadata(backend: Backend, folder: str, manifest: StageManifest, shards: Shards) -> list[str]:
    """Arrays whose metadata is missing or does not agree with the manifest, and `GROUP` if the group's does not."""
    wrong = []
    for name, wanted in folder_metadata(manifest, shards).items():
        found = _read(backend, metadata_name(folder, name))
        if not (name == GROUP if found is None else _agrees(found, wanted)):
            wrong.append(name)
    return wrong


def is_outdated(backend: Backend, folder: str, manifest: StageManifest, shards: Shards) -> bool:
    """Whether all metadata agrees with the manifest but some is of an earlier form: axes without names, no group."""
    if wrong_metadata(backend, folder, manifest, shards):
        return False
    wanted = folder_metadata(manifest, shards)
    return any(_read(backend, metadata_name(folder, name)) != data for name, data in wanted.items())


def metadata_agrees(backend: Backend, folder: str, manifest: StageManifest, shards: Shards) -> bool:
    """Whether all existing metadata agrees with the manifest."""
    for name, wanted in folder_metadata(manifest, shards).items():
        found = _read(backend, metadata_name(folder, name))
        if found is not None and not _agrees(found, wanted):
            return False
    return True


def checksum_of_folder(backend: Backend, folder: str, manifest: StageManifest, shards: Shards) -> str | None:
    """Checksum of chunks by the arrays' metadata in a folder; None if no array has metadata.

    A manifest that is written again over existing shards keeps their checksum.
    """
    for name in all_arrays(manifest.arrays):
        found = _read(backend, metadata_name(folder, name))
        for checksum in ("", CHECKSUM) if found is not None else ():
            if _agrees(found or b"", folder_metadata(manifest, shards, checksum)[name]):
                return checksum
    return None


def _read(backend: Backend, name: str) -> bytes | None:
    """Bytes of metadata, None if it is missing; none where there is something else that cannot be metadata."""
    try:
        return backend.get(name, limit=MAX_JSON_BYTES)
    except FileNotFoundError:
        return None
    except AccessError:
        raise
    except StoreError:
        return b""


def _agrees(found: bytes, wanted: bytes) -> bool:
    """Whether two pieces of metadata differ in the names of axes at most."""
    if found == wanted:
        return True
    try:
        return bool(_without_axes(read_json(found)) == _without_axes(read_json(wanted)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def _without_axes(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata without the names of axes.

    Raises
    ------
    ValueError
        If these are not what names of axes can be.
    """
    if metadata["node_type"] == "group":
        inner = metadata["consolidated_metadata"]
        arrays = {name: _without_axes(item) for name, item in inner["metadata"].items()}
        return {**metadata, "consolidated_metadata": {**inner, "metadata": arrays}}
    rest = dict(metadata)
    names = rest.pop("dimension_names")
    fits = len(names) == len(rest["shape"]) and names[0] == ROW
    if not fits or not all(name is None or isinstance(name, str) for name in names):
        msg = f"no names of axes: {names}"
        raise ValueError(msg)
    return rest
