"""Keys that say where trainings run, for the commands that start several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wsoltrain.selection.trainings import Site

CLUSTERS = ("local", "dask-local", "dask-cuda", "slurm", "slurm-array", "tcp://")
PREFIX = "cluster."
SITE_KEYS = (
    Key("cluster", kinds.text("name or tcp://HOST:PORT", offers=CLUSTERS),
        "where trainings run, each as one process or job; cluster.profile=, cluster.profiles= and cluster.FIELD= "
        "choose and change the profile of the site", "local"),
    Key("parallel", kinds.integer(1), "trainings at once", otherwise="one here, one a GPU with dask-cuda, else all"),
)  # fmt: skip


def split_site(words: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """Words without those of a site's profile, and these, ``cluster.`` taken away."""
    words = list(words)
    rest = [word for word in words if not word.startswith(PREFIX)]
    return rest, tuple(word.removeprefix(PREFIX) for word in words if word.startswith(PREFIX))


def site_of(values: Mapping[str, Any], profile: tuple[str, ...]) -> Site:
    """Site of a command's values."""
    from wsoltrain.selection.trainings import Site

    return Site(values["cluster"], values["parallel"], profile)
