"""The table of formats. A new one is one module and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown

if TYPE_CHECKING:
    from wsolpipe.share.formats.base import Format

_HERE = "wsolpipe.share.formats"
#: Name on the command line to module and class.
FORMATS = {
    "localization": f"{_HERE}.box_list:BoxList",
    "coco": f"{_HERE}.coco_json:Coco",
    "yolo": f"{_HERE}.yolo:Yolo",
    "voc": f"{_HERE}.voc_xml:Voc",
    "csv": f"{_HERE}.box_rows:Csv",
    "parquet": f"{_HERE}.box_rows:Parquet",
    "jsonl": f"{_HERE}.json_lines:JsonLines",
    "hf": f"{_HERE}.hf_folder:HfFolder",
    "fiftyone": f"{_HERE}.fiftyone:FiftyOne",
    "labelstudio": f"{_HERE}.label_studio:LabelStudio",
    "cvat": f"{_HERE}.cvat:Cvat",
    "png": f"{_HERE}.map_files:Png",
    "npy": f"{_HERE}.map_files:Npy",
}
#: Formats that are written and not read.
WRITTEN_ONLY = frozenset({"png", "npy"})


def find_format(name: str) -> Format:
    """Format of a name.

    Raises
    ------
    ConfigError
        If there is none; names the nearest.
    """
    if name not in FORMATS:
        raise ConfigError(unknown("format", name, FORMATS))
    module, _, kind = FORMATS[name].partition(":")
    found: Format = getattr(import_module(module), kind)()
    return found
