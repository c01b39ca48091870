"""The jobs of one run on SLURM: their name, the options of the site's profile, the folder of their files."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

from wsolpipe.contract.errors import ClusterError
from wsolpipe.launch.profiles import Profile, load_profile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wsolpipe.engine.session import Session
    from wsolpipe.launch.events import Emit

LOG_LINES = 12
UNANSWERED_SECONDS = 300.0
"""Time for which SLURM may not answer, as while its controller restarts; ``profile.start_seconds=`` overrides it."""

T = TypeVar("T")


@dataclass(frozen=True)
class Jobs:
    """Jobs that share a name and a folder."""

    session: Session
    profile: Profile
    name: str
    folder: Path

    @classmethod
    def of(cls, session: Session) -> Self:
        """The jobs of a run."""
        profile = load_profile(session.config)
        name = f"wsolpipe-{re.sub(r'[^A-Za-z0-9_.-]', '_', session.dataset.name)}-{secrets.token_hex(3)}"
        return cls(session, profile, name, profile.log_folder / name)

    @property
    def lead(self) -> int:
        """Seconds before the wall time at which tasks are asked to end: of a short time, a quarter at most."""
        wall = self.profile.wall_seconds
        return self.profile.signal_seconds if wall is None else max(1, min(self.profile.signal_seconds, wall // 4))

    def make_folder(self) -> None:
        """Create the folder of scripts and logs.

        Raises
        ------
        ClusterError
            If it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self.unwritable(error) from error

    def unwritable(self, error: OSError) -> ClusterError:
        """The error for a folder that cannot be written."""
        msg = f"cannot write scripts and logs to {self.folder}: {error.strerror}"
        return ClusterError(msg, hint="choose a folder that compute nodes share: profile.logs=FOLDER")


@dataclass
class Patience:
    """Asks SLURM, and gives up on it once it has not answered for `bound` seconds.

    Attributes
    ----------
    since : float or None
        When the first of the queries in a row without an answer was made.
    """

    bound: float
    emit: Emit
    since: float | None = None

    @classmethod
    def of(cls, profile: Profile, emit: Emit) -> Self:
        """As long as the profile's ``start_seconds``."""
        return cls(profile.start_seconds or UNANSWERED_SECONDS, emit)

    def ask(self, query: Callable[[str], T], name: str) -> T | None:
        """Answer to a query about the jobs of a name; None without one.

        Raises
        ------
        ClusterError
            If there was none for too long.
        """
        began = time.monotonic()
        try:
            answer = query(name)
        except ClusterError as error:
            if self.since is None:
                self.since = began
                self.emit({"event": "warning", "text": f"{error.message}; asking again"})
            silent = time.monotonic() - self.since
            if silent > self.bound:
                msg = f"SLURM has not answered for {silent:.0f} s: {error.message}"
                hint = (
                    "everything committed is kept: run again, it resumes; profile.start_seconds= sets how long to wait"
                )
                raise ClusterError(msg, hint=hint) from error
            return None
        self.since = None
        return answer


def end_of(log: Path) -> str:
    """The last lines of a log, indented."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return "  (the file does not exist: is the folder shared with the compute nodes?)"
    return "\n".join(f"  {line}" for line in lines)


def quoted(option: str) -> str:
    """An option as sbatch reads it from a script: quotes where there is a space."""
    name, separator, value = option.partition("=")
    return f'{name}{separator}"{value}"' if " " in value else option
