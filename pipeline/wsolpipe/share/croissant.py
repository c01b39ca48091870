"""``croissant.json``: the published data set in the vocabulary that dataset search engines and loaders read.

Croissant 1.0 (https://docs.mlcommons.org/croissant/docs/croissant-spec.html). It has no words for Zarr yet: each stage
is a FileSet of its Zarr group, its manifest a RecordSet; the rows of a split and the boxes of a stage are RecordSets of
Parquet tables.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.box_table import BOX_SCHEMA, TABLE
from wsolpipe.contract.manifest import IndexManifest, StageManifest
from wsolpipe.images.index_tables import INDEX_SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa

    from wsolpipe.share.about import About
    from wsolpipe.share.found import Found

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


def croissant(about: About, found: list[Found], checksums: dict[str, str]) -> bytes:
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
