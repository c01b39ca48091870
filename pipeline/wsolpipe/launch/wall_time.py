"""When the workers of this machine must have ended: by ``wall_time=``, or by the end of the job they run in."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsolpipe.keys.run_keys import RunConfig

_YEAR = 365 * 86400.0
_END = re.compile(r"\bEndTime=(\S+)")


def settle_end(config: RunConfig, *, lead: float = 0.0) -> RunConfig:
    """The configuration with its `ends_at`: whichever comes first of ``wall_time=`` and the end of the surrounding job.

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
    """End of the SLURM job around this process, in seconds since the epoch; None outside a job or without a limit.

    SLURM 23.02 and later set a variable; older ones are queried.
    """
    end, job = os.environ.get("SLURM_JOB_END_TIME"), os.environ.get("SLURM_JOB_ID")
    if end and end.isdigit():
        return _bounded(float(end))
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
    """None for a job without a limit, for which SLURM reports a year."""
    return end if end < time.time() + 0.9 * _YEAR else None
