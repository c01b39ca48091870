"""Keys of a run; `plan`, `status` and the other commands of the pipeline know them too."""

from __future__ import annotations

from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key

DEFAULT_STORE = "wsol-store"
STORE_OTHERWISE = f"$WSOLPIPE_STORE, else {DEFAULT_STORE}"


STAGE = Key("stage", kinds.list_of(kinds.name("name of a stage", source="stage")), "stages to make or to look at", ())
DATASET = Key("dataset", kinds.file("name or YAML file", source="dataset"), "data set: a name in data/, or a YAML file")
STORE = Key("store", kinds.filled(kinds.file(kinds.STORE)), "where labels are kept", otherwise=STORE_OTHERWISE)
_SPLITS = kinds.filled(kinds.list_of(kinds.name("name of a split", source="split")))
SPLIT = Key("split", _SPLITS, "splits to work on", (), otherwise="all splits")
ROOT = Key("root", kinds.file("folder"), "folder of the image files, instead of the one in the YAML")
ROWS = Key("rows", kinds.text("start:stop"), "only these rows of each split, from 0, stop left out", unit="rows")
WIDE = Key("wide", kinds.flag(), "show tables whole, also on a narrow terminal", False)

RUN_KEYS = (
    STAGE,
    DATASET,
    STORE,
    SPLIT,
    ROOT,
    Key("limit", kinds.or_null(kinds.integer(1)), "only the first rows of each split", unit="rows"),
    ROWS,
    Key(
        "cluster", kinds.text("name or tcp://HOST:PORT", offers=("tcp://", "tls://"), source="cluster"),
        "where work runs", "local",
    ),
    Key("workers", kinds.integer(1), "processes or jobs that work at once", 1),
    Key("device", kinds.text("torch device", offers=("auto", "cpu", "cuda")), "device of the networks", "auto"),
    Key("devices", kinds.list_of(kinds.text("number")), "GPUs of cluster=dask-cuda", (), otherwise="all visible"),
    Key("threads", kinds.integer(0), "threads that decode images ahead of a network; 0: as many as the cores allow", 0),
    Key(
        "shard_rows", kinds.or_null(kinds.integer(1)), "rows a shard, fixed by the first run",
        otherwise="4096, of refine 1024",
    ),
    Key(
        "max_failed", kinds.number(0),
        "quarantined rows that a stage may have: up to 1 a share of its rows (at least 20), above 1 a number", 0.05,
    ),
    Key("force", kinds.flag(), "make again what is already done", False),
    Key("seed", kinds.integer(0), "seed of random draws that stages leave to the run", 0),
    Key("stages", kinds.file("YAML file"), "file of your own stages"),
    Key("retries", kinds.integer(0), "further tries of a shard that failed", 2),
    Key("lease", kinds.number(0.1), "time after which a silent worker's shard is taken over", 60.0, unit="seconds"),
    Key("checkpoint", kinds.number(0), "time between checkpoints inside a shard", 30.0, unit="seconds"),
    Key(
        "wall_time", kinds.or_null(kinds.number(0)), "time after which workers begin no further shard", unit="seconds",
        otherwise="that of the job, if any",
    ),
    Key("profile", kinds.text("name"), "cluster profile to use", otherwise="the default of the file"),
    Key(
        "profiles", kinds.file("YAML file"), "file of cluster profiles",
        otherwise="$WSOLPIPE_PROFILES, else ~/.config/wsolpipe/profiles.yaml",
    ),
    Key("print", kinds.flag(), "show what would be submitted, and submit nothing", False),
    Key("log", kinds.file("file"), "append lines about the run to this file, with the time", None),
    WIDE,
    Key("wait", kinds.flag(), "stay until submitted jobs end", True),
)  # fmt: skip
