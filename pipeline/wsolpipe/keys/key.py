"""One key of a command or stage, and reading words by a table of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from inspect import cleandoc
from typing import Any, get_type_hints

from wsolpipe.contract.errors import LONGEST, ConfigError, guess, shorten, unknown
from wsolpipe.keys.kinds import FLAG, NULL, Kind, file, kind_of_type
from wsolpipe.keys.words import split_words

#: Key -> names that other tools have for it, for the suggestion beside an unknown key.
MEANT = {
    "backbone": "network net arch architecture encoder model_name",
    "batch": "batch_size batchsize bs batch-size",
    "checkpoint": "model weights ckpt run",
    "dataset": "data data_set input",
    "device": "gpu gpus cuda accelerator",
    "epochs": "num_epochs n_epochs max_epochs",
    "limit": "max_rows n num head",
    "lr": "learning_rate learning-rate",
    "optimiser": "optimizer optim",
    "out": "output output_dir out_dir outdir save save_dir dest",
    "schedule": "scheduler lr_schedule",
    "size": "image_size img_size imgsz resolution input_size",
    "source": "images input photos folder path",
    "store": "output output_dir out labels results",
    "workers": "num_workers jobs processes n_jobs threads",
}


@dataclass(frozen=True)
class Key:
    """One key of a command: an attribute of a class that `keys_of_class` reads, or with its name and meaning.

    Attributes
    ----------
    kind : Kind
        What the text after the ``=`` may be.
    default : object
        Value where the key is not given.
    unit : str
        Unit of the value, such as ``pixels``; empty where it has none.
    otherwise : str
        What happens where the key is not given, if the default does not say it: ``all splits``.
    name : str
        The text before the ``=``.
    meaning : str
        One line in plain words.
    heading : str
        Heading of ``--help`` and of the reference under which it stands.
    """

    kind: Kind
    default: Any = None
    unit: str = ""
    otherwise: str = ""
    name: str = ""
    meaning: str = ""
    heading: str = ""

    def read(self, text: str) -> Any:
        """Value of a text.

        Raises
        ------
        ConfigError
            If the text is not of this key's kind; names the nearest of the choices.
        """
        if not text.strip() and (self.kind.filled or self.kind.files):
            instead = f" for {usual}" if (usual := self.shown_default()) else ""
            msg = f"{self.name}= is empty"
            raise ConfigError(msg, hint=f"write {self.name}=VALUE ({self.kind.name}), or leave it out{instead}")
        if text.lower() in NULL and (self.kind.null or self.default is None):
            return None
        try:
            return self.kind.read(text)
        except ValueError as error:
            if self.kind.choices not in ((), FLAG):
                given = [part.strip() for part in text.split(",") if part.strip()] if self.kind.listed else [text]
                wrong = next((part for part in given if part not in self.kind.choices), text)
                raise ConfigError(unknown(self.name, wrong, self.kind.choices)) from error
            unit = f" ({self.unit})" if self.unit else ""
            named = (
                f"…{text[-LONGEST:]}" if self.kind.files and len(text) > LONGEST else shorten(text)
            )  # a path by its end
            msg = f"{self.name}={named}: expected {self.kind.name}{unit}"
            raise ConfigError(msg) from error

    def shown_default(self) -> str:
        """The default as one would write it; empty where a key has none."""
        if self.otherwise:
            return self.otherwise
        return "" if self.default is None or self.default in ((), []) else show_value(self.default)


def key(
    default: Any = None,
    *,
    kind: Kind | None = None,
    least: float | None = None,
    most: float | None = None,
    unit: str = "",
    otherwise: str = "",
) -> Any:
    """Field of a dataclass that a key of its name sets; the docstring of the class describes it.

    Parameters
    ----------
    default : object
        Value where the key is not given; an empty text counts as none.
    kind : Kind, optional
        What its text may be, where the field's type does not say it.
    least, most : float, optional
        Bounds of a number, both allowed.
    unit, otherwise : str
        As those of `Key`.
    """
    metadata = {"kind": kind, "bounds": (least, most), "unit": unit, "otherwise": otherwise}
    return field(default=default, metadata=metadata)


def keys_of_fields(declared: type) -> tuple[Key, ...]:
    """Keys of the fields of a dataclass that `key` made, in their order."""
    types, meanings = get_type_hints(declared), describe_fields(declared)
    return tuple(
        Key(
            item.metadata["kind"] or kind_of_type(types[item.name], *item.metadata["bounds"]),
            None if item.default == "" else item.default,
            item.metadata["unit"],
            item.metadata["otherwise"],
            item.name,
            *meanings.get(item.name, ("", "")),
        )
        for item in fields(declared)
        if item.metadata
    )


def keys_of_class(declared: type) -> tuple[Key, ...]:
    """Keys that are attributes of a class, in their order, each named by its attribute and described by the docstring.

    A key that has a name already is shared with other commands: this class may say its heading. ``in_`` is ``in=``.
    """
    found, keys = describe_fields(declared), []
    for name, each in vars(declared).items():
        if isinstance(each, Key):
            meaning, heading = found.get(name, ("", ""))
            named = each if each.name else replace(each, name=name.rstrip("_"), meaning=meaning)
            keys.append(replace(named, heading=heading or each.heading))
    return tuple(keys)


def describe_fields(declared: type) -> dict[str, tuple[str, str]]:
    """Read the section Attributes that ends the docstrings of a class and of its bases: meaning and heading of each.

    A line ``**heading**`` holds for the attributes below it.
    """
    found: dict[str, tuple[str, str]] = {}
    for each in reversed(declared.__mro__):
        _, _, section = cleandoc(each.__doc__ or "").partition("\nAttributes\n----------\n")
        heading = ""
        for entry in re.split(r"\n(?=\S)", section):
            names, _, meaning = entry.partition("\n")
            if names.startswith("**"):
                heading = names.strip("* ")
                continue
            for name in names.partition(" : ")[0].split(", "):
                found[name] = " ".join(meaning.split()), heading or found.get(name, ("", ""))[1]
    return found


CONFIG = Key(
    file("YAML file"), name="config", meaning="file of arguments of this command; those of the command line go over it"
)


def show_value(value: Any) -> str:
    """`value` as one would write it after ``key=``."""
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, (tuple, list)) and value and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return json.dumps(value, ensure_ascii=False)


def read_keys(words: Iterable[str], keys: Iterable[Key], *, hint: str | None = None) -> dict[str, Any]:
    """Values of all `keys`, given or default.

    Parameters
    ----------
    hint : str, optional
        What to do about an unknown key.

    Raises
    ------
    ConfigError
        If a word has no ``=``, a key is unknown (names the nearest) or given twice, or a value is of another kind.
    """
    table = {key.name: key for key in keys}
    given = split_words(words)
    for name in given:
        if name not in table:
            raise unknown_key(name, table, hint=hint)
    return {name: key.read(given[name]) if name in given else key.default for name, key in table.items()}


def unknown_key(name: str, known: Iterable[str], *, hint: str | None = None) -> ConfigError:
    """The error for a key that there is not: the nearest one, and how to list them all, which are too many for it.

    Examples
    --------
    >>> unknown_key("datset", ["dataset", "store"]).message
    "unknown key 'datset'; did you mean 'dataset'?"
    """
    known = list(known)
    meant = next((key for key, words in MEANT.items() if name.lower() in words.split() and key in known), None)
    near = f"; did you mean {meant!r}?" if meant else guess(name, known, cutoff=0.6)
    msg = f"unknown key {shorten(name)!r}{near}"
    return ConfigError(msg, hint=hint or "the same command with --help lists its keys")


def require(values: Mapping[str, Any], command: str, **examples: str) -> None:
    """Refuse words without some keys.

    Parameters
    ----------
    examples : str
        Name of each key -> a value that it could have.

    Raises
    ------
    ConfigError
        If one has no value.
    """
    for name, example in examples.items():
        if not values.get(name):
            msg = f"{command.partition(' ')[2]} needs {name}=, which is missing or none"
            raise ConfigError(msg, hint=f"add {name}=…, as in {name}={example}; {command} --help lists all keys")
