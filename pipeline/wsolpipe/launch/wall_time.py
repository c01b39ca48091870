"""When the workers of this machine must have ended: the word ``wall_time=``, or the end of the job they run in."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsolpipe.engine.config import RunConfig

_YEAR = 365 * 86400.0
_END = re.compile(r"\bEndTime=(\S+)")


def settle_end(config: RunConfig, *, lead: float = 0.0) -> RunConfig:
    """The configuration with its `ends_at`: whichever comes first of ``wall_time=`` and the end of the job around us.

    Parameters
    ----------
    lead : float
        Seconds before the job's end at which its scheduler asks it to end.
    """
    ends = [time.time() + config.wall_time] if config.wall_time is not None else []
    job = job_end()
    if job is not None:
        ends.append(job - lead)
    return replace(config, ends_at=min(ends)) if ends else config


def job_end() -> float | None:
    """End of the SLURM job that this process runs in, as `time.time` counts; None outside of one, or without a bound.

    SLURM 23.02 and later say it in a variable; older ones are asked.
    """
    told, job = os.environ.get("SLURM_JOB_END_TIME"), os.environ.get("SLURM_JOB_ID")
    if told and told.isdigit():
        return _bounded(float(told))
    if not job:
        return None
    try:
        asked = subprocess.run(
            ["scontrol", "show", "job", "-o", job], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _END.search(asked.stdout)
    try:
        return _bounded(datetime.fromisoformat(match[1]).timestamp()) if match else None
    except ValueError:  # Unknown, or NONE
        return None


def _bounded(end: float) -> float | None:
    """SLURM says a year of jobs that have no bound."""
    return end if end < time.time() + 0.9 * _YEAR else None
