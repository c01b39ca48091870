"""The folders of a store by their names alone: what is in them may be damaged, unfinished or not readable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsolpipe.contract.layout import is_key, is_name, stage_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wsolpipe.contract.backends.base import Backend

ARTIFACTS = "artifacts"
NOTES = "index-"
"""How folders beside the stages begin that hold requests and not results."""


@dataclass(frozen=True)
class Folder:
    """Folder of one key of a stage; ``split`` is None for an artifact, ``stage`` may be ``index``."""

    dataset: str
    split: str | None
    stage: str
    key: str

    @property
    def path(self) -> str:
        """Relative to the store."""
        return stage_folder(self.dataset, self.split, self.stage, self.key)


def list_folders(
    backend: Backend,
    *,
    datasets: tuple[str, ...] = (),
    splits: tuple[str, ...] = (),
    stages: tuple[str, ...] = (),
) -> tuple[list[Folder], list[str]]:
    """Folders of every key, and folders whose name no data set, split, stage or key can have (a backup copy, say).

    Parameters
    ----------
    datasets, splits, stages : tuple of str
        Only these; empty means all. Artifacts belong to every split.
    """
    strange: list[str] = []

    def below(folder: str, wanted: tuple[str, ...], fits: Callable[[str], bool] = is_name) -> Iterator[str]:
        for item in backend.names(folder):
            name = item[:-1]
            if not item.endswith("/") or name.startswith(NOTES) or (wanted and name not in wanted):
                continue
            if fits(name):
                yield name
            else:
                strange.append(f"{folder}/{name}".strip("/"))

    found = [
        Folder(dataset, None if second == ARTIFACTS else second, stage, key)
        for dataset in below("", datasets)
        for second in below(dataset, (*splits, ARTIFACTS) if splits else ())
        for stage in below(f"{dataset}/{second}", stages)
        for key in below(f"{dataset}/{second}/{stage}", (), is_key)
    ]
    return found, strange
