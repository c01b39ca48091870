"""What six programs make of a published store, run by a Python that has no wsolpipe; prints one JSON object.

python outside.py STORE/DATASET/SPLIT MAPS_STAGE BOXES_STAGE
"""

import importlib.util
import json
import sys
from pathlib import Path

import dask.array
import duckdb
import pandas as pd
import polars as pl
import xarray as xr
import zarr


def main(split, maps_stage, boxes_stage):
    assert importlib.util.find_spec("wsolpipe") is None
    (maps,) = Path(split, maps_stage).glob("*/data.zarr")
    (boxes,) = Path(split, boxes_stage).glob("*/data.zarr")
    (index,) = Path(split, "index").glob("*/index.parquet")
    table = str(boxes.parent / "boxes.parquet")
    found = {}

    group = zarr.open(maps, mode="r")
    found["zarr"] = {
        "arrays": sorted(group.array_keys()), "consolidated": group.metadata.consolidated_metadata is not None,
        "attributes": dict(group.attrs), "sum": int(group["maps"][:].sum()), "said": dict(group["maps"].attrs),
    }  # fmt: skip

    opened = xr.open_zarr(maps, consolidated=True, chunks=None)
    found["xarray"] = {
        "sizes": dict(opened.sizes), "dims": {name: list(item.dims) for name, item in opened.items()},
        "first": opened["maps"].isel(row=0).mean(dim=("y", "x")).values.tolist(),
    }  # fmt: skip
    of_boxes = xr.open_zarr(boxes, consolidated=True, chunks=None)
    widths = of_boxes["boxes"].isel(edge=2) - of_boxes["boxes"].isel(edge=0)
    found["xarray"]["widths"] = float(widths.where(of_boxes["status"] == 1).sum())

    lazy = dask.array.from_zarr(str(boxes), component="boxes")
    found["dask"] = {"shape": list(lazy.shape), "widths": float(dask.array.nansum(lazy[..., 2] - lazy[..., 0]))}

    frame = pd.read_parquet(table)
    found["pandas"] = {
        "columns": list(frame.columns), "rows": len(frame), "widths": float((frame.x1 - frame.x0).sum()),
        "best": frame[frame["rank"] == 0].image_id.tolist(),
    }  # fmt: skip

    polar = pl.read_parquet(index).join(pl.read_parquet(table), on="row", how="left")
    counted = polar.group_by("row").agg(pl.col("x0").count().alias("boxes")).sort("row")
    found["polars"] = {"labels": pl.read_parquet(index)["labels"].to_list(), "boxes": counted["boxes"].to_list()}

    query = (
        "SELECT i.sha256, b.name FROM read_parquet(?) i JOIN read_parquet(?) b USING (row) WHERE rank = 0 ORDER BY row"
    )
    found["duckdb"] = [list(line) for line in duckdb.execute(query, [str(index), table]).fetchall()]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
