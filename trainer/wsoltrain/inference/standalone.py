"""Find the object in images with an exported localizer, without wsoltrain and without torch.

``wsoltrain export`` puts this file beside ``localizer.onnx`` and ``localizer.json``. It needs the packages numpy,
pillow, opencv-python (or opencv-python-headless) and onnxruntime:

    python localizer.py photo.jpg                         # prints a JSON line for each image

    from localizer import Localizer
    found = Localizer()("photo.jpg")                      # {"box": [x0, y0, x1, y1], "score": …, "class": …, …}
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

#: Side in pixels to which a map is stretched before Otsu's threshold is taken.
OTSU_SIDE = 224


class Localizer:
    """An exported localizer.

    Parameters
    ----------
    folder : path, optional
        Folder of ``localizer.onnx`` and ``localizer.json``; that of this file by default.
    providers : sequence of str
        Execution providers of onnxruntime, such as ``CUDAExecutionProvider``.
    """

    def __init__(
        self, folder: str | Path | None = None, providers: tuple[str, ...] = ("CPUExecutionProvider",)
    ) -> None:
        import onnxruntime

        home = Path(__file__).parent if folder is None else Path(folder)
        self.card: dict[str, Any] = json.loads((home / "localizer.json").read_text(encoding="utf-8"))
        self.session = onnxruntime.InferenceSession(home / "localizer.onnx", providers=list(providers))

    def __call__(self, image: str | Path | Image.Image | np.ndarray[Any, Any]) -> dict[str, Any]:
        """Find the object in one image.

        Parameters
        ----------
        image : path, PIL image or uint8 array [H, W, 3]
            RGB; a file is turned upright as its EXIF says.

        Returns
        -------
        dict
            ``box`` xyxy, half-open, pixels of the upright image, or None; ``score``, mean of the map inside it;
            ``label``, ``class`` and ``probability``, None where the network does not classify; ``map``, float32 [h, w]
            in 0..1 of the whole image squashed to a square.
        """
        if isinstance(image, (str, Path)):
            image = ImageOps.exif_transpose(Image.open(image))
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        size = self.card["size"]
        squashed = np.asarray(picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR), np.float32)
        mean, std = (np.asarray(self.card[name], np.float32) for name in ("mean", "std"))
        pixels = ((squashed / np.float32(255) - mean) / std).transpose(2, 0, 1)[None]
        scores, *classes = (np.asarray(part)[0] for part in self.session.run(None, {"image": pixels}))
        box, score = self._find_box(scores, picture.size)
        label = int(classes[0].argmax()) if classes else None
        return {
            "box": box,
            "score": score,
            "label": label,
            "class": None if label is None else self.card["classes"][label],
            "probability": None if label is None else float(classes[0][label]),
            "map": scores,
        }

    def _find_box(self, scores: np.ndarray[Any, Any], size: tuple[int, int]) -> tuple[list[float] | None, float | None]:
        """Box of the largest region above the chosen threshold, or above Otsu's; `size` is (width, height)."""
        import cv2

        side = self.card["side"]
        framed = cv2.resize(scores, (side, side), interpolation=cv2.INTER_CUBIC)
        framed = np.clip(framed, 0, 1) if self.card["unit"] else _minmax(framed)
        boxes: list[tuple[float, tuple[int, int, int, int]]] = []
        if self.card["tau"] is None:
            large = (_minmax(cv2.resize(scores, (OTSU_SIDE, OTSU_SIDE))) * np.float32(255)).astype(np.uint8)
            level, _ = cv2.threshold(large, 0, 255, cv2.THRESH_OTSU)
            _, _, regions, _ = cv2.connectedComponentsWithStats((large > level).astype(np.uint8), connectivity=8)
            boxes = [(int(area), (x, y, x + width, y + height)) for x, y, width, height, area in regions[1:].tolist()]
            frame = OTSU_SIDE
        else:
            levels = (255 * framed.astype(np.float64)).astype(np.uint8)
            above = (levels > int(self.card["tau"] * int(levels.max()))).astype(np.uint8)
            outlines, _ = cv2.findContours(above, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            for outline in outlines:
                x, y, width, height = cv2.boundingRect(outline)
                boxes.append((cv2.contourArea(outline), (x, y, x + width, y + height)))
            frame = side
        if not boxes:
            return None, None
        _, edges = max(boxes, key=lambda each: each[0])
        x0, y0, x1, y1 = (round(edge * side / frame) for edge in edges)
        box = np.asarray(edges, np.float64) * np.tile(size, 2) / frame
        return box.tolist(), float(framed[y0:y1, x0:x1].mean())


def _minmax(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Stretch a map to 0..1 by its own lowest and highest value; zeros where it is constant."""
    low, high = scores.min(), scores.max()
    return np.asarray((scores - low) / (high - low) if high > low else np.zeros_like(scores))


if __name__ == "__main__":
    localizer, failed = Localizer(), 0
    for name in sys.argv[1:]:
        try:
            found = localizer(name)
        except OSError as error:  # Pillow's errors of damaged files are among them
            print(f"{name} cannot be read: {error.strerror or error}", file=sys.stderr)
            failed = 1
            continue
        del found["map"]
        print(json.dumps({"path": name, **found}))
    sys.exit(failed)
