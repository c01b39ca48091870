"""Scores of boxes by the classifier: crops of many images, scored in batches that are always full."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from wsolpipe.maps.foreground import otsu_thresholds
from wsolpipe.ops.candidates import stretch_levels
from wsolpipe.ops.perturb import blur, blur_matrix, keep_boxes, scale_blur

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from wsolpipe.networks.classifier import ImageClassifier
    from wsolpipe.networks.saved_state import Parts


Outside = Literal["blur", "black", "mean"]
Measure = Literal["posterior", "margin"]


def margins(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """How far the logit of each image's class lies above the greatest of the other classes; with one class, the logit.

    Parameters
    ----------
    logits : Tensor [N, classes]
    labels : int64 Tensor [N]

    Returns
    -------
    Tensor [N]
        Unlike a posterior, it does not saturate.
    """
    own = logits.gather(1, labels[:, None])[:, 0]
    if logits.shape[1] == 1:
        return own
    return own - logits.scatter(1, labels[:, None], -torch.inf).amax(1)


def _posteriors(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return logits.softmax(1).gather(1, labels[:, None])[:, 0]


class BoxScorer:
    """Posterior of each image's class when all but a box is blurred (DiPS, Algorithm 2.1).

    Each image is blurred once. Its crops wait until there are `batch` of them, from any images; then
    they are composited on the device and scored. Images that no crop waits for are released, so memory holds the images
    added last and, at most, those that a partial batch still needs.

    Parameters
    ----------
    classifier : ImageClassifier
        On `device`, in evaluation mode.
    size : int
        Side of its input.
    device : str
        Torch device.
    kernel, sigma : int, float
        Of the blur, in pixels at 224² (scaled to the classifier's input).
    batch : int
        Crops in one forward; the last is filled up with repetitions, whose scores are dropped.
    parts : Parts, optional
        Where the scores of finished batches are kept across a restart of the process.
    check : callable
        Called after every batch; may raise.
    outside : "blur", "black" or "mean"
        What stands outside of a box: the blurred image, black, or the mean colour of the normalisation.
    measure : "posterior" or "margin"
        Score of a crop: the posterior of the image's class, or its logit less the greatest one of another class.
    """

    def __init__(
        self,
        classifier: ImageClassifier,
        *,
        size: int,
        device: str,
        kernel: int,
        sigma: float,
        batch: int,
        parts: Parts | None = None,
        check: Callable[[], None] = lambda: None,
        outside: Outside = "blur",
        measure: Measure = "posterior",
    ) -> None:
        self.classifier, self.outside, self.measure = classifier, outside, measure
        self.batch = batch
        self.device = device
        self._matrix = blur_matrix(size, *scale_blur(kernel, sigma, size)).to(self.device)
        self._images: torch.Tensor | None = None
        self._blurred: torch.Tensor | None = None
        self._added = 0
        self._index: list[int] = []
        self._boxes: list[NDArray[np.int64]] = []
        self._labels: list[int] = []
        self._scores: list[torch.Tensor] = []
        self._parts, self._check = parts, check
        self._numbers: list[int] = []
        self._fresh: dict[str, torch.Tensor] = {}

    def add(
        self,
        pixels: NDArray[np.uint8],
        boxes: Sequence[NDArray[np.int64]],
        labels: Sequence[int],
        numbers: Sequence[int] = (),
    ) -> None:
        """Queue the boxes of some images, and score what makes full batches.

        Parameters
        ----------
        pixels : uint8 array [n, S, S, 3]
            RGB at the classifier's size.
        boxes : sequence of n int64 arrays [b, 4]
            xyxy, half-open, whole pixels of these images.
        labels : sequence of n int
            Class of each image.
        numbers : sequence of n int
            Row numbers, which name the parts that are kept; needed with `parts`.
        """
        first = self._take_images(pixels)
        self._added += len(pixels)
        for number, own in zip(numbers, boxes, strict=False):
            self._numbers += [number] * len(own)
        for number, (own, label) in enumerate(zip(boxes, labels, strict=True), first):
            self._index += [number] * len(own)
            self._boxes += list(own)
            self._labels += [label] * len(own)
        while len(self._index) >= self.batch:
            self._score()

    @property
    def done(self) -> int:
        """Images whose crops are all scored, of those that were added since `finish`: the first so many."""
        return self._added - (0 if self._images is None or not self._index else len(self._images) - min(self._index))

    def finish(self) -> NDArray[np.float32]:
        """Score the remaining boxes and return the scores of all boxes added, in their order; then reset."""
        while self._index:
            self._score()
        # Fetched only now, so that the device never waits for the host between batches.
        scores = [part.cpu().numpy() for part in self._scores]
        self._scores, self._images, self._blurred, self._added = [], None, None, 0
        self._fresh = {}
        return np.concatenate(scores) if scores else np.zeros(0, np.float32)

    def _take_images(self, pixels: NDArray[np.uint8]) -> int:
        """Normalise and blur images; return the number of the first of them among those held."""
        with torch.inference_mode():
            # The blur's weights sum to 1, so it commutes with normalisation: both are done once an image, not a crop.
            images = self.classifier.normalise(torch.from_numpy(pixels).to(self.device))
            blurred = self._outside(images).contiguous(memory_format=self.classifier.memory_format)
            if not self._index or self._images is None or self._blurred is None:
                self._images, self._blurred = images, blurred
                return 0
            unused = min(self._index)
            self._index = [number - unused for number in self._index]
            held = len(self._images) - unused
            self._images = torch.cat([self._images[unused:], images])
            self._blurred = torch.cat([self._blurred[unused:], blurred])
            return held

    def _outside(self, images: torch.Tensor) -> torch.Tensor:
        """Return the pixels that stand outside of boxes, normalised like `images` [n, 3, S, S]."""
        if self.outside == "blur":
            return blur(images, self._matrix, self._matrix)
        if self.outside == "mean":
            return torch.zeros_like(images)
        black = torch.zeros(1, *images.shape[2:], 3, dtype=torch.uint8, device=images.device)
        return self.classifier.normalise(black).expand_as(images)

    def _score(self) -> None:
        taken = min(self.batch, len(self._index))
        filled = [*range(taken), *[taken - 1] * (self.batch - taken)]

        def columns(values: Sequence[Any]) -> torch.Tensor:
            return torch.from_numpy(np.array([values[at] for at in filled], np.int64)).to(self.device)

        name = self._part_name(taken)
        index, boxes, labels = columns(self._index), columns(self._boxes), columns(self._labels)
        del self._index[:taken], self._boxes[:taken], self._labels[:taken], self._numbers[:taken]
        kept = self._parts.get(name) if self._parts is not None else None
        if kept is not None:
            self._scores.append(torch.from_numpy(kept))
            return
        assert self._images is not None
        assert self._blurred is not None
        with torch.inference_mode():
            crops = keep_boxes(self._images, self._blurred, index, boxes)
            logits = self.classifier(crops).float()
            scores = margins(logits, labels) if self.measure == "margin" else _posteriors(logits, labels)
            self._scores.append(scores[:taken])
        self._fresh[name] = self._scores[-1]
        if self._parts is not None and self._parts.due():
            self._parts.keep({key: value.cpu().numpy() for key, value in self._fresh.items()})
            self._fresh = {}
        self._check()

    def _part_name(self, taken: int) -> str:
        """Name of the next batch, the same for the same crops of the same rows."""
        crops = [self._numbers[:taken], self._labels[:taken], *(box.tolist() for box in self._boxes[:taken])]
        return hashlib.sha256(repr(crops).encode()).hexdigest()[:32] if self._parts is not None else ""


#: Kernel and standard deviation of the blur in pixels at 224², those of the proposals.
KERNEL, SIGMA = 65, 20.0


def otsu_masks(maps: NDArray[Any], size: int) -> NDArray[np.bool_]:
    """Pixels above each map's own Otsu threshold.

    Parameters
    ----------
    maps : array [M, h, w]
        Finite.
    size : int
        Side of the grid to which maps are stretched before they are thresholded.

    Returns
    -------
    bool array [M, size, size]
        Nothing of a constant map.
    """
    levels = stretch_levels(maps, size)
    found: NDArray[np.bool_] = levels > otsu_thresholds(levels)[:, None, None]
    return found


def mask_posteriors(
    classifier: ImageClassifier, pixels: NDArray[np.uint8], masks: NDArray[np.bool_], *, device: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Posteriors of an image, and of it with all but a mask blurred.

    Parameters
    ----------
    classifier : ImageClassifier
        On `device`, in evaluation mode.
    pixels : uint8 array [S, S, 3]
        RGB, at the classifier's size.
    masks : bool array [M, S, S]
    device : str
        Torch device.

    Returns
    -------
    whole : float32 array [K]
    inside : float32 array [M, K]
    """
    with torch.inference_mode():
        image = classifier.normalise(torch.from_numpy(pixels[None]).to(device))
        matrix = blur_matrix(len(pixels), *scale_blur(KERNEL, SIGMA, len(pixels))).to(device)
        kept = torch.from_numpy(masks)[:, None].to(device)
        crops = torch.cat([image, torch.where(kept, image, blur(image, matrix, matrix))])
        posteriors = classifier(crops.contiguous(memory_format=classifier.memory_format)).float().softmax(1)
    values = posteriors.cpu().numpy()
    return values[0], values[1:]
