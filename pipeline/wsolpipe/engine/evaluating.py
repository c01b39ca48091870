"""Scoring for ``wsolpipe eval``: its keys, and the evaluation of a stage or of a folder of maps that they ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError
from wsolpipe.evaluate.figures import FIGURES
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, keys_of_class
from wsolpipe.keys.run_keys import SPLIT, RunConfig, read_row_list
from wsolpipe.keys.words import split_words

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from wsolpipe.engine.session import Session
    from wsolpipe.evaluate.evaluation import Evaluated, Options

PREFERRED_SPLITS = ("test", "val")
SCORED_SPLIT = replace(SPLIT, meaning="splits to score", otherwise="test, else val, else the first")


class _SubjectKeys:
    """Keys of ``wsolpipe eval`` that say what is scored, and against what.

    Attributes
    ----------
    **What is scored, against what**
    maps
        score maps <image_id>.npy or .npz, instead of a stage
    map
        which map of a stage of maps
    select
        instead of map=: of each image the map inside whose Otsu mask, with the rest blurred, the classifier sees the
        class best; reads the images
    key
        result to use
    against
        what counts as right: ground truth, boxes of a stage or of a file, or masks
    convention
        standard: as the field's evaluator; clean: half-open boxes, maps not rounded to 8 bits
    resolution
        side of the frame of maps, boxes and masks; some papers take 256
    rows
        only the images of this list, which a report saved
    normalise
        min-max each map; false: maps must lie in 0 to 1
    labels
        with maps=: the class that they are of; with select=: the class whose posterior chooses
    """

    maps = Key(kinds.file("folder"))
    map = Key(kinds.integer(0), 0)
    select = Key(kinds.text("classifier or classifier:KEY"))
    key = Key(kinds.text("beginning of a key"), otherwise="that of the arguments given, else the newest")
    against = Key(
        kinds.file("truth, STAGE, STAGE:KEY, localization.txt or folder of masks", offers=("truth",)), "truth"
    )
    convention = Key(kinds.choice("standard", "clean"), "standard")
    resolution = Key(kinds.integer(8, 4096), 224, unit="pixels")
    rows = Key(kinds.file("@FILE"), otherwise="all")
    normalise = Key(kinds.flag(), True)
    labels = Key(kinds.choice("true", "predicted"), "true")


SUBJECT = keys_of_class(_SubjectKeys)


class _ThresholdKeys:
    """Keys of ``wsolpipe eval`` that choose the threshold.

    Attributes
    ----------
    **The threshold**
    tau
        this threshold, or otsu: each map's own
    tau_from
        the best threshold on another split against these, as in against=; ground truth is not read
    tau_split
        that split
    tau_maps
        with maps=: the maps of that split
    metric
        what chooses the best threshold, with runs= models too; all: by the default, every figure shown
    classifier
        for Top-1 and Top-5 figures of maps, the classes by another network: the scoring classifier, which reads the
        images, or a stage that holds classes, as predictions
    noise
        what noise in boxes or masks does to the choice, level by level
    """

    tau = Key(kinds.number_or("otsu", 0, 1))
    tau_from = Key(kinds.file("STAGE, STAGE:KEY, localization.txt or folder of masks"))
    tau_split = Key(kinds.name("name of a split", source="split"), "val")
    tau_maps = Key(kinds.file("folder"))
    metric = Key(kinds.choice("MaxBoxAcc", "MaxBoxAccV2", "iou", "PxAP", "all"), otherwise="MaxBoxAcc, PxAP of masks")
    classifier = Key(
        kinds.text("classifier, STAGE or either with :KEY"),
        otherwise="those of the network that made the maps, where it has any",
    )
    noise = Key(kinds.choice("boxes", "masks"))


THRESHOLD = keys_of_class(_ThresholdKeys)


class _MoreKeys:
    """Keys of ``wsolpipe eval`` that say what is shown and written.

    Attributes
    ----------
    **What is shown and written**
    figures
        figures of maps beside MaxBoxAcc, IoU and PxAP
    corloc
        CorLoc of maps, pooled and by class: at one threshold, or (an oracle) at each class's own best
    interval
        bootstrap intervals
    beside
        result to compare with, in a paired test
    csv
        file to write the curves to
    plots
        folder to write charts to: SVG, PDF and PNG of accuracy, IoU, precision
    details
        every figure, not only the first ones beside a centred box
    glossary
        instead of all this: what each figure means
    runs
        instead of all this: the protocol tables of these runs, one folder a method, with metric= and annotators=
    annotators
        with runs=: annotators to show
    rule
        with runs=: thesis: each BT cell takes its own best run, and IoU-30, 50 and 70 are of the largest contour, each
        at a threshold of its own; single: one run, one threshold, all contours
    """

    figures = Key(kinds.list_of(kinds.choice(*FIGURES.names())), otherwise="all")
    corloc = Key(kinds.choice("pooled", "class"))
    interval = Key(kinds.flag(), False)
    beside = Key(kinds.file("beginning of a key, STAGE, STAGE:KEY, or folder of maps"))
    csv = Key(kinds.file())
    plots = Key(kinds.file("folder"))
    details = Key(kinds.flag(), False)
    glossary = Key(kinds.flag(), False)
    runs = Key(kinds.list_of(kinds.file("folder")))
    annotators = Key(kinds.list_of(kinds.text("name")), (), otherwise="all")
    rule = Key(kinds.choice("thesis", "single"), "thesis")


MORE = keys_of_class(_MoreKeys)
KEYS = (*SUBJECT, *THRESHOLD, *MORE)


def read_options(own: dict[str, Any], given: Container[str]) -> Options:
    """Options of the values of this command's keys; `given` holds the names of those that were given.

    Raises
    ------
    ConfigError
        For words that contradict each other.
    """
    from wsolpipe.evaluate.evaluation import Options

    if own["metric"] == "all":
        msg = "metric=all shows the figures of runs, and there are none"
        raise ConfigError(msg, hint="runs=FOLDER metric=all, or one metric")
    if own["tau"] is not None and own["tau_from"]:
        msg = "tau= and tau_from= both say where the threshold is from: give one"
        raise ConfigError(msg)
    if own["select"] and ("map" in given or own["maps"]):
        msg = f"select= and {'map' if 'map' in given else 'maps'}= both say which map: give one"
        raise ConfigError(msg)
    fields = {key.name for key in KEYS} & Options.__dataclass_fields__.keys() - {"rows"}
    values = {name: own[name] for name in fields if name in given and own[name] is not None}
    if own["rows"]:
        values["rows"] = read_row_list(own["rows"])
    return Options(**values, **({"slot": own["map"]} if "map" in given else {}))


def open_evaluation(config: RunConfig, own: Mapping[str, Any]) -> Session:
    """Open the session of an evaluation.

    Parameters
    ----------
    config : RunConfig
        Of the command's words.
    own : mapping
        Values of `KEYS`.

    Raises
    ------
    ConfigError
        If not one stage, or one folder of maps, is named; as `Session.open`.
    """
    from wsolpipe.engine.session import Session
    from wsolpipe.evaluate.results import CLASSIFIER

    if (len(config.stage) != 1) == (own["maps"] is None) or (own["maps"] is not None and config.stage):
        msg = "eval scores one stage, or one folder of maps"
        raise ConfigError(msg, hint="add stage=…, as in wsolpipe eval stage=proposals dataset=demo, or maps=FOLDER")
    reads_images = bool(own["select"]) or (own["classifier"] or "").partition(":")[0] == CLASSIFIER
    return Session.open(config, need_root=reads_images)


def evaluate_splits(session: Session, options: Options, own: Mapping[str, Any]) -> list[Evaluated]:
    """Score a stage or a folder of maps on each split that is asked for; else on test, val or the first.

    Raises
    ------
    WsolError
        As `wsolpipe.evaluate.evaluation.evaluate`.
    """
    from wsolpipe.engine.chosen_maps import SessionResults, choose_by
    from wsolpipe.evaluate.evaluation import evaluate
    from wsolpipe.evaluate.results import find_ranks

    config, known, results = session.config, session.dataset.splits, SessionResults(session)
    splits = config.split or (next((name for name in PREFERRED_SPLITS if name in known), known[0]),)
    options = replace(options, threads=config.threads or None, seed=config.seed)
    if own["select"]:
        options = replace(options, source=choose_by(session, own["select"], options.labels))
    if own["classifier"] is not None:
        device, threads, root = session.device(), session.threads(), session.dataset.image_root
        options = replace(
            options,
            ranks=lambda rows: find_ranks(results, own["classifier"], rows, root, device=device, threads=threads),
        )
    return [evaluate(results, config.stage[0] if config.stage else None, split, options) for split in splits]


def evaluate_words(words: Iterable[str]) -> list[Evaluated]:
    """Score what the words of ``wsolpipe eval`` name; raises as `open_evaluation` and `evaluate_splits`."""
    from wsolpipe.engine.config import build_config
    from wsolpipe.stages.registry import load_registry

    words = tuple(words)
    given = split_words(words)
    config, own = build_config(words, load_registry(given.get("stages")), also=KEYS)
    return evaluate_splits(open_evaluation(config, own), read_options(own, given), own)
