"""A trained localizer as programs that run without this package: torch.export and ONNX, checked against the network."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from wsolpipe.contract.errors import ConfigError, RunFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wsoltrain.inference.model import Trained
    from wsoltrain.methods.base import Method

FORMATS = ("torch", "onnx")
INPUT, MAP, CLASSES = "image", "map", "classes"
TOLERANCE = 1e-3
"""Largest difference of maps and probabilities, both in 0..1, that is taken for rounding."""
CHECKED_BATCHES = (1, 3)


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
    """Write a localizer and what is needed to use it, and compare what was written with the network.

    Parameters
    ----------
    trained : Trained
        On the CPU.
    out : Path
        Folder: ``localizer.pt2``, ``localizer.onnx`` and ``localizer.json``.
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
    outputs = {name: ["batch", *part.shape[1:]] for name, part in zip((MAP, CLASSES), expected[0], strict=False)}
    out.mkdir(parents=True, exist_ok=True)
    program = _traced(network, images[-1], trained.recipe.method)
    files, differences = {}, {}
    for kind in formats:
        write = {"torch": _write_torch, "onnx": _write_onnx}[kind]
        path = out / {"torch": "localizer.pt2", "onnx": "localizer.onnx"}[kind]
        run = write(program, path, list(outputs))
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
    card = _card(trained, outputs) | {"files": files, "differences": differences}
    (out / "localizer.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return card


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
        "classes": trained.class_names,
        "epoch": trained.epoch,
    }


def _write_torch(program: Any, path: Path, names: list[str]) -> Callable[[Tensor], list[Any]]:
    """Write a program of torch.export; return a function that runs what was written."""
    del names
    torch.export.save(program, path)
    loaded = torch.export.load(path).module()

    def run(image: Tensor) -> list[Any]:
        with torch.no_grad():
            return [part.numpy() for part in loaded(image)]

    return run


def _write_onnx(program: Any, path: Path, names: list[str]) -> Callable[[Tensor], list[Any]]:
    """Write ONNX, weights inside; return a function that runs what was written."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch needs it
    except ImportError as error:
        msg = f"ONNX needs the package {error.name}"
        raise ConfigError(msg, hint=f"pip install onnx onnxscript onnxruntime, or formats={FORMATS[0]}") from error
    with _quiet():
        torch.onnx.export(
            program, (), path, dynamo=True, external_data=False, input_names=[INPUT], output_names=names, verbose=False
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> list[Any]:
        found: list[Any] = session.run(names, {INPUT: image.numpy()})
        return found

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' warnings about their own internals."""
    loud = logging.getLogger("torch.onnx")
    level = loud.level
    loud.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    loud.setLevel(level)
