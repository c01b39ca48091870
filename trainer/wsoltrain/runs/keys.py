"""Keys that commands of the trainer share, and all those of a training."""

from __future__ import annotations

from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, keys_of_class
from wsolpipe.keys.run_keys import DATASET, ROOT, STORE


class _SharedKeys:
    """Keys that several commands have.

    Attributes
    ----------
    checkpoint
        best-….safetensors of a run, or the folder of the run
    device
        device of the network
    plots
        folder to write every chart of the page to: SVG, PDF and PNG for papers, and CSV; compare adds its table as
        LaTeX and CSV
    """

    checkpoint = Key(kinds.file())
    device = Key(kinds.text("torch device", offers=("cpu", "cuda")), otherwise="cuda if available")
    plots = Key(kinds.file("folder"), otherwise="none")


CHECKPOINT, DEVICE, PLOTS = keys_of_class(_SharedKeys)
RECIPE = kinds.file("name or YAML file", source="wsoltrain.cli.command:offered_recipes")
TABLE = kinds.file("name or YAML file", source="wsoltrain.cli.command:offered_tables")
STAGE = kinds.name("name of a stage", source="stored stage")
METRIC = kinds.choice("auto", "MaxBoxAcc", "MaxBoxAccV2", "iou", "PxAP")
A_SPLIT = kinds.name("name of a split", source="split")


CLUSTERS = ("local", "dask-local", "dask-cuda", "slurm", "slurm-array", "tcp://")


class _SiteKeys:
    """Keys that say where trainings run.

    Attributes
    ----------
    **Machines and jobs**
    cluster
        where trainings run, each as one process or job; cluster.profile=, cluster.profiles= and cluster.FIELD= choose
        and change the profile of the site
    parallel
        trainings at once
    """

    cluster = Key(kinds.text("name or tcp://HOST:PORT", offers=CLUSTERS), "local")
    parallel = Key(kinds.integer(1), otherwise="one here, one a GPU with dask-cuda, else all")


SITE_KEYS = keys_of_class(_SiteKeys)


class _TrainingKeys:
    """Keys of a training.

    Attributes
    ----------
    **Recipe, data and labels**
    recipe
        recipe: a shipped one, or a YAML file
    dataset, store, root
    where
        only the images of split= on this list, which a report saved
    images
        pixels: read images from that stage of the store, not from files
    split
        split that is trained on
    **Evaluation, and what chooses the epoch**
    val
        split that chooses epoch and threshold
    val_rows_per_class
        images of each class of val= that choose, the first ones
    by
        what chooses on validation, the first one decides: stages of boxes or masks (STAGE, NAME:STAGE@KEY), gt,
        noisy:PERCENT, cls
    metric
        figure that chooses epochs; auto: PxAP where truth is masks, else MaxBoxAcc
    gt
        evaluate against the ground truth of the validation split as well
    test
        split scored against its ground truth after each epoch, for the table of select
    outcomes
        keep the boxes of all validation maps, some 15 kB an epoch for 100 images, for wsoltrain noise
    **Folder and figures of the run**
    out
        folder of the run
    save_every
        steps between checkpoints
    track
        where figures go: jsonl, tensorboard, wandb, mlflow; all but jsonl show pictures and the recipe too
    **Machines and jobs**
    workers
        loader processes of each training process
    device
    """

    recipe = Key(RECIPE, "dips")
    dataset = DATASET
    store = STORE
    root = ROOT
    where = Key(kinds.file("@FILE"), otherwise="all")
    images = Key(kinds.choice("pixels"))
    out = Key(kinds.file("folder"), otherwise="runs/<recipe>-<dataset>")
    split = Key(A_SPLIT, "train")
    val = Key(A_SPLIT, "val")
    val_rows_per_class = Key(kinds.integer(1), unit="images", otherwise="all")
    by = Key(
        kinds.list_of(kinds.text("annotator", offers=("gt", "cls", "noisy:10"), source="stored stage")),
        otherwise="that of the recipe's file, else proposals",
    )
    metric = Key(METRIC, "auto")
    gt = Key(kinds.flag(), False)
    test = Key(A_SPLIT)
    outcomes = Key(kinds.flag(), False)
    workers = Key(kinds.integer(0), otherwise="one a core of its share")
    save_every = Key(kinds.integer(1), 200, unit="steps")
    device = DEVICE
    track = Key(kinds.list_of(kinds.text("tracker", offers=("jsonl", "tensorboard", "wandb", "mlflow"))), ("jsonl",))


#: Of ``wsoltrain fit``; commands that train several take most of them too.
TRAINING = (*keys_of_class(_TrainingKeys), *SITE_KEYS)
