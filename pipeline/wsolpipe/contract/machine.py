"""The differences between operating systems."""

from __future__ import annotations

import getpass
import os


def cores() -> int:
    """Cores that this process may run on; all of the machine's where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def user() -> str:
    """A word for the user, for names of private folders: the user's number, or name where there are no numbers."""
    return str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()
