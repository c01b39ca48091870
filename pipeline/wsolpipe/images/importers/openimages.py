"""Layout `openimages`: the files of layout `metadata`, with the images in folders by split and class."""

from __future__ import annotations

from wsolpipe.images.importers.metadata import list_rows, sources
from wsolpipe.images.layouts import TEXTS, Layout

TREE = """\
  {root}/
    train/<class>/<id>.jpg  val/…  test/…
    train/<class>/<id>_m<class>_<hash>.png  <id>_ignore.png      masks, beside the images or under masks:
    metadata/train|val|test/    image_ids.txt class_labels.txt image_sizes.txt localization.txt"""
LAYOUT = Layout(list_rows, sources, TREE, keys=TEXTS)
