"""Tiny real stores for tests and benches: drawn images, an index, class-token maps and proposals in Zarr shards."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from wsolpipe.contract.backends.opening import open_backend
from wsolpipe.contract.layout import Shards, commit_name, digest, sha256_bytes, shard_object, stage_folder
from wsolpipe.contract.manifest import CommitRecord, IndexManifest, Quarantined, StageManifest, StoredObject
from wsolpipe.contract.schema import CHECKSUM, STATUS_SPEC, ArraySpec, Status, boxes_spec
from wsolpipe.engine.zarr_metadata import encode_shard, prepare_folder
from wsolpipe.images.index_tables import ANNOTATION_SCHEMA, INDEX_SCHEMA, column_digests, write_parquet

if TYPE_CHECKING:
    from pathlib import Path

DATASET = "tiny"
MAPS_KEY, BOXES_KEY, INDEX_KEY = "aaaa000011112222", "bbbb000011112222", "cccc000011112222"


@dataclass
class TinyStore:
    """Where the store and its images are, and the truth that was drawn.

    Attributes
    ----------
    url, root : str
        Of the store, and of the image files.
    objects : float32 [N, 4]
        Box of the one bright object of each image, pixels of the image.
    labels : list of int
        A label a row.
    maps : uint8 [N, M, h, w]
        As stored: peaks on the object.
    boxes : float32 [N, K, 4]
        As stored: slot 0 is the object, then jittered ones; NaN past `count`.
    """

    url: str
    root: str
    objects: np.ndarray
    labels: list[int]
    sizes: list[tuple[int, int]]
    paths: list[str]
    maps: np.ndarray
    boxes: np.ndarray
    source: np.ndarray
    status: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))


def write_table(folder: Path, name: str, table: pa.Table) -> None:
    """Other contents for a table of an index, with a manifest that agrees with its bytes."""
    data = write_parquet(table)
    (folder / name).write_bytes(data)
    path = folder / "manifest.json"
    manifest = IndexManifest.model_validate_json(path.read_bytes())
    objects = {**manifest.objects, name: StoredObject(sha256=sha256_bytes(data), bytes=len(data))}
    path.write_bytes(manifest.model_copy(update={"objects": objects}).to_bytes())


def draw_image(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A grey, noisy image of (height, width) with one red rectangle; the image and the rectangle's xyxy box."""
    height, width = size
    image = rng.integers(60, 110, (height, width, 3), dtype=np.uint8)
    w, h = int(width * rng.uniform(0.2, 0.5)), int(height * rng.uniform(0.2, 0.5))
    x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    image[y : y + h, x : x + w] = (230, 30, 30)
    return image, np.array([x, y, x + w, y + h], np.float32)


def object_map(box: np.ndarray, size: tuple[int, int], grid: int) -> np.ndarray:
    """A bump on the object's centre over the squashed image, float [grid, grid] in 0..1."""
    height, width = size
    cx, cy = (box[0] + box[2]) / 2 / width * grid, (box[1] + box[3]) / 2 / height * grid
    y, x = np.mgrid[:grid, :grid] + 0.5
    bump = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 4.0)
    return (bump - bump.min()) / (bump.max() - bump.min())


def build_store(
    folder: Path,
    *,
    rows: int = 40,
    shard_rows: int = 16,
    n_maps: int = 3,
    n_boxes: int = 4,
    grid: int = 14,
    classes: int | None = 5,
    sizes: tuple[int, int] = (60, 120),
    seed: int = 0,
    quarantined: dict[int, str] | None = None,
    no_object: tuple[int, ...] = (),
    missing: dict[str, tuple[int, ...]] | None = None,
    unlabelled: tuple[int, ...] = (),
    groups: list[str] | None = None,
    images: bool = True,
    image_format: str = "PNG",
    labels: list[int] | None = None,
    split: str = "train",
    checksum: str = CHECKSUM,
) -> TinyStore:
    """Write a store of `rows` rows under `folder`; `missing` names shards left out, a stage each."""
    rng = np.random.default_rng(seed)
    quarantined = quarantined or {}
    root = folder / "images"
    store = TinyStore(
        str(folder / "store"),
        str(root),
        np.zeros((rows, 4), np.float32),
        [],
        [],
        [],
        *_empty(rows, n_maps, n_boxes, grid),
    )
    suffix = {"PNG": "png", "JPEG": "jpg"}[image_format]
    for row in range(rows):
        size = (int(rng.integers(*sizes)), int(rng.integers(*sizes)))
        path = f"{row % (classes or 5)}/image{row:05d}.{suffix}"
        image, box = draw_image(rng, size) if images else (None, np.array([1, 1, size[1] / 2, size[0] / 2], np.float32))
        if image is not None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / path, format=image_format)
        store.objects[row] = box
        store.sizes.append(size)
        store.paths.append(path)
        store.labels.append(labels[row] if labels else row % (classes or 5))
        bump = object_map(box, size, grid)
        noise = rng.random((n_maps, grid, grid)) * 0.2
        noise[0] = 0
        store.maps[row] = np.round(255 * np.clip(bump * 0.8 + noise, 0, 1) / np.maximum(0.8, 1e-6)).clip(0, 255)
        count = int(rng.integers(1, n_boxes + 1))
        jitter = rng.uniform(-4, 4, (count, 4)).astype(np.float32)
        jitter[0] = 0
        bounds = np.array([size[1], size[0]] * 2, np.float32)
        boxes = np.clip(box + jitter, 0, bounds)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        store.boxes[row, :count] = np.minimum(boxes, bounds)
        store.source[row, :count] = rng.integers(0, n_maps, count)
    store.status = np.full(rows, Status.OK, np.uint8)
    store.status[list(quarantined)] = Status.QUARANTINED
    store.status[list(no_object)] = Status.NO_OBJECT
    _write_index(store, split, shard_rows, classes, unlabelled, groups)
    reasons = {row: (store.paths[row], reason) for row, reason in quarantined.items()}
    maps_status = np.where(store.status == Status.NO_OBJECT, np.uint8(Status.OK), store.status)
    ranges = np.tile(np.array([-1.0, 3.0], np.float32), (rows, n_maps, 1))
    maps_spec = ArraySpec(dtype="uint8", shape=(n_maps, grid, grid))
    range_spec = ArraySpec(dtype="float32", shape=(n_maps, 2), fill="nan")
    missing = missing or {}
    write_stage(
        store.url, "cls_maps", MAPS_KEY, {"maps": (maps_spec, store.maps), "range": (range_spec, ranges)},
        status=maps_status, split=split, shard_rows=shard_rows, reasons=reasons, skip=missing.get("cls_maps", ()),
        checksum=checksum,
    )  # fmt: skip
    empty = np.where((store.status != Status.OK)[:, None, None], np.nan, store.boxes).astype(np.float32)
    scores = np.where(np.isnan(empty[..., 0]), np.nan, np.linspace(0.9, 0.1, n_boxes)).astype(np.float32)
    slots = ArraySpec(dtype="int8", shape=(n_boxes,), fill=-1)
    proposals = {
        "boxes": (boxes_spec(n_boxes, "candidates"), empty),
        "scores": (ArraySpec(dtype="float32", shape=(n_boxes,), fill="nan"), scores),
        "source": (slots, store.source),
        "count": (ArraySpec(dtype="uint8"), (~np.isnan(empty[..., 0])).sum(1).astype(np.uint8)),
    }
    write_stage(
        store.url, "proposals", BOXES_KEY, proposals, status=store.status, split=split, shard_rows=shard_rows,
        reasons=reasons, skip=missing.get("proposals", ()), upstream={"cls_maps": MAPS_KEY + digest("cls_maps")[16:]},
        checksum=checksum,
    )  # fmt: skip
    return store


def write_masks(folder: Path, store: TinyStore, rows: list[int]) -> None:
    """Replace the ground truth of the split val by masks of the objects of some rows, in the folder masks."""
    (folder / "masks").mkdir()
    for row in rows:
        mask = np.zeros(store.sizes[row], np.uint8)
        x0, y0, x1, y1 = store.objects[row].astype(int)
        mask[y0:y1, x0:x1] = 255
        Image.fromarray(mask).save(folder / "masks" / f"{row}.png")
    names = [f"{row}.png" for row in rows]
    edges = {name: np.zeros(len(rows)) for name in ("x0", "y0", "x1", "y1")}
    (path,) = (folder / "store" / "tiny" / "val" / "index").glob("*/annotations.parquet")
    pq.write_table(pa.table({"row": rows, "kind": ["mask"] * len(rows), **edges, "path": names}), path)
    data, place = path.read_bytes(), path.with_name("manifest.json")
    manifest = IndexManifest.model_validate_json(place.read_bytes())
    objects = manifest.objects | {path.name: StoredObject(sha256=sha256_bytes(data), bytes=len(data))}
    place.write_bytes(manifest.model_copy(update={"objects": objects}).to_bytes())


def write_stage(
    url: str,
    stage: str,
    key: str,
    arrays: dict[str, tuple[ArraySpec, np.ndarray]],
    *,
    status: np.ndarray,
    split: str = "train",
    shard_rows: int = 16,
    reasons: dict[int, tuple[str, str]] | None = None,
    skip: tuple[int, ...] = (),
    upstream: dict[str, str] | None = None,
    index_key: str = INDEX_KEY,
    columns: dict[str, str] | None = None,
    created: str = "2025-01-01T00:00:00Z",
    checksum: str = CHECKSUM,
) -> None:
    """One rows stage: manifest, arrays a shard, commit records; shards in `skip` are left out."""
    backend = open_backend(url)
    folder = stage_folder(DATASET, split, stage, key)
    shards = Shards(len(status), shard_rows)
    specs = {name: spec for name, (spec, _) in arrays.items()}
    manifest = StageManifest(
        kind="rows", dataset=DATASET, split=split, stage=stage, key=key, version=1, params={},
        fingerprint=key + digest(stage)[16:], index_key=index_key, columns=columns or {"sha256": "0" * 64},
        upstream=upstream or {}, artifacts={}, basis=digest(stage), rows=len(status),
        shard_rows=shard_rows, arrays=specs, created=created, checksum=checksum,
    )  # fmt: skip
    whole = {**arrays, "status": (STATUS_SPEC, status)}
    prepare_folder(backend, folder, manifest, shards)
    for shard in range(len(shards)):
        if shard in skip:
            continue
        start, stop = shards.span(shard)
        objects = {}
        for name, (spec, values) in whole.items():
            data = encode_shard(spec, shards, shard, np.ascontiguousarray(values[start:stop]), checksum)
            backend.create(shard_object(folder, name, shard, values.ndim), data)
            objects[name] = StoredObject(sha256=sha256_bytes(data), bytes=len(data))
        bad = tuple(
            Quarantined(row=row, image_id=path, path=path, reason=reason)
            for row, (path, reason) in (reasons or {}).items()
            if start <= row < stop
        )
        here = status[start:stop]
        ok, no_object = (int((here == value).sum()) for value in (Status.OK, Status.NO_OBJECT))
        record = CommitRecord(
            shard=shard, start=start, stop=stop, objects=objects, quarantined=bad, ok=ok, no_object=no_object
        )
        backend.create(commit_name(folder, shard), record.to_bytes())


def _empty(rows: int, n_maps: int, n_boxes: int, grid: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.zeros((rows, n_maps, grid, grid), np.uint8),
        np.full((rows, n_boxes, 4), np.nan, np.float32),
        np.full((rows, n_boxes), -1, np.int8),
    )


def _write_index(
    store: TinyStore,
    split: str,
    shard_rows: int,
    classes: int | None,
    unlabelled: tuple[int, ...],
    groups: list[str] | None,
) -> None:
    rows = len(store.sizes)
    labels = [[] if row in unlabelled else [label] for row, label in enumerate(store.labels)]
    bad = store.status == Status.QUARANTINED
    values = {
        "row": list(range(rows)),
        "image_id": store.paths,
        "path": store.paths,
        "labels": labels,
        "width": [width for _, width in store.sizes],
        "height": [height for height, _ in store.sizes],
        "orientation": [1] * rows,
        "bytes": [0] * rows,
        "sha256": [hashlib.sha256(path.encode()).hexdigest() for path in store.paths],
        "group": groups or [""] * rows,
        "frame": list(range(rows)),
        "reason": ["broken" if flag else "" for flag in bad],
    }
    table = pa.table(values, schema=INDEX_SCHEMA)
    sides = {name: store.objects[:, side].astype(np.float64) for side, name in enumerate(("x0", "y0", "x1", "y1"))}
    truth = {"row": values["row"], "image_id": store.paths, "kind": ["box"] * rows, **sides, "path": [""] * rows}
    tables = {"index.parquet": table, "annotations.parquet": pa.table(truth, schema=ANNOTATION_SCHEMA)}
    data = {name: write_parquet(content) for name, content in tables.items()}
    manifest = IndexManifest(
        dataset=DATASET, split=split, key=INDEX_KEY, fingerprint=INDEX_KEY + digest("index")[16:], rows=rows,
        objects={name: StoredObject(sha256=sha256_bytes(item), bytes=len(item)) for name, item in data.items()},
        quarantined=int(bad.sum()), shard_rows=shard_rows, digests=column_digests(table), label_counts={},
        classes=classes, class_names={str(label): f"class {label}" for label in range(classes or 0)},
        created="2025-01-01T00:00:00Z",
    )  # fmt: skip
    backend = open_backend(store.url)
    folder = stage_folder(DATASET, split, "index", INDEX_KEY)
    for name, content in data.items():
        backend.create(f"{folder}/{name}", content)
    backend.create(f"{folder}/manifest.json", manifest.to_bytes())
