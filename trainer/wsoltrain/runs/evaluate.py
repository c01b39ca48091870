"""A trained localizer scored on a split, beside a centred box, the boxes that it learned from and a stage's maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import RunFailed, WsolError
from wsolpipe.evaluate.glossary import UNITS, format_figure, shown_name
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, keys_of_class
from wsolpipe.keys.run_keys import DATASET, ROOT, STORE, store_of
from wsoltrain.runs.settle import A_SPLIT, CHECKPOINT, DEVICE, STAGE, loader_count

if TYPE_CHECKING:
    from wsolpipe.contract.reader import StageView
    from wsolpipe.evaluate.scored import Chooser, Rule, Scored


class _Keys:
    """Keys of ``wsoltrain eval``.

    Attributes
    ----------
    split
        split to score
    against
        what counts as true: gt; first boxes or masks of a stage; a localization.txt; a folder of masks
    beside
        stage whose first boxes are scored beside; auto: those that the localizer learned from, else proposals if made
    maps
        stage whose maps are scored beside, at the threshold chosen on val and at their best; auto: those that the
        localizer learned from
    val
        split on which the threshold of these maps is chosen, by the annotator of the run
    must_beat
        exit with 1 unless the localizer beats all that is beside it
    classifier
        for Top-1 and Top-5 figures, the classes by another network: the scoring classifier of the store, which reads
        the images, or a stage that holds classes, as predictions
    corloc
        CorLoc, pooled and by class: at one threshold, or (an oracle) at each class's own best
    tau
        threshold
    otsu
        score boxes at each map's own Otsu threshold as well, which no split chooses; always of a run chosen by cls
    workers
        loader processes
    """

    checkpoint = CHECKPOINT
    dataset = DATASET
    store = STORE
    root = ROOT
    split = Key(A_SPLIT, "test")
    against = Key(kinds.file("gt, name of a stage, file or folder", offers=("gt",), source="stored stage"), "gt")
    beside = Key(kinds.or_null(STAGE), "auto")
    maps = Key(kinds.or_null(STAGE), "auto")
    val = Key(A_SPLIT, "val")
    must_beat = Key(kinds.flag(), False)
    classifier = Key(
        kinds.text("classifier, STAGE or either with :KEY"), otherwise="the localizer's own, where it classifies"
    )
    corloc = Key(kinds.choice("pooled", "class"))
    tau = Key(kinds.number(0, 1), otherwise="chosen on validation, from the checkpoint")
    otsu = Key(kinds.flag(), False)
    workers = Key(kinds.integer(0), otherwise="one a core")
    device = DEVICE


KEYS = keys_of_class(_Keys)
#: Paired tests are made up to this many rows, since each keeps 10 kB for them.
PAIRED_ROWS = 20_000
#: Fields of `wsolpipe.evaluate.scored.Line`, and what the glossary calls them.
COLUMNS = {
    "accuracy": "MaxBoxAcc", "v2": "MaxBoxAccV2", "pxap": "PxAP", "top1": "top1_loc", "top5": "top5_loc",
    "accuracy_top1": "CL", "iou": "iou", "rows": "rows",
}  # fmt: skip


def evaluate(values: Mapping[str, Any]) -> dict[str, Any]:
    """Score a localizer as `KEYS` say; its figures, the table that compares it, and whether it beats the others.

    Raises
    ------
    WsolError
        If weights, stages or truth are missing or do not fit.
    """
    import torch

    from wsolpipe.contract.errors import cores
    from wsolpipe.evaluate.results import StoreResults, find_ranks
    from wsolpipe.evaluate.scored import BEST, OTSU, score_beside
    from wsolpipe.images.dataset import load_dataset
    from wsolpipe.networks.devices import choose_device
    from wsoltrain.data.config import Labelling
    from wsoltrain.runs.score import choose_by, finished, open_run
    from wsoltrain.training.annotators import CLS

    device = torch.device(choose_device(values["device"]))
    dataset = load_dataset(values["dataset"], root=values["root"])
    store, name, against = store_of(values["store"]), values["split"], values["against"]
    results = StoreResults(store, dataset.name, dataset.mask_root())
    opened = open_run(
        values["checkpoint"], Labelling(store, dataset.name, name, maps=None, boxes=None), str(dataset.image_root()),
        device=device, workers=loader_count(values["workers"]), masks=dataset.mask_root(), against=against,
    )  # fmt: skip
    truth, by = opened.truth, opened.trained.annotator or "proposals"
    reads = opened.trained.recipe.reads()

    def beside_of(key: str, *learned: str | None) -> StageView | None:
        """Return the stage that a key names; of ``auto``, the first finished one of those learned from."""
        if values[key] != "auto":
            return results.view(values[key], name) if values[key] else None
        return next(filter(None, (finished(results, each, name) for each in learned if each)), None)

    boxes, shown = beside_of("beside", reads.boxes, "proposals"), beside_of("maps", reads.maps)
    tau = values["tau"] if values["tau"] is not None else opened.trained.tau
    unchosen = by == CLS and tau is None  # boxes are those of each map's own Otsu threshold
    at_otsu = (values["otsu"] or unchosen) and bool(truth.found)
    keep = len(truth.rows) <= PAIRED_ROWS
    choosers: list[Chooser] = []
    if shown is not None and by != CLS:
        with suppress(WsolError) if values["maps"] == "auto" else nullcontext():  # nobody asked for these maps
            choosers = [choose_by(results, shown, by, values["val"])]
    rules: tuple[Rule, ...] = (*choosers, BEST, *([OTSU] if at_otsu else []))
    beside = score_beside(truth, boxes=[boxes] if boxes else [], maps=shown, rules=rules, keep=keep)
    ranks = None
    if values["classifier"]:
        ranks = find_ranks(
            results, values["classifier"], truth.rows, dataset.image_root, device=str(device), threads=cores()
        )
    rule = BEST if unchosen else opened.rule(values["tau"])
    scored = opened.score(
        rule, name="localizer", beside=beside, ranks=ranks, details=False, classes=bool(values["corloc"]), keep=keep,
        more=("errors", "values", *(["otsu"] if at_otsu else [])),
    ).scored  # fmt: skip
    figures = scored.figures()
    if values["corloc"] == "class" and "CorLoc" in figures and scored.maps is not None:
        figures["CorLoc"] = scored.maps.boxes.corloc(class_oracle=True)
    otsu = scored.at(OTSU) if at_otsu else None
    table = [*beside, scored, *([otsu] if otsu else [])]
    single = otsu.single if otsu else None
    judged = otsu if otsu and unchosen else scored
    return {
        "checkpoint": str(opened.trained.path),
        "split": name,
        "against": against,
        "classifier": None if ranks is None else ranks.name,
        "tau_from": "given" if values["tau"] is not None else "these very images" if tau is None else "validation",
        "oracle": rule.oracle,
        "localizer": figures,
        "otsu": None if single is None else single.figures,
        "beside": boxes and boxes.stage,
        "boxes": beside[-1].figures() if boxes and truth.found else None,
        "table": [asdict(each.line()) for each in table],
        "beats": judged.beats(),
        "paired": paired(judged) if keep else {},
    }


def paired(judged: Scored) -> dict[str, dict[str, Any]]:
    """Return the paired test of MaxBoxAcc, or PxAP without boxes, against each beside; none with oracle thresholds."""
    found: dict[str, dict[str, Any]] = {}
    for other in judged.beside:
        if not judged.threshold.oracle and not other.threshold.oracle and other.name not in found:
            tests = judged.tests(other, "MaxBoxAcc") or judged.tests(other, "PxAP")
            found |= {other.name: {"figure": figure, **test} for figure, test in tests.items()}  # noqa: B035 - one test
    return found


def describe(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of text that show a result."""
    yield f"{result['split']}, {result['table'][-1]['rows']} rows against {result['against']}:"
    yield from format_lines(result["table"])
    errors, corloc = result["localizer"].get("errors"), result["localizer"].get("CorLoc")
    if errors:
        named = (f"{name} {100 * errors[name]:.1f}" for name in ("LPE", "LME", "MIE", "wrong class"))
        yield f"  errors of the localizer, per cent of rows: {', '.join(named)}"
    if corloc:
        at = "each class's own best threshold, an oracle" if corloc["oracle"] else f"threshold {corloc['tau']:.3f}"
        yield f"  CorLoc {corloc['pooled']:.1f}, mean of classes {corloc['mean']:.1f}, at {at}"
        yield from (f"    class {label}: {value:.1f}" for label, value in corloc["per_class"].items())
    yield UNITS
    if result["beats"]:
        figures = "PxAP and pixel IoU" if result["localizer"].get("MaxBoxAcc") is None else "MaxBoxAccV2 and mean IoU"
        yield f"by {figures} at every threshold above{', and the paired difference' if result['paired'] else ''}:"
    for name, better in result["beats"].items():
        yield f"the localizer {'beats' if better else 'does NOT beat'} {name}{_difference(result['paired'].get(name))}"


def _difference(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return ""
    interval = f"[{test['low']:.1f}, {test['high']:.1f}]"
    return f": {test['figure']} {test['difference']:+.1f} {interval}, p {test['p']:.3f}"


def refuse_worse(result: Mapping[str, Any]) -> None:
    """Raise RunFailed where the localizer does not beat all that is beside it."""
    worse = [name for name, better in result["beats"].items() if not better]
    if worse:
        msg = f"the localizer of {result['checkpoint']} does not beat {' and '.join(worse)} on {result['split']}"
        raise RunFailed(msg, hint="more epochs, or another recipe; wsoltrain select shows every epoch")


def align(table: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table whose first line holds the titles; all of one number of cells."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def format_lines(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of methods as text; columns without a figure are left out."""
    columns = {name: figure for name, figure in COLUMNS.items() if any(line[name] is not None for line in lines)}
    cells = [["", *(shown_name(figure) for figure in columns.values()), "threshold"]]
    for line in lines:
        values = ((figure, line[name]) for name, figure in columns.items())
        figures = ["" if value is None else str(format_figure(figure, value)) for figure, value in values]
        cells.append([line["name"], *figures, line["threshold"]])
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns) + 1)]
    shown = []
    for first, *figures, threshold in cells:
        padded = "  ".join(f"{text:>{width}}" for text, width in zip(figures, widths[1:], strict=True))
        shown.append(f"  {first:<{widths[0]}}  {padded}  {threshold}".rstrip())
    return shown
