"""Settings of a stream: where the pseudo-labels are, and what an item holds. Plain values that pickle well."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.making import run_command
from wsoltrain.data.order import Neighbours, Shuffle

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
#: Whole images are a thousand times as large as maps: 1,024 rows are open at once, 200 MB of them at 256².
STORED_IMAGES = Shuffle(lane_runs=4)


@dataclass(frozen=True)
class Labelling:
    """Where the pseudo-labels of one split lie.

    Attributes
    ----------
    store : str
        Folder or URL of the store.
    dataset, split : str
        Names in that store.
    maps, boxes : str or None
        Stage whose maps and stage whose boxes are wanted; None for none.
    maps_key, boxes_key : str or None
        Beginning of the key of that stage; the newest where None, and for maps the one from which the boxes were made.
    images : str or None
        Stage ``pixels`` where the images themselves are read from the store; None where they are files.
    images_key : str or None
        Beginning of its key; the newest where None.
    where : str or None
        ``@FILE``: only the images of this list are streamed; all where None.
    drawn : str or None
        Stage of boxes that people drew, ``STAGE`` or ``STAGE:KEY``, which come beside those of `boxes`; None for none.
    """

    store: str
    dataset: str
    split: str = "train"
    maps: str | None = "cls_maps"
    boxes: str | None = "proposals"
    maps_key: str | None = None
    boxes_key: str | None = None
    images: str | None = None
    images_key: str | None = None
    where: str | None = None
    drawn: str | None = None

    def command(self, stage: str) -> str:
        """The command that makes what is missing of `stage`."""
        return run_command(stage, store=self.store, split=self.split)


@dataclass(frozen=True)
class ItemConfig:
    """Settings of an item; a loader process gets these alone, pickled.

    Attributes
    ----------
    labelling : Labelling
        Store, data set, split and stages.
    root : str or None
        Folder of the image files; not needed where the labelling names stored images. Without either, maps and boxes
        come without pixels.
    size : int
        S, height and width of what the network sees.
    resize : int
        Side of the square to which the whole image is squashed before it is cropped; not used without `train`.
    flip : float
        Probability of a horizontal flip.
    vflip : float
        Probability of a vertical flip: of the whole image, before the crop, so that maps and boxes follow.
    jitter : four floats
        Brightness, contrast, saturation and hue by which colours vary (`wsoltrain.data.views`).
    n_maps, n_boxes : int or None
        M first maps and K first boxes of a row; all that are stored where None. Fewer stored boxes are filled up with
        lost ones; fewer stored maps are an error.
    resolution : "grid" or "view"
        Maps as [M, h, w] over the whole image, for `wsoltrain.data.views.maps_to_view` on the training device, or as
        [M, S, S] cut and flipped like the image.
    values : "unit" or "stored"
        Maps in 0..1, each between its own lowest and highest value, or as the stage made them.
    mean, std : three floats each
        Normalisation of `image`.
    normalised : bool
        Whether the item holds `image`; without it the loop makes it of `rgb` by `wsoltrain.data.views.normalise`.
    draft : bool
        Lets JPEGs decode at 1/2, 1/4 or 1/8 where that is still at least `resize`: faster, and off by a few levels.
    train : bool
        Random crop and flip; False squashes to `size`, without crop, flip or draft decoding.
    classes : int or None
        Number of classes that the model has; that of the data set where None.
    need_label : bool
        Leave out rows without a label; else their label is −1.
    rows_per_class : int or None
        Only as many rows of each class, the first that can be used; all where None.
    one_per_group : bool
        One random frame of each group an epoch.
    frames_per_group : int or None
        As many random frames of each group an epoch; comes before `one_per_group`.
    neighbours : Neighbours
        Frames beside each whose maps are taken too.
    seed : int
        Of every random draw.
    shuffle : Shuffle
        How far rows are mixed in training; the default is `STORED_IMAGES` where images come from the store.
    memory : int
        Bytes of maps and boxes that each loader process may hold.
    """

    labelling: Labelling
    root: str | None = None
    size: int = 224
    resize: int = 256
    flip: float = 0.5
    vflip: float = 0.0
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    n_maps: int | None = None
    n_boxes: int | None = None
    resolution: Literal["grid", "view"] = "grid"
    values: Literal["unit", "stored"] = "unit"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    normalised: bool = True
    draft: bool = True
    train: bool = True
    classes: int | None = None
    need_label: bool = True
    rows_per_class: int | None = None
    one_per_group: bool = False
    frames_per_group: int | None = None
    neighbours: Neighbours = field(default_factory=Neighbours)
    seed: int = 0
    shuffle: Shuffle = field(default_factory=Shuffle)
    memory: int = 256 * 2**20

    def __post_init__(self) -> None:
        if self.labelling.images is not None and self.shuffle == Shuffle():
            object.__setattr__(self, "shuffle", STORED_IMAGES)
        if self.size < 1 or (self.train and self.resize < self.size):
            msg = f"resize={self.resize} is smaller than the crop S={self.size}"
            raise ConfigError(msg, hint=f"resize={self.size} or more; resize={self.size * 8 // 7} is usual")
        for name, value in (("flip", self.flip), ("vflip", self.vflip)):
            if not 0 <= value <= 1:
                msg = f"{name}={value} is not a probability"
                raise ConfigError(msg)

    @property
    def drawn(self) -> int | None:
        """Frames of each group an epoch; None for all."""
        return self.frames_per_group or (1 if self.one_per_group else None)

    @property
    def side(self) -> int:
        """Side of the square to which the whole image is squashed."""
        return self.resize if self.train else self.size
