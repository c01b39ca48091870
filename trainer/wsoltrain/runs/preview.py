"""One sheet of what a training step would see, ``wsoltrain preview``."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, raise_as, reason
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, keys_of_class
from wsolpipe.keys.run_keys import DATASET, ROOT, STORE, store_of
from wsoltrain.runs.settle import A_SPLIT, STAGE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsoltrain.data.items import Item
    from wsoltrain.data.stream import Stream


class _Keys:
    """Keys of ``wsoltrain preview``.

    Attributes
    ----------
    split
        split of the data set
    n
        items to draw
    out
        file to write
    seed
        seed of order, crops and flips
    epoch
        epoch whose first items are drawn
    S
        side of the crop
    resize
        side to which the whole image is squashed before the crop
    K
        boxes an item
    M
        maps an item
    maps
        stage of the maps
    boxes
        stage of the boxes
    view
        train: random crop and flip; eval: the whole image
    one_per_group
        draw one frame of each video or patient
    """

    store = STORE
    dataset = DATASET
    split = Key(A_SPLIT, "train")
    root = ROOT
    n = Key(kinds.integer(1), 16)
    out = Key(kinds.file("image file"), "preview.png")
    seed = Key(kinds.integer(0), 0)
    epoch = Key(kinds.integer(0), 0)
    S = Key(kinds.integer(1), 224, unit="pixels")
    resize = Key(kinds.integer(1), unit="pixels", otherwise="8/7 of S")
    K = Key(kinds.integer(0), otherwise="all that are stored")
    M = Key(kinds.integer(1), otherwise="all that are stored")
    maps = Key(kinds.or_null(STAGE), "cls_maps")
    boxes = Key(kinds.or_null(STAGE), "proposals")
    view = Key(kinds.choice("train", "eval"), "train")
    one_per_group = Key(kinds.flag(), False)


KEYS = keys_of_class(_Keys)


def preview(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Draw one sheet as `KEYS` say; return what it shows and a line of text.

    Raises
    ------
    ConfigError
        If no image can be read, or the sheet cannot be written.
    """
    stream = _open(values)
    items = list(islice(stream, values["n"]))
    if not items:
        msg = f"none of the images of split {values['split']} can be read"
        raise ConfigError(msg, hint="check root=")
    described = [_describe(item, stream) for item in items]
    out, counts = Path(values["out"]), stream.counts
    _draw(items, described, out)
    left_out = ", ".join(f"{value} {name}" for name, value in counts.items() if name != "rows" and value)
    drawn = {name: values[name] for name in ("epoch", "seed")}
    result = {"out": str(out), "items": described, "counts": counts, **drawn}
    return result, [f"{out}: {len(items)} items; {counts['rows']} rows: {left_out}"]


def _open(values: Mapping[str, Any]) -> Stream:
    from wsolpipe.images.dataset import load_dataset
    from wsoltrain.data.stream import ItemConfig, Labelling, Stream

    dataset = load_dataset(values["dataset"], root=values["root"])
    store = store_of(values["store"])
    labelling = Labelling(store, dataset.name, values["split"], maps=values["maps"], boxes=values["boxes"])
    size = values["S"]
    config = ItemConfig(
        labelling,
        root=str(dataset.image_root()),
        size=size,
        resize=values["resize"] or round(size * 8 / 7),
        n_maps=values["M"],
        n_boxes=values["K"],
        normalised=False,
        train=values["view"] == "train",
        need_label=values["view"] == "train",
        one_per_group=values["one_per_group"],
        seed=values["seed"],
    )
    stream = Stream(config, batch_size=None)
    stream.set_epoch(values["epoch"])
    return stream


def _describe(item: Item, stream: Stream) -> dict[str, Any]:
    """Describe what was drawn of one item, as JSON."""
    rows = stream.items.rows
    row, label = int(item["row"]), int(item["label"])
    left, top, side, mirrored = item["window"].tolist()
    described = {
        "row": row,
        "path": rows.name(row),
        "label": None if label < 0 else label,
        "class": None if label < 0 else rows.class_name(label),
        "window": {"left": left, "top": top, "side": side, "flip": bool(mirrored)},
    }
    if "boxes" in item:
        described["boxes"] = [[round(value, 2) for value in box] for box in item["boxes"].tolist()]
        described["box_map"] = item["box_map"].tolist()
    if "maps" in item:
        described["maps"] = list(item["maps"].shape)
    return described


def _draw(items: list[Item], described: list[dict[str, Any]], out: Path) -> None:
    from wsoltrain.inference.drawing import draw_sheet

    captions = []
    for item in described:
        kept = sum(x1 > x0 and y1 > y0 for x0, y0, x1, y1 in item.get("boxes", ()))
        lost = f", {len(item['boxes']) - kept} empty or lost" if len(item.get("boxes", ())) > kept else ""
        boxes = f"{kept} boxes{lost}" if "boxes" in item else "no boxes"
        window = item["window"]
        turned = ", flipped" if window["flip"] else ""
        where = f"crop at {window['left']},{window['top']} of {window['side']}x{window['side']}{turned}"
        captions.append((f"{item['class'] or 'no label'} · row {item['row']}", f"{boxes}; {where}; {item['path']}"))
    title = "Boxes have the colour of the map that they came from; the thick one is the first."
    sheet = draw_sheet(items, captions, title=title if "boxes" in items[0] else "")
    with raise_as(ConfigError, f"out={out} cannot be written", OSError, ValueError, hint="out=preview.png", say=reason):
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out)
