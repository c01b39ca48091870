"""The page of runs, ``wsoltrain report``: what was chosen, curves, and rows of the chosen run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, WsolError
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key
from wsoltrain.runs import choice
from wsoltrain.runs.keys import DEVICE, PLOTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.pages.gallery import Gallery

KEYS = (
    *choice.KEYS,
    Key("shown", kinds.integer(0), "rows of validation, and as many of training, on the page; 0 for none", 24),
    Key(
        "root", kinds.file("folder"), "folder of the image files, if they are no longer where they were",
        otherwise="that of the training",
    ),
    DEVICE,
    Key("out", kinds.file("file that ends in .html", ending=".html"), "file to write", otherwise="<runs>/report.html"),
    PLOTS,
)  # fmt: skip


def report(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Write the page as `KEYS` say; the choice and the files, and lines of text.

    Raises
    ------
    ConfigError
        If the page cannot be written.
    """
    from wsolpipe.pages.charts import save_plots
    from wsoltrain.pages.run_page import page_plots, write_run_page

    folder = Path(values["runs"])
    found = choice.choose_run(folder, values["by"], values["metric"])
    chosen = found.choice
    out = Path(values["out"] or folder / "report.html")
    rows = _rows(folder, chosen.run.run, found.by, values) if values["shown"] else ""
    plots = page_plots(folder, found.runs, chosen, by=found.by, metric=found.metric)
    try:
        write_run_page(out, plots, found.runs, chosen, by=found.by, metric=found.metric, rows=rows)
    except OSError as error:
        msg = f"cannot write {out}: {error.strerror}"
        raise ConfigError(msg, hint="choose another place with out=FILE.html") from error
    files = [str(path) for path in save_plots(Path(values["plots"]), plots)] if values["plots"] else []
    told = {"page": str(out), "by": found.by, "run": chosen.run.run, "epoch": chosen.run.epoch, "tau": chosen.tau}
    notes = [f"  note: rows are not shown: {rows}"] if isinstance(rows, str) and rows else []
    lines = [f"{out}: {chosen.run.name}, chosen by {found.by} of {len(found.runs)} epochs", *notes, *files]
    return {**told, **({"plots": files} if files else {})}, lines


def _rows(folder: Path, name: str, by: str, values: Mapping[str, Any]) -> Gallery | str:
    """Return rows of the chosen run, or why they cannot be shown."""
    import torch

    from wsolpipe.networks.devices import choose_device
    from wsoltrain.inference.model import load_trained
    from wsoltrain.pages.run_page import find_run
    from wsoltrain.pages.run_rows import find_place, run_gallery
    from wsoltrain.training.annotators import read_annotators

    device = torch.device(choose_device(values["device"]))
    run = find_run(folder, name)
    if run is None:
        return f"no folder {name} with its weights lies under {folder}"
    try:
        trained = load_trained(str(run / read_annotators([by])[0].file_name), device=device)
        place = find_place(run, trained.recipe, values["root"])
        return run_gallery(
            trained.model, trained.recipe, trained.tau, place, by=by, count=values["shown"], device=device
        )
    except WsolError as error:
        return f"{error.message}{f' ({error.hint})' if error.hint else ''}"
