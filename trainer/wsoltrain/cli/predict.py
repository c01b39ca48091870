"""``wsoltrain predict``: boxes, maps and overlays of images and videos, or a stage of a store for a data set."""

from __future__ import annotations

import csv
import json
import logging
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.contract.errors import ConfigError, RunFailed
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key, read_keys, require
from wsolpipe.keys.words import split_words
from wsoltrain.cli import predict_dataset
from wsoltrain.cli.command import make_command
from wsoltrain.cli.common_keys import CHECKPOINT, DEVICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch

    from wsoltrain.inference.model import Trained
    from wsoltrain.inference.pictures import Picture
    from wsoltrain.inference.predict import Prediction

_log = logging.getLogger(__name__)
BATCH = 16
COLUMNS = ("path", "width", "height", "x0", "y0", "x1", "y1", "label", "class", "probability")
KEYS = (
    CHECKPOINT,
    Key(
        "source", kinds.file("path, pattern or URL"),
        "folder, image, video, a quoted pattern such as 'photos/**/*.jpg', a camera (/dev/video0) or a stream's URL",
    ),
    Key("out", kinds.file("folder"), "folder to write", "predictions"),
    Key(
        "tau", kinds.number(0, 1), "threshold of the map",
        otherwise="chosen on validation, from the checkpoint; each map's own, by Otsu, where it has none",
    ),
    Key(
        "anchors", kinds.file(),
        "anchors.safetensors of a stage text_anchors of other classes, to name these without training (tedloc)", None,
    ),
    Key("every", kinds.integer(1), "read each n-th frame of a video", 1, unit="frames"),
    Key("frames", kinds.integer(1), "stop after as many frames of a film, camera or stream", unit="frames"),
    Key(
        "maps", kinds.flag(), "write maps/<path less ending>.npy, float32 [S, S], as wsolpipe eval maps= reads",
        otherwise="true; of a film false",
    ),
    Key(
        "overlays", kinds.flag(), "write overlays/<path>.jpg, the picture with its map and box; of a film overlay.mp4",
        True,
    ),
    Key("batch", kinds.integer(1), "pictures in one forward pass", otherwise="16; of a data set the recipe's"),
    DEVICE,
    *predict_dataset.KEYS,
)  # fmt: skip
PICTURES = frozenset({"source", "out", "anchors", "every", "frames", "maps", "overlays"})
"""Keys that make no sense of a data set."""


@make_command(
    "predict",
    KEYS,
    example="wsoltrain predict checkpoint=runs/dips-demo source=photos out=found",
    json_help="Print what boxes.json holds.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Find the object in images and videos, or in a data set.

    Of source=, writes boxes.json and boxes.csv (xyxy, half-open, pixels of the upright picture), maps and overlays. Of
    dataset=, makes the stage predictions of the store: in shards, resumable, and read like any other stage.
    """
    values = read_keys(words, KEYS)
    given = split_words(words)
    if "dataset" in given:
        wrong = sorted(PICTURES & given.keys())
        if wrong:
            msg = f"{', '.join(f'{name}=' for name in wrong)} is of pictures, and dataset= of a data set: give one"
            raise ConfigError(msg, hint="wsoltrain predict --help")
        require(values, "wsoltrain predict", checkpoint="runs/dips-demo")
        code = predict_dataset.predict_dataset(values, given, as_json=as_json)
        if code:
            sys.exit(code)
        return
    wrong = sorted(predict_dataset.OWN & given.keys())
    if wrong:
        msg = f"{', '.join(f'{name}=' for name in wrong)} is of a data set, and none is named"
        raise ConfigError(msg, hint="add dataset=NAME, or leave it out with source=")
    require(values, "wsoltrain predict", checkpoint="runs/dips-demo", source="photos")
    result = _predict(values)
    if as_json:
        print_json(result)
    else:
        empty = sum(row["box"] is None for row in result["rows"])
        counts = f"{len(result['rows'])} pictures, {empty} without a box, {len(result['broken'])} broken"
        pace = result.get("pace", {}).get("frames_per_second")
        speed = f"; {pace:.1f} frames/s" if pace else ""
        tau = "each map's own (Otsu)" if result["tau"] is None else f"{result['tau']:.3f}"
        click.echo(f"{values['out']}: {counts}; at tau {tau}{speed}")
    if not result["rows"]:
        first = result["broken"][0]
        msg = f"none of {len(result['broken'])} pictures can be read; {first['path']}: {first['reason']}"
        raise RunFailed(msg, hint="check source=")


def _predict(values: dict[str, Any]) -> dict[str, Any]:
    import torch

    from wsolpipe.networks.devices import choose_device
    from wsoltrain.inference.films import is_film
    from wsoltrain.inference.model import load_trained
    from wsoltrain.inference.pictures import read_pictures
    from wsoltrain.inference.predict import predict

    device = torch.device(choose_device(values["device"]))
    trained = load_trained(values["checkpoint"], device=device, anchors=values["anchors"])
    tau = values["tau"] if values["tau"] is not None else trained.tau
    if tau is not None and not 0 <= tau < 1:
        msg = f"tau={tau} is not a threshold of a map in 0..1"
        raise ConfigError(msg, hint="tau=0.3, or a checkpoint with one that was chosen on validation")
    out = Path(values["out"])
    out.mkdir(parents=True, exist_ok=True)
    if is_film(values["source"]):
        return _predict_film(values, trained, tau, device)
    broken: list[dict[str, str]] = []
    rows: list[dict[str, Any]] = []
    taken: set[str] = set()
    pictures = _readable(read_pictures(values["source"], every=values["every"]), broken)
    with (out / "boxes.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(COLUMNS)
        for found in predict(trained, pictures, tau=tau, batch=values["batch"] or BATCH, device=device):
            rows.append(_row(found, trained))
            row = rows[-1]
            edges = row["box"] or [""] * 4
            size = row["width"], row["height"]
            lines.writerow([row["path"], *size, *edges, row["label"], row["class"], row["probability"]])
            place = {"path": row["path"], "map": _map_name(row["path"], taken)}
            _write_pictures(found, out, place, maps=values["maps"] is not False, overlays=values["overlays"])
    result = {"checkpoint": str(trained.path), "tau": tau, "rows": rows, "broken": broken}
    (out / "boxes.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _predict_film(values: dict[str, Any], trained: Trained, tau: float | None, device: torch.device) -> dict[str, Any]:
    from wsoltrain.inference.films import Job, predict_film

    out = Path(values["out"])
    job = Job(
        trained, tau, values["batch"] or BATCH, device, out, every=values["every"], frames=values["frames"],
        overlay=values["overlays"], maps=bool(values["maps"]),
    )  # fmt: skip
    lines, pace = predict_film(job, values["source"])
    broken = [{"path": line["path"], "reason": line["broken"]} for line in lines if line["broken"]]
    rows = [_film_row(line) for line in lines if not line["broken"]]
    result = {"checkpoint": str(trained.path), "tau": tau, "rows": rows, "broken": broken, "pace": pace.result()}
    (out / "boxes.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _film_row(line: dict[str, str]) -> dict[str, Any]:
    edges = [line[edge] for edge in ("x0", "y0", "x1", "y1")]
    return {
        "path": line["path"],
        "frame": int(line["frame"]),
        "seconds": float(line["seconds"]),
        "width": int(line["width"]),
        "height": int(line["height"]),
        "box": [float(edge) for edge in edges] if edges[0] else None,
        "label": int(line["label"]) if line["label"] else None,
        "class": line["class"] or None,
        "probability": float(line["probability"]) if line["probability"] else None,
    }


def _readable(pictures: Iterable[Picture], broken: list[dict[str, str]]) -> Iterator[Picture]:
    """Pictures with pixels; the others are reported and listed."""
    for picture in pictures:
        if picture.pixels is None:
            _log.warning("%s is left out: %s", picture.name, picture.reason)
            broken.append({"path": picture.name, "reason": picture.reason})
        else:
            yield picture


def _row(found: Prediction, trained: Trained) -> dict[str, Any]:
    assert found.picture.pixels is not None  # noqa: S101 - only such are predicted on
    height, width = found.picture.pixels.shape[:2]
    return {
        "path": found.picture.name,
        "width": width,
        "height": height,
        "box": None if found.box is None else [round(float(edge), 2) for edge in found.box],
        "label": found.label,
        "class": None if found.label is None else trained.class_names[found.label],
        "probability": None if found.probability is None else round(found.probability, 6),
    }


def _map_name(name: str, taken: set[str]) -> str:
    """Name of a picture without its ending, as `wsolpipe eval maps=` reads it; with it for frames and on a clash."""
    stem = str(PurePosixPath(name).with_suffix("")) if "#" not in name else name
    stem = name if stem in taken else stem
    taken.add(stem)
    return stem


def _write_pictures(found: Prediction, out: Path, row: dict[str, str], *, maps: bool, overlays: bool) -> None:
    import numpy as np

    from wsoltrain.inference.drawing import draw_found

    for wanted, folder, suffix in ((maps, "maps", ".npy"), (overlays, "overlays", ".jpg")):
        if not wanted:
            continue
        path = out / folder / f"{row['map'] if folder == 'maps' else row['path']}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder == "maps":
            np.save(path, found.map, allow_pickle=False)
        else:
            draw_found(found).save(path, quality=90)
