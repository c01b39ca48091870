"""Keys that commands of the trainer share, and all those of a training."""

from __future__ import annotations

from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key
from wsolpipe.keys.run_keys import DATASET, ROOT, STORE

CHECKPOINT = Key("checkpoint", kinds.file(), "best-….safetensors of a run, or the folder of the run")
DEVICE = Key(
    "device",
    kinds.text("torch device", offers=("cpu", "cuda")),
    "device of the network",
    otherwise="cuda if available",
)
RECIPE = kinds.file("name or YAML file", source="wsoltrain.cli.command:offered_recipes")
TABLE = kinds.file("name or YAML file", source="wsoltrain.cli.command:offered_tables")
STAGE = kinds.name("name of a stage", source="stored stage")
METRIC = kinds.choice("auto", "MaxBoxAcc", "MaxBoxAccV2", "iou", "PxAP")
PLOTS = Key(
    "plots", kinds.file("folder"), "folder to write every chart of the page to: SVG, and PDF and PNG for papers",
    otherwise="none",
)  # fmt: skip
_SPLIT = kinds.name("name of a split", source="split")


def split(name: str, meaning: str, default: str | None) -> Key:
    """Key that names a split."""
    return Key(name, _SPLIT, meaning, default)


CLUSTERS = ("local", "dask-local", "dask-cuda", "slurm", "slurm-array", "tcp://")
SITE_KEYS = (
    Key("cluster", kinds.text("name or tcp://HOST:PORT", offers=CLUSTERS),
        "where trainings run, each as one process or job; cluster.profile=, cluster.profiles= and cluster.FIELD= "
        "choose and change the profile of the site", "local"),
    Key("parallel", kinds.integer(1), "trainings at once", otherwise="one here, one a GPU with dask-cuda, else all"),
)  # fmt: skip
TRAINING = (
    Key("recipe", RECIPE, "recipe: a shipped one, or a YAML file", "dips"),
    DATASET,
    STORE,
    ROOT,
    Key("where", kinds.file("@FILE"), "only the images of split= on this list, which a report saved", otherwise="all"),
    Key("images", kinds.choice("pixels"), "pixels: read images from that stage of the store, not from files"),
    Key("out", kinds.file("folder"), "folder of the run", otherwise="runs/<recipe>-<dataset>"),
    split("split", "split that is trained on", "train"),
    split("val", "split that chooses epoch and threshold", "val"),
    Key(
        "val_rows_per_class", kinds.integer(1), "images of each class of val= that choose, the first ones",
        otherwise="all", unit="images",
    ),
    Key(
        "by", kinds.list_of(kinds.text("annotator", offers=("gt", "cls", "noisy:10"), source="stored stage")),
        "what chooses on validation, the first one decides: stages of boxes or masks (STAGE, NAME:STAGE@KEY), gt, "
        "noisy:PERCENT, cls",
        otherwise="that of the recipe's file, else proposals",
    ),
    Key("metric", METRIC, "figure that chooses epochs; auto: PxAP where truth is masks, else MaxBoxAcc", "auto"),
    Key("gt", kinds.flag(), "evaluate against the ground truth of the validation split as well", False),
    split("test", "split scored against its ground truth after each epoch, for the table of select", None),
    Key(
        "outcomes", kinds.flag(),
        "keep the boxes of all validation maps, some 15 kB an epoch for 100 images, for wsoltrain noise", False,
    ),
    Key("workers", kinds.integer(0), "loader processes of each training process", otherwise="one a core of its share"),
    Key("save_every", kinds.integer(1), "steps between checkpoints", 200, unit="steps"),
    DEVICE,
    Key(
        "track", kinds.list_of(kinds.text("tracker", offers=("jsonl", "tensorboard", "wandb", "mlflow"))),
        "where figures go: jsonl, tensorboard, wandb, mlflow; all but jsonl show pictures and the recipe too",
        ("jsonl",),
    ),
    *SITE_KEYS,
)  # fmt: skip
"""Of ``wsoltrain fit``; commands that train several take most of them too."""
