"""Sources of weights beside those of `wsolpipe.networks.sources`; a kind is one line of `FINDERS`.

- ``open_clip:MODEL/[TAG]``: published weights of a CLIP, from the caches that open_clip uses or fetched;
- ``torchvision:NAME``: official weights of a torchvision detector, from torch's cache or fetched;
- ``transformers:NAME``: a CLIPSeg or SAM as transformers saves it, a folder or a name of the hub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsolpipe.models.clip_config import find_published
from wsolpipe.models.detectors import find_detector
from wsolpipe.models.saved_models import find_saved
from wsolpipe.networks import sources

if TYPE_CHECKING:
    from wsolpipe.networks.sources import Weights

FINDERS: dict[str, sources.Finder] = {
    "open_clip": find_published,
    "torchvision": find_detector,
    "transformers": find_saved,
}


def resolve(spec: str, *, fetch: bool = True) -> Weights | None:
    """Find the file of any kind of specification; see `wsolpipe.networks.sources.resolve`."""
    return sources.resolve(spec, fetch=fetch, finders=FINDERS)
