"""Recipe files: keys of a method and of training, what differs by data set and profile, what a search may try."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wsolpipe.contract.errors import ConfigError, explain_all, guess, shorten, unknown
from wsolpipe.keys.key import unknown_key
from wsolpipe.keys.safe_yaml import read_yaml
from wsoltrain.methods.registry import METHODS
from wsoltrain.recipes import RECIPES
from wsoltrain.training.annotators import read_annotators
from wsoltrain.training.recipe import Recipe, recipe_type, renamed

#: Annotator that chooses epoch and threshold unless by= is given; no key of the recipe, as no weight depends on it.
BY = "by"
#: Keys by which labels made during training might be asked for.
CLIP_WORDS = ("labels", "stage", "on_the_fly", "clip_on_the_fly", "use_on_the_fly")


@dataclass(frozen=True)
class RecipeFile:
    """A recipe as it is written: keys, what differs by data set, and what a search may try.

    Attributes
    ----------
    name : str
        Name or path that was given.
    keys : dict
        Of the method's recipe.
    datasets : dict of str to dict
        Keys laid over `keys` where the data set has that name.
    profiles : dict of str to dict
        Keys laid over those where ``profile=NAME`` is given, such as the values of another paper.
    search : dict of str to dict
        Key, or ``pixels.key`` -> `Range`.
    by : dict of str to list of str
        What chooses epoch and threshold where nobody says: by data set, and under ``""`` for all others.
    default : str
        Whose settings hold without ``profile=``, and why.
    """

    name: str
    keys: dict[str, Any]
    datasets: dict[str, dict[str, Any]]
    profiles: dict[str, dict[str, Any]]
    search: dict[str, Any]
    by: dict[str, list[str]]
    default: str = ""

    def annotators(self, dataset: str) -> list[str]:
        """Return the annotator that chooses epoch and threshold on a data set: as the file says, else proposals."""
        return self.by.get(dataset) or self.by.get("") or ["proposals"]


def known_recipes() -> list[str]:
    """Names of the recipes that come with this package and with others."""
    return RECIPES.names()


def read_recipe(name_or_path: str) -> RecipeFile:
    """Read a recipe's file.

    Parameters
    ----------
    name_or_path : str
        A name of `known_recipes`, or a YAML file.

    Raises
    ------
    ConfigError
        If there is no such recipe, a section is not a mapping, or `by` is no word of an annotator.
    """
    path = Path(name_or_path) if name_or_path.endswith((".yaml", ".yml")) else RECIPES.find(name_or_path)
    if not path.is_file():
        raise ConfigError(unknown("recipe", name_or_path, known_recipes()))
    keys = read_yaml(path)
    sections = [keys]
    if isinstance(keys, dict):
        datasets, profiles, search = (keys.pop(section, None) or {} for section in ("datasets", "profiles", "search"))
        default = str(keys.pop("default", ""))
        sections += [datasets, profiles, search]
        sections += [each for outer in (datasets, profiles) if isinstance(outer, dict) for each in outer.values()]
    if not all(isinstance(section, dict) for section in sections):
        msg = f"{path}: the file, datasets and profiles, each section in them, and search must be mappings of keys"
        raise ConfigError(msg)
    by = {name: _annotators(path, section.pop(BY)) for name, section in {"": keys, **datasets}.items() if BY in section}
    return RecipeFile(name_or_path, keys, datasets, profiles, search, by, default)


def _annotators(path: Path, given: Any) -> list[str]:
    words = given if isinstance(given, list) else [given]
    if not all(isinstance(word, str) for word in words):
        msg = f"{path}: by={given} is not a list of annotators"
        raise ConfigError(msg, hint="by: cls, or by: [proposals, gt]")
    read_annotators(words)
    return words


def load_recipe(name_or_path: str, *, dataset: str, changes: Mapping[str, Any]) -> Recipe:
    """Read a recipe, lay its sections of a data set and of a profile over it, and single keys over these.

    Parameters
    ----------
    name_or_path : str
        A name of `known_recipes`, or a YAML file.
    dataset : str
        Name of the data set, for the recipe's ``datasets``.
    changes : mapping
        Keys and values; ``profile`` names one of the recipe's; ``pixels.n_fg``, or a mapping for ``pixels``, changes
        these keys of it and leaves the others.

    Raises
    ------
    ConfigError
        If there is no such recipe or profile, a key is unknown (names the nearest), or a value does not fit, be it in a
        section that is not asked for.
    """
    file = read_recipe(name_or_path)
    for other, keys in file.datasets.items():
        if other != dataset:
            _check_section(f"{file.name}, data set {other}", json.dumps(lay_over(file.keys, keys), default=str))
    for name, keys in file.profiles.items():
        _check_section(f"{file.name}, profile {name}", json.dumps(lay_over(file.keys, keys), default=str))
    return check_recipe(file.name, keys_for(file, dataset, changes))


@cache
def _check_section(where: str, keys: str) -> None:
    """Check a section that is not asked for, from JSON, once a process: tables load a recipe hundreds of times."""
    check_recipe(where, json.loads(keys))


def keys_for(file: RecipeFile, dataset: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A file's keys with those of a data set, of the profile that `changes` names, and of `changes` laid over them.

    Raises
    ------
    ConfigError
        If the profile or a key is unknown; names the nearest.
    """
    changes = dict(changes)
    profile = changes.pop("profile", None)
    if profile is not None and profile not in file.profiles:
        raise ConfigError(unknown(f"profile of recipe {file.name}", str(profile), file.profiles))
    keys = lay_over(file.keys, file.datasets.get(dataset, {}))
    keys = lay_over(keys, file.profiles[profile]) if profile is not None else keys
    return lay_over(keys, changes)


def recipe_type_of(file: RecipeFile) -> type[Recipe]:
    """Return the class of a file's recipes, which knows the keys of its method.

    Raises
    ------
    ConfigError
        If the file names no method, or one that is not known.
    """
    return recipe_type(_method(renamed(file.keys)))


def lay_over(keys: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge changes into keys, mappings key by key; another sampler begins with its own defaults.

    Raises
    ------
    ConfigError
        If a changed key is unknown; names the nearest one.
    """
    if "model" in changes and changes["model"] not in METHODS:
        name = shorten(str(changes["model"]))
        msg = f"model={name}: a recipe's network is its backbone{guess(name, METHODS.names())}"
        raise ConfigError(msg, hint=f"write backbone={name}; method= names how it is trained")
    laid, changes = renamed(keys), renamed(changes)
    known = recipe_type(_method(laid | changes)).model_fields
    if changes.get("sampler", laid.get("sampler")) != laid.get("sampler"):
        laid["pixels"] = {}
    for name, value in changes.items():
        outer, _, inner = name.partition(".")
        if outer in CLIP_WORDS or (outer == "maps" and value in ("clip", "clipseg", "on_the_fly")):
            msg = f"{name}={value}: wsoltrain reads pseudo-labels from the store and makes none while it trains"
            raise ConfigError(msg, hint="wsolpipe run stage=clip_cams dataset=…, then wsoltrain fit maps=clip_cams …")
        if outer not in known:
            raise unknown_key(outer, known)
        more = {inner: value} if inner else value
        own = laid.get(outer) or {}
        if isinstance(more, dict) and not isinstance(own, dict):
            raise unknown_key(name if inner else f"{outer}.{next(iter(more), '')}", known)
        laid[outer] = {**own, **more} if isinstance(more, dict) else more
    return laid


def check_recipe(where: str, keys: Mapping[str, Any]) -> Recipe:
    """Return the recipe of some keys.

    Raises
    ------
    ConfigError
        If a key is missing or unknown, or a value does not fit; `where` says whose.
    """
    kind = recipe_type(_method(keys))
    try:
        recipe = kind.model_validate(keys)
    except ValidationError as error:
        msg = f"recipe {where}: {explain_all(error)}"
        raise ConfigError(msg, hint=f"wsoltrain fit recipe={where.partition(',')[0]} --help lists the keys") from error
    recipe.check()
    return recipe


def _method(keys: Mapping[str, Any]) -> str:
    name = keys.get("method")
    if not isinstance(name, str):
        msg = "the recipe names no method" if name is None else f"method={name} is not a name"
        raise ConfigError(msg, hint=f"method: one of {', '.join(METHODS.names())}")
    return name
