"""``wsolpipe eval``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.cli.command import make_command, print_json, print_table

if TYPE_CHECKING:
    from wsolpipe.evaluate.options import Options

PREFERRED_SPLITS = ("test", "val")
CHOICES = {
    "convention": ("standard", "clean"),
    "labels": ("true", "predicted"),
    "metric": ("MaxBoxAcc", "MaxBoxAccV2", "iou", "PxAP"),
    "noise": ("boxes", "masks"),
    "interval": ("true", "false"),
    "normalise": ("true", "false"),
}
TEXTS = ("key", "maps", "against", "tau_from", "tau_split", "tau_maps", "beside")
NUMBERS = ("map", "tau", "resolution")
FILES = ("csv", "plots", "runs", "annotators")
KEYS = (*CHOICES, *TEXTS, *NUMBERS, *FILES)


@make_command("eval", keys=KEYS)
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Score boxes, maps or masks against ground truth or pseudo-labels.

    \b
    stage=S        a stage of boxes (proposals …), of maps (cls_maps …) or of masks (val_masks …)
    maps=FOLDER    instead: score maps as <image_id>.npy or .npz
    dataset=D      as for run, with the same stage.parameter=value words
    split=S[,S…]   default: test, else val, else the first
    map=N          which map of a stage of maps (default 0)
    key=K          which of several results (default: that of the words given, else the newest)
    against=R      truth (default), STAGE or STAGE:KEY of boxes, a localization.txt, a folder of masks
    convention=C   standard (the field's evaluator, default) or clean (half-open boxes, no 8 bits)
    resolution=N   side of the frame with convention=clean (default 224)
    normalise=B    min-max each map (default true); false: maps must lie in 0..1
    labels=L       maps=FOLDER: they are of the true (default) or of the predicted class

    Threshold (maps only); without these words each figure takes its own best, as the field does:

    \b
    tau=T          this one
    tau_from=R     the best one on another split by R, as of against=; ground truth stays closed
    tau_split=S    that split (default val); tau_maps=FOLDER: its maps
    metric=M       best by MaxBoxAcc (default), MaxBoxAccV2, iou or PxAP
    noise=K        what noise in boxes or masks does to the choice, level by level

    More:

    \b
    interval=true  bootstrap intervals
    beside=K       paired test against another key (or folder of maps)
    csv=FILE       the curves
    plots=FOLDER   accuracy against threshold, IoU histogram, precision-recall, as SVG
    runs=FOLDER    instead of all this: the protocol table of a folder of runs
                   (metric=, annotators=gt,rpn,…), one JSON file a run and epoch
    """
    from wsolpipe.engine.config import build_config
    from wsolpipe.keys.values import split_words
    from wsolpipe.stages.registry import load_registry

    given = split_words(words)
    if "runs" in given:
        return _show_protocol(given, as_json)
    config, _ = build_config(words, load_registry(given.get("stages")), also=KEYS)
    options = read_options(given)
    return _score(config, options, given, as_json)


def read_options(given: dict[str, str]) -> Options:
    """Options of the words of this command.

    Raises
    ------
    ConfigError
        For a value that is none of the choices or no number, and for words that contradict each other.
    """
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.contract.nearest import unknown
    from wsolpipe.evaluate.options import Options

    values: dict[str, Any] = {name: given[name] for name in TEXTS if given.get(name)}
    for name, choices in CHOICES.items():
        if name in given:
            if given[name] not in choices:
                raise ConfigError(unknown(name, given[name], choices))
            values[name] = given[name] == "true" if choices == ("true", "false") else given[name]
    for name, low, high, kind in (("map", 0, 10**6, int), ("tau", 0, 1, float), ("resolution", 8, 4096, int)):
        if name in given:
            values["slot" if name == "map" else name] = _number(name, given[name], low, high, kind)
    if "tau" in values and "tau_from" in values:
        msg = "tau= and tau_from= both say where the threshold is from: give one"
        raise ConfigError(msg)
    if values.get("resolution", 224) != 224 and values.get("convention") != "clean":
        msg = "the standard evaluator's frame is 224 pixels wide"
        raise ConfigError(msg, hint="add convention=clean for another resolution")
    return Options(**values)


def _number(name: str, text: str, low: float, high: float, kind: type) -> Any:
    from wsolpipe.contract.errors import ConfigError

    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        words = "a whole number" if kind is int else "a number"
        msg = f"{name}={text}: want {words} from {low} to {high}"
        raise ConfigError(msg)
    return value


def _score(config: Any, options: Options, given: dict[str, str], as_json: bool) -> int:
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.engine.lookup import SessionResults
    from wsolpipe.engine.session import Session
    from wsolpipe.evaluate.evaluation import evaluate
    from wsolpipe.report.curves import write_csv, write_plots

    if (len(config.stage) != 1) == (options.maps is None) or (options.maps is not None and config.stage):
        msg = "eval scores one stage, or one folder of maps"
        raise ConfigError(msg, hint="add stage=…, as in wsolpipe eval stage=proposals dataset=demo, or maps=FOLDER")
    session = Session.open(config, need_root=False)
    known = session.dataset.splits
    splits = config.split or (next((name for name in PREFERRED_SPLITS if name in known), known[0]),)
    stage = config.stage[0] if config.stage else None
    options = replace(options, threads=config.threads or None, seed=config.seed)
    found = [evaluate(SessionResults(session), stage, split, options) for split in splits]
    if given.get("csv"):
        write_csv(Path(given["csv"]), found)
    drawn = [path for item in found for path in write_plots(Path(given["plots"]), item)] if given.get("plots") else []
    results = [{**item.figures, **({"plots": [str(path) for path in drawn]} if drawn else {})} for item in found]
    if as_json:
        print_json(results[0] if len(results) == 1 else results)
    else:
        _show(results)
    return 0


def _show(results: list[dict[str, Any]]) -> None:
    first = results[0]
    hidden = {"stage", "maps", "dataset", "split", "key", "noise", "plots"}
    flat = [_flat({name: value for name, value in result.items() if name not in hidden}) for result in results]
    names = list(dict.fromkeys(name for result in flat for name, value in result.items() if value is not None))
    subject = f"{first['stage']} {first['key']}" if "stage" in first else f"maps {first['maps']}"
    print_table(
        [subject, *(result["split"] for result in results)],
        [[name, *(result.get(name) for result in flat)] for name in names],
    )
    for result in results:
        if result.get("noise"):
            lines = result["noise"]
            print_table(list(lines[0]), [list(line.values()) for line in lines], title=f"noise, {result['split']}")
        for path in result.get("plots", ()):
            print(path)


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Nested figures under joined names; an interval or test in one cell."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if not isinstance(value, dict):
            flat[name] = value
        elif "difference" in value:
            flat[name] = "{difference:+.3f} ({low:+.3f} … {high:+.3f}), p {p:.4f}".format(**value)
        elif "low" in value:
            flat[name] = "{low:.3f} … {high:.3f}".format(**value)
        else:
            flat |= {f"{name} {key}": inner for key, inner in _flat(value).items()}
    return flat


def _show_protocol(given: dict[str, str], as_json: bool) -> int:
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.contract.nearest import unknown
    from wsolpipe.metrics.protocol import protocol_table, read_runs

    legal = ("runs", "metric", "annotators")
    for name in given:
        if name not in legal:
            raise ConfigError(unknown("key", name, legal), hint="with runs= only metric= and annotators= make sense")
    metric: Any = given.get("metric", "MaxBoxAcc")
    runs = read_runs(given["runs"])
    chosen = [name.strip() for name in given["annotators"].split(",")] if given.get("annotators") else None
    table = protocol_table(runs, annotators=chosen, metric=metric)
    if as_json:
        print_json({"runs": len({run.run for run in runs}), "files": len(runs), "metric": metric, "table": table})
        return 0
    names = list(dict.fromkeys(name for cell in table for name in cell if name != "oracle"))
    print_table(
        [*names, ""],
        [[*(cell.get(name) for name in names), "oracle" if cell["oracle"] else "realistic"] for cell in table],
        title=f"{len(runs)} files of runs, chosen by {metric}",
    )
    return 0
