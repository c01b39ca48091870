"""``wsoltrain preview``: one sheet of what a training step would see."""

from __future__ import annotations

import json
import os
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.contract.errors import ConfigError
from wsoltrain.cli.words import Key, completer, flag, one_of, read_words, table, text, whole

if TYPE_CHECKING:
    from wsoltrain.data.items import Item
    from wsoltrain.data.stream import Stream

KEYS = {
    "store": Key(text, None, "folder or URL of the store (else WSOLPIPE_STORE, else wsol-store)"),
    "dataset": Key(text, None, "name in data/ or a YAML file"),
    "split": Key(text, "train", "split of the data set"),
    "root": Key(text, None, "folder of the image files, instead of the one in the YAML"),
    "n": Key(whole(1), 16, "items to draw"),
    "out": Key(text, "preview.png", "file to write"),
    "seed": Key(whole(0), 0, "of order, crops and flips"),
    "epoch": Key(whole(0), 0, "epoch whose first items are drawn"),
    "S": Key(whole(1), 224, "side of the crop"),
    "resize": Key(whole(1), None, "side to which the whole image is squashed before; 256 for S=224"),
    "K": Key(whole(0), None, "boxes an item, else all that are stored"),
    "M": Key(whole(1), None, "maps an item, else all that are stored"),
    "maps": Key(text, "cls_maps", "stage of the maps, or none"),
    "boxes": Key(text, "proposals", "stage of the boxes, or none"),
    "view": Key(one_of("train", "eval"), "train", "random crop and flip, or the whole image"),
    "one_per_group": Key(flag, False, "one frame of each video or patient"),
}


@click.command(
    "preview",
    help=f"Draw what a training step would see into one picture.\n\n\b\nKeys:\n{table(KEYS)}",
    epilog="Example: wsoltrain preview store=wsol-store dataset=demo n=16 out=preview.png",
)
@click.argument("words", nargs=-1, metavar="KEY=VALUE…", shell_complete=completer(KEYS))
@click.option("--json", "as_json", is_flag=True, help="Print what was drawn as JSON.")
def command(*, words: tuple[str, ...], as_json: bool) -> None:
    """Draw a sheet and tell about it."""
    values = read_words(words, KEYS)
    stream = _open(values)
    items = list(islice(stream, values["n"]))
    if not items:
        msg = f"none of the images of split {values['split']} can be read"
        raise ConfigError(msg, hint="check root=")
    told = [_describe(item, stream) for item in items]
    out = Path(values["out"])
    _draw(items, told, out)
    result = {"out": str(out), "items": told, "counts": stream.counts, "epoch": values["epoch"], "seed": values["seed"]}
    if as_json:
        click.echo(json.dumps(result))
        return
    left_out = ", ".join(f"{value} {name}" for name, value in stream.counts.items() if name != "rows" and value)
    click.echo(f"{out}: {len(items)} items; {stream.counts['rows']} rows: {left_out}")


def _open(values: dict[str, Any]) -> Stream:
    from wsolpipe.images.dataset import load_dataset
    from wsoltrain.data.stream import ItemConfig, Labelling, Stream

    if not values["dataset"]:
        msg = "no data set named"
        raise ConfigError(msg, hint="add dataset=NAME, or dataset=FILE.yaml for your own")
    dataset = load_dataset(values["dataset"], root=values["root"])
    store = values["store"] or os.environ.get("WSOLPIPE_STORE", "wsol-store")
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
    """What was drawn of one item, as JSON."""
    rows = stream.items.rows
    row, label = int(item["row"]), int(item["label"])
    left, top, side, mirrored = item["window"].tolist()
    told = {
        "row": row,
        "path": rows.name(row),
        "label": None if label < 0 else label,
        "class": None if label < 0 else rows.class_name(label),
        "window": {"left": left, "top": top, "side": side, "flip": bool(mirrored)},
    }
    if "boxes" in item:
        told["boxes"] = [[round(value, 2) for value in box] for box in item["boxes"].tolist()]
        told["box_map"] = item["box_map"].tolist()
    if "maps" in item:
        told["maps"] = list(item["maps"].shape)
    return told


def _draw(items: list[Item], told: list[dict[str, Any]], out: Path) -> None:
    from wsoltrain.inference.drawing import draw_sheet

    captions = []
    for item in told:
        kept = sum(1 for number in item.get("box_map", ()) if number >= 0)
        lost = f", {len(item['boxes']) - kept} empty or lost" if len(item.get("boxes", ())) > kept else ""
        boxes = f"{kept} boxes{lost}" if "boxes" in item else "no boxes"
        window = item["window"]
        turned = ", flipped" if window["flip"] else ""
        where = f"crop at {window['left']},{window['top']} of {window['side']}x{window['side']}{turned}"
        captions.append((f"{item['class'] or 'no label'} · row {item['row']}", f"{boxes}; {where}; {item['path']}"))
    title = "Boxes have the colour of the map that they came from; the thick one is the first."
    sheet = draw_sheet(items, captions, title=title if "boxes" in items[0] else "")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out)
    except (OSError, ValueError) as error:
        msg = f"out={out} cannot be written: {error}"
        raise ConfigError(msg, hint="out=preview.png") from error
