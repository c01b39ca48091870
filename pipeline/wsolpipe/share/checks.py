"""Checks of `doctor`: this machine's software and disks, and a store wherever it lies."""

from __future__ import annotations

import contextlib
import email.utils
import importlib
import importlib.util
import io
import os
import platform
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from wsolpipe.contract.errors import WsolError
from wsolpipe.contract.named import command_for

LEAST_FREE = 2**30
CLOCK_TOLERANCE = 5.0
PACKAGES = ("torch", "torchvision", "timm", "numba")
FORMATS = {"jpg": "JPEG", "zlib": "PNG", "webp": "WebP", "libtiff": "TIFF"}


@dataclass(frozen=True)
class MachineFinding:
    """Finding of a check, and what to do about it where it is bad."""

    check: str
    ok: bool
    detail: str
    advice: str = ""


_Outcome = tuple[bool, str, str]


def examine(store: str) -> list[MachineFinding]:
    """Every check, in order; one that raises is a finding too."""
    findings = []
    for name, check in CHECKS.items():
        try:
            good, detail, advice = check(store)
        except WsolError as error:
            good, detail, advice = False, error.message, error.hint or ""
        except Exception as error:
            good, detail, advice = False, f"{type(error).__name__}: {error}", ""
        findings.append(MachineFinding(name, good, detail, "" if good else advice))
    return findings


def _versions(store: str) -> _Outcome:  # noqa: ARG001
    found = [f"python {platform.python_version()}"]
    found += [f"{name} {metadata.version(name)}" for name in ("wsolpipe", "numpy", "zarr", "pillow")]
    return True, ", ".join(found), ""


def _packages(store: str) -> _Outcome:
    remote = "://" in store and not store.startswith("file:")
    wanted = (*PACKAGES, "obstore") if remote else PACKAGES
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        return (
            False,
            f"not installed: {', '.join(missing)}",
            "; ".join(dict.fromkeys(str(command_for(name)) for name in missing)),
        )
    return True, ", ".join(f"{name} {metadata.version(name)}" for name in wanted), ""


def _device(store: str) -> _Outcome:  # noqa: ARG001
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())}
        return True, f"{torch.cuda.device_count()} CUDA devices: {', '.join(names)}", ""
    detail = f"no CUDA device; {os.cpu_count()} processors, {torch.get_num_threads()} torch threads"
    if shutil.which("nvidia-smi"):
        build = torch.version.cuda or "none"
        return False, f"{detail}; nvidia-smi is here, torch is built for CUDA {build}", "install a torch with CUDA"
    return True, detail, ""


def _decoders(store: str) -> _Outcome:  # noqa: ARG001
    from PIL import Image, features

    missing = [name for key, name in FORMATS.items() if not features.check(key)]
    picture = Image.new("RGB", (16, 16), (200, 100, 50))
    for name in [name for name in FORMATS.values() if name not in missing]:
        file = io.BytesIO()
        try:
            picture.save(file, name)
            Image.open(io.BytesIO(file.getvalue())).load()
        except Exception:  # whatever a broken library raises
            missing.append(name)
    advice = "pip install --force-reinstall pillow"
    if missing:
        return False, f"Pillow cannot read {', '.join(missing)}", advice
    return True, ", ".join(FORMATS.values()), ""


def _one_cv2(store: str) -> _Outcome:  # noqa: ARG001
    names = {d.metadata["Name"] or "" for d in metadata.distributions()}
    wheels = sorted(name for name in names if name.startswith("opencv"))
    advice = "pip uninstall all of them, then pip install opencv-contrib-python-headless"
    if len(wheels) > 1:
        return False, f"{', '.join(wheels)} overwrite each other", advice
    module = importlib.import_module("cv2")
    return hasattr(module, "ximgproc"), f"{''.join(wheels)} {module.__version__}", advice


def _weights(store: str) -> _Outcome:  # noqa: ARG001
    """Files that pretrained weights were loaded from before; a torn one cannot be opened."""
    folder = _weights_folder()
    if not folder.is_dir():
        return True, f"no pretrained weights in {folder} yet", ""
    torn, files = [], 0
    for path in sorted(folder.rglob("*.safetensors")):
        files += 1
        if not _is_whole(path):
            torn.append(str(path))
    if torn:
        return False, f"torn: {', '.join(torn[:3])}", f"rm {' '.join(torn[:3])}; the next run fetches it again"
    return True, f"{files} files in {folder}", ""


def _published(store: str) -> _Outcome:  # noqa: ARG001
    """Where the weights of the stages' default networks would come from, and what stands in for them."""
    from wsolpipe.networks.pretrained import within_reach
    from wsolpipe.stages.registry import load_registry

    registry, said, reached = load_registry(), [], False
    for stage in ("cls_maps", "classifier"):
        name = str(registry[stage].params["model"])
        found = within_reach(name)
        reached = reached or bool(found)
        said.append(f"{name} of {stage}: {'by network' if found == 'network' else found or 'not within reach'}")
    stand_in = "" if reached else "; wsolpipe init writes the demo's tiny ones into a description, to try commands"
    return True, "; ".join(said) + stand_in, ""


def _weights_folder() -> Path:
    base = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or base / "hub")


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its own header says."""
    import json

    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError), path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if 0 < size <= 100 * 2**20:
            tensors = [item for name, item in json.loads(file.read(size)).items() if name != "__metadata__"]
            end = max((item["data_offsets"][1] for item in tensors), default=0)
            return path.stat().st_size == 8 + size + int(end)
    return False


def _store(store: str) -> _Outcome:
    from wsolpipe.contract.backends.opening import check_place, guess_store, holds_results, open_backend

    backend = open_backend(store)
    check_place(store)
    if (near := guess_store(store)) and not holds_results(backend):
        return False, f"no store at {store}{near}", "name the one that is meant with store="
    fresh = _folder(store) is not None and not _folder(store).exists()  # type: ignore[union-attr]
    try:
        good = backend.first_wins()
    finally:
        if fresh:
            with contextlib.suppress(OSError):
                Path(store).rmdir()
    if good:
        return True, f"{store}: writable, and one of two writers wins", ""
    advice = "choose a file system with hard links, or an object store with conditional puts"
    return False, f"{store}: two writers of one object both believe that they made it", advice


def _folder(store: str) -> Path | None:
    """The store's folder, None for a store behind a URL."""
    if store.startswith("file://"):
        return Path(urlsplit(store).path)
    return None if "://" in store else Path(store)


def _clock(store: str) -> _Outcome:
    folder = _folder(store)
    advice = "set the clocks by NTP (timedatectl set-ntp true)"
    if folder is None:
        skew = _remote_skew(store)
        if skew is None:
            return True, "the store's server does not send its time", ""
        return abs(skew) < CLOCK_TOLERANCE, f"the store's server and this machine differ by {skew:+.0f} s", advice
    existing = _existing(folder)
    with tempfile.NamedTemporaryFile(dir=existing if os.access(existing, os.W_OK) else None) as file:
        before = time.time()
        file.write(b"x")
        file.flush()
        skew = Path(file.name).stat().st_mtime - before
    return abs(skew) < CLOCK_TOLERANCE, f"file system and machine differ by {skew:+.2f} s", advice


def _remote_skew(store: str) -> float | None:
    """Seconds by which the clock of a store's server is ahead, None where it does not say."""
    parts = urlsplit(store)
    region = os.environ.get("AWS_REGION", "us-east-1")
    address = (
        store if parts.scheme != "s3" else os.environ.get("AWS_ENDPOINT_URL", f"https://s3.{region}.amazonaws.com")
    )
    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        date = error.headers.get("Date")
    except (OSError, ValueError):
        return None
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() - time.time() if date else None
    except ValueError:
        return None


def _existing(folder: Path) -> Path:
    return next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())


def _space(store: str) -> _Outcome:
    folder = _folder(store)
    if folder is None:
        return True, f"{store} is not on a disk of this machine", ""
    existing = _existing(folder)
    free, files = shutil.disk_usage(existing).free, os.statvfs(existing)
    detail = f"{free / 2**30:.1f} GiB free at {existing}"
    if files.f_files and files.f_favail < 10_000:
        return False, f"{detail}, but only {files.f_favail:,} more files", "remove files, or choose another disk"
    return free > LEAST_FREE, detail, "free some space, or choose another disk with store=…"


def _scratch(store: str) -> _Outcome:  # noqa: ARG001
    folder = Path(os.environ.get("WSOLPIPE_SCRATCH") or tempfile.gettempdir())
    existing = _existing(folder)
    free = shutil.disk_usage(existing).free
    good = os.access(existing, os.W_OK) and free > LEAST_FREE
    writable = "" if os.access(existing, os.W_OK) else ", not writable"
    return good, f"{folder}, {free / 2**30:.1f} GiB free{writable}", "set WSOLPIPE_SCRATCH to a roomy local folder"


CHECKS: dict[str, Callable[[str], _Outcome]] = {
    "versions": _versions,
    "packages": _packages,
    "device": _device,
    "image decoders": _decoders,
    "one cv2": _one_cv2,
    "pretrained weights": _weights,
    "published weights": _published,
    "store": _store,
    "space": _space,
    "clock": _clock,
    "scratch": _scratch,
}
