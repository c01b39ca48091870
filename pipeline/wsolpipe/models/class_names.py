"""The words for classes in prompts: names, friendlier words for some of them, and words for the background.

A class list is a YAML that people read and edit::

    names:                  # in the order of the labels
      - tench
      - crane: crane bird   # the data set's name, then what a prompt says
    background: [ground, sky]

Torch-free, so that keys can be made from it before work starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from wsolpipe.contract.errors import ConfigError, explain, unknown
from wsolpipe.contract.layout import digest
from wsolpipe.keys.safe_yaml import read_yaml

#: Where a template takes its word.
SLOT = "{}"
#: Number of a WordNet synset, as in ILSVRC's names.
SYNSET = re.compile(r"n\d{8}\b")
Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, strict=True)]


@dataclass(frozen=True)
class ClassNames:
    """Classes of a data set by label.

    Attributes
    ----------
    names : mapping of int to str
        The data set's own names; may name only some labels.
    prompts : mapping of int to str
        What a prompt says for each of these labels.
    background : tuple of str
        Words that compete with the classes in a softmax; may be empty.
    source : str
        How messages call the list.
    """

    names: Mapping[int, str]
    prompts: Mapping[int, str]
    background: tuple[str, ...] = ()
    source: str = "the data set"

    def __len__(self) -> int:
        return len(self.names)

    def prompt(self, label: int) -> str:
        """Word of a label.

        Raises
        ------
        ConfigError
            If the list has no such label.
        """
        if label not in self.prompts:
            known = f"{min(self.prompts)} to {max(self.prompts)}" if self.prompts else "none"
            msg = f"label {label} has no name in {self.source}, which names {len(self)} labels ({known})"
            raise ConfigError(msg, hint="add the name, or give a list of all classes: classes=FILE.yaml")
        return self.prompts[label]

    def label(self, name: str) -> int:
        """Label of the data set's own name.

        Raises
        ------
        ConfigError
            If no class has the name (names the nearest), or several have.
        """
        found = [label for label, known in self.names.items() if known == name]
        if not found:
            raise ConfigError(unknown(f"class of {self.source}", name, self.names.values()))
        if len(found) > 1:
            msg = f"{self.source} calls the labels {', '.join(map(str, found))} all {name!r}"
            raise ConfigError(msg, hint="give the label")
        return found[0]

    def in_key(self) -> str:
        """sha256 of what results depend on: labels, their prompts and the background words, not comments or paths."""
        prompts = [[label, self.prompts[label]] for label in sorted(self.prompts)]
        return digest({"prompts": prompts, "background": list(self.background)})


class _File(BaseModel, extra="forbid", frozen=True):
    """Layout of a class list."""

    names: list[Word | Annotated[dict[Word, Word], Field(min_length=1, max_length=1)]] = Field(min_length=1)
    background: list[Word] = Field(default_factory=list)


def read_class_names(path: str | Path) -> ClassNames:
    """Read a class list.

    Parameters
    ----------
    path : str or Path
        YAML with ``names`` in the order of the labels and, if need be, ``background``.

    Returns
    -------
    ClassNames

    Raises
    ------
    ConfigError
        If the file cannot be read, is not valid YAML, has an unknown key (names the nearest) or an entry that is not
        text. ``no`` and numbers have to be quoted, or YAML reads them as something else.
    """
    path = Path(path).expanduser()
    raw = read_yaml(path, hint="classes=FILE.yaml with names: in the order of the labels")
    if not isinstance(raw, dict):
        msg = f"{path} is not a mapping of keys to values"
        raise ConfigError(msg, hint="write names: and below it one class a line, each after a dash")
    for key in raw:
        if key not in _File.model_fields:
            raise ConfigError(f"{path}: " + unknown("key", str(key), _File.model_fields))
    try:
        file = _File.model_validate(raw)
    except ValidationError as error:
        msg_0 = f"{path}: {_explain(error)}"
        raise ConfigError(msg_0, hint='quote it: "no"') from error
    pairs = [(entry, entry) if isinstance(entry, str) else next(iter(entry.items())) for entry in file.names]
    return ClassNames(
        names={label: name for label, (name, _) in enumerate(pairs)},
        prompts={label: prompt for label, (_, prompt) in enumerate(pairs)},
        background=tuple(file.background),
        source=f"{path.parent.name}/{path.name}",
    )


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = [str(part) for part in first["loc"][:2]]
    if first["loc"] and first["loc"][0] in ("names", "background") and len(where) == 2:
        return f"{where[0]} entry {where[1]} is {first['input']!r}, not a word or one `name: prompt`"
    return f"{'.'.join(where)}: {explain(first)}"


def choose_class_names(path: str | Path | None, names: Mapping[int, str], *, dataset: str) -> ClassNames:
    """The class list of a file, else the names that the data set has, without background words.

    Parameters
    ----------
    path : str, Path or None
        As a stage's parameter ``classes`` gives it.
    names : mapping of int to str
        Names by label, as the data set knows them; where a file names the same label otherwise, the file is refused.
    dataset : str
        Its name, for messages.

    Raises
    ------
    ConfigError
        If the file cannot be read, contradicts the data set, or neither names any class.
    """
    if path is None:
        if not names:
            msg = f"data set {dataset} names no classes, which prompts need"
            raise ConfigError(msg, hint="give a class list: classes=FILE.yaml")
        own = dict(sorted(names.items()))
        return ClassNames(own, own, source=f"data set {dataset}")
    found = read_class_names(path)
    differing = [label for label in sorted(names) if not _same(found.names.get(label), names[label])]
    if differing:
        label = differing[0]
        theirs = repr(found.names[label]) if label in found.names else "not there"
        more = f", and {len(differing) - 1} more differ" if len(differing) > 1 else ""
        msg = f"label {label} is {names[label]!r} in data set {dataset} and {theirs} in {found.source}{more}"
        raise ConfigError(msg, hint="correct the order of the list: its first name is that of label 0")
    return found


def _same(listed: str | None, own: str) -> bool:
    """Whether two spellings mean one name: by synset number where both have one, else by their words."""
    if listed is None:
        return False
    numbers = [SYNSET.match(name) for name in (listed, own)]
    if all(numbers):
        return len({match.group() for match in numbers if match}) == 1
    return _bare(listed) == _bare(own)


def _bare(name: str) -> str:
    """Words of a name; case, underscores, hyphens and a number in front (``001.Laysan_Albatross``) aside."""
    number, dot, rest = name.partition(".")
    return " ".join((rest if dot and number.isdigit() else name).replace("_", " ").replace("-", " ").lower().split())


def fill_templates(templates: Sequence[str], word: str) -> list[str]:
    """Put a word into each template.

    Examples
    --------
    >>> fill_templates(["a photo of a {}.", "{}"], "fish")
    ['a photo of a fish.', 'fish']

    Raises
    ------
    ConfigError
        If there is no template, or one has no ``{}`` to take the word.
    """
    require_templates(templates)
    return [template.replace(SLOT, word) for template in templates]


def require_templates(templates: Sequence[str]) -> None:
    """Refuse templates that would say the same of every class.

    Raises
    ------
    ConfigError
        As `fill_templates`.
    """
    if not templates:
        msg = "no prompt template given"
        raise ConfigError(msg, hint='write one with a {} for the class, such as "a photo of a {}."')
    for template in templates:
        if SLOT not in template:
            msg = f"the prompt {template!r} has no {SLOT}, so it would say the same of every class"
            raise ConfigError(msg, hint=f'write it as "{template.rstrip(". ")} {SLOT}."')
