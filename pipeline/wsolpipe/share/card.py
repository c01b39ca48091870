"""Descriptions of a publication: the dataset card and ``croissant.json``.

The card says what is in a published store, how it was made, how good it is, on which terms. Everything that comes out
of a store is text to be shown, never markup: names, titles and licences are escaped.

Croissant 1.0 (https://docs.mlcommons.org/croissant/docs/croissant-spec.html) is the vocabulary that dataset search
engines and loaders read. It has no words for Zarr yet: each stage is a FileSet of its Zarr group, its manifest a
RecordSet; the rows of a split and the boxes of a stage are RecordSets of Parquet tables.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.box_table import BOX_SCHEMA, TABLE
from wsolpipe.contract.errors import StoreError
from wsolpipe.contract.manifest import IndexManifest, StageManifest, read_record
from wsolpipe.contract.reader import Index, StageView, Store
from wsolpipe.contract.schema import Status
from wsolpipe.images.index_tables import INDEX_SCHEMA
from wsolpipe.metrics.boxes import iou_matrix

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from wsolpipe.share.selection import StoredResult


VERSION = "1.0.0"


@dataclass(frozen=True)
class About:
    """Description of a publication; empty fields are filled from the manifests.

    Attributes
    ----------
    url : str
        Where others find it: the address of the store, or the web address that shows it. Empty for a store in a
        folder, whose path means nothing elsewhere.
    """

    dataset: str
    licence: str = ""
    title: str = ""
    description: str = ""
    citation: str = ""
    url: str = ""
    version: str = VERSION
    date: str = ""


@dataclass(frozen=True)
class Figures:
    """Facts of one stage on one split: rows by status, bytes, and how its first boxes agree with ground truth.

    ``iou`` is the mean IoU of the first box with the best ground-truth box, ``recall50`` the share of rows where it is
    at least 0.5; both None without boxes or ground truth.
    """

    rows: int = 0
    ok: int = 0
    no_object: int = 0
    quarantined: int = 0
    shards: int = 0
    shards_done: int = 0
    bytes: int = 0
    scored: int = 0
    iou: float | None = None
    recall50: float | None = None
    summary: tuple[tuple[str, Any], ...] = ()


def stage_figures(store: Store, item: StoredResult) -> Figures:
    """Count and score one folder of a store."""
    manifest = item.manifest
    if isinstance(manifest, IndexManifest):
        return Figures(manifest.rows, manifest.rows - manifest.quarantined, 0, manifest.quarantined, 1, 1)
    if item.split is None:
        record = read_record(store.backend, item.folder, None)
        size = sum(stored.bytes for stored in record.objects.values()) if record else 0
        summary = tuple(sorted(record.summary.items())) if record else ()
        return Figures(shards=1, shards_done=int(record is not None), bytes=size, summary=summary)
    view = StageView(store, item.dataset, item.split, item.stage, item.key)
    records = view.committed()
    scored, iou, recall50 = _score(view)
    return Figures(
        rows=manifest.rows,
        ok=sum(record.ok for record in records.values()),
        no_object=sum(record.no_object for record in records.values()),
        quarantined=sum(len(record.quarantined) for record in records.values()),
        shards=len(view.shards),
        shards_done=len(records),
        bytes=sum(stored.bytes for record in records.values() for stored in record.objects.values()),
        scored=scored,
        iou=iou,
        recall50=recall50,
    )


def _score(view: StageView) -> tuple[int, float | None, float | None]:
    """Rows that have a first box and ground truth, mean IoU, share of at least 0.5."""
    spec = view.manifest.arrays.get("boxes")
    if spec is None or len(spec.shape) != 2 or spec.shape[1] != 4:
        return 0, None, None
    try:
        table = Index(view.store, view.dataset, view.split, str(view.manifest.index_key)).annotations()
    except (StoreError, FileNotFoundError):
        return 0, None, None
    truth: dict[int, list[tuple[float, ...]]] = {}
    columns = [table.column(name).to_pylist() for name in ("row", "kind", "x0", "y0", "x1", "y1")]
    for row, kind, *box in zip(*columns, strict=True):
        if kind == "box":
            truth.setdefault(row, []).append(tuple(box))
    found: list[float] = []
    for record in view.committed().values():
        boxes, status = (view[name][record.start : record.stop] for name in ("boxes", "status"))
        for row in range(record.start, record.stop):
            first = boxes[row - record.start, 0]
            if row in truth and status[row - record.start] == Status.OK and not np.isnan(first).any():
                found.append(float(iou_matrix(first[None], np.array(truth[row])).max()))
    if not found:
        return 0, None, None
    values = np.array(found)
    return len(found), float(values.mean()), float((values >= 0.5).mean())


def card(about: About, made: Iterable[tuple[StoredResult, Figures]]) -> bytes:
    """The card as Markdown."""
    items = list(made)
    lines = [f"# {text(about.title)}", "", text(about.description), ""]
    lines += ["## What is in it", "", "| split | stage | key | rows | ok | no object | quarantined | shards | MiB |"]
    lines += ["|---|---|---|---:|---:|---:|---:|---:|---:|"]
    for item, known in items:
        cells = [
            item.split or "–", item.stage, item.key, known.rows or "–", known.ok or "–", known.no_object,
            known.quarantined, f"{known.shards_done}/{known.shards}", f"{known.bytes / 2**20:.2f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(text(str(cell)) for cell in cells) + " |")
    lines += ["", "## How it was made", ""]
    for item, known in items:
        if isinstance(item.manifest, StageManifest):
            lines += _making(item.manifest, item, known)
    lines += ["## Quality", ""]
    scored = [(item, known) for item, known in items if known.iou is not None]
    if scored:
        lines += ["| split | stage | rows with ground truth | mean IoU of the first box | IoU at least 0.5 |"]
        lines += ["|---|---|---:|---:|---:|"]
        for item, known in scored:
            lines.append(f"| {item.split} | {item.stage} | {known.scored} | {known.iou:.3f} | {known.recall50:.3f} |")
    else:
        lines.append("No boxes beside ground truth are in this store.")
    lines += ["", "## Licence", "", text(about.licence), "", "## Citation", "", text(about.citation), ""]
    lines += ["## Use", "", f"    wsolpipe pull from={text(about.url) or 'ADDRESS'} dataset={about.dataset}", ""]
    lines += [
        "Without wsolpipe: every `data.zarr` is a Zarr group, every `.parquet` a table (see `croissant.json`).",
        "",
    ]
    lines += ["Every file's sha256 is in `checksums.txt` at the root of the store (`sha256sum -c checksums.txt`).", ""]
    return "\n".join(lines).encode()


def _making(manifest: StageManifest, item: StoredResult, known: Figures) -> list[str]:
    where = f"{manifest.stage} of {item.split}" if item.split else manifest.stage
    lines = [f"### {text(where)}", "", f"Version {manifest.version}, key `{manifest.key}`.", ""]
    for name, value in sorted(manifest.params.items()):
        lines.append(f"- {text(name)}: {text(json.dumps(value))}")
    for weights in manifest.weights:
        lines.append(f"- weights {text(weights.name)}: {text(weights.source)}, sha256 `{text(weights.sha256)}`")
    for array, spec in sorted(manifest.arrays.items()):
        shape = "×".join(map(str, (manifest.rows, *spec.shape)))
        lines.append(f"- array {text(array)}: {spec.dtype} {shape}. {text(spec.meaning)}")
    for name, value in known.summary:
        if isinstance(value, (int, float, str)):
            lines.append(f"- {text(name)}: {text(str(value))}")
    versions = ", ".join(f"{name} {version}" for name, version in sorted(manifest.software.items()))
    return [*lines, *([f"- made with {text(versions)}"] if versions else []), ""]


def text(value: str) -> str:
    """`value` on one line as plain text of Markdown: no tag, link, table cell or code is made by it."""
    plain = html.escape(re.sub(r"\s+", " ", value), quote=False)
    return re.sub(r"([\\`*\[\]|#!~])", r"\\\1", plain)


CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{
        name: f"cr:{name}"
        for name in (
            "citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet",
            "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet",
            "references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField",
            "transform",
        )
    },
}  # fmt: skip
KINDS = {"int": "sc:Integer", "list": "sc:Integer", "float": "sc:Float", "double": "sc:Float", "string": "sc:Text"}
MANIFEST_FIELDS = {"stage": "sc:Text", "key": "sc:Text", "rows": "sc:Integer", "shard_rows": "sc:Integer"}


def croissant(about: About, found: list[StoredResult], checksums: dict[str, str]) -> bytes:
    """The description of one data set, as JSON.

    Parameters
    ----------
    checksums : dict
        Name -> sha256 of every published object.
    """
    files: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for item in found:
        base = item.folder.removeprefix(f"{about.dataset}/")  # the file lies in the data set's folder
        name = "-".join(part for part in (item.split, item.stage, item.key[:8]) if part)
        if isinstance(item.manifest, IndexManifest):
            table = f"{item.folder}/index.parquet"
            files.append(_file(f"{name}-table", f"{base}/index.parquet", checksums[table], "application/x-parquet"))
            said = f"Rows of the split {item.split}."
            records.append(_records(name, said, f"{name}-table", _columns(INDEX_SCHEMA)))
            continue
        manifest = f"{item.folder}/manifest.json"
        files.append(_file(f"{name}-manifest", f"{base}/manifest.json", checksums[manifest], "application/json"))
        files.append(_shards(name, base, item.manifest))
        boxes = f"{item.folder}/{TABLE}"
        if boxes in checksums:
            files.append(_file(f"{name}-boxes-table", f"{base}/{TABLE}", checksums[boxes], "application/x-parquet"))
            said = f"Boxes of {item.stage}, a record a box: half-open, pixels of the original image, rank 0 first."
            records.append(_records(f"{name}-boxes", said, f"{name}-boxes-table", _columns(BOX_SCHEMA)))
        paths = {key: (kind, {"jsonPath": f"$.{key}"}) for key, kind in MANIFEST_FIELDS.items()}
        records.append(_records(f"{name}-made", f"How {item.stage} was made.", f"{name}-manifest", paths))
    described = {
        "@context": CONTEXT, "@type": "sc:Dataset", "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": about.dataset, "description": about.description, "license": about.licence,
        **({"url": about.url} if about.url else {}),
        "version": about.version, "datePublished": about.date, "citeAs": about.citation, "isLiveDataset": False,
        "distribution": files, "recordSet": records,
    }  # fmt: skip
    return (json.dumps(described, indent=1, ensure_ascii=False) + "\n").encode()


def _file(name: str, path: str, sha256: str, kind: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": path, "encodingFormat": kind,
        "sha256": sha256,
    }  # fmt: skip


def _columns(schema: pa.Schema) -> dict[str, tuple[str, dict[str, str]]]:
    """Fields of a record set over a table: type and column by name."""
    return {
        field.name: (next(KINDS[start] for start in KINDS if str(field.type).startswith(start)), {"column": field.name})
        for field in schema
    }


def _shards(name: str, base: str, manifest: StageManifest) -> dict[str, Any]:
    if manifest.kind == "artifact":
        said, includes, kind = f"Files that {manifest.stage} made.", f"{base}/files/*", "application/octet-stream"
    else:
        arrays = "; ".join(
            f"{array}: {spec.dtype} {[manifest.rows, *spec.shape]}, {spec.meaning or 'no description'}"
            for array, spec in sorted(manifest.arrays.items())
        )
        said, includes, kind = f"Zarr v3 group of {arrays}", f"{base}/data.zarr/**", "application/zarr"
    return {
        "@type": "cr:FileSet", "@id": f"{name}-files", "name": f"{name}-files", "description": said,
        "encodingFormat": kind, "includes": includes,
    }  # fmt: skip


def _records(name: str, said: str, file: str, fields: dict[str, tuple[str, dict[str, str]]]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet", "@id": name, "name": name, "description": said,
        "field": [
            {
                "@type": "cr:Field", "@id": f"{name}/{field}", "name": field, "dataType": kind,
                "source": {"fileObject": {"@id": file}, "extract": extract},
                **({"repeated": True} if field == "labels" else {}),
            }
            for field, (kind, extract) in fields.items()
        ],
    }  # fmt: skip
