"""Publishing to the Hugging Face Hub: the store is made in a folder, then uploaded in one commit."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from wsolpipe.contract.backends.http import CHECKSUMS, MAX_LIST_BYTES
from wsolpipe.contract.backends.hub import parse_hub_url
from wsolpipe.contract.backends.opening import open_backend
from wsolpipe.contract.errors import AccessError, ConfigError, StoreError
from wsolpipe.share.publish import Published, publish

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from wsolpipe.share.about import About
    from wsolpipe.share.selection import Selection


def publish_to_hub(
    store: str,
    to: str,
    wanted: Selection,
    about: About,
    *,
    jobs: int,
    emit: Callable[[dict[str, Any]], None],
    stop: threading.Event,
) -> Published:
    """As `wsolpipe.share.publish.publish`, to ``hf://datasets/owner/name``; the repository is made if it is not there.

    The Hub has no put that fails where an object exists, so a repository holds published stores and no runs. The commit
    is atomic: readers see all of it or nothing.

    Raises
    ------
    ConfigError
        If the address is not one of the Hub, huggingface_hub is not installed, or as `publish`.
    StoreError
        If the Hub refuses or cannot be reached.
    """
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
            done = publish(store, folder, wanted, replace(about, url=about.url or to), jobs=jobs, emit=emit, stop=stop)
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
    return done


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
