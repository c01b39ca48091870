"""``wsolpipe doctor``."""

from __future__ import annotations

from wsolpipe.cli.command import configure, make_command
from wsolpipe.keys.console import print_json, print_table


@make_command("doctor", listed=("store",))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Check what usually goes wrong on a new machine; exit code 1 if something will."""
    from wsolpipe.share.checks import examine

    config, _ = configure(words)
    findings = examine(config.store)
    if as_json:
        print_json([finding.to_json() for finding in findings])
    else:
        rows = [[item.check, "ok" if item.ok else "BAD", item.detail, item.advice] for item in findings]
        print_table(["check", "", "detail", "what to do"], rows)
    return 0 if all(item.ok for item in findings) else 1
