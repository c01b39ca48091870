"""Sources of weights beside those of `wsolpipe.networks.sources`; a kind is one line of `FINDERS`.

- ``open_clip:MODEL/[TAG]``: published weights of a CLIP, from the caches that open_clip uses or fetched;
- ``torchvision:NAME``: official weights of a torchvision detector, from torch's cache or fetched;
- ``transformers:NAME``: a CLIPSeg or SAM as transformers saves it, a folder or a name of the hub.
"""

from __future__ import annotations

import re
from pathlib import Path

from wsolpipe.contract.errors import WeightsError, unknown
from wsolpipe.models.clip_config import find_published
from wsolpipe.models.saved_models import find_saved
from wsolpipe.networks import sources
from wsolpipe.networks.pretrained import file_sha256
from wsolpipe.networks.sources import Weights


def find_detector(name: str, *, fetch: bool) -> Weights | None:
    """Official weights in torch's own cache.

    Parameters
    ----------
    name : str
        A model (``fasterrcnn_resnet50_fpn``: its default weights) or an entry of torchvision's list
        (``FasterRCNN_ResNet50_FPN_Weights.COCO_V1``).
    fetch : bool
        Whether a file that is not in the cache may be downloaded.

    Returns
    -------
    Weights or None
        None only where `fetch` is false and the file is not here.

    Raises
    ------
    WeightsError
        If torchvision knows no such weights, or the network is missing.
    """
    import torch
    from torchvision.models import detection, get_model_weights, get_weight, list_models

    models = [model for model in list_models(detection) if "rcnn" in model]
    try:
        entry = get_model_weights(name).DEFAULT if name in models else get_weight(name)
    except ValueError as error:
        raise WeightsError(unknown("torchvision weights", name, models), hint="or give weights=FILE") from error
    path: Path = Path(torch.hub.get_dir()) / "checkpoints" / entry.url.rsplit("/", 1)[-1]
    if path.is_file():
        return Weights(file_sha256(path), f"torchvision:{name}", path)
    if not fetch:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    # The file's name ends in the first digits of its digest, which torch compares.
    digest = re.search(r"-([0-9a-f]{8,})\.", path.name)
    try:
        torch.hub.download_url_to_file(entry.url, str(path), digest.group(1) if digest else None, progress=False)
    except (OSError, RuntimeError) as error:
        msg = f"cannot fetch the weights {name}: {error}"
        raise WeightsError(msg, hint=f"copy {path.name} into {path.parent}, or give weights=FILE") from error
    return Weights(file_sha256(path), f"torchvision:{name}", path)


FINDERS: dict[str, sources.Finder] = {
    "open_clip": find_published,
    "torchvision": find_detector,
    "transformers": find_saved,
}


def resolve(spec: str, *, fetch: bool = True) -> Weights | None:
    """Find the file of any kind of specification; see `wsolpipe.networks.sources.resolve`."""
    return sources.resolve(spec, fetch=fetch, finders=FINDERS)
