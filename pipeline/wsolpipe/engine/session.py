"""The session of a run: store, data set, stages with their resolved parameters and weights."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.backends.opening import open_backend
from wsolpipe.contract.errors import ConfigError, WeightsError, WsolError, unknown
from wsolpipe.contract.layout import read_json, split_folder
from wsolpipe.contract.reader import Index, Store
from wsolpipe.engine.config import merge
from wsolpipe.images.dataset import DatasetConfig, load_dataset
from wsolpipe.stages.registry import StageRegistry, load_registry

if TYPE_CHECKING:
    from pathlib import Path

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.engine.image_files import ImageFiles
    from wsolpipe.keys.run_keys import RunConfig
    from wsolpipe.networks.sources import Weights
    from wsolpipe.stages.base import ArtifactStage, Stage, StageParams

RECORDED_PACKAGES = ("wsolpipe", "numpy", "zarr", "pillow", "torch", "timm")


@dataclass
class Session:
    """Configuration with everything looked up that does not change while it runs."""

    config: RunConfig
    registry: StageRegistry
    backend: Backend
    dataset: DatasetConfig
    _params: dict[str, StageParams] = field(default_factory=dict)
    _weights: dict[tuple[str, bool], dict[str, Weights] | None] = field(default_factory=dict)

    @classmethod
    def open(cls, config: RunConfig, *, need_root: bool = True) -> Session:
        """Look everything up.

        Parameters
        ----------
        need_root : bool
            Whether a missing folder of images is an error; False for commands that read only the store.

        Raises
        ------
        ConfigError
            If no data set is named or the data set, a stage or a split does not exist.
        """
        if not config.dataset:
            msg = "no data set named"
            raise ConfigError(msg, hint="add dataset=NAME, or dataset=FILE.yaml for your own")
        registry = load_registry(config.stages)
        dataset = load_dataset(config.dataset, root=config.root, need_root=need_root)
        for split in config.split:
            if split not in dataset.splits:
                msg = unknown(f"split of {dataset.name}", split, dataset.splits)
                raise ConfigError(msg, hint="split=A,B takes several; without split= all are worked on")
        for stage in dataset.stages:
            registry[stage]
        return cls(config, registry, open_backend(config.store), dataset)

    @property
    def store(self) -> Store:
        """The store, for reading."""
        return Store(self.config.store)

    @cached_property
    def root(self) -> Path:
        """Folder that row paths are relative to."""
        return self.dataset.image_root()

    @cached_property
    def files(self) -> ImageFiles:
        """The image files below the root."""
        from wsolpipe.engine.image_files import ImageFiles

        return ImageFiles(self.root)

    @property
    def splits(self) -> list[str]:
        """The splits to work on."""
        return list(self.config.split or self.dataset.splits)

    def stage_class(self, stage: str) -> type[Stage[Any]] | type[ArtifactStage[Any]]:
        """Class of a stage."""
        return self.registry.load(stage)

    def params(self, stage: str) -> StageParams:
        """Resolved parameters: ``stages.yaml``, then the stage that is followed, then the data set's YAML, then the
        command line.
        """
        if stage not in self._params:
            over = merge(self.dataset.stages.get(stage, {}), self.config.params.get(stage, {}))
            follows = self.registry[stage].follows
            followed = {name: getattr(self.params(other), name) for name, other in follows.items()}
            self._params[stage] = self.registry.params(stage, followed, over)
        return self._params[stage]

    def needs(self, stage: str) -> tuple[str, ...]:
        """Stages that `stage` reads with its parameters."""
        return self.stage_class(stage).needs(self.params(stage), self.registry[stage].needs)

    def weights(self, stage: str, *, fetch: bool) -> dict[str, Weights] | None:
        """Resolved weights of a stage; None if some would have to be fetched and `fetch` is False."""
        if (stage, fetch) not in self._weights:
            from wsolpipe.models.weight_sources import resolve

            wanted = self.stage_class(stage).weights_needed(self.params(stage))
            try:
                found = {name: resolve(spec, fetch=fetch) for name, spec in wanted.items()}
            except WeightsError as error:
                name_keys(error, stage, self.params(stage))
                error.message = f"{stage}: {error.message}"
                raise
            complete = {name: item for name, item in found.items() if item is not None}
            self._weights[stage, fetch] = complete if len(complete) == len(found) else None
        return self._weights[stage, fetch]

    def index_of(self, split: str) -> Index | None:
        """The index of a split: the one this run listed, else the one that a run last found to be up to date.

        None while there is none.
        """
        if split in self.config.index:
            return self.finished_index(split, self.config.index[split])
        found: list[tuple[str, Index]] = []
        for name in self.backend.names(f"{split_folder(self.dataset.name, split)}/index"):
            index = self.finished_index(split, name[:-1])
            if index is not None and index.manifest.selection == self.config.selection():
                found.append((last_seen(self.backend, index.folder).get("time", index.manifest.created), index))
        return max(found, key=lambda item: item[0])[1] if found else None

    def finished_index(self, split: str, key: str) -> Index | None:
        """The index of a split under a key, None while it is not assembled."""
        index = Index(self.store, self.dataset.name, split, key)
        return index if self.backend.size(f"{index.folder}/manifest.json") is not None else None

    def device(self) -> str:
        """Torch device of this process; ``auto`` is a GPU if one is available.

        Raises
        ------
        ConfigError
            If this machine does not have the device that was asked for.
        """
        from wsolpipe.networks.devices import choose_device

        return choose_device(self.config.device)

    def threads(self) -> int:
        """Threads that decode ahead of the model."""
        return self.config.threads or max(1, min(8, (os.cpu_count() or 1) // self.config.workers))


def name_keys(error: WsolError, stage: str, params: StageParams) -> None:
    """Name the keys of a stage in an error as users write them, ``stage.key=``: models know no stages."""
    keys = rf"(?<![\w.-])({'|'.join(type(params).model_fields)})="
    error.message = re.sub(keys, rf"{stage}.\1=", error.message)
    error.hint = error.hint and re.sub(keys, rf"{stage}.\1=", error.hint)


def last_seen(backend: Backend, folder: str) -> dict[str, str]:
    """When an index was last found to be up to date (``time``) and with which metadata (``stamp``)."""
    try:
        return dict(read_json(backend.get(f"{folder}/seen.json")))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def software_versions() -> dict[str, str]:
    """Versions worth recording beside a result."""
    found = {"python": platform.python_version(), **{name: _version_of(name) for name in RECORDED_PACKAGES}}
    return {name: version for name, version in found.items() if version}


@cache
def _version_of(name: str) -> str:
    """Version of a package, empty where it is not installed; read once, as every stage records it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
