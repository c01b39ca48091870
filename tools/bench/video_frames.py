"""Cost of reading frames for a stage beside PyAV alone, and of predicting on a film beside the network's forward.

The first pair decodes the same film to RGB: PyAV in a loop, and as a stage reads its rows (opened, counted, hashed, in
threads, in order). The second pair is the network's forward passes on frames that are ready, and all of
``wsoltrain predict source=`` (decoding, squashing, boxes and the overlay). Both sides of a pair in turns.

    python tools/bench/video_frames.py [--frames 192] [--repeat 5]
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")
import av  # noqa: E402 - after the thread count
import torch  # noqa: E402
from ab import compare  # noqa: E402
from figures import report  # noqa: E402
from prepare import read_options  # noqa: E402

from videos import write_video  # noqa: E402
from wsolpipe.images.video import (  # noqa: E402
    Film,
    map_ahead,  # noqa: E402
    open_film,
)
from wsoltrain.inference.films import Job, predict_film  # noqa: E402
from wsoltrain.inference.localizer import Localizer  # noqa: E402
from wsoltrain.inference.model import Trained  # noqa: E402
from wsoltrain.methods.base import Task  # noqa: E402
from wsoltrain.training.recipe import recipe_type  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 0.9
SIZE = (360, 640)


def decode_bare(path: Path) -> int:
    """All frames as PyAV gives them."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        return sum(len(frame.to_ndarray(format="rgb24")) > 0 for frame in container.decode(video=0))


def decode_rows(path: Path) -> int:
    """All frames as a stage reads them."""
    film = Film(str(path), path.stat().st_size)
    for number in range(len(film)):
        film.frame_sha256(number)
    return sum(len(pixels) > 0 for pixels in map_ahead(film.read, range(len(film)), threads=2))


def localizer() -> Localizer:
    """TrCAM-V on a ViT-S/16 of random weights."""
    keys = {"method": "trcam", "backbone": "vit_small_patch16_224", "weights": None, "maps": "cams"}
    recipe = recipe_type("trcam").model_validate(keys)
    model = recipe.build(Task(10, recipe.size))
    trained = Trained(Path("none"), model.eval(), recipe, 0.5, [str(label) for label in range(10)], None)
    return Localizer.of(trained, torch.device("cpu"))


def predicting(path: Path, trained: Localizer, folder: Path) -> tuple[Callable[[], object], Callable[[], object]]:
    """Forward passes on frames that are ready, and the whole command."""
    film = open_film(path)
    ready = [trained.squash(film.read(number)) for number in range(len(film))]

    def bare() -> None:
        for start in range(0, len(ready), 16):
            trained.forward(ready[start : start + 16])

    def whole() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        predict_film(Job(trained, 0.5, 16, folder), str(path))

    return bare, whole


def main() -> int:
    """Print both pairs; 1 if a ratio is under the limit."""
    options = read_options(__doc__, frames=192, repeat=5)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_video(folder / "film.mp4", options.frames, size=SIZE, every_key=48)
        reading = compare(lambda: decode_bare(path), lambda: decode_rows(path), repetitions=options.repeat)
        reading.show(a="PyAV alone", b="rows of a stage", items=options.frames, unit="frames")
        short = write_video(folder / "short.mp4", max(16, options.frames // 4), size=SIZE, every_key=48)
        bare, whole = predicting(short, localizer(), folder / "out")
        using = compare(bare, whole, repetitions=max(1, options.repeat // 2))
        using.show(a="forward alone", b="predict", items=max(16, options.frames // 4), unit="frames")
    return report(
        [
            reading.figure("rows of a stage / PyAV alone", "wall", limit=LIMIT),
            using.figure("predict on a film / forward alone", "wall", limit=LIMIT),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
