"""``wsolpipe doctor``."""

from __future__ import annotations

from wsolpipe.cli.command import make_command, print_json, print_table


@make_command("doctor")
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Check what usually goes wrong on a new machine; exit code 1 if something will.

    \b
    store=STORE    the store to check, a folder or URL (default: $WSOLPIPE_STORE or ./wsol-store)
    """
    from wsolpipe.cli.checks import examine
    from wsolpipe.engine.config import build_config
    from wsolpipe.stages.registry import load_registry

    config, _ = build_config(words, load_registry())
    findings = examine(config.store)
    if as_json:
        print_json([finding.to_json() for finding in findings])
    else:
        rows = [[item.check, "ok" if item.ok else "BAD", item.detail, item.advice] for item in findings]
        print_table(["check", "", "detail", "what to do"], rows)
    return 0 if all(item.ok for item in findings) else 1
