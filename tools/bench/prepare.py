"""Share between benches: options, photographs, a classifier of random weights, environments of other packages."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures import skip

if TYPE_CHECKING:
    from wsolpipe.stages.base import Rows

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / ".venv-bench" / "bin"
NETWORK: dict[str, Any] = {"threads": os.cpu_count() or 1, "decoders": 2, "device": "cpu"}
"""Options of benches that run a network: threads of torch on both sides, threads that decode, and the device."""
sys.path.insert(0, str(ROOT / "tests"))  # stores, videos and oracles are those of the tests


def read_options(about: str | None, argv: list[str] | None = None, **defaults: Any) -> argparse.Namespace:
    """Options of the command line, one a keyword: ``rows=64`` is ``--rows 64``, of its default's type.

    A tuple gives the choices, its first one the default; False a switch; a type an option without a default; `list` all
    words that are no option.
    """
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    for name, default in defaults.items():
        if default is list:
            parser.add_argument(name, nargs="*")
            continue
        kind: dict[str, Any] = {"type": type(default), "default": default}
        if default is False:
            kind = {"action": "store_true"}
        elif isinstance(default, tuple):
            kind = {"choices": default, "default": default[0]}
        elif isinstance(default, type):
            kind = {"type": default}
        parser.add_argument(f"--{name.replace('_', '-')}", **kind)
    return parser.parse_args(argv)


def device_here() -> str:
    """``cuda`` where there is a GPU, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def shared_folder() -> Path:
    """Folder of real images and weights: WSOLPIPE_SHARED, or beside the checkout."""
    return Path(os.environ.get("WSOLPIPE_SHARED", ROOT.parent / "shared"))


def shared_data(name: str) -> Path:
    """A folder of `shared_folder`; ends the bench as skipped where there is none."""
    folder = shared_folder() / name
    if not folder.is_dir():
        skip(f"no {folder} (set WSOLPIPE_SHARED)")
    return folder


def photographs(images: Path | None, rows: int) -> list[Path]:
    """The first photographs of a folder with ``image_ids.txt`` and ``images/``, by default of the shared one."""
    folder = images or shared_data("data/cub10")
    names = (folder / "image_ids.txt").read_text(encoding="utf-8").split()[:rows]
    return [folder / "images" / name for name in names]


def rows_of(paths: list[Path], *, threads: int, **columns: list[Any]) -> Rows:
    """A block of rows that decodes its files anew; labels are any."""
    import numpy as np

    from wsolpipe.images.decode import decode
    from wsolpipe.stages.base import Rows

    columns = {"labels": [[row % 1000] for row in range(len(paths))], **columns}
    return Rows(np.arange(len(paths)), columns, lambda row: decode(paths[row].read_bytes()), threads=threads)


def write_classifier(folder: Path, model: str, weights: str = "random:0") -> None:
    """Write the files of a scoring classifier with 1000 classes."""
    from wsolpipe.models.weight_sources import resolve
    from wsolpipe.stages.base import Context
    from wsolpipe.stages.classifier import Classifier
    from wsolpipe.stages.registry import load_registry

    params: Any = load_registry().params("classifier", {"model": model, "weights": weights, "measure": []})
    found: dict[str, Any] = {name: resolve(spec) for name, spec in Classifier.weights_needed(params).items()}
    for name, content in Classifier(params, Context("bench", 1000, weights=found)).produce({}).files.items():
        (folder / name).write_bytes(content)


def peer(name: str) -> Path:
    """A program of the environment that `make bench` makes; ends the bench as skipped where there is none."""
    if not (PROGRAMS / name).exists():
        skip(f"no {PROGRAMS / name} (make bench makes it)")
    return PROGRAMS / name
