"""``python -m wsoltrain``, for launchers such as torchrun that start a module."""

from __future__ import annotations

from wsoltrain.cli.main import main

if __name__ == "__main__":
    main()
