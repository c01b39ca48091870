"""What every command shares: ``key=value`` words with help and completion, keys of recipes, ``--json``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.images.hints import fill_hints
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, read_keys
from wsolpipe.keys.run_keys import DEFAULT_STORE
from wsolpipe.keys.shell import KeyCommand, Section, words_argument
from wsolpipe.keys.values import parse_value, split_words
from wsolpipe.keys.word_file import CONFIG, expand_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Body = Callable[[tuple[str, ...], bool], None]


@dataclass(frozen=True)
class TrainerTable:
    """Keys of one command of the trainer; see `wsolpipe.keys.shell.Table`.

    Attributes
    ----------
    keys : tuple of Key
        Of this command.
    recipe : bool
        Whether it takes the keys of a recipe too.
    positional : str
        Empty: no word is taken without its key.
    """

    keys: tuple[Key, ...]
    recipe: bool
    positional: str = ""

    def sections(self, given: Mapping[str, str]) -> Iterator[Section]:
        """Own keys, then those of the recipe that is named."""
        yield Section("Keys", (*self.keys, CONFIG))
        if self.recipe and "recipe" in given:
            yield Section(f"Keys of the recipe {given['recipe']}", recipe_keys(given["recipe"]))
        elif self.recipe:
            names = ", ".join(self.look_up("recipe", given))
            note = f"Any other key is one of the recipe. recipe=NAME --help lists them; recipes: {names}."
            yield Section("Keys of recipes", (), note)

    def names(self, given: Mapping[str, str], start: str) -> Iterator[Key]:  # noqa: ARG002
        """All keys."""
        yield from (*self.keys, CONFIG)
        if self.recipe:
            yield from recipe_keys(given.get("recipe"))

    def look_up(self, source: str, given: Mapping[str, str]) -> Iterable[str]:
        """Data sets, splits, recipes, and stages of the store."""
        if source == "recipe":
            from wsoltrain.training.recipe_file import known_recipes

            return known_recipes()
        if source == "table":
            from wsoltrain.selection.paper_tables import known_tables

            return known_tables()
        if source == "cluster":
            return ()
        from wsolpipe.images import offers

        return {
            "dataset": offers.offered_datasets,
            "split": offers.offered_splits,
            "stored stage": offers.stored_stages,
        }[source](given)


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
    """Turn a function of (words, as_json) into a command; its docstring is the help.

    Parameters
    ----------
    keys : tuple of Key
        Keys of this command.
    example : str
        A command line for the end of the help.
    json_help : str
        What ``--json`` prints.
    recipe : bool
        Whether the command takes the keys of a recipe too.
    """

    listed = {key.name for key in keys if key.kind.listed}

    def decorate(body: Body) -> click.Command:
        def call(words: tuple[str, ...], as_json: bool) -> None:  # noqa: FBT001
            words = expand_words(words, listed.__contains__)
            with fill_hints(words):
                body(words, as_json)

        return KeyCommand(
            name,
            table=TrainerTable(keys, recipe),
            callback=call,
            help=body.__doc__,
            epilog=f"Example: {example}",
            params=[words_argument("KEY=VALUE…"), click.Option(["--json", "as_json"], is_flag=True, help=json_help)],
        )

    return decorate


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
    return str(values["store"] or os.environ.get("WSOLPIPE_STORE", DEFAULT_STORE))


def loader_count(given: int | None) -> int:
    """Loader processes: as given, else one a core of this process's share of the machine."""
    share = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, (os.cpu_count() or 1) // share) if given is None else given
