"""The stages that exist: ``stages.yaml``, YAML files of installed packages (entry points) and of the user."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from wsolpipe.contract.errors import ConfigError, explain_all, unknown
from wsolpipe.contract.layout import DEFAULT_SHARD_ROWS
from wsolpipe.contract.making import stage_files
from wsolpipe.contract.named import load
from wsolpipe.keys.models import keys_of
from wsolpipe.keys.safe_yaml import read_yaml
from wsolpipe.stages.base import ArtifactStage, Stage, StageParams

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.keys.key import Key


FILE_HINT = "stages=FILE.yaml describes stages of your own, dataset=FILE.yaml a data set"


class StageEntry(BaseModel, extra="forbid", frozen=True, populate_by_name=True):
    """One stage of ``stages.yaml``.

    Attributes
    ----------
    about : str
        What it makes, in one line.
    class_ : str
        ``package.module:Class``.
    version : int
        Bumped by hand when the same parameters give other results.
    kind : "rows" or "artifact"
    needs : tuple of str
        Stages whose output it reads; ``index`` is always there and not named.
    columns : tuple of str
        Index columns it reads; ``image`` means the columns that decide which pixels are seen.
    params : dict
        Default of every parameter.
    follows : dict
        Parameter -> stage whose parameter of that name it takes, where nothing else is given.
    ranked_by : tuple of str
        Those of `needs` that only order what is made of the others: its boxes may judge their maps.
    outputs : dict
        Name of each output -> what it means.
    shard_rows : int
        Rows of a shard where none are asked for; fewer than usual for a stage of large rows, which lie in memory.
    block : int
        Rows handed to the stage at once; also the grain of checkpoints inside a shard.
    """

    about: str = ""
    class_: str = Field(alias="class")
    version: int = Field(ge=1)
    kind: Literal["rows", "artifact"]
    needs: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    params: dict[str, Any] = Field(default_factory=dict)
    follows: dict[str, str] = Field(default_factory=dict)
    ranked_by: tuple[str, ...] = ()
    outputs: dict[str, str] = Field(default_factory=dict)
    shard_rows: int = Field(default=DEFAULT_SHARD_ROWS, ge=1)
    block: int = Field(default=256, ge=1)


@dataclass(frozen=True)
class StageRegistry:
    """Stages by name."""

    entries: dict[str, StageEntry]
    sources: dict[str, str]

    def __getitem__(self, name: str) -> StageEntry:
        if name == "index":
            msg = "index lists the images of a data set: it has no parameters, and no boxes, maps or masks"
            raise ConfigError(msg, hint="name another stage; wsolpipe stages lists them")
        if name not in self.entries:
            raise ConfigError(unknown("stage", name, [*self.entries, "index"]))
        return self.entries[name]

    def load(self, name: str) -> type[Stage[Any]] | type[ArtifactStage[Any]]:
        """Import the class of a stage.

        Raises
        ------
        ConfigError
            If the module, the class or a package that it needs is missing.
        """
        return _load_class(name, self[name].class_, self.sources[name])

    def keys(self, name: str) -> tuple[Key, ...]:
        """Keys ``name.parameter`` of a stage, with the defaults of its entry.

        Raises
        ------
        ConfigError
            As `load`.
        """
        return keys_of(self.load(name).Params, self[name].params, prefix=f"{name}.")

    def stored_params(self, name: str, stored: Mapping[str, Any]) -> StageParams:
        """Parameters with which a result was made, as its manifest has them: JSON, not validated.

        Parameters that a manifest leaves out, since they change no result, are as in the entry.
        """
        return self.load(name).Params.model_construct(**{**self[name].params, **stored})

    def params(self, name: str, *overrides: dict[str, Any]) -> StageParams:
        """Resolved parameters of a stage: the defaults of its entry, then each of `overrides` over them.

        Raises
        ------
        ConfigError
            If a parameter is unknown (names the nearest) or of a wrong type.
        """
        model = self.load(name).Params
        values = dict(self[name].params)
        for override in overrides:
            for key, value in override.items():
                if key not in model.model_fields:
                    raise ConfigError(unknown(f"parameter of stage {name}", key, model.model_fields))
                values[key] = value
        try:
            return model.model_validate(values)
        except ValidationError as error:
            raise ConfigError(explain_all(error, values=True, prefix=f"{name}.")) from error


@cache
def load_registry(extra: str | None = None) -> StageRegistry:
    """Read every source of stages; a later one may not take a name that is used.

    Parameters
    ----------
    extra : str, optional
        A YAML file of the user's own stages (``stages=FILE``).
    """
    entries: dict[str, StageEntry] = {}
    sources: dict[str, str] = {}
    for path in [*stage_files(), *([Path(extra)] if extra else [])]:
        for name, entry in _read(path).items():
            if name in entries or name == "index":
                msg = f"stage {name!r} of {path} is already defined by {sources.get(name, 'wsolpipe itself')}"
                raise ConfigError(msg, hint="rename the stage")
            entries[name] = entry
            sources[name] = str(path)
    return StageRegistry(entries, sources)


def _read(path: Path) -> dict[str, StageEntry]:
    try:
        content = read_yaml(path, hint=FILE_HINT) or {}
        return {str(name): StageEntry.model_validate(fields) for name, fields in content.items()}
    except AttributeError as error:
        msg = f"{path} is not a mapping of stages"
        raise ConfigError(msg, hint=FILE_HINT) from error
    except ValidationError as error:
        msg = f"{path} does not describe stages: {explain_all(error)}"
        raise ConfigError(msg, hint=FILE_HINT) from error


def _load_class(name: str, target: str, source: str) -> type[Stage[Any]] | type[ArtifactStage[Any]]:
    found = load("stage", name, target, hint=f"{source} names it")
    if not (isinstance(found, type) and issubclass(found, (Stage, ArtifactStage))):
        msg = f"stage {name} ({target}) is neither a Stage nor an ArtifactStage"
        raise ConfigError(msg, hint=f"{source} names it")
    return found
