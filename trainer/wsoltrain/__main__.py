"""Entry point of ``wsoltrain``, also as ``python -m wsoltrain`` for launchers such as torchrun that start a module."""

from __future__ import annotations

from wsolpipe.__main__ import main as start


def main() -> None:
    """Load the command line and run it."""
    start("wsoltrain.cli.main")


if __name__ == "__main__":
    main()
