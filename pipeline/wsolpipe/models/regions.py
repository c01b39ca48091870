"""Region proposers: what may be an object, whatever its class. Each takes one image and gives boxes, best first."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, Field

from wsolpipe.contract.errors import ConfigError, WeightsError, first_line, unknown
from wsolpipe.images.geometry import resize
from wsolpipe.keys.kinds import Unit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from wsolpipe.networks.sources import Weights

    Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Regions:
    """Boxes of one image.

    Attributes
    ----------
    boxes : float32 array [B, 4]
        xyxy, half-open, pixels of the image, clipped to it, none of them empty; best first.
    scores : float32 array [B]
        Falling.
    """

    boxes: Floats
    scores: Floats


class Proposer(Protocol):
    """Interface of region finders; `concurrent` is whether several threads may call one at once."""

    concurrent: bool

    def __call__(self, image: NDArray[np.uint8]) -> Regions:
        """Find regions of an RGB image, uint8 [H, W, 3]."""


def best_regions(boxes: NDArray[Any], scores: NDArray[Any], size: tuple[int, int], top_n: int) -> Regions:
    """Clip boxes [B, 4] to an image of `size` (height, width), drop empty ones, and keep the `top_n` best.

    Ties go to the box whose x0, y0, x1, y1 come first, so the order in which boxes were found does not matter.
    """
    height, width = size
    clipped = np.clip(np.asarray(boxes, np.float32).reshape(-1, 4), 0, np.array([width, height] * 2, np.float32))
    values = np.asarray(scores, np.float32).reshape(-1)
    kept = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1]) & np.isfinite(values)
    clipped, values = clipped[kept], values[kept]
    order = np.lexsort((*clipped.T[::-1], -values))[:top_n]
    return Regions(clipped[order], values[order])


@contextmanager
def opencv_alone() -> Iterator[None]:
    """Give each call of OpenCV a single thread, where rows are what runs in parallel."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


class SelectiveSearch:
    """Selective search (Uijlings et al., IJCV 2013) as OpenCV implements it; no training and no usable score.

    OpenCV ranks its boxes by drawing random numbers, so only the *set* of boxes is taken from it. Here the largest
    come first, and the score is a box's share of the image: of all orders that need no randomness, large first kept the
    best boxes for whole objects.

    Parameters
    ----------
    mode : "fast" or "quality"
        One colour space and two grouping strategies, or several of each.
    max_side : int or None
        A larger image is shrunk to this longest side first, in pixels.
    top_n : int
        Boxes kept.
    """

    concurrent = True

    def __init__(self, *, mode: Literal["fast", "quality"], max_side: int | None, top_n: int) -> None:
        self.mode, self.max_side, self.top_n = mode, max_side, top_n

    def __call__(self, image: NDArray[np.uint8]) -> Regions:
        """Find regions of an RGB image, uint8 [H, W, 3]."""
        import cv2

        height, width = image.shape[:2]
        shrink = min(1.0, self.max_side / max(height, width)) if self.max_side else 1.0
        small = resize(image, (max(1, round(height * shrink)), max(1, round(width * shrink))))
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(np.ascontiguousarray(small[:, :, ::-1]))
        if self.mode == "fast":
            search.switchToSelectiveSearchFast()
        else:
            search.switchToSelectiveSearchQuality()
        found = np.asarray(search.process(), np.float64).reshape(-1, 4)  # x, y, w, h
        scale = np.array([width / small.shape[1], height / small.shape[0]] * 2)
        boxes = np.unique(np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1), axis=0) * scale
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / (height * width)
        return best_regions(boxes, areas, (height, width), self.top_n)


class RegionProposalNetwork:
    """The region proposal network of a torchvision detector (Ren et al., NeurIPS 2015); objectness is the score.

    Only its backbone and its first stage are built; the classes of the second stage are never seen.

    Parameters
    ----------
    model : str
        torchvision name of a two-stage detector.
    weights : Weights
        File of the detector, or a seed.
    top_n : int
        Boxes kept.
    nms : float
        Of boxes that overlap by more than this IoU within a level, the best is kept.
    device : str
        Torch device.

    Raises
    ------
    ConfigError
        If torchvision has no such model, or it has no region proposal network.
    WeightsError
        If the weights do not fit.
    """

    concurrent = False

    def __init__(self, model: str, weights: Weights, *, top_n: int, nms: float, device: str) -> None:
        import torch

        from wsolpipe.networks.weights import load_into, load_state

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(weights.seed or 0)
            self.net = build_detector(model, top_n=top_n, nms=nms)
        if weights.path is not None:
            load_into(self.net, load_state(weights, unwrap=False), what=model, ignore=("roi_heads.",))
        self.net.to(device).eval().requires_grad_(requires_grad=False)
        self.device, self.top_n = device, top_n

    def __call__(self, image: NDArray[np.uint8]) -> Regions:
        """Find regions of an RGB image, uint8 [H, W, 3]."""
        import torch

        height, width = image.shape[:2]
        with torch.inference_mode():
            pixels = torch.from_numpy(image).to(self.device).permute(2, 0, 1).float() / 255
            images, _ = self.net.transform([pixels])
            (boxes,), scores = self._propose(images)
        resized = images.image_sizes[0]
        scale = np.array([width / resized[1], height / resized[0]] * 2)
        return best_regions(boxes.cpu().numpy() * scale, scores.cpu().numpy(), (height, width), self.top_n)

    def _propose(self, images: Any) -> tuple[list[Any], Any]:
        """Boxes of one image in pixels of the resized image, and their objectness.

        ``rpn.forward`` drops the objectness, so that its steps are taken one by one.
        """
        from torchvision.models.detection.rpn import concat_box_prediction_layers

        rpn = self.net.rpn
        features = self.net.backbone(images.tensors)
        levels = list(features.values()) if isinstance(features, dict) else [features]
        objectness, deltas = rpn.head(levels)
        counts = [level[0].numel() for level in objectness]
        objectness, deltas = concat_box_prediction_layers(objectness, deltas)
        boxes = rpn.box_coder.decode(deltas, rpn.anchor_generator(images, levels)).view(1, -1, 4)
        kept, scores = rpn.filter_proposals(boxes, objectness, images.image_sizes, counts)
        return kept, scores[0]


def build_detector(model: str, *, top_n: int, nms: float) -> Any:
    """A torchvision detector without its second stage, with random weights.

    Raises
    ------
    ConfigError
        If there is no such model, or it has no region proposal network.
    """
    from torchvision.models import detection, get_model, list_models

    names = [name for name in list_models(detection) if "rcnn" in name]
    if model not in names:
        raise ConfigError(unknown("torchvision detector with region proposals", model, names))
    net = get_model(
        model,
        weights=None,
        weights_backbone=None,
        rpn_nms_thresh=nms,
        rpn_score_thresh=0.0,
        rpn_pre_nms_top_n_test=max(1000, top_n),
        rpn_post_nms_top_n_test=top_n,
    )
    net.roi_heads = None
    return net


class OnnxLayout(BaseModel, extra="forbid", frozen=True):
    """Inputs and outputs of an ONNX detector; the defaults are those of YOLOX.

    Attributes
    ----------
    channels
        Order of the input's colour channels
    scale
        Factor on the pixels, which are 0 to 255: input = (pixel * scale - mean) / std
    mean
        Mean of the input, after scale
    std
        Standard deviation of the input, after scale
    fit
        letterbox keeps the aspect and lies top left; squash does not
    pad
        Pixel value beside a letterboxed image
    size
        Side of the input, if the file leaves it open
    output
        Name of the output [1, anchors, columns]; null: the first
    boxes
        What the four box columns hold: yolox (offsets and log sizes a cell, in strides), xyxy (corners) or cxcywh
        (centre and size), in pixels of the input
    strides
        Strides of the levels of boxes=yolox, in the order of the anchors
    box
        First of the four box columns
    objectness
        Column of the objectness
    classes
        First column of the class scores, which go on to the last; null: none
    score
        Score of a box: objectness, or the product with its best class score
    """

    channels: Literal["rgb", "bgr"] = "bgr"
    scale: float = 1.0
    mean: float = 0.0
    std: Annotated[float, Field(gt=0)] = 1.0
    fit: Literal["letterbox", "squash"] = "letterbox"
    pad: Annotated[float, Unit("levels")] = 114.0
    size: Annotated[Annotated[int, Field(ge=1)] | None, Unit("pixels")] = None
    output: str | None = None
    boxes: Literal["yolox", "xyxy", "cxcywh"] = "yolox"
    strides: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Unit("pixels")] = (8, 16, 32)
    box: Annotated[int, Field(ge=0)] = 0
    objectness: Annotated[int, Field(ge=0)] = 4
    classes: Annotated[int, Field(ge=0)] | None = 5
    score: Literal["objectness", "product"] = "objectness"


class OnnxDetector:
    """A detector in an ONNX file, its classes ignored.

    Parameters
    ----------
    path : Path
        The file.
    layout : OnnxLayout
        What it takes and gives.
    top_n, nms
        As `RegionProposalNetwork`.
    min_score : float
        Boxes below are dropped.

    Raises
    ------
    WeightsError
        If the file is no ONNX model.
    ConfigError
        If the layout does not describe it, or onnxruntime is missing.
    """

    concurrent = True

    def __init__(self, path: Path, layout: OnnxLayout, *, top_n: int, nms: float, min_score: float) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            msg = "regions.method=onnx needs the package onnxruntime"
            raise ConfigError(msg, hint='pip install "wsolpipe[pipeline]"') from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        try:
            self.session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own, one for each way to be broken
            msg = f"cannot read {path} as an ONNX model: {first_line(error)}"
            raise WeightsError(msg, hint="copy the file again, or give another weights=FILE.onnx") from error
        self.layout, self.top_n, self.nms, self.min_score = layout, top_n, nms, min_score
        self.input = self.session.get_inputs()[0]
        known = [side for side in self.input.shape[2:] if isinstance(side, int)]
        sides = set(known) | ({layout.size} if layout.size else set())
        if len(sides) != 1:
            msg = f"the input of {path.name} is {self.input.shape} regions.onnx.size={layout.size}: no square"
            raise ConfigError(msg, hint="set regions.onnx.size to the side of the input")
        (self.size,) = sides
        outputs = [item.name for item in self.session.get_outputs()]
        if layout.output is not None and layout.output not in outputs:
            raise ConfigError(unknown(f"output of {path.name}", layout.output, outputs))
        self.output = layout.output or outputs[0]

    def __call__(self, image: NDArray[np.uint8]) -> Regions:
        """Find regions of an RGB image, uint8 [H, W, 3]."""
        pixels, scale = self.fit(image)
        (found,) = self.session.run([self.output], {self.input.name: pixels})
        boxes, scores = self.decode(found.reshape(-1, found.shape[-1]))
        kept = scores >= self.min_score
        boxes, scores = boxes[kept] / scale, scores[kept]
        return best_regions(*self._distinct(boxes, scores), image.shape[:2], self.top_n)

    def fit(self, image: NDArray[np.uint8]) -> tuple[Floats, NDArray[np.float64]]:
        """Input [1, 3, S, S] of an image, and pixels of the input a pixel of the image, (x, y, x, y)."""
        layout, (height, width) = self.layout, image.shape[:2]
        if layout.fit == "squash":
            rows = columns = self.size
        else:
            shrink = self.size / max(height, width)
            rows, columns = max(1, int(height * shrink)), max(1, int(width * shrink))
        canvas = np.full((self.size, self.size, 3), layout.pad, np.float32)
        small = resize(image, (rows, columns))
        canvas[:rows, :columns] = small[:, :, ::-1] if layout.channels == "bgr" else small
        scaled = (canvas * layout.scale - layout.mean) / layout.std
        pixels = np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], dtype=np.float32)
        return pixels, np.array([columns / width, rows / height] * 2)

    def decode(self, found: Floats) -> tuple[NDArray[np.float64], Floats]:
        """Boxes [A, 4] xyxy in pixels of the input and scores [A] of the raw output [A, columns].

        Raises
        ------
        ConfigError
            If the output has not the rows or columns that the layout says.
        """
        layout = self.layout
        if found.shape[1] <= max(layout.box + 3, layout.objectness, layout.classes or 0):
            msg = f"output {self.output} has {found.shape[1]} columns, fewer than regions.onnx names"
            raise ConfigError(msg, hint="correct box, objectness and classes of regions.onnx")
        raw = found[:, layout.box : layout.box + 4].astype(np.float64)
        scores = found[:, layout.objectness]
        if layout.score == "product" and layout.classes is not None:
            scores = scores * found[:, layout.classes :].max(axis=1)
        if layout.boxes == "xyxy":
            return raw, scores
        if layout.boxes == "yolox":
            cells, strides = self._cells(len(raw))
            raw = np.concatenate([(raw[:, :2] + cells) * strides, np.exp(raw[:, 2:]) * strides], axis=1)
        half = raw[:, 2:] / 2
        return np.concatenate([raw[:, :2] - half, raw[:, :2] + half], axis=1), scores

    def _cells(self, anchors: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Column and row of each anchor's cell [A, 2], and its stride [A, 1]."""
        cells, strides = [], []
        for stride in self.layout.strides:
            side = self.size // stride
            rows, columns = np.divmod(np.arange(side * side), side)
            cells.append(np.stack([columns, rows], axis=1))
            strides.append(np.full((side * side, 1), float(stride)))
        if sum(map(len, cells)) != anchors:
            msg = (
                f"output {self.output} has {anchors} anchors, and strides {list(self.layout.strides)} at {self.size} "
                f"pixels make {sum(map(len, cells))}"
            )
            raise ConfigError(msg, hint="correct strides or boxes of regions.onnx")
        return np.concatenate(cells).astype(np.float64), np.concatenate(strides)

    def _distinct(self, boxes: NDArray[np.float64], scores: Floats) -> tuple[NDArray[np.float64], Floats]:
        import torch
        from torchvision.ops import nms

        kept = nms(torch.from_numpy(boxes), torch.from_numpy(np.ascontiguousarray(scores)).double(), self.nms).numpy()
        return boxes[kept], scores[kept]
