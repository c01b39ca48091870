"""Public names of the stream: what it reads, what an item is made of, and the batches themselves."""

from __future__ import annotations

from wsoltrain.data.stream import ItemConfig, Labelling, Shuffle, Stream

__all__ = ["ItemConfig", "Labelling", "Shuffle", "Stream"]
