"""Start of both programs: `Ctrl-C` while their modules are still loading ends the process without a traceback."""

from __future__ import annotations

import signal
from importlib import import_module


def main(program: str = "wsolpipe.cli.main") -> None:
    """Load the module of a program and call its `main`, which handles an interrupt itself."""
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if own:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    loaded = import_module(program)
    if own:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    loaded.main()


if __name__ == "__main__":
    main()
