"""``wsolpipe report``."""

from __future__ import annotations

from wsolpipe.cli.command import make_command, print_json


@make_command("report", keys=("n", "out"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Write one HTML page about a split: figures, charts, rows with maps and boxes, quarantined rows.

    \b
    dataset=D      as for run, with the same stage.parameter=value words; or just its name in the store
    store=DIR      the store (default: $WSOLPIPE_STORE or ./wsol-store)
    split=S        default: test, else val, else the one that is furthest
    stage=S        what to show (default: proposals where there are any)
    n=24 seed=0    rows of the gallery, and the seed of its random part
    out=FILE       default: <store>/<dataset>/report.html
    """
    from pathlib import Path

    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.engine.config import build_config
    from wsolpipe.keys.values import split_words
    from wsolpipe.report.material import DEFAULT_SAMPLE, gather
    from wsolpipe.report.write import write_report
    from wsolpipe.stages.registry import load_registry

    registry = load_registry(split_words(words).get("stages"))
    config, extra = build_config(words, registry, also=("n", "out"))
    if not config.dataset:
        msg = "no data set named"
        raise ConfigError(msg, hint="add dataset=NAME, as in wsolpipe report dataset=demo")
    n = extra.get("n", DEFAULT_SAMPLE)
    if not isinstance(n, int) or isinstance(n, bool) or n < 0:
        msg = f"n={n}: expected a number of rows, 0 or more"
        raise ConfigError(msg)
    out = split_words(words).get("out")
    written = write_report(gather(config, n=n), Path(out) if out else None)
    if as_json:
        print_json(written.to_json())
    else:
        print(f"{written.path}  ({written.bytes / 2**20:.1f} MiB, {written.shown} of {written.rows:,} rows shown)")
    return 0
