"""A trained localizer as programs that run without this package: torch.export and ONNX, checked against the network."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from wsolpipe.contract.errors import ConfigError, DataError, RunFailed, WsolError
from wsoltrain.methods.base import Method, Prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wsoltrain.inference.model import Trained

#: Formats, and the file of each.
FILES = {"torch": "localizer.pt2", "onnx": "localizer.onnx"}
FORMATS = tuple(FILES)
CARD = "localizer.json"
#: A copy of `wsoltrain.inference.standalone`, which runs the ONNX file without this package and without torch.
PROGRAM = "localizer.py"
INPUT, MAP, CLASSES = "image", "map", "classes"
#: Largest difference of maps and probabilities, both in 0..1, that is taken for rounding.
TOLERANCE = 1e-3
CHECKED_BATCHES = (1, 3)
#: Loggers of the exporters.
LOUD = ("torch.onnx", "onnx_ir", "onnxscript")


class Exported(nn.Module):
    """Network that is written: images to score maps and class probabilities.

    Parameters
    ----------
    model : Method
        In evaluation mode.
    """

    def __init__(self, model: Method[Any]) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Normalised images [B, 3, S, S] -> maps [B, h, w] in 0..1, and class probabilities [B, C], if any."""
        found = self.model.predict(image)
        return (found.scaled(),) if found.scores is None else (found.scaled(), found.scores.softmax(1))


def export(trained: Trained, out: Path, *, formats: tuple[str, ...] = FORMATS, seed: int = 0) -> dict[str, Any]:
    """Write a localizer with all that its use needs, and compare its output with the network's.

    Parameters
    ----------
    trained : Trained
        On the CPU.
    out : Path
        Folder: ``localizer.pt2``, ``localizer.onnx``, ``localizer.py`` that runs it alone, and ``localizer.json``.
    formats : tuple of str
        Of `FORMATS`.
    seed : int
        Of the random images that are compared.

    Returns
    -------
    dict
        What ``localizer.json`` holds; ``differences`` the largest one of each format over `CHECKED_BATCHES`.

    Raises
    ------
    ConfigError
        If a package is missing.
    RunFailed
        If what was written differs from the network by more than `TOLERANCE`; its file is removed.
    """
    size = trained.recipe.size
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randn(count, 3, size, size, generator=generator) for count in CHECKED_BATCHES]
    network = Exported(trained.model).eval()
    with torch.no_grad():
        expected = [[part.numpy() for part in network(image)] for image in images]
        unit = trained.model.predict(images[0]).unit
    outputs = {name: ["batch", *part.shape[1:]] for name, part in zip((MAP, CLASSES), expected[0], strict=False)}
    out.mkdir(parents=True, exist_ok=True)
    program = _traced(network, images[-1], trained.recipe.method)
    files, differences = {}, {}
    for kind in formats:
        write = {"torch": _write_torch, "onnx": _write_onnx}[kind]
        path = out / FILES[kind]
        write(program, path, list(outputs))
        run = _opened(path, "cpu")
        got = [run(image) for image in images]
        difference = max(
            float(np.abs(own - theirs).max())
            for both in zip(expected, got, strict=True)
            for own, theirs in zip(*both, strict=True)
        )
        if not difference <= TOLERANCE:
            path.unlink()
            msg = f"{path} differs from the network by {difference:.3g} on random images"
            raise RunFailed(msg, hint=f"formats={','.join(other for other in FORMATS if other != kind)}")
        files[kind], differences[kind] = path.name, difference
    if "onnx" in files:
        shutil.copyfile(Path(__file__).with_name("standalone.py"), out / PROGRAM)
    card = _card(trained, outputs) | {"unit": unit, "files": files, "differences": differences}
    (out / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return card


def open_program(path: Path, *, device: str, unit: bool) -> Callable[[Tensor], Prediction]:
    """Open a program that `export` wrote.

    Parameters
    ----------
    path : Path
        ``localizer.onnx`` or ``localizer.pt2``.
    device : str
        Where it runs; ONNX on a GPU needs onnxruntime-gpu.
    unit : bool
        Whether its maps are taken as they are; see `wsoltrain.methods.base.Prediction`.

    Returns
    -------
    callable
        Normalised images [B, 3, S, S] to maps and class logits.

    Raises
    ------
    ConfigError
        If a package is missing.
    DataError
        If the file is missing or damaged.
    """
    if not path.is_file():
        msg = f"{path} does not exist"
        raise DataError(msg, hint="export the run again: wsoltrain export checkpoint=RUN out=FOLDER")
    try:
        run = _opened(path, device)
    except WsolError:
        raise
    except Exception as error:
        msg = f"{path} cannot be read: {str(error).strip().splitlines()[0]}"
        raise DataError(msg, hint="export the run again: wsoltrain export checkpoint=RUN out=FOLDER") from error

    def network(images: Tensor) -> Prediction:
        maps, *classes = (torch.from_numpy(part) for part in run(images))
        return Prediction(maps, unit, classes[0].log() if classes else None)

    return network


def _traced(network: Exported, image: Tensor, method: str) -> Any:
    """The network as a program of torch.export for any number of images."""
    try:
        with _quiet():
            return torch.export.export(network, (image,), dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}})
    except Exception as error:
        msg = f"method {method} cannot be exported: {str(error).strip().splitlines()[0]}"
        raise RunFailed(
            msg, hint="predict() must be one graph of tensor operations for any number of images"
        ) from error


def _card(trained: Trained, outputs: dict[str, list[Any]]) -> dict[str, Any]:
    """Return what must be known to use the files."""
    recipe = trained.recipe
    return {
        "checkpoint": trained.path.name,
        "method": recipe.method,
        "backbone": recipe.model_dump().get("backbone"),
        "input": {INPUT: ["batch", 3, recipe.size, recipe.size]},
        "outputs": outputs,
        "size": recipe.size,
        "resize": "squash the whole picture, bilinear with antialias",
        "colour": "RGB, (value / 255 - mean) / std",
        "mean": list(recipe.mean),
        "std": list(recipe.std),
        "tau": trained.tau,
        "side": trained.model.frame_side,
        "classes": trained.class_names,
        "epoch": trained.epoch,
    }


def _write_torch(program: Any, path: Path, names: list[str]) -> None:
    """Write a program of torch.export."""
    del names
    torch.export.save(program, path)


def _write_onnx(program: Any, path: Path, names: list[str]) -> None:
    """Write ONNX, weights inside."""
    _need_onnx("onnxscript")  # by which torch writes
    with _quiet():
        torch.onnx.export(
            program, (), path, dynamo=True, external_data=False, input_names=[INPUT], output_names=names, verbose=False
        )


def _opened(path: Path, device: str) -> Callable[[Tensor], list[Any]]:
    """Read a file that was written, and return a function that runs it."""
    if path.suffix == ".pt2":
        program = torch.export.load(path).module().to(device)

        def run_program(images: Tensor) -> list[Any]:
            with torch.no_grad():
                return [part.cpu().numpy() for part in program(images.to(device))]

        return run_program
    onnxruntime = _need_onnx("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    providers = ["CUDAExecutionProvider"] if device.startswith("cuda") else ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(path, options, providers=providers)

    def run_session(images: Tensor) -> list[Any]:
        found: list[Any] = session.run(None, {INPUT: images.cpu().numpy()})
        return found

    return run_session


def _need_onnx(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        msg = f"ONNX needs the package {error.name}"
        raise ConfigError(msg, hint=f"pip install onnx onnxscript onnxruntime, or formats={FORMATS[0]}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' warnings and notes about their own internals."""
    levels = {logger: logger.level for logger in map(logging.getLogger, LOUD)}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
