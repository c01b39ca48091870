"""One training item: pixels, maps and boxes of a row under one random crop and flip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from wsolpipe.contract.errors import BadImageError, ConfigError, DataError, WsolError
from wsolpipe.images.geometry import View, Window
from wsolpipe.images.index import beside
from wsolpipe.images.video import file_of, read_picture, split_frame
from wsoltrain.data.order import Pick, Purpose, generator
from wsoltrain.data.stored_rows import ChunkCache, StoredRows
from wsoltrain.data.views import UPSIDE_DOWN, jitter_colours, maps_to_view, normalise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from wsolpipe.contract.arrays import ArrayView
    from wsoltrain.data.config import ItemConfig

Item: TypeAlias = "dict[str, Tensor]"
Made: TypeAlias = "list[tuple[Item | None, list[tuple[int, str]]]]"

MAX_SPARES = 16


class Items:
    """Makes items; the data set of a torch DataLoader.

    Map-style over a plan of the sampler's making, not an iterable: so the loader keeps the order whatever the number of
    its processes, and resuming is starting the plan further on. Opens nothing before its first use in a process.

    Parameters
    ----------
    config : ItemConfig
        All that is pickled.
    """

    def __init__(self, config: ItemConfig) -> None:
        self.config = config
        self._rows: StoredRows | None = None
        self._cache: ChunkCache | None = None
        self._usable: NDArray[np.int64] | None = None
        self._beside: NDArray[np.int64] | None = None

    def __reduce__(self) -> tuple[type[Items], tuple[ItemConfig]]:
        return Items, (self.config,)

    @property
    def rows(self) -> StoredRows:
        """The rows of the store, opened on first use."""
        if self._rows is None:
            self._rows = StoredRows(self.config.labelling)
        return self._rows

    def arrays(self) -> dict[str, ArrayView]:
        """Arrays that items need.

        Raises
        ------
        ConfigError
            If fewer maps are stored than wanted.
        """
        config, rows = self.config, self.rows
        arrays: dict[str, ArrayView] = {}
        if rows.maps is not None:
            names = set(rows.maps.manifest.arrays)
            arrays["maps"] = rows.maps["maps"]
            if config.values == "stored":
                arrays["range"] = rows.maps["range"]
            if "grid_hw" in names:
                arrays["grid_hw"] = rows.maps["grid_hw"]
            stored = arrays["maps"].shape[1]
            if config.n_maps is not None and config.n_maps > stored:
                msg = f"M={config.n_maps} maps wanted, stage {rows.maps.stage} {rows.maps.key} holds {stored}"
                raise ConfigError(msg, hint=f"M={stored} or less")
        if rows.boxes is not None:
            arrays["boxes"] = rows.boxes["boxes"]
            if "source" in rows.boxes.manifest.arrays:
                arrays["source"] = rows.boxes["source"]
        if rows.drawn is not None:
            arrays["drawn_boxes"], arrays["drawn"] = rows.drawn["boxes"], rows.drawn["drawn"]
        if rows.images is not None:
            arrays["rgb"] = rows.images["rgb"]
        return arrays

    def path(self, row: int) -> Path:
        """File of a row's image; of a frame of a video, with ``#`` and its number."""
        return Path(self.config.root or "", self.rows.name(row))

    def check_images(self, row: int) -> None:
        """Make sure that the root holds the data set's files, by one of its rows.

        Raises
        ------
        ConfigError
            If the root is not a folder or has no such file.
        """
        root = self.config.root
        if root is None or self.rows.images is not None or Path(file_of(str(self.path(row)))).is_file():
            return
        what = f"no file {self.path(row)} (row {row})" if Path(root).is_dir() else f"no folder {root}"
        msg = f"images of {self.config.labelling.dataset} not found under root={root}: {what}"
        raise ConfigError(msg, hint="root=FOLDER, to which the paths of the index are relative")

    def __getitems__(self, picks: Sequence[Pick]) -> Made | WsolError:
        """Items of a batch, each with the (row, reason) of images that could not be read on the way to it.

        In training another random row takes the place of such an image, so that batches keep their size and all ranks
        their number of items; in evaluation the item is None. An error of ours is handed back, not raised: torch would
        put the traceback of the loader process in place of its message and hint.
        """
        try:
            stored = self._stored(picks)
            return [self._make(pick, stored) for pick in picks]
        except WsolError as error:
            return error

    def _stored(self, picks: Sequence[Pick]) -> dict[int, dict[str, NDArray[Any]]]:
        if self._cache is None:
            shuffle = self.config.shuffle
            # The runs of one window, and of the next where two meet in a batch.
            least = shuffle.window_runs + shuffle.lane_runs
            self._cache = ChunkCache(
                self.arrays(), run_rows=shuffle.run_rows, least_runs=least, budget=self.config.memory
            )
        wanted = {pick.row: None for pick in picks}
        if self.config.neighbours.size:
            wanted |= {row: None for pick in picks for row in self._rows_beside(pick.row) if row >= 0}
        return self._cache.fetch(wanted)

    def _rows_beside(self, row: int) -> list[int]:
        """Frames beside a row, −1 where there is none; see `wsoltrain.data.order.beside`."""
        if self._beside is None:
            near = self.config.neighbours
            self._beside = beside(self.rows.groups, self.rows.frames, near.before, near.after)
        found: list[int] = self._beside[row].tolist()
        return found

    def _make(self, pick: Pick, near: dict[int, dict[str, NDArray[Any]]]) -> tuple[Item | None, list[tuple[int, str]]]:
        broken: list[tuple[int, str]] = []
        spare, stored = pick, near[pick.row]
        while True:
            try:
                return self._item(spare, stored, near), broken
            except BadImageError as error:
                broken.append((spare.row, error.message))
            if not self.config.train:
                return None, broken
            if len(broken) > MAX_SPARES:
                listed = "; ".join(f"{self.rows.name(row)}: {reason}" for row, reason in broken[:3])
                msg = f"{len(broken)} images in turn cannot be read under root={self.config.root}: {listed} …"
                raise DataError(msg, hint="check root=, and that the files are those that were indexed")
            spare = self._draw_spare(pick, len(broken))
            near = self._stored([spare])
            stored = near[spare.row]

    def _draw_spare(self, pick: Pick, attempt: int) -> Pick:
        """Another row, the same whichever process asks."""
        if self._usable is None:
            self._usable, _ = self.rows.usable(classes=self.config.classes, need_label=self.config.need_label)
        rng = generator(self.config.seed, pick.epoch, Purpose.SPARE, pick.row, attempt)
        return Pick(pick.epoch, int(rng.choice(self._usable)))

    def _item(self, pick: Pick, stored: dict[str, NDArray[Any]], near: dict[int, dict[str, NDArray[Any]]]) -> Item:
        config = self.config
        view, turned = self._draw_view(pick), self._draws(pick, Purpose.TURN, config.vflip)
        window = (view.window.left, view.window.top, config.side, view.window.flip + UPSIDE_DOWN * turned)
        item: Item = {
            "window": torch.tensor(window, dtype=torch.int64),
            "row": torch.tensor(pick.row),
            "label": torch.tensor(int(self.rows.labels[pick.row])),
        }
        others = self._rows_beside(pick.row) if config.neighbours.size else []
        if "rgb" in stored or config.root is not None:
            item["rgb"] = self._rgb(pick.row, stored, view)
            if config.neighbours.images:
                self._add_images(item, others, near, view)
        if turned:
            item |= {name: item[name].flip(-2) for name in ("rgb", "rgb_beside") if name in item}
        if config.normalised and "rgb" in item:
            colours = item["rgb"]
            if config.train and any(config.jitter):
                colours = jitter_colours(colours, config.jitter, self._generator(pick, Purpose.COLOURS))
            item["image"] = normalise(colours, config.mean, config.std)
        if "maps" in stored:
            self._add_maps(item, stored, [near[row]["maps"] for row in others if row >= 0])
        if "boxes" in stored:
            item["boxes"], item["box_map"] = self._boxes(stored, view, turned)
        if "drawn" in stored:
            drawn, _ = self._in_view(stored["drawn_boxes"], view, turned)
            item["drawn"], item["drawn_boxes"] = torch.tensor(bool(stored["drawn"])), torch.from_numpy(drawn)
        return item

    def _in_view(self, boxes: NDArray[Any], view: View, turned: bool) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Boxes in pixels of the crop, float32 [K, 4], and which of them are lost; these are 0."""
        seen = view.boxes_to_view(boxes, clip=True).astype(np.float32)
        if turned:
            seen[:, 1::2] = self.config.size - seen[:, [3, 1]]
        lost = np.asarray(~np.all(seen[:, 2:] > seen[:, :2], axis=1))  # also where a slot is empty: NaN
        seen[lost] = 0
        return seen, lost

    def _rgb(self, row: int, stored: dict[str, NDArray[Any]], view: View) -> Tensor:
        return cut_stored(stored["rgb"], view) if "rgb" in stored else self._pixels(row, view)

    def _add_images(self, item: Item, others: list[int], near: dict[int, dict[str, NDArray[Any]]], view: View) -> None:
        """Add pixels of the neighbouring frames, in the crop of the frame itself; unreadable frames count as absent."""
        frames = torch.zeros(len(others), *item["rgb"].shape, dtype=torch.uint8)
        there = torch.zeros(len(others), dtype=torch.bool)
        for place, row in enumerate(others):
            if row >= 0:
                width, height = (int(value) for value in self.rows.sizes[row])
                try:
                    frames[place] = self._rgb(row, near[row], View((height, width), view.resized, view.window))
                except BadImageError:
                    continue
                there[place] = True
        item["rgb_beside"], item["beside"] = frames, there

    def _generator(self, pick: Pick, purpose: Purpose) -> np.random.Generator:
        """Random numbers of one row in one epoch for one purpose: of the seed alone."""
        return generator(self.config.seed, pick.epoch, purpose, pick.row)

    def _draws(self, pick: Pick, purpose: Purpose, probability: float) -> bool:
        return self.config.train and probability > 0 and bool(self._generator(pick, purpose).random() < probability)

    def _draw_view(self, pick: Pick) -> View:
        """Crop and flip of one row in one epoch: of the seed alone, so that no process and no order changes it."""
        config = self.config
        width, height = (int(value) for value in self.rows.sizes[pick.row])
        if not config.train:
            return View.squash((height, width), (config.size, config.size))
        rng = self._generator(pick, Purpose.CROP)
        top, left = (int(value) for value in rng.integers(0, config.side - config.size, 2, endpoint=True))
        flip = bool(rng.random() < config.flip)
        return View((height, width), (config.side, config.side), Window(top, left, config.size, config.size, flip))

    def _pixels(self, row: int, view: View) -> Tensor:
        """The crop's pixels, uint8 [3, S, S].

        Raises
        ------
        BadImageError
            If the file is missing, broken, or not of the size that the index recorded, to which the boxes refer.
        """
        config = self.config
        path = str(self.path(row))
        drafted = config.draft and config.train and split_frame(path) is None
        draft = (config.side, config.side) if drafted else None
        image = read_picture(path, orientation=int(self.rows.orientations[row]), draft=draft)
        height, width = image.shape[:2]
        reductions = (1,) if draft is None else (1, 2, 4, 8)  # a draft's sides are rounded up
        if (height, width) not in {tuple(-(-int(edge) // by) for edge in view.original) for by in reductions}:
            msg = f"is {width}x{height}, indexed as {view.original[1]}x{view.original[0]}: another file by now?"
            raise BadImageError(msg)
        return cut(image, View((height, width), view.resized, view.window))

    def _boxes(self, stored: dict[str, NDArray[Any]], view: View, turned: bool) -> tuple[Tensor, Tensor]:
        """Boxes in pixels of the crop, float32 [K, 4], and the map of each, int64 [K]; lost ones are 0 and −1.

        The map is −1 also where the stage does not say from which map each box came.
        """
        wanted = len(stored["boxes"]) if self.config.n_boxes is None else self.config.n_boxes
        count = min(wanted, len(stored["boxes"]))
        boxes = np.zeros((wanted, 4), np.float32)
        source = np.full(wanted, -1, np.int64)
        lost = np.ones(wanted, bool)
        boxes[:count], lost[:count] = self._in_view(stored["boxes"][:count], view, turned)
        if "source" in stored:
            source[:count] = stored["source"][:count]
            if "maps" in stored:  # boxes are sampled by the values of their maps
                lost |= source >= len(stored["maps"][: self.config.n_maps])
        boxes[lost], source[lost] = 0, -1
        return torch.from_numpy(boxes), torch.from_numpy(source)

    def _add_maps(self, item: Item, stored: dict[str, NDArray[Any]], others: list[NDArray[Any]]) -> None:
        """Maps of the row, at each place the greatest of its own and of those of the frames beside."""
        config = self.config
        levels = np.maximum.reduce([stored["maps"], *others])[: config.n_maps]
        if config.values == "stored":
            from wsolpipe.maps.levels import dequantise

            maps = torch.from_numpy(dequantise(levels, stored["range"][: config.n_maps]))
        else:
            maps = torch.from_numpy(levels).to(torch.float32).div_(255)
        if config.neighbours.size and config.neighbours.heat:
            maps = (config.neighbours.heat * (maps + 1e-6)).exp()
            maps = maps / maps.amax((1, 2), keepdim=True)
        grid = torch.tensor([int(cells) for cells in stored.get("grid_hw", ())]) if "grid_hw" in stored else None
        if config.resolution == "view":
            maps = maps_to_view(maps, item["window"], config.size, grid_hw=grid)
        elif grid is not None:
            item["grid_hw"] = grid
        item["maps"] = maps


def cut(image: NDArray[np.uint8], view: View) -> Tensor:
    """Resize, crop and flip an image without resizing what the crop leaves out.

    Parameters
    ----------
    image : uint8 array [H, W, 3]
        Of the size `view.original`.

    Returns
    -------
    uint8 Tensor [3, height, width]
        Equal to ``view.apply(image)`` but for one level where rounding falls the other way.
    """
    (down, across), crop = view.scale, view.window
    box = (crop.left / across, crop.top / down, (crop.left + crop.width) / across, (crop.top + crop.height) / down)
    size = (round(crop.width), round(crop.height))
    # Pillow takes the pixels that a filter needs from beyond the box, so its edges are those of the whole picture.
    pixels = np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=box))
    planes = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    return planes.flip(-1) if crop.flip else planes


def cut_stored(planes: NDArray[np.uint8], view: View) -> Tensor:
    """Crop and flip an image that the stage ``pixels`` squashed.

    Parameters
    ----------
    planes : uint8 array [3, S0, S0]
        The whole image; where S0 is the side to which `view` squashes, its pixels are taken as they are, else they are
        resized once more.

    Returns
    -------
    uint8 Tensor [3, height, width]
    """
    size = (planes.shape[1], planes.shape[2])
    if size != tuple(view.resized):
        return cut(np.ascontiguousarray(planes.transpose(1, 2, 0)), View(size, view.resized, view.window))
    crop = view.window
    left, top = round(crop.left), round(crop.top)
    window = torch.from_numpy(planes)[:, top : top + round(crop.height), left : left + round(crop.width)]
    return window.flip(-1) if crop.flip else window.clone()
