"""Runs in the environment of the packages that wsoltrain.stream is compared with; see stream_beside_others.py.

    python peer_streams.py write litdata|mosaicml SOURCE FOLDER
    python peer_streams.py read litdata|mosaicml FOLDER WORKERS BATCH CROP EPOCHS [REMOTE]

SOURCE holds ``rgb.npy``, ``maps.npy`` and ``labels.npy``. Reading prints one JSON list: seconds of each epoch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader


def row_of(source: str, row: int) -> dict[str, Any]:
    """One sample as both packages store it: raw arrays."""
    arrays = {name: np.load(f"{source}/{name}.npy", mmap_mode="r") for name in ("rgb", "maps", "labels")}
    return {
        "rgb": np.array(arrays["rgb"][row]),
        "maps": np.array(arrays["maps"][row]),
        "label": int(arrays["labels"][row]),
    }


def view(sample: dict[str, Any], crop: int) -> dict[str, Any]:
    """Make what an item of ours holds: a random crop, flipped or not, maps on the scale 0..1, the label."""
    rgb = torch.from_numpy(np.array(sample["rgb"]))
    top, left = (int(edge) for edge in torch.randint(0, rgb.shape[1] - crop + 1, (2,)))
    window = rgb[:, top : top + crop, left : left + crop]
    return {
        "rgb": window.flip(-1) if float(torch.rand(())) < 0.5 else window.clone(),
        "maps": torch.from_numpy(np.array(sample["maps"])).float().div_(255),
        "label": int(sample["label"]),
    }


def write(kind: str, source: str, folder: str) -> None:
    """Write the samples in the package's own format, uncompressed, as both do by default."""
    rows = len(np.load(f"{source}/labels.npy"))
    if kind == "litdata":
        import functools

        import litdata  # type: ignore[import-not-found]

        litdata.optimize(
            fn=functools.partial(row_of, source), inputs=list(range(rows)), output_dir=folder,
            chunk_bytes="64MB", num_workers=1, start_method="fork",
        )  # fmt: skip
        return
    from streaming import MDSWriter  # type: ignore[import-not-found]

    rgb, maps = (np.load(f"{source}/{name}.npy", mmap_mode="r") for name in ("rgb", "maps"))
    columns = {
        "rgb": f"ndarray:uint8:{','.join(map(str, rgb.shape[1:]))}",
        "maps": f"ndarray:uint8:{','.join(map(str, maps.shape[1:]))}",
        "label": "int",
    }
    with MDSWriter(out=folder, columns=columns) as writer:
        for row in range(rows):
            writer.write(row_of(source, row))


def loader(kind: str, folder: str, workers: int, batch: int, crop: int, remote: str | None) -> Any:
    """The package's own loader, shuffle on."""
    if kind == "litdata":
        import litdata

        class Lit(litdata.StreamingDataset):  # type: ignore[misc]
            def __getitem__(self, index: Any) -> dict[str, Any]:
                return view(super().__getitem__(index), crop)

        settings: dict[str, Any] = {}
        if remote:
            # Its client takes only https, and has no setting of its own for that.
            from litdata.streaming import downloader  # type: ignore[import-not-found]

            downloader._OBSTORE_CLIENT_OPTIONS = {**downloader._OBSTORE_CLIENT_OPTIONS, "allow_http": True}  # noqa: SLF001
            settings["storage_options"] = {"endpoint_url": os.environ["S3_ENDPOINT_URL"]}
            settings["cache_dir"] = folder
        dataset = Lit(remote or folder, shuffle=True, **settings)
        return litdata.StreamingDataLoader(dataset, batch_size=batch, num_workers=workers, persistent_workers=True)
    from streaming import StreamingDataset

    class Mosaic(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: Any) -> dict[str, Any]:
            return view(super().__getitem__(at), crop)

    mosaic = Mosaic(local=folder, remote=remote, shuffle=True, batch_size=batch)
    return DataLoader(mosaic, batch_size=batch, num_workers=workers, persistent_workers=True)


def read(kind: str, folder: str, workers: int, batch: int, crop: int, epochs: int, remote: str | None) -> None:
    """Go through the epochs; print the seconds of each."""
    batches = loader(kind, folder, workers, batch, crop, remote)
    seconds: list[float] = []
    rows = 0
    for _ in range(epochs):
        begun, rows = time.perf_counter(), 0
        for made in batches:
            rows += len(made["label"])
        seconds.append(time.perf_counter() - begun)
    print(json.dumps({"seconds": seconds, "rows": rows}))


def main() -> None:
    """Do what the first word says."""
    torch.set_num_threads(1)
    verb, kind, *rest = sys.argv[1:]
    if verb == "write":
        write(kind, rest[0], rest[1])
        return
    folder, workers, batch, crop, epochs, *remote = rest
    Path(folder).mkdir(parents=True, exist_ok=True)
    read(kind, folder, int(workers), int(batch), int(crop), int(epochs), remote[0] if remote else None)


if __name__ == "__main__":
    main()
