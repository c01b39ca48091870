"""``wsoltrain predict dataset=``: the predictions of a checkpoint as a stage of the store, made by the engine.

The one place where the trainer starts a run of the pipeline; what a worker does then is in
`wsoltrain.inference.stored`.
"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, show_value
from wsolpipe.keys.run_keys import RUN_KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping

OF_RUNS = (
    "dataset", "store", "split", "root", "limit", "rows", "cluster", "workers", "threads", "shard_rows", "max_failed",
    "force", "lease", "wall_time", "profile", "profiles",
)  # fmt: skip
"""Keys of ``wsolpipe run`` that are passed on as they are."""
KEYS = (
    *(key for key in RUN_KEYS if key.name in OF_RUNS),
    Key(
        "target", kinds.choice("true", "predicted"),
        "with dataset=: class of a class map, the row's label as figures have it or the likeliest", "true",
    ),
    Key(
        "exact", kinds.flag(),
        "with dataset=: keep maps in float32 too, so that figures of the stage are the network's to the digit", True,
    ),
)  # fmt: skip
OWN = frozenset(key.name for key in KEYS)


def predict_dataset(values: Mapping[str, Any], given: Mapping[str, str], *, as_json: bool) -> int:
    """Make the stage ``predictions`` of a data set.

    Parameters
    ----------
    values : mapping
        Of the keys of ``wsoltrain predict``.
    given : mapping of str to str
        The words as they were written.
    as_json : bool
        Whether the result is printed as JSON.

    Returns
    -------
    int
        Exit code, as that of ``wsolpipe run``.

    Raises
    ------
    ConfigError
        If the checkpoint holds no threshold and none is given, or the words contradict the data set.
    """
    import torch

    from wsolpipe.cli.run import run_words
    from wsoltrain.inference.model import load_trained
    from wsoltrain.inference.stored import STAGE

    trained = load_trained(values["checkpoint"], device=torch.device("cpu"))
    tau = values["tau"] if values["tau"] is not None else trained.tau
    if tau is not None and not 0 <= tau < 1:
        msg = f"tau={tau} is not a threshold of a map in 0..1"
        raise ConfigError(msg, hint="tau=0.3, or a checkpoint with one that was chosen on validation")
    size = trained.recipe.size
    with torch.inference_mode():
        unit = trained.model.predict(torch.zeros(1, 3, size, size)).unit
    params = {
        "checkpoint": str(trained.path.absolute()), "tau": tau, "unit": unit, "side": trained.model.frame_side,
        "target": values["target"], "exact": values["exact"], "batch": values["batch"] or trained.recipe.batch,
    }  # fmt: skip
    words = [f"{name}={given[name]}" for name in (*OF_RUNS, "device") if name in given]
    words += [f"stage={STAGE}", *(f"{STAGE}.{name}={show_value(value)}" for name, value in params.items())]
    return run_words(tuple(words), as_json, resume=shlex.join(["wsoltrain", *sys.argv[1:]]))
