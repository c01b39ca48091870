"""Trusted sources of a pull: by address, or by the digest of a published list of checksums."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsolpipe.contract.backends.http import CHECKSUMS, MAX_LIST_BYTES, parse_checksums
from wsolpipe.contract.canonical import sha256_bytes
from wsolpipe.contract.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from wsolpipe.contract.backends.base import Backend

LEAST_DIGITS = 16
VARIABLE = "WSOLPIPE_TRUST"


@dataclass(frozen=True)
class Trust:
    """Objects that may be taken: everything (``listed`` None), or manifests and records with these digests.

    Records hold the digests of arrays and files, so that the list covers every byte.
    """

    listed: dict[str, str] | None = None

    @classmethod
    def of(cls, source: Backend, words: str | None) -> Trust:
        """Trust in `source` as ``trust=`` or the environment variable ``WSOLPIPE_TRUST`` defines it.

        Parameters
        ----------
        words : str or None
            Addresses of stores (or of folders above them) and digests of published lists, separated by commas;
            None if not given, which trusts the source that the user named.

        Raises
        ------
        ConfigError
            If the source is not among them.
        """
        given = words if words is not None else os.environ.get(VARIABLE)
        if given is None:
            return cls()
        items = [item.strip() for item in given.split(",") if item.strip()]
        digests = [item for item in items if re.fullmatch(rf"[0-9a-f]{{{LEAST_DIGITS},64}}", item)]
        if any(_is_below(source.url, item) for item in items if item not in digests):
            return cls()
        if digests:
            try:
                data = source.get(CHECKSUMS, limit=MAX_LIST_BYTES)
            except FileNotFoundError:
                data = b""
            if data and sha256_bytes(data).startswith(tuple(digests)):
                return cls(parse_checksums(data, source.url))
        msg = f"{source.url} is not among the trusted: {', '.join(items) or 'none'}"
        raise ConfigError(msg, hint=f"add its address, or the digest of its {CHECKSUMS}, to trust=")

    def check(self, name: str, sha256: str) -> None:
        """Compare the digest of an object of the source with the list, if there is one.

        Raises
        ------
        StoreError
            If the list has another digest, or not this object.
        """
        if self.listed is not None and self.listed.get(name) != sha256:
            msg = f"{name} does not have the digest of the trusted list of checksums"
            raise StoreError(msg)


def _is_below(url: str, trusted: str) -> bool:
    base = trusted.rstrip("/")
    return url.rstrip("/") == base or url.startswith(f"{base}/")
