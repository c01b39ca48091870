"""``wsolpipe plan``."""

from __future__ import annotations

from wsolpipe.cli.command import make_command, print_json, print_table


@make_command("plan", keys=("check",))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Say what `run` with the same words would make, and why; reads no table and no image.

    \b
    check=true     exit with 2 if work is pending
    """
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.engine.config import build_config, split_words
    from wsolpipe.engine.graph import resolve
    from wsolpipe.engine.plan import make_plan
    from wsolpipe.engine.session import Session
    from wsolpipe.stages.registry import load_registry

    registry = load_registry(split_words(words).get("stages"))
    config, extra = build_config(words, registry, also=("check",))
    if not config.stage:
        msg = f"no stage named; valid: {', '.join(['index', *registry.entries])}"
        raise ConfigError(msg, hint="add stage=…, as in wsolpipe plan stage=proposals dataset=demo")
    session = Session.open(config, need_root=False)
    lines = make_plan(session, resolve(session))
    pending = any(line.reason != "done" for line in lines)
    if as_json:
        total = {"files": sum(line.files for line in lines), "bytes": sum(line.bytes for line in lines)}
        print_json({"stages": [line.to_json() for line in lines], "store": config.store, "pending": pending, **total})
    else:
        print_table(
            ["stage", "split", "key", "rows", "shards", "to make", "why", "hours left", "files", "MiB"],
            [
                [
                    line.stage, line.split or "–", line.key, line.rows or None, line.shards,
                    line.shards - line.shards_done, line.reason,
                    None if line.remaining_seconds is None else line.remaining_seconds / 3600,
                    line.files, line.bytes / 2**20,
                ]
                for line in lines
            ],
        )  # fmt: skip
        print(f"{sum(line.files for line in lines):,} files; hours and MiB from measured shards, – where there is none")
    return 2 if pending and extra.get("check") is True else 0
