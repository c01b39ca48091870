"""Lists of images that a person chose, as the report saves them and commands take them: ``rows=@FILE``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsolpipe.contract.canonical import digest, read_json, short_key
from wsolpipe.contract.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

SIGN = "@"
"""First character of a word that names a list."""


@dataclass(frozen=True)
class RowList:
    """Images of a split that somebody chose.

    Attributes
    ----------
    path : Path
        The file, for messages.
    dataset, split : str
        What the list is of; empty where it does not say.
    ids : tuple of str
        Image ids, each once.
    """

    path: Path
    dataset: str
    split: str
    ids: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return what manifests record: the same for the same images, wherever the file lies."""
        return SIGN + short_key(digest(sorted(self.ids)))

    def find(self, ids: Sequence[str], *, dataset: str, split: str) -> list[int]:
        """Positions in `ids` of the images of this list, ascending.

        Raises
        ------
        ConfigError
            If the list is of another data set or split, or names an image that is not among `ids`.
        """
        for kind, own, other in (("data set", self.dataset, dataset), ("split", self.split, split)):
            if own and own != other:
                msg = f"{self.path} is a list of the {kind} {own}, not of {other}"
                raise ConfigError(msg, hint=f"{'dataset' if kind == 'data set' else 'split'}={own}")
        places = {name: place for place, name in enumerate(ids)}
        missing = [name for name in self.ids if name not in places]
        if missing:
            msg = f"{self.path} names {len(missing)} images that are not in {split} of {dataset}, such as {missing[0]}"
            raise ConfigError(msg, hint=f"image ids there look like {ids[0]}" if len(ids) else None)
        return sorted(places[name] for name in self.ids)


def names_list(word: str | None) -> bool:
    """Whether a word names a list of images."""
    return word is not None and word.startswith(SIGN)


def read_row_list(word: str) -> RowList:
    """Read the list that ``@FILE`` names: the JSON that a report saves, or plain text with one image id on each line.

    Raises
    ------
    ConfigError
        If the file is not there or names no image.
    DataError
        If it is not such a list.
    """
    path = Path(word.removeprefix(SIGN)).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read the list of images {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}"
        raise ConfigError(msg, hint='choose rows in a report, and press "save the chosen rows"') from error
    dataset = split = ""
    if text.lstrip()[:1] == "{":
        try:
            values = read_json(text)
            dataset, split = str(values.get("dataset", "")), str(values.get("split", ""))
            ids = [item if isinstance(item, str) else item["image_id"] for item in values["rows"]]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            msg = (
                f'{path} is not a list of images such as {{"split": "val", "rows": [{{"image_id": "a.jpg"}}]}}: {error}'
            )
            raise DataError(msg) from error
    else:
        ids = [line.strip() for line in text.splitlines() if line.strip()]
    if not ids or not all(isinstance(name, str) for name in ids):
        msg = f"{path} names no image"
        raise ConfigError(msg, hint='choose rows in a report, and press "save the chosen rows"')
    return RowList(path, dataset, split, tuple(dict.fromkeys(ids)))
