"""Publish a data set's labels: push, describe and list them with checksums, into a store or to the Hugging Face Hub."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.backends.opening import CHECKSUMS, MAX_LIST_BYTES, open_backend, parse_checksums, parse_hub_url
from wsolpipe.contract.box_table import TABLE, box_table, has_boxes
from wsolpipe.contract.errors import AccessError, ConfigError, StoreError
from wsolpipe.contract.layout import Shards, check_name, commit_name, sha256_bytes, shard_of
from wsolpipe.contract.making import run_command
from wsolpipe.contract.manifest import IndexManifest, read_record
from wsolpipe.contract.reader import StageView, Store
from wsolpipe.engine import commit, zarr_metadata
from wsolpipe.share.card import About, Figures, card, croissant, stage_figures
from wsolpipe.share.selection import Selection, StoredResult, select
from wsolpipe.share.transfer import Result, push

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from wsolpipe.contract.backends.base import Backend


@dataclass(frozen=True)
class Published:
    """Outcome of a publication; ``digest`` is that of the list of checksums, as ``trust=`` takes it."""

    moved: Result
    files: int
    digest: str


def publish(
    store: str,
    to: str,
    wanted: Selection,
    about: About,
    *,
    jobs: int,
    emit: Callable[[dict[str, Any]], None],
    stop: threading.Event,
) -> Published:
    """Push what `wanted` selects and write boxes as tables, card, ``croissant.json`` and checksums beside it.

    The list of checksums is written last, so that everything it names is there. A repository of the Hub
    (``hf://datasets/owner/name``) is made if it is not there.

    Raises
    ------
    ConfigError
        If no licence is given or recorded, before anything is moved; if the address is not one of the Hub, or
        huggingface_hub is not installed.
    StoreError
        If a shard could not be pushed, or the Hub refuses or cannot be reached.
    """
    check_name("data set", about.dataset)
    chosen = select(open_backend(store), wanted).found
    if not chosen:
        msg = f"{about.dataset} has nothing finished in {store}"
        raise ConfigError(msg, hint=f"{run_command('proposals', store=store)} makes it")
    about = _filled(about, chosen, to)
    with _destination(to, about) as where:
        moved = push(store, where, wanted, jobs=jobs, emit=emit, stop=stop)
        if moved.refused or moved.stopped:
            msg = f"{len(moved.refused)} shards were not pushed: {'; '.join(moved.refused[:3]) or 'stopped'}"
            raise StoreError(msg, hint="wsolpipe verify, then publish again: it goes on")
        listed, digest = _describe(where, replace(wanted, keys="all"), {item.folder for item in chosen}, about, jobs)
    return Published(moved, listed, digest)


def _describe(to: str, wanted: Selection, pushed: set[str], about: About, jobs: int) -> tuple[int, str]:
    """Write metadata, tables, card and checksums beside what was pushed.

    Returns
    -------
    (files, digest)
        How many files the list of checksums names, and the digest of that list.
    """
    target = open_backend(to)
    found = [item for item in select(target, wanted).found if item.folder in pushed]
    for view in _views(Store(to), found):
        shards = Shards(view.manifest.rows, view.manifest.shard_rows)
        if zarr_metadata.is_outdated(target, view.folder, view.manifest, shards):
            zarr_metadata.restore_metadata(target, view.folder, view.manifest, shards)
    with ThreadPoolExecutor(jobs) as pool:
        listed = {name: sha for part in pool.map(lambda item: _digests(target, item), found) for name, sha in part}
    made: list[tuple[StoredResult, Figures]] = [(item, stage_figures(Store(to), item)) for item in found]

    def put(name: str, data: bytes) -> None:
        target.replace(name, data)
        listed[name] = sha256_bytes(data)

    for view in _views(Store(to), found):
        if has_boxes(view):
            put(f"{view.folder}/{TABLE}", box_table(view))
    put(f"{about.dataset}/README.md", card(about, made))
    put(f"{about.dataset}/croissant.json", croissant(about, found, listed))
    listing = _listing(target, about.dataset, listed)
    target.replace(CHECKSUMS, listing)
    return len(listed), sha256_bytes(listing)


def _views(store: Store, found: list[StoredResult]) -> Iterator[StageView]:
    """Rows stages among `found`."""
    for item in found:
        if item.manifest.kind == "rows":
            yield StageView(store, item.dataset, str(item.split), item.stage, item.key)


def _filled(about: About, found: list[StoredResult], to: str) -> About:
    """`about` with empty fields filled from the manifests.

    Raises
    ------
    ConfigError
        If there is no licence.
    """
    known = {item.manifest.licence for item in found if item.manifest.licence}
    licence = about.licence or ", ".join(sorted(known))
    if not licence:
        msg = f"{about.dataset} has no licence: neither its YAML nor licence= names one"
        raise ConfigError(msg, hint='add licence=…, such as licence="CC-BY-4.0", if you may give these labels away')
    title = about.title or next((item.manifest.title for item in found if item.manifest.title), about.dataset)
    stages = ", ".join(sorted({item.stage for item in found if item.manifest.kind == "rows"}))
    description = about.description or f"Pseudo-labels of {title} for weakly supervised object localization: {stages}."
    return replace(
        about, licence=licence, title=title, description=description,
        citation=about.citation or f"{title}. Pseudo-labels made with wsolpipe.",
        url=about.url or ("" if isinstance(open_backend(to), LocalBackend) else to),
        date=about.date or datetime.now(UTC).date().isoformat(),
    )  # fmt: skip


def _digests(backend: Backend, item: StoredResult) -> list[tuple[str, str]]:
    """(name, sha256) of every object of a folder: of arrays and tables as recorded, of small files as they are."""
    manifest = item.manifest
    listed = [(f"{item.folder}/manifest.json", item.sha256)]
    if isinstance(manifest, IndexManifest):
        return [*listed, *((f"{item.folder}/{name}", stored.sha256) for name, stored in manifest.objects.items())]
    names = backend.names(f"{item.folder}/commits")
    units = [None] if item.split is None else [unit for name in names if (unit := shard_of(name)) is not None]
    for unit in units:
        record = read_record(backend, item.folder, unit)
        if record is not None:
            name = commit_name(item.folder, unit)
            listed.append((name, sha256_bytes(backend.get(name))))
            stored = commit.object_names(item.folder, manifest, record)
            listed += [(target, record.objects[key].sha256) for key, target in stored.items()]
    if item.split is not None:
        arrays = [zarr_metadata.GROUP, *zarr_metadata.all_arrays(manifest.arrays)]
        names = [zarr_metadata.metadata_name(item.folder, array) for array in arrays]
        listed += [(name, sha256_bytes(backend.get(name))) for name in names]
    return listed


def _listing(backend: Backend, dataset: str, listed: dict[str, str]) -> bytes:
    """The list, with the entries of other data sets published before."""
    try:
        before = parse_checksums(backend.get(CHECKSUMS, limit=MAX_LIST_BYTES), backend.url)
    except FileNotFoundError:
        before = {}
    kept = {name: sha for name, sha in before.items() if not name.startswith(f"{dataset}/")}
    return "".join(f"{sha}  {name}\n" for name, sha in sorted({**kept, **listed}.items())).encode()


@contextmanager
def _destination(to: str, about: About) -> Iterator[str]:
    """Store to write to: `to` itself; for the Hub a folder that is uploaded in the end.

    The Hub has no put that fails where an object exists, so a repository holds published stores and no runs. The commit
    is atomic: readers see all of it or nothing.
    """
    if not to.startswith("hf:"):
        yield to
        return
    place = parse_hub_url(to)
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        msg = f"publishing to {to} needs huggingface_hub: {error}"
        raise ConfigError(msg, hint="pip install 'wsolpipe[pipeline]'") from error
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=os.environ.get("HF_TOKEN") or None)
    with tempfile.TemporaryDirectory(prefix="wsolpipe-hub-") as folder:
        try:
            api.create_repo(place.repository, repo_type="dataset", exist_ok=True)
            _fetch_listing(to, Path(folder))
            yield folder
            api.upload_folder(
                repo_id=place.repository, repo_type="dataset", folder_path=folder, path_in_repo=place.folder or None,
                revision=place.revision, commit_message=f"Publish {about.dataset}",
            )  # fmt: skip
        except HfHubHTTPError as error:
            _refuse(to, error)
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            msg = f"cannot publish to {to}: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
            raise AccessError(msg, hint="check the network, then publish again") from error


def _fetch_listing(to: str, folder: Path) -> None:
    """Put the list of what the repository holds already into the folder, so that the new one names it too."""
    try:
        data = open_backend(to).get(CHECKSUMS, limit=MAX_LIST_BYTES)
    except FileNotFoundError:
        return
    (folder / CHECKSUMS).write_bytes(data)


def _refuse(to: str, error: Any) -> NoReturn:
    status = getattr(error.response, "status_code", None)
    line = str(error).splitlines()[0][:200]
    msg = f"the Hub refused {to}: {line}"
    hint = "HF_TOKEN needs write access to the repository" if status in {401, 403} else "publish again: it goes on"
    raise AccessError(msg, hint=hint) from error
