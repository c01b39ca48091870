"""A published store in a data set repository of the Hugging Face Hub, ``hf://datasets/owner/name``: read-only.

The Hub serves the files of a repository by HTTP, and the list of checksums at the store's root says what there is.
``HF_ENDPOINT`` names another Hub, ``HF_TOKEN`` gives access to private repositories.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from wsolpipe.contract.backends.http import HttpBackend
from wsolpipe.contract.errors import ConfigError

_ADDRESS = re.compile(r"hf://datasets/([\w.-]{1,96}/[\w.-]{1,96})(?:@([\w./-]{1,255}?))?(?:/([^@]*))?/?")
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Place:
    """Where in the Hub a store is: ``owner/name``, revision (branch, tag or commit), folder in the repository."""

    repository: str
    revision: str
    folder: str


def parse_hub_url(url: str) -> Place:
    """Parts of ``hf://datasets/owner/name@revision/folder``; the revision is ``main`` and the folder empty by default.

    Raises
    ------
    ConfigError
        If the URL is of another form.

    Examples
    --------
    >>> parse_hub_url("hf://datasets/lab/birds@v1/labels")
    Place(repository='lab/birds', revision='v1', folder='labels')
    """
    found = _ADDRESS.fullmatch(url)
    if not found or ".." in url:
        msg = f"store={url} is not the address of a data set in the Hub"
        raise ConfigError(
            msg, hint="write hf://datasets/owner/name, hf://datasets/owner/name@revision or …/name/folder"
        )
    return Place(found[1], found[2] or "main", (found[3] or "").strip("/"))


class HubBackend(HttpBackend):
    """A published store in the Hub, read-only; ``wsolpipe publish to=hf://…`` writes one."""

    def address(self) -> str:
        """Where the Hub serves the files of the repository."""
        place = parse_hub_url(self.url)
        folder = f"/{quote(place.folder)}" if place.folder else ""
        endpoint = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
        return f"{endpoint}/datasets/{place.repository}/resolve/{quote(place.revision, safe='')}{folder}"

    def client_options(self) -> dict[str, Any]:
        """The token of the environment, if there is one."""
        token = os.environ.get("HF_TOKEN", "").strip()
        return {"default_headers": {"authorization": f"Bearer {token}"}} if token else {}
