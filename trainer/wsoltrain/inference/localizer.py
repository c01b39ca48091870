"""A localizer ready for use: maps, boxes and classes of any pictures, by a trained run or by an exported program."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from wsolpipe.contract.errors import ConfigError, DataError, WsolError
from wsolpipe.evaluate.otsu_scores import otsu_box
from wsolpipe.images.decode import decode, read_file
from wsolpipe.images.geometry import View, resize
from wsolpipe.metrics import Convention, largest_box, standard_maps
from wsolpipe.networks.devices import choose_device
from wsoltrain.data.views import normalise
from wsoltrain.inference.drawing import draw_found
from wsoltrain.inference.export import CARD, FILES, open_program
from wsoltrain.inference.model import Trained, load_trained
from wsoltrain.inference.pictures import Picture
from wsoltrain.methods.base import Prediction, checked

#: A path, a PIL image, an array [H, W, 3], or a tensor [3, H, W] of uint8 or of float in 0..1; RGB.
ImageLike: TypeAlias = "str | Path | Image.Image | NDArray[np.uint8] | torch.Tensor"
#: Thresholds as the evaluation that chose τ cuts, boxes half-open.
HALF_OPEN = Convention("half-open", eight_bit=True, inclusive=False, clip=False, holes=False)
BATCH = 16


@dataclass(frozen=True)
class Localization:
    """The object that was found in one picture.

    Attributes
    ----------
    picture : Picture
        The picture.
    map : float32 array [h, w]
        Scores in 0..1, of the whole picture squashed to a square, at the method's own resolution.
    box : float64 array [4] or None
        xyxy, half-open, pixels of the picture: the largest region above τ; None where the map is zero everywhere.
    score : float or None
        Mean of the map inside the box.
    label : int or None
        Most likely class; None where the method does not classify.
    class_name : str or None
        Its name.
    probability : float or None
        Its probability.
    """

    picture: Picture
    map: NDArray[np.float32]
    box: NDArray[np.float64] | None
    score: float | None = None
    label: int | None = None
    class_name: str | None = None
    probability: float | None = None

    @property
    def boxes(self) -> NDArray[np.float64]:
        """The box as an array [n, 4], n 0 or 1."""
        return np.zeros((0, 4)) if self.box is None else self.box[None]

    def row(self) -> dict[str, Any]:
        """The result as ``boxes.json`` holds it: edges to a hundredth of a pixel."""
        assert self.picture.pixels is not None  # noqa: S101 - only such are predicted on
        height, width = self.picture.pixels.shape[:2]
        box = None if self.box is None else [round(float(edge), 2) for edge in self.box]
        probability = None if self.probability is None else round(self.probability, 6)
        found = {"path": self.picture.name, "width": width, "height": height, "box": box, "label": self.label}
        return {**found, "class": self.class_name, "probability": probability}

    def draw(self) -> Image.Image:
        """Draw the picture under its map, with its box: a PIL image of the picture's size."""
        assert self.picture.pixels is not None  # noqa: S101 - only such are predicted on
        return draw_found(self.picture.pixels, self.map, self.box)

    def show(self) -> None:
        """Open the drawn picture in the system's viewer."""
        self.draw().show()

    def _repr_png_(self) -> bytes:
        """The drawn picture, which notebooks show."""
        shown: bytes = self.draw()._repr_png_()  # type: ignore[assignment]
        return shown


class Forwarded(NamedTuple):
    """Answer of the network to some pictures: maps [B, h, w] as they are and in 0..1, and classes."""

    maps: NDArray[np.float32]
    scaled: NDArray[np.float32]
    unit: bool
    labels: NDArray[np.int64] | None
    probabilities: NDArray[np.float32] | None


@dataclass(frozen=True)
class Localizer:
    """A trained localizer that is called on images.

    Attributes
    ----------
    path : Path
        The file that it was read from.
    method : str
        Name of its method.
    size : int
        Side in pixels to which pictures are squashed.
    mean, std : tuple of float
        By which their values in 0..1 are normalised.
    tau : float or None
        Threshold of the map in 0..1, relative to its peak; None: each map is cut at its own Otsu threshold.
    class_names : list of str
        By label.
    side : int
        Of the evaluator's frame, pixels.
    device : torch.device
        Where it runs.
    network : callable
        Normalised images [B, 3, S, S] to their maps and class logits.
    """

    path: Path
    method: str
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tau: float | None
    class_names: list[str]
    side: int
    device: torch.device
    network: Callable[[torch.Tensor], Prediction] = field(repr=False)

    @classmethod
    def of(cls, trained: Trained, device: torch.device) -> Localizer:
        """The localizer of weights that are on `device`."""
        recipe, model = trained.recipe, trained.model
        return cls(
            trained.path, recipe.method, recipe.size, tuple(recipe.mean), tuple(recipe.std), trained.tau,
            trained.class_names, model.frame_side, device, model.predict,
        )  # fmt: skip

    @overload
    def __call__(self, images: ImageLike, *, tau: float | None = ..., batch: int = ...) -> Localization: ...
    @overload
    def __call__(self, images: list[ImageLike], *, tau: float | None = ..., batch: int = ...) -> list[Localization]: ...
    def __call__(
        self, images: ImageLike | list[ImageLike], *, tau: float | None = None, batch: int = BATCH
    ) -> Localization | list[Localization]:
        """Find the object in one image, or in each of several.

        Parameters
        ----------
        images : path, PIL image, array, tensor, or a list of them
            As `ImageLike`.
        tau : float, optional
            Threshold of the map in 0..1 in place of the chosen one.
        batch : int
            Images in one forward pass.

        Returns
        -------
        Localization or list of Localization
            One for one image, a list for a list.

        Raises
        ------
        BadImageError
            If a file cannot be decoded.
        DataError
            If an array or tensor is not an RGB image.
        """
        wanted = images if isinstance(images, list) else [images]
        pictures = (_picture(each, number) for number, each in enumerate(wanted))
        found = list(self.predict(pictures, tau=self.tau if tau is None else tau, batch=batch))
        return found if isinstance(images, list) else found[0]

    def predict(self, pictures: Iterable[Picture], *, tau: float | None, batch: int = BATCH) -> Iterator[Localization]:
        """Predict on pictures that have pixels, in their order; without `tau` each map is cut by Otsu's rule."""
        waiting = iter(pictures)
        while chunk := list(islice(waiting, batch)):
            pixels = [self.squash(picture.pixels) for picture in chunk if picture.pixels is not None]
            yield from self.read_out(self.forward(pixels), chunk, tau=tau)

    def squash(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """All of a picture as the network sees it, uint8 [size, size, 3]."""
        return resize(pixels, (self.size, self.size))

    def forward(self, squashed: Sequence[NDArray[np.uint8]]) -> Forwarded:
        """Run the network on squashed pictures."""
        pixels = torch.from_numpy(np.stack(squashed)).permute(0, 3, 1, 2).to(self.device)
        with torch.inference_mode():
            found = checked(self.network(normalise(pixels, self.mean, self.std)), len(pixels), self.method)
            labels = probabilities = None
            if found.scores is not None:
                best = found.scores.float().softmax(1).max(1)
                labels, probabilities = best.indices.cpu().numpy(), best.values.cpu().numpy()
            return Forwarded(
                found.maps.float().cpu().numpy(), found.scaled().cpu().numpy(), found.unit, labels, probabilities
            )

    def read_out(self, found: Forwarded, pictures: Sequence[Picture], *, tau: float | None) -> Iterator[Localization]:
        """Boxes and classes of the network's output; without `tau` at each map's own Otsu threshold."""
        framed = standard_maps(found.maps, side=self.side, normalise=not found.unit)
        for number, picture in enumerate(pictures):
            assert picture.pixels is not None  # noqa: S101 - only such are predicted on
            size = (picture.pixels.shape[0], picture.pixels.shape[1])
            region = find_region(found.maps[number], framed[number], size, tau)
            classes: dict[str, Any] = {}
            if found.labels is not None and found.probabilities is not None:
                label = int(found.labels[number])
                classes = {
                    "label": label,
                    "class_name": self.class_names[label],
                    "probability": float(found.probabilities[number]),
                }
            yield Localization(picture, found.scaled[number], *(region or (None, None)), **classes)


def load(named: str | Path, *, device: str = "auto", anchors: str | None = None) -> Localizer:
    """Load a trained localizer.

    Parameters
    ----------
    named : path
        A run's folder, one of its ``best-….safetensors``, a folder that ``wsoltrain export`` wrote, or one of its
        files ``localizer.onnx`` (by onnxruntime) and ``localizer.pt2``.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1`` …; of an exported program ``auto`` is the CPU.
    anchors : path, optional
        Classes to name instead of those of training; see `wsoltrain.methods.base.Method.new_classes`.

    Returns
    -------
    Localizer
        Called on a path, a PIL image, an array, a tensor or a list of them.

    Raises
    ------
    ConfigError
        If nothing, or nothing of these, has that name.
    DataError, WeightsError
        If a file is damaged or its backbone's weights are missing.

    Examples
    --------
    >>> localizer = wsoltrain.load("runs/dips-demo")  # doctest: +SKIP
    >>> found = localizer("photo.jpg")  # doctest: +SKIP
    >>> found.box, found.class_name, found.probability  # doctest: +SKIP
    """
    path = Path(named)
    if path.suffix in {Path(name).suffix for name in FILES.values()} or (path / CARD).exists():
        if anchors is not None:
            msg = f"{path} is an exported program: its classes are fixed"
            raise ConfigError(msg, hint="name the run's folder with anchors=")
        return _exported(path, "cpu" if device == "auto" else device)
    where = torch.device(choose_device(device))
    return Localizer.of(load_trained(str(named), device=where, anchors=anchors), where)


def _exported(path: Path, device: str) -> Localizer:
    """Open a program that ``wsoltrain export`` wrote."""
    folder = path if path.is_dir() else path.parent
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        file = folder / next(iter(card["files"].values())) if path.is_dir() else path
        network = open_program(file, device=device, unit=bool(card["unit"]))
        tau = None if card["tau"] is None else float(card["tau"])
        return Localizer(
            file, str(card["method"]), int(card["size"]), tuple(card["mean"]), tuple(card["std"]), tau,
            [str(name) for name in card["classes"]], int(card["side"]), torch.device(device), network,
        )  # fmt: skip
    except WsolError:
        raise
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        msg = f"{folder / CARD} cannot be read: {error!r}"
        raise DataError(msg, hint="export the run again: wsoltrain export checkpoint=RUN out=FOLDER") from error


def _picture(image: ImageLike, number: int) -> Picture:
    """An image of any kind as a picture with pixels uint8 [H, W, 3]."""
    if isinstance(image, (str, Path)):
        return Picture(str(image), decode(read_file(Path(image))))
    if isinstance(image, Image.Image):
        return Picture(f"image {number}", np.asarray(image.convert("RGB")))
    if isinstance(image, torch.Tensor):
        values = image.detach().cpu()
        if values.is_floating_point():
            values = (values.clamp(0, 1) * 255).round().to(torch.uint8)
        image = values.permute(1, 2, 0).numpy() if values.ndim == 3 else values.numpy()
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        msg = f"image {number} is {image.dtype} {list(image.shape)}, not RGB"
        raise DataError(msg, hint="an array uint8 [H, W, 3], or a tensor [3, H, W] of uint8 or of float in 0..1")
    return Picture(f"image {number}", np.ascontiguousarray(image))


def find_region(
    raw: NDArray[np.floating], framed: NDArray[np.floating], size: tuple[int, int], tau: float | None
) -> tuple[NDArray[np.float64], float] | None:
    """Box of the largest region above τ, or above the map's own Otsu threshold where `tau` is None; see `cut_box`.

    `raw` is the map as the network gave it, of which `wsolpipe.evaluate.otsu_scores` takes the threshold too.
    """
    if tau is not None:
        return cut_box(framed, size, tau)
    height, width = size
    found = otsu_box(raw, width, height).astype(np.float64)
    if not len(found):
        return None
    scale = np.array([framed.shape[1] / width, framed.shape[0] / height] * 2)
    x0, y0, x1, y1 = (found[0] * scale).round().astype(int)
    return found[0], float(np.clip(framed, 0, 1)[y0:y1, x0:x1].mean())


def cut_box(
    framed: NDArray[np.floating], size: tuple[int, int], tau: float
) -> tuple[NDArray[np.float64], float] | None:
    """Box of the largest region above τ.

    Parameters
    ----------
    framed : float array [side, side]
        Map in the evaluator's frame.
    size : (height, width)
        Of the picture.
    tau : float
        Threshold in 0..1, relative to the map's peak.

    Returns
    -------
    box : float64 array [4]
        xyxy, half-open, pixels of the picture.
    score : float
        Mean of the map inside the box.

    None where the map is zero everywhere.
    """
    values = np.clip(framed, 0, 1)
    box = largest_box(values, tau, convention=HALF_OPEN)
    if not (box[2] > box[0] and box[3] > box[1]):
        return None
    x0, y0, x1, y1 = (round(float(edge)) for edge in box)
    view = View.squash(size, (framed.shape[0], framed.shape[1]))
    found = np.asarray(view.boxes_from_view(box[None], clip=True)[0], np.float64)
    return found, float(values[y0:y1, x0:x1].mean())
