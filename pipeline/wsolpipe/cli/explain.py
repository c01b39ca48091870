"""``wsolpipe explain``."""

from __future__ import annotations

from typing import Any

from wsolpipe.cli.command import make_command
from wsolpipe.cli.transfer import SELECTION_KEYS
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json, print_table
from wsolpipe.keys.run_keys import STORE

KEYS = (STORE, *(key for key in SELECTION_KEYS if key.name in {"dataset", "stages", "split"}))


@make_command("explain", keys=KEYS, as_run=False, positional=kinds.text("beginning of a key"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Explain why two keys of a stage differ: which parameter, weights file, index column or upstream stage changed.

    \b
    wsolpipe explain A B [store=STORE] [dataset=NAME] [split=S]
    A, B           first digits of a key, stage/key, or STORE/dataset/split/stage/key
    """
    from wsolpipe import open_store
    from wsolpipe.cli import transfer
    from wsolpipe.contract.errors import ConfigError
    from wsolpipe.share.explain import NOTHING, explain, locate

    named = [word for word in words if "=" not in word]
    given = transfer.words_of(tuple(word for word in words if "=" in word), KEYS)
    if len(named) != 2:
        msg = f"explain compares two keys; given: {' '.join(named) or 'none'}"
        raise ConfigError(msg, hint="wsolpipe explain A B; wsolpipe status lists keys")
    open_store(given["store"])  # raises where there is none
    wanted = transfer.selection_of(given)
    one, other = (locate(word, given["store"], wanted) for word in named)
    found = explain(one, other)
    if as_json:
        print_json({"a": one.found.folder, "b": other.found.folder, "differences": [item.to_json() for item in found]})
    elif found:
        rows = [[item.field, _short(item.before), _short(item.after)] for item in found]
        print_table(["field", one.found.folder, other.found.folder], rows)
    else:
        print(f"{one.found.folder} and {other.found.folder} differ in {NOTHING}")
    return 0


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:16]}…" if len(text) > 40 else text
