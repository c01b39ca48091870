"""``wsolpipe eval``."""

from __future__ import annotations

from typing import Any

from wsolpipe.cli.command import make_command, print_json, print_table

PREFERRED_SPLITS = ("test", "val")


@make_command("eval", keys=("map", "key"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Score boxes or maps of a store against ground truth.

    \b
    stage=S        a stage of boxes (proposals …) or of maps (cls_maps …)
    dataset=D      as for run, with the same stage.parameter=value words
    split=S[,S…]   default: test, else val, else the first
    map=N          which map of a stage of maps (default 0)
    key=K          which of several results (default: that of the words given, else the newest)
    """
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.engine.config import build_config, split_words
    from wsolpipe.engine.session import Session
    from wsolpipe.report.evaluation import evaluate
    from wsolpipe.stages.registry import load_registry

    registry = load_registry(split_words(words).get("stages"))
    config, extra = build_config(words, registry, also=("map", "key"))
    if len(config.stage) != 1:
        msg = "eval scores one stage"
        raise ConfigError(msg, hint="add stage=…, as in wsolpipe eval stage=proposals dataset=demo")
    session = Session.open(config, need_root=False)
    known = session.dataset.splits
    splits = config.split or (next((name for name in PREFERRED_SPLITS if name in known), known[0]),)
    slot, key = int(extra.get("map", 0)), split_words(words).get("key")
    results = [evaluate(session, config.stage[0], split, slot=slot, key=key) for split in splits]
    if as_json:
        print_json(results[0] if len(results) == 1 else results)
    else:
        _show(results)
    return 0


def _show(results: list[dict[str, Any]]) -> None:
    names = [name for name in results[0] if name not in {"stage", "dataset", "split", "key"}]
    first = results[0]
    print_table(
        [f"{first['stage']} {first['key']}", *(result["split"] for result in results)],
        [[name, *(result.get(name) for result in results)] for name in names],
    )
