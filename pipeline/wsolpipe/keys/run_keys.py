"""The keys of a run, and the configuration that they give: each key is one field of `RunConfig`, and nowhere else.

Commands that take some of them list them by name; help, completion and reference pages read them from the fields.
``rows=@FILE`` names a list of images that a person chose, as the report saves it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wsolpipe.contract.errors import ConfigError, DataError, shorten
from wsolpipe.contract.layout import digest, read_json, short_key
from wsolpipe.keys import kinds
from wsolpipe.keys.key import key, keys_of_fields

#: First character of a word that names a list.
SIGN = "@"


@dataclass(frozen=True)
class RowList:
    """Chosen images of a split.

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


DEFAULT_STORE = "wsol-store"
STAGE_NAMES = kinds.list_of(kinds.name("name of a stage", source="stage"))
SPLIT_NAMES = kinds.filled(kinds.list_of(kinds.name("name of a split", source="split")))
STORE_PLACE = kinds.filled(kinds.file(kinds.STORE))
CLUSTER = kinds.text("name or tcp://HOST:PORT", offers=("tcp://", "tls://"), source="cluster")

#: What the check of a data set finds, by the name that ``accept=`` takes.
FINDINGS = {
    "shared_images": "splits share images",
    "untrained_classes": "a class has images, but none in the training split",
    "alike_classes": "names of classes differ only in case or white space",
    "folder_classes": "the classes have the names of splits or of folders of images",
    "empty_classes": "a class has no image",
    "missing_labels": "images have no label",
    "relative_boxes": "boxes lie between 0 and 1",
    "tiny_boxes": "boxes have a side under 2 pixels",
    "clipped_boxes": "boxes reach over an edge of their image",
    "repeated_boxes": "an image has the same box twice",
    "repeated_images": "images of a split have the same bytes",
    "quarantined": "image files are missing or broken",
    "passed_over": "files are not taken for images, or lines not for rows",
    "unused_keys": "keys of the description are not read by its layout",
}


def store_of(given: str | None) -> str:
    """Store that is named, else that of the environment, else the default one."""
    return given or os.environ.get("WSOLPIPE_STORE") or DEFAULT_STORE


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run needs to know, as it crosses process borders.

    Fields that no key gives are settled before workers start: `run_id` names the run in failure notes, so that its
    workers share their count of tries; `ends_at` is the moment, as `time.time` counts, at which the workers of this
    machine must have ended; `profile_fields` are fields of the cluster profile, `params` those of stages (stage ->
    parameter -> value), `index` maps each split to the key of the index that the run works with.

    Attributes
    ----------
    **What is made, of which images**
    stage
        stages to make or to look at
    dataset
        data set: a name in data/, or a YAML file
    store
        where labels are kept
    split
        splits to work on
    root
        folder of the image files, instead of the one in the YAML
    limit
        only the first rows of each split
    rows
        only these rows of each split: from 0, stop left out, or the images of a list that a report saved
    stages
        file of your own stages
    force
        make again what is already done
    seed
        seed of random draws that stages leave to the run
    **Machines and jobs**
    cluster
        where work runs
    workers
        processes or jobs that work at once
    device
        device of the networks
    devices
        GPUs of cluster=dask-cuda
    threads
        threads that decode images ahead of a network; 0: as many as the cores allow
    shard_rows
        rows a shard, fixed by the first run
    wall_time
        time after which workers begin no further shard
    print
        show what would be submitted, and submit nothing
    wait
        stay until submitted jobs end
    profile
        cluster profile to use
    profiles
        file of cluster profiles
    **Faults, tries and leases**
    max_failed
        quarantined rows that a stage may have: up to 1 a share of its rows (at least 20), above 1 a number
    accept
        findings of the check of the data set that stop no run, because all is as it should be
    retries
        further tries of a shard that failed
    lease
        time after which a silent worker's shard is taken over
    checkpoint
        time between checkpoints inside a shard
    **What is shown**
    log
        append lines about the run to this file, with the time
    wide
        show tables whole, also on a narrow terminal
    """

    stage: tuple[str, ...] = key((), kind=STAGE_NAMES)
    dataset: str = key("", kind=kinds.file("name or YAML file", source="dataset"))
    store: str = key("", kind=STORE_PLACE, otherwise=f"$WSOLPIPE_STORE, else {DEFAULT_STORE}")
    split: tuple[str, ...] = key((), kind=SPLIT_NAMES, otherwise="all splits")
    root: str | None = key(kind=kinds.file("folder"))
    limit: int | None = key(least=1, unit="rows")
    rows: str | None = key(kind=kinds.filled(kinds.text("start:stop or @FILE")), unit="rows")
    cluster: str = key("local", kind=CLUSTER)
    workers: int = key(1, least=1)
    device: str = key("auto", kind=kinds.text("torch device", offers=("auto", "cpu", "cuda")))
    devices: tuple[str, ...] = key((), kind=kinds.list_of(kinds.text("number")), otherwise="all visible")
    threads: int = key(0, least=0)
    shard_rows: int | None = key(least=1, otherwise="4096, of refine 1024")
    max_failed: float = key(0.05, least=0)
    accept: tuple[str, ...] = key((), kind=kinds.list_of(kinds.choice("all", *FINDINGS)), otherwise="none")
    force: bool = key(False)
    seed: int = key(0, least=0)
    stages: str | None = key(kind=kinds.file("YAML file"))
    retries: int = key(2, least=0)
    lease: float = key(60.0, least=0.1, unit="seconds")
    checkpoint: float = key(30.0, least=0, unit="seconds")
    wall_time: float | None = key(least=0, unit="seconds", otherwise="that of the job, if any")
    profile: str | None = key(kind=kinds.text("name"), otherwise="the default of the file")
    profiles: str | None = key(
        kind=kinds.file("YAML file"), otherwise="$WSOLPIPE_PROFILES, else ~/.config/wsolpipe/profiles.yaml"
    )
    print: bool = key(False)
    log: str | None = key(kind=kinds.file("file"))
    wide: bool = key(False)
    wait: bool = key(True)
    run_id: str = ""
    ends_at: float | None = None
    profile_fields: dict[str, Any] = field(default_factory=dict)
    index: dict[str, str] = field(default_factory=dict)
    params: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> str:
        """For a worker process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RunConfig:
        """Inverse of `to_json`."""
        values: dict[str, Any] = json.loads(text)
        tuples: dict[str, Any] = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **tuples})

    def row_range(self) -> tuple[int, int | None]:
        """First row and one past the last of `rows=`; the stop may be open. All rows where it names a list."""
        if self.rows is None or names_list(self.rows):
            return 0, None
        match = re.fullmatch(r"(\d{0,15}):(\d{0,15})", self.rows)
        if not match:
            msg = f"rows={shorten(self.rows)}: write rows=start:stop, such as rows=0:1000, or rows=@FILE"
            raise ConfigError(msg)
        start, stop = int(match[1] or 0), int(match[2]) if match[2] else None
        if stop is not None and stop <= start:
            msg = f"rows={self.rows} holds no row: the stop must be larger than the start"
            raise ConfigError(msg, hint="rows=start:stop, such as rows=0:1000, counts from 0 and leaves out the stop")
        return start, stop

    def selection(self) -> dict[str, Any]:
        """Rows of the data set that the index holds, as recorded in its manifest."""
        rows = read_row_list(self.rows).name if self.rows is not None and names_list(self.rows) else self.rows
        chosen = {"limit": self.limit, "rows": rows}
        return {key: value for key, value in chosen.items() if value is not None}


#: Keys of ``wsolpipe run``; `plan`, `status` and the other commands of the pipeline know them too.
RUN_KEYS = keys_of_fields(RunConfig)
_BY_NAME = {each.name: each for each in RUN_KEYS}
DATASET, STORE, ROOT, ROWS, WIDE = (_BY_NAME[name] for name in ("dataset", "store", "root", "rows", "wide"))
STAGE, SPLIT = _BY_NAME["stage"], _BY_NAME["split"]
