"""``croissant.json``: the published data set in the vocabulary that dataset search engines and loaders read.

Croissant 1.0 (https://docs.mlcommons.org/croissant/docs/croissant-spec.html). It has no words for Zarr yet: each stage
is a FileSet of its shard objects, its manifest a RecordSet, and the rows of a split the columns of its Parquet index.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.manifest import IndexManifest, StageManifest

if TYPE_CHECKING:
    from wsolpipe.share.about import About
    from wsolpipe.share.selection import Found

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
INDEX_FIELDS = {
    "row": "sc:Integer", "image_id": "sc:Text", "path": "sc:Text", "width": "sc:Integer", "height": "sc:Integer",
    "sha256": "sc:Text",
}  # fmt: skip
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
            fields = {column: (kind, {"column": column}) for column, kind in INDEX_FIELDS.items()}
            records.append(_records(name, f"Rows of the split {item.split}.", f"{name}-table", fields))
            continue
        manifest = f"{item.folder}/manifest.json"
        files.append(_file(f"{name}-manifest", f"{base}/manifest.json", checksums[manifest], "application/json"))
        files.append(_shards(name, base, item.manifest))
        paths = {key: (kind, {"jsonPath": f"$.{key}"}) for key, kind in MANIFEST_FIELDS.items()}
        records.append(_records(f"{name}-made", f"How {item.stage} was made.", f"{name}-manifest", paths))
    described = {
        "@context": CONTEXT, "@type": "sc:Dataset", "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": about.dataset, "description": about.description, "license": about.licence, "url": about.url,
        "version": about.version, "datePublished": about.date, "citeAs": about.citation, "isLiveDataset": False,
        "distribution": files, "recordSet": records,
    }  # fmt: skip
    return (json.dumps(described, indent=1, ensure_ascii=False) + "\n").encode()


def _file(name: str, path: str, sha256: str, kind: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": path, "encodingFormat": kind,
        "sha256": sha256,
    }  # fmt: skip


def _shards(name: str, base: str, manifest: StageManifest) -> dict[str, Any]:
    if manifest.kind == "artifact":
        said, includes, kind = f"Files that {manifest.stage} made.", f"{base}/files/*", "application/octet-stream"
    else:
        arrays = "; ".join(
            f"{array}: {spec.dtype} {[manifest.rows, *spec.shape]}, {spec.meaning or 'no description'}"
            for array, spec in sorted(manifest.arrays.items())
        )
        said, includes, kind = f"Zarr v3 shards of {arrays}", f"{base}/data.zarr/*/c/**", "application/zarr"
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
            }
            for field, (kind, extract) in fields.items()
        ],
    }  # fmt: skip
