"""Runs in this process, on the toy chain of stages."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from e2e.toy import PACKAGE, Toy
from wsolpipe.engine.config import build_config
from wsolpipe.engine.graph import Node, resolve
from wsolpipe.engine.session import Session
from wsolpipe.launch.run import Ended, run
from wsolpipe.stages.registry import load_registry

if TYPE_CHECKING:
    from pathlib import Path

    from wsolpipe.engine.plan import Line


@dataclass
class Bench(Toy):
    """A toy data set whose runs happen in this process."""

    stages_file: Path = PACKAGE / "toy_stages" / "stages.yaml"

    @property
    def stages(self) -> Path:
        return self.stages_file

    def __post_init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def session(self, *words: str, stage: str = "frame", store: Path | None = None) -> Session:
        config, _ = build_config(self.words(*words, stage=stage, store=store), load_registry(str(self.stages)))
        return Session.open(config)

    def go(self, *words: str, stage: str = "frame", store: Path | None = None) -> Ended:
        """Run, and keep the events."""
        self.events = []
        config = self.session(*words, stage=stage, store=store).config
        return run(config, self.events.append, threading.Event())

    def nodes(self, *words: str, stage: str = "frame") -> dict[str, Node]:
        """Nodes by stage, as `plan` sees them."""
        return {node.stage: node for node in resolve(self.session(*words, stage=stage)).nodes}

    def keys(self, *words: str, stage: str = "frame") -> dict[str, str | None]:
        """Keys by stage, with that of the index."""
        graph = resolve(self.session(*words, stage=stage))
        index = {"index": graph.indexes["train"].key if graph.indexes["train"] else None}
        return index | {node.stage: node.key for node in graph.nodes}

    def folder_of(self, stage: str, *words: str) -> Path:
        """Folder of a stage in the store."""
        return self.store / self.nodes(*words)[stage].folder

    def nodes_folder(self, stage: str) -> str:
        """Folder of a stage relative to the store, as its name alone says: manifests may be damaged."""
        (folder,) = self.store.glob(f"toy/*/{stage}/*")
        return folder.relative_to(self.store).as_posix()

    def write_stages(self, change: Any) -> None:
        """Use a changed copy of the stage file from now on."""
        path = self.folder / f"stages{len(list(self.folder.glob('stages*.yaml')))}.yaml"
        path.write_text(change(self.stages_file.read_text()))
        self.stages_file = path

    def made(self) -> list[tuple[str, Any]]:
        """(stage, shard) of what the last run made, not what it took over."""
        return [
            (event["stage"], event["shard"])
            for event in self.events
            if event["event"] == "shard" and not event.get("taken_over")
        ]

    def taken_over(self) -> list[tuple[str, Any]]:
        return [(event["stage"], event["shard"]) for event in self.events if event.get("taken_over")]


def line(outcome: Ended, stage: str) -> Line:
    """Line of a stage in an outcome."""
    return next(item for item in outcome.lines if item.stage == stage)
