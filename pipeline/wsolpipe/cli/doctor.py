"""``wsolpipe doctor``."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from wsolpipe.cli.command import make_command, print_json, print_table

LEAST_FREE = 2**30
CLOCK_TOLERANCE = 5.0
Check = Callable[[str], tuple[bool, str]]


@make_command("doctor")
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Check what usually goes wrong on a new machine; exit code 1 if something will.

    \b
    store=DIR      the store to check (default: $WSOLPIPE_STORE or ./wsol-store)
    """
    from wsolpipe.engine.config import build_config
    from wsolpipe.stages.registry import load_registry

    config, _ = build_config(words, load_registry())
    results = []
    for name, check in CHECKS.items():
        try:
            good, detail = check(config.store)
        except Exception as error:
            good, detail = False, f"{type(error).__name__}: {error}"
        results.append({"check": name, "ok": good, "detail": detail})
    if as_json:
        print_json(results)
    else:
        print_table(["check", "", "detail"], [[r["check"], "ok" if r["ok"] else "BAD", r["detail"]] for r in results])
    return 0 if all(item["ok"] for item in results) else 1


def _versions(store: str) -> tuple[bool, str]:  # noqa: ARG001
    found = [f"python {platform.python_version()}"]
    for name in ("wsolpipe", "numpy", "zarr", "pillow", "torch", "torchvision", "timm"):
        found.append(f"{name} {metadata.version(name)}")
    return True, ", ".join(found)


def _device(store: str) -> tuple[bool, str]:  # noqa: ARG001
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())}
        return True, f"{torch.cuda.device_count()} CUDA devices: {', '.join(names)}"
    return True, f"no CUDA device; {os.cpu_count()} processors, {torch.get_num_threads()} torch threads"


def _decoders(store: str) -> tuple[bool, str]:  # noqa: ARG001
    from PIL import features

    missing = [name for name in ("jpg", "zlib", "webp", "libtiff") if not features.check(name)]
    return not missing, f"Pillow lacks {', '.join(missing)}" if missing else "JPEG, PNG, WebP, TIFF"


def _one_cv2(store: str) -> tuple[bool, str]:  # noqa: ARG001
    wheels = [d.metadata["Name"] for d in metadata.distributions() if (d.metadata["Name"] or "").startswith("opencv")]
    if len(set(wheels)) > 1:
        return False, f"{', '.join(sorted(set(wheels)))} overwrite each other: keep opencv-contrib-python-headless"
    module = importlib.import_module("cv2")
    return hasattr(module, "ximgproc"), f"{wheels[0]} {module.__version__}" if wheels else module.__version__


def _writable(store: str) -> tuple[bool, str]:
    from wsolpipe.contract.backend import open_backend

    backend = open_backend(store)
    name = f"doctor-{os.getpid()}"
    first, second = backend.create(name, b"1"), backend.create(name, b"2")
    intact = backend.get(name) == b"1"
    backend.delete(name)
    if _folder(store) is not None and not any(Path(store).iterdir()):
        Path(store).rmdir()
    return (
        first and not second and intact,
        f"{store}: one of two writers wins" if first and not second else "no exclusion",
    )


def _folder(store: str) -> Path | None:
    """The store's folder, None for a store behind a URL."""
    return Path(store) if "://" not in store and Path(store).is_dir() else None


def _clock(store: str) -> tuple[bool, str]:
    folder = _folder(store) or Path()
    before = time.time()
    with tempfile.NamedTemporaryFile(dir=folder if os.access(folder, os.W_OK) else None) as file:
        skew = Path(file.name).stat().st_mtime - before
    return abs(skew) < CLOCK_TOLERANCE, f"file system and machine differ by {skew:+.2f} s"


def _space(store: str) -> tuple[bool, str]:
    if "://" in store:
        return True, f"{store} is not on a disk of this machine"
    existing = next(path for path in [Path(store).absolute(), *Path(store).absolute().parents] if path.exists())
    free = shutil.disk_usage(existing).free
    return free > LEAST_FREE, f"{free / 2**30:.1f} GiB free at {existing}"


def _scratch(store: str) -> tuple[bool, str]:  # noqa: ARG001
    folder = Path(os.environ.get("WSOLPIPE_SCRATCH") or tempfile.gettempdir())
    return os.access(folder, os.W_OK), f"{folder}, {shutil.disk_usage(folder).free / 2**30:.1f} GiB free"


CHECKS: dict[str, Check] = {
    "versions": _versions,
    "device": _device,
    "image decoders": _decoders,
    "one cv2": _one_cv2,
    "store": _writable,
    "space": _space,
    "clock": _clock,
    "scratch": _scratch,
}
