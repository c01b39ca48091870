"""Boxes, maps and overlays of images and videos, or a stage of a store for a data set: ``wsoltrain predict``.

Of a data set, the engine makes the stage: here the trainer starts a run of the pipeline; what a worker does then is in
`wsoltrain.inference.stored`.
"""

from __future__ import annotations

import csv
import json
import logging
import shlex
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, RunFailed
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, keys_of_class, require, show_value
from wsolpipe.keys.run_keys import RUN_KEYS
from wsoltrain.runs.settle import CHECKPOINT, DEVICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from wsoltrain.inference.localizer import Localization, Localizer
    from wsoltrain.inference.pictures import Picture

_log = logging.getLogger(__name__)
#: Keys of ``wsolpipe run`` that are passed on as they are.
OF_RUNS = (
    "dataset", "store", "split", "root", "limit", "rows", "cluster", "workers", "threads", "shard_rows", "max_failed",
    "force", "lease", "wall_time", "profile", "profiles",
)  # fmt: skip


class _OfDatasetKeys:
    """Keys of predictions as a stage of a store.

    Attributes
    ----------
    target
        with dataset=: class of a class map, the row's label as figures have it or the likeliest
    exact
        with dataset=: keep maps in float32 too, so that figures of the stage are the network's to the digit
    """

    target = Key(kinds.choice("true", "predicted"), "true")
    exact = Key(kinds.flag(), True)


OF_DATASET = (*(key for key in RUN_KEYS if key.name in OF_RUNS), *keys_of_class(_OfDatasetKeys))
#: Keys that make no sense of pictures.
OWN = frozenset(key.name for key in OF_DATASET)


BATCH = 16
COLUMNS = ("path", "width", "height", "x0", "y0", "x1", "y1", "label", "class", "probability")


class _Keys:
    """Keys of ``wsoltrain predict``.

    Attributes
    ----------
    source
        folder, image, video, a quoted pattern such as 'photos/**/*.jpg', a camera (/dev/video0) or a stream's URL
    out
        folder to write
    tau
        threshold of the map
    anchors
        anchors.safetensors of a stage text_anchors of other classes, to name these without training (tedloc)
    every
        read each n-th frame of a video
    frames
        stop after as many frames of a film, camera or stream
    maps
        write maps/<path less ending>.npy, float32 [S, S], as wsolpipe eval maps= reads
    overlays
        write overlays/<path>.jpg, the picture with its map and box; of a film overlay.mp4
    batch
        pictures in one forward pass
    """

    checkpoint = CHECKPOINT
    source = Key(kinds.file("path, pattern or URL"))
    out = Key(kinds.file("folder"), "predictions")
    tau = Key(
        kinds.number(0, 1),
        otherwise="chosen on validation, from the checkpoint; each map's own, by Otsu, where it has none",
    )
    anchors = Key(kinds.file())
    every = Key(kinds.integer(1), 1, unit="frames")
    frames = Key(kinds.integer(1), unit="frames")
    maps = Key(kinds.flag(), otherwise="true; of a film false")
    overlays = Key(kinds.flag(), True)
    batch = Key(kinds.integer(1), otherwise="16; of a data set the recipe's")
    device = DEVICE


KEYS = (*keys_of_class(_Keys), *OF_DATASET)
#: Keys that make no sense of a data set.
PICTURES = frozenset({"source", "out", "anchors", "every", "frames", "maps", "overlays"})


def predict_dataset(values: Mapping[str, Any], given: Mapping[str, str], *, as_json: bool) -> int:
    """Make the stage ``predictions`` of a data set, and print the result; the exit code as that of ``wsolpipe run``.

    Parameters
    ----------
    values : mapping
        Of `KEYS`.
    given : mapping of str to str
        The words as they were written.
    as_json : bool
        Whether the result is printed as JSON.

    Raises
    ------
    ConfigError
        If the threshold is outside of 0..1, or the words contradict the data set.
    """
    from wsolpipe.cli.run import run_words

    wrong = sorted(PICTURES & given.keys())
    if wrong:
        msg = f"{', '.join(f'{name}=' for name in wrong)} is of pictures, and dataset= of a data set: give one"
        raise ConfigError(msg, hint="wsoltrain predict --help")
    require(values, "wsoltrain predict", checkpoint="runs/dips-demo")
    words = [f"{name}={given[name]}" for name in (*OF_RUNS, "device") if name in given]
    words += stage_words(values)
    return run_words(tuple(words), as_json, resume=shlex.join(["wsoltrain", *sys.argv[1:]]))


def stage_words(values: Mapping[str, Any]) -> list[str]:
    """Return the words of ``wsolpipe run`` that make the stage of a checkpoint's predictions.

    Parameters
    ----------
    values : mapping
        ``checkpoint``, ``tau``, ``target``, ``exact`` and ``batch`` as in `KEYS`.
    """
    import torch

    from wsoltrain.inference.model import load_trained
    from wsoltrain.inference.stored import STAGE

    trained = load_trained(values["checkpoint"], device=torch.device("cpu"))
    tau = _threshold(values, trained.tau)
    size = trained.recipe.size
    with torch.inference_mode():
        unit = trained.model.predict(torch.zeros(1, 3, size, size)).unit
    params = {
        "checkpoint": str(trained.path.absolute()), "tau": tau, "unit": unit, "side": trained.model.frame_side,
        "target": values["target"], "exact": values["exact"], "batch": values["batch"] or trained.recipe.batch,
    }  # fmt: skip
    return [f"stage={STAGE}", *(f"{STAGE}.{name}={show_value(value)}" for name, value in params.items())]


def predict_pictures(values: Mapping[str, Any], given: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Predict on pictures or a film, and write what `KEYS` say; what ``boxes.json`` holds, and a line of text.

    Raises
    ------
    ConfigError
        If a key is of a data set, or the threshold outside of 0..1.
    """
    wrong = sorted(OWN & given.keys())
    if wrong:
        msg = f"{', '.join(f'{name}=' for name in wrong)} is of a data set, and none is named"
        raise ConfigError(msg, hint="add dataset=NAME, or leave it out with source=")
    require(values, "wsoltrain predict", checkpoint="runs/dips-demo", source="photos")
    result = _predict(values)
    empty = sum(row["box"] is None for row in result["rows"])
    counts = f"{len(result['rows'])} pictures, {empty} without a box, {len(result['broken'])} broken"
    pace = result.get("pace", {}).get("frames_per_second")
    speed = f"; {pace:.1f} frames/s" if pace else ""
    tau = "each map's own (Otsu)" if result["tau"] is None else f"{result['tau']:.3f}"
    return result, [f"{values['out']}: {counts}; at tau {tau}{speed}"]


def refuse_unread(result: Mapping[str, Any]) -> None:
    """Raise RunFailed where no picture could be read."""
    if not result["rows"]:
        first = result["broken"][0]
        msg = f"none of {len(result['broken'])} pictures can be read; {first['path']}: {first['reason']}"
        raise RunFailed(msg, hint="check source=")


def _threshold(values: Mapping[str, Any], chosen: float | None) -> float | None:
    """Return the threshold that is given, or was chosen with the weights."""
    tau: float | None = values["tau"] if values["tau"] is not None else chosen
    if tau is not None and not 0 <= tau < 1:
        msg = f"tau={tau} is not a threshold of a map in 0..1"
        raise ConfigError(msg, hint="tau=0.3, or a checkpoint with one that was chosen on validation")
    return tau


def _predict(values: Mapping[str, Any]) -> dict[str, Any]:
    from wsoltrain.inference.films import is_film
    from wsoltrain.inference.localizer import load
    from wsoltrain.inference.pictures import read_pictures

    localizer = load(values["checkpoint"], device=values["device"] or "auto", anchors=values["anchors"])
    tau = _threshold(values, localizer.tau)
    out = Path(values["out"])
    out.mkdir(parents=True, exist_ok=True)
    if is_film(values["source"]):
        return _predict_film(values, localizer, tau)
    broken: list[dict[str, str]] = []
    rows: list[dict[str, Any]] = []
    taken: set[str] = set()
    pictures = _readable(read_pictures(values["source"], every=values["every"]), broken)
    with (out / "boxes.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(COLUMNS)
        for found in localizer.predict(pictures, tau=tau, batch=values["batch"] or BATCH):
            rows.append(row := found.row())
            edges = row["box"] or [""] * 4
            size = row["width"], row["height"]
            lines.writerow([row["path"], *size, *edges, row["label"], row["class"], row["probability"]])
            place = {"path": row["path"], "map": _map_name(row["path"], taken)}
            _write_pictures(found, out, place, maps=values["maps"] is not False, overlays=values["overlays"])
    result = {"checkpoint": str(localizer.path), "tau": tau, "rows": rows, "broken": broken}
    (out / "boxes.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _predict_film(values: Mapping[str, Any], localizer: Localizer, tau: float | None) -> dict[str, Any]:
    from wsoltrain.inference.films import Job, predict_film

    out = Path(values["out"])
    job = Job(
        localizer, tau, values["batch"] or BATCH, out, every=values["every"], frames=values["frames"],
        overlay=values["overlays"], maps=bool(values["maps"]),
    )  # fmt: skip
    found, pace = predict_film(job, values["source"])
    broken = [{"path": row["path"], "reason": row["broken"]} for row in found if "broken" in row]
    rows = [row for row in found if "broken" not in row]
    result = {"checkpoint": str(localizer.path), "tau": tau, "rows": rows, "broken": broken, "pace": pace.result()}
    (out / "boxes.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _readable(pictures: Iterable[Picture], broken: list[dict[str, str]]) -> Iterator[Picture]:
    """Pictures with pixels; the others are reported and listed."""
    for picture in pictures:
        if picture.pixels is None:
            _log.warning("%s is left out: %s", picture.name, picture.reason)
            broken.append({"path": picture.name, "reason": picture.reason})
        else:
            yield picture


def _map_name(name: str, taken: set[str]) -> str:
    """Name of a picture without its suffix, as `wsolpipe eval maps=` reads it; with it for frames and on a clash."""
    stem = str(PurePosixPath(name).with_suffix("")) if "#" not in name else name
    stem = name if stem in taken else stem
    taken.add(stem)
    return stem


def _write_pictures(found: Localization, out: Path, row: dict[str, str], *, maps: bool, overlays: bool) -> None:
    import numpy as np

    for wanted, folder, suffix in ((maps, "maps", ".npy"), (overlays, "overlays", ".jpg")):
        if not wanted:
            continue
        path = out / folder / f"{row['map'] if folder == 'maps' else row['path']}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder == "maps":
            np.save(path, found.map, allow_pickle=False)
        else:
            found.draw().save(path, quality=90)
