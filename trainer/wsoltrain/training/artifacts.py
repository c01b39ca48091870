"""Artifacts of the store that a method is built from: their files, and the keys that a resumed run must find again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wsolpipe.contract.canonical import sha256_bytes
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.reader import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsoltrain.data.config import Labelling
    from wsoltrain.methods.base import ArtifactFile


@dataclass(frozen=True)
class Artifacts:
    """Content of each file by ``stage/file``, and the key of its artifact, or the digest of a file of one's own."""

    files: dict[str, bytes] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


def read_artifacts(labelling: Labelling, wanted: Iterable[ArtifactFile]) -> Artifacts:
    """Read files of the newest artifacts of a store.

    Raises
    ------
    NotFoundError
        If the store has no such artifact; names the command that makes it.
    ConfigError
        If a file of one's own cannot be read.
    """
    found = Artifacts()
    for stage, file, path in wanted:
        name = f"{stage}/{file}"
        if path is not None:
            try:
                found.files[name] = Path(path).read_bytes()
            except OSError as error:
                msg = f"{path} cannot be read: {error.strerror}"
                raise ConfigError(msg, hint=f"a file {file} of the stage {stage}") from error
            found.keys[name] = sha256_bytes(found.files[name])[:16]
            continue
        artifact = open_store(labelling.store)[labelling.dataset].artifact(stage)
        found.files[name], found.keys[name] = artifact.read(file), artifact.key
    return found
