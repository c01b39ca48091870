"""Trackers of a run: figures as JSON lines; TensorBoard, Weights & Biases and MLflow, with pictures, if chosen."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from wsolpipe.contract.errors import ConfigError, writing
from wsolpipe.contract.named import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from PIL import Image

#: Hyper-parameters that MLflow takes at once.
MLFLOW_BATCH = 100


class Tracker(Protocol):
    """Receiver of the lines that the loop writes."""

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:
        """Keep the figures of one step or epoch."""

    def close(self) -> None:
        """Finish what is still being written."""


@runtime_checkable
class PictureTracker(Tracker, Protocol):
    """A tracker that shows pictures beside the figures."""

    def show(self, name: str, step: int, picture: Image.Image) -> None:
        """Keep a picture (RGB) of a step."""


class JsonLines:
    """A line each in one file, flushed at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("a", encoding="utf-8")

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:
        """Append a line."""
        with writing(self.path):
            self.file.write(json.dumps({"kind": kind, "step": step, **figures}) + "\n")
            self.file.flush()

    def close(self) -> None:
        """Close the file; what a full disk did not take was reported by `write`."""
        with suppress(OSError):
            self.file.close()


class TensorBoard:
    """Numbers and pictures in a TensorBoard folder, and the recipe on its page of hyper-parameters.

    The page compares runs by the figures of their first validation, so it is written with those; without any, in the
    end.
    """

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            msg = "tensorboard"
            raise _missing(msg) from error
        self.writer = SummaryWriter(str(folder / "tensorboard"))
        self.parameters: dict[str, Any] | None = _flat(recipe)

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:
        """Add each number."""
        numbers = _numbers(kind, figures)
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        if kind == "val":
            self._describe(numbers)

    def show(self, name: str, step: int, picture: Image.Image) -> None:
        """Add a picture."""
        import numpy as np

        self.writer.add_image(name, np.asarray(picture), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is buffered."""
        self._describe({})
        self.writer.close()

    def _describe(self, numbers: Mapping[str, float]) -> None:
        """Write the hyper-parameters, once; into the run itself, where `SummaryWriter.add_hparams` makes another."""
        if self.parameters is None:
            return
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(self.parameters, dict.fromkeys(numbers, 0.0)):  # type: ignore[no-untyped-call]
            self.writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]
        self.parameters = None


class WeightsAndBiases:
    """Numbers and pictures of a run of Weights & Biases, on disk only unless the environment sets otherwise.

    ``WANDB_MODE`` and ``WANDB_API_KEY`` mean what they mean to wandb; where neither is set the run is an offline one,
    for ``wandb sync`` later, since a prompt for a key would block an unattended job. A run that is resumed in the
    same folder keeps its id.
    """

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            msg = "wandb"
            raise _missing(msg) from error
        folder.mkdir(parents=True, exist_ok=True)
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if "WANDB_API_KEY" in os.environ else "offline")
        self.run = wandb.init(
            dir=str(folder),
            project=os.environ.get("WANDB_PROJECT", "wsoltrain"),
            name=folder.name,
            id=hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12],
            resume="allow",
            mode=mode,
            config=dict(recipe),
        )

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:
        """Log each number; the step is a figure of its own, since wandb refuses one below its last."""
        self.run.log({**_numbers(kind, figures), "step": step})

    def show(self, name: str, step: int, picture: Image.Image) -> None:
        """Log a picture."""
        import wandb

        self.run.log({name: wandb.Image(picture), "step": step})

    def close(self) -> None:
        """Let wandb finish."""
        self.run.finish()


class MLflow:
    """Numbers, pictures and hyper-parameters of a run of MLflow, by default in files of the run's folder.

    ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` mean what they mean to mlflow. A run that is resumed in the
    same folder goes on.
    """

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Param
        except ImportError as error:
            msg = "mlflow-skinny"
            raise _missing(msg, "mlflow") from error
        place = os.environ.get("MLFLOW_TRACKING_URI")
        if not place:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a database would need more packages
            place = (folder / "mlflow").resolve().as_uri()
        self.client = MlflowClient(place)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "wsoltrain")
        own = str(folder.resolve()).replace("'", "%27")  # as MLflow's filters take it
        known = self.client.get_experiment_by_name(name)
        experiment = known.experiment_id if known is not None else self.client.create_experiment(name)
        begun = self.client.search_runs([experiment], f"tags.folder = '{own}'", max_results=1)
        if begun:
            self.run = begun[0].info.run_id
            self.client.update_run(self.run, status="RUNNING")
            return
        self.run = self.client.create_run(experiment, run_name=folder.name, tags={"folder": own}).info.run_id
        parameters = [Param(name, str(value)) for name, value in _flat(recipe).items()]
        for start in range(0, len(parameters), MLFLOW_BATCH):
            self.client.log_batch(self.run, params=parameters[start : start + MLFLOW_BATCH])

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:
        """Log each number."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        numbers = [Metric(name, value, now, step) for name, value in _numbers(kind, figures).items()]
        self.client.log_batch(self.run, metrics=numbers)

    def show(self, name: str, step: int, picture: Image.Image) -> None:
        """Log a picture as an artifact."""
        self.client.log_image(self.run, picture, artifact_file=f"{name}/step-{step:08d}.png")

    def close(self) -> None:
        """Say that the process has ended."""
        self.client.set_terminated(self.run, "FAILED" if sys.exc_info()[0] else "FINISHED")


def _numbers(kind: str, figures: Mapping[str, Any]) -> dict[str, float]:
    """Figures that are numbers, named by their kind and, if there is one, the annotator."""
    place = [str(part) for part in (kind, figures.get("annotator")) if part]
    return {
        "/".join(_clean(part) for part in (*place, name)): value
        for name, value in figures.items()
        if isinstance(value, int | float)
    }


def _clean(name: str) -> str:
    """A name that every tracker takes as it is: other signs than letters, digits, ``_``, ``-`` and ``.`` are ``_``."""
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)


def _flat(recipe: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """Values of a recipe by dotted key; lists and other values become text."""
    found: dict[str, Any] = {}
    for name, value in recipe.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{within}{name}.")
        else:
            found[f"{within}{name}"] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    return found


def _missing(name: str, track: str | None = None) -> ConfigError:
    return ConfigError(f"track={track or name} needs the package {name}", hint=f"pip install {name}, or track=jsonl")


#: Name -> what opens a tracker of a run's folder and its recipe's values.
TRACKERS: Registry[Callable[[Path, Mapping[str, Any]], Tracker]] = Registry(
    "tracker",
    "wsoltrain.trackers",
    {
        "jsonl": f"{__name__}:open_lines",
        "tensorboard": f"{__name__}:TensorBoard",
        "wandb": f"{__name__}:WeightsAndBiases",
        "mlflow": f"{__name__}:MLflow",
    },
)


def open_lines(folder: Path, recipe: Mapping[str, Any]) -> JsonLines:
    """Open ``metrics.jsonl`` of a run's folder."""
    del recipe
    return JsonLines(folder / "metrics.jsonl")


@contextmanager
def open_trackers(names: str, folder: Path, recipe: Mapping[str, Any]) -> Iterator[list[Tracker]]:
    """Open what comma-separated names of `TRACKERS` say, and close it in the end; ``jsonl`` is always there.

    Parameters
    ----------
    folder : Path
        Of the run; ``metrics.jsonl``, ``tensorboard/``, ``wandb/`` and ``mlflow/`` lie in it.
    recipe : mapping
        Hyper-parameters, shown beside the figures.

    Raises
    ------
    ConfigError
        If a name is unknown or its package is missing.
    """
    wanted = dict.fromkeys(["jsonl", *(name.strip() for name in names.split(","))])
    kinds = [TRACKERS.find(name) for name in wanted]
    with ExitStack() as opened:
        trackers = []
        for kind in kinds:
            trackers.append(kind(folder, recipe))
            opened.callback(trackers[-1].close)
        yield trackers
