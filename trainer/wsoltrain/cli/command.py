"""Commands of the trainer: their own keys beside those of recipes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from wsolpipe.keys import kinds, shell
from wsolpipe.keys.key import Key, read_keys
from wsolpipe.keys.run_keys import store_of as named_store
from wsolpipe.keys.shell import Section
from wsolpipe.keys.words import parse_value, split_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import click

    from wsolpipe.keys.shell import Body, Given


class OfRecipe:
    """Keys of the recipe that is named, else those of every recipe; see `wsolpipe.keys.shell.More`."""

    def listed(self) -> tuple[Key, ...]:
        """Return nothing: the command's own keys come first."""
        return ()

    def sections(self, given: Given) -> Iterator[Section]:
        """List the keys of the recipe."""
        if "recipe" in given:
            yield Section(f"Keys of the recipe {given['recipe']}", recipe_keys(given["recipe"]))
            return
        names = ", ".join(offered_recipes(given))
        note = f"Any other key is one of the recipe. recipe=NAME --help lists them; recipes: {names}."
        yield Section("Keys of recipes", (), note)

    def names(self, given: Given, start: str) -> Iterator[Key]:  # noqa: ARG002
        """List the keys of the recipe."""
        yield from recipe_keys(given.get("recipe"))


def offered_recipes(given: Given) -> list[str]:  # noqa: ARG001
    """Names for completion: the recipes of the package."""
    from wsoltrain.training.recipe_file import known_recipes

    return known_recipes()


def offered_tables(given: Given) -> list[str]:  # noqa: ARG001
    """Names for completion: the tables of the papers."""
    from wsoltrain.selection.paper_tables import known_tables

    return known_tables()


def recipe_keys(name: str | None) -> tuple[Key, ...]:
    """Keys of a recipe and its method, with the values that its file gives them; those of all recipes where None.

    Raises
    ------
    ConfigError
        If there is no such recipe.
    """
    from wsolpipe.keys.models import keys_of
    from wsoltrain.training.recipe import Recipe
    from wsoltrain.training.recipe_file import read_recipe, recipe_type_of

    if name is None:
        return keys_of(Recipe, {})
    file = read_recipe(name)
    keys = keys_of(recipe_type_of(file), file.keys)
    if not file.profiles:
        return keys
    profile = Key("profile", kinds.choice(*file.profiles), "values that the recipe keeps beside its own", None)
    return (profile, *keys)


def make_command(
    name: str, keys: tuple[Key, ...], *, example: str, json_help: str, recipe: bool = False
) -> Callable[[Body], click.Command]:
    """Turn a function into a command, as `wsolpipe.keys.shell.make_command`; with `recipe`, its keys are taken too."""
    more = OfRecipe() if recipe else None
    return shell.make_command(name, keys, more=more, example=example, json_help=json_help)


def read_recipe_words(words: Iterable[str], keys: tuple[Key, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values of `keys`, given or default, and of all other words, which are a recipe's.

    Raises
    ------
    ConfigError
        If a word has no ``=``, a key is given twice, or a value is of another kind.
    """
    given = split_words(words)
    own = {key.name for key in keys}
    values = read_keys((f"{name}={text}" for name, text in given.items() if name in own), keys)
    return values, {name: parse_value(text) for name, text in given.items() if name not in own}


def store_of(values: Mapping[str, Any]) -> str:
    """Store that is named, else that of the environment, else the default one."""
    return named_store(values["store"])


def loader_count(given: int | None) -> int:
    """Loader processes: as given, else one a core of this process's share of the machine."""
    share = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, (os.cpu_count() or 1) // share) if given is None else given
