"""``wsolpipe export``."""

from __future__ import annotations

from pathlib import Path

from wsolpipe.cli.command import configure, make_command, print_json
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key

KEYS = (
    Key("out", kinds.file("folder"), "folder to write; files go to <out>/<split>/"),
    Key(
        "key",
        kinds.text("beginning of a key"),
        "result to use",
        otherwise="that of the words given, else the newest",
    ),
)


@make_command("export", keys=KEYS, listed=("stage", "dataset", "store", "split"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Write the first box of every row in the field's layout: localization.txt, and localization_iou.txt beside it."""
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.engine.lookup import SessionResults
    from wsolpipe.engine.session import Session
    from wsolpipe.evaluate.truth import truth_of_index
    from wsolpipe.evaluate.val_boxes import export_boxes

    config, given = configure(words, KEYS)
    if len(config.stage) != 1 or not given["out"]:
        msg = "export writes the boxes of one stage to a folder"
        raise ConfigError(msg, hint="wsolpipe export stage=val_boxes dataset=… out=FOLDER")
    session = Session.open(config, need_root=False)
    results, written = SessionResults(session), []
    for split in config.split or session.dataset.splits:
        view = results.view(config.stage[0], split, given.get("key"))
        if "boxes" not in view.manifest.arrays:
            msg = f"stage {config.stage[0]} holds no boxes, but {', '.join(sorted(view.manifest.arrays))}"
            raise ConfigError(msg, hint="export boxes of val_boxes, proposals or regions")
        folder = Path(given["out"]) / split
        texts = export_boxes(view, truth_of_index(results.index_of(view)))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                (folder / name).write_text(text, encoding="utf-8")
                written.append(str(folder / name))
        except OSError as error:
            msg = f"cannot write to {folder}: {error.strerror}"
            raise ConfigError(msg, hint="choose another place with out=FOLDER") from error
    if as_json:
        print_json({"files": written})
    else:
        print("\n".join(written))
    return 0
