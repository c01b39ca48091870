"""What the benches that read photographs share: where these are, and the options that all of them take."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from figures import skip


def shared_folder() -> Path:
    """Folder of real images and weights: WSOLPIPE_SHARED, or beside the checkout."""
    return Path(os.environ.get("WSOLPIPE_SHARED", Path(__file__).resolve().parents[3] / "shared"))


def shared_data(name: str) -> Path:
    """A folder of `shared_folder`; ends the bench as skipped where there is none."""
    folder = shared_folder() / name
    if not folder.is_dir():
        skip(f"no {folder} (set WSOLPIPE_SHARED)")
    return folder


def make_parser(description: str | None, *, rows: int, repetitions: int = 5) -> argparse.ArgumentParser:
    """Parser with ``--images``, ``--rows`` and ``--repetitions``."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument(
        "--images", type=Path, default=shared_folder() / "data/cub10", help="folder of image_ids.txt and images/"
    )
    parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--repetitions", type=int, default=repetitions)
    return parser


def add_network(parser: argparse.ArgumentParser, *, model: str, batch: int) -> None:
    """Add the options of benches that run a network."""
    parser.add_argument("--model", default=model)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="torch threads, on both sides")
    parser.add_argument("--decoders", type=int, default=2)
    parser.add_argument("--device", default="cpu")


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Options of the command line; without ``--images``, ends the bench as skipped where there are no photographs."""
    options = parser.parse_args()
    if options.images == parser.get_default("images"):
        shared_data("data/cub10")
    if not (options.images / "image_ids.txt").is_file():
        parser.error(f"no image_ids.txt in {options.images}; give another --images")
    return options
