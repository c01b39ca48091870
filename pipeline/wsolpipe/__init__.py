"""wsolpipe: pseudo-labels for weakly supervised object localization, made once and shared."""

from __future__ import annotations

__version__ = "0.1.0"
