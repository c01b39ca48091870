"""A layout of another package: all images in one folder, classes by the first letter of their names."""

import os

from wsolpipe.images.importers.lines import IMAGE_ENDINGS, stamp_folders
from wsolpipe.images.listing import Layout, ListedRow, Listing


def images_of(config):
    """Names of the images, sorted."""
    return sorted(name for name in os.listdir(config.image_root()) if name.lower().endswith(IMAGE_ENDINGS))


def list_rows(config, split, problems):
    """List the images of a split; all splits hold the same ones."""
    paths = images_of(config)
    letters = sorted({path[0] for path in paths})
    rows = [ListedRow(path, path, (letters.index(path[0]),)) for path in paths]
    return Listing(rows, classes=len(letters), class_names=dict(enumerate(letters)))


def sources(config, split):
    """Give the name and time of the folder, in which a new image is noticed."""
    yield from stamp_folders(config.image_root(), "images")


INITIAL = Layout(list_rows, sources, "  {root}/a1.png b1.png …   one class for each first letter", upright=True)
