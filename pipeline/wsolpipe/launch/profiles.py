"""Cluster profiles: options of a site's jobs, in one YAML that its users share. Not part of any key: results never
depend on them.

```yaml
default: gpu
profiles:
  gpu: {partition: gpu, account: vision, gpus: 1, cpus: 8, memory: 32G, time: "4:00:00", modules: [cuda/12.4]}
  cpu: {partition: short, cpus: 4, time: 90, setup: [source /opt/site/env.sh]}
```
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator

from wsolpipe.contract.errors import ConfigError, explain_all, unknown
from wsolpipe.keys.kinds import Unit
from wsolpipe.keys.safe_yaml import read_yaml

if TYPE_CHECKING:
    from wsolpipe.keys.run_keys import RunConfig

VARIABLE = "WSOLPIPE_PROFILES"
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?")
_MEMORY = re.compile(r"(?P<number>\d+)(?P<unit>[KMGTkmgt]?)")
_BOUNDLESS = {"unlimited", "infinite"}


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, (str, int)) else value


def _worded(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_Lines = Annotated[tuple[str, ...], BeforeValidator(_listed)]
_Word = Annotated[str, BeforeValidator(_worded)]


class Profile(BaseModel, extra="forbid", frozen=True):
    """Options of each worker's job. Every field has a default, so a site may need no file at all.

    Attributes
    ----------
    partition
        partition of the jobs
    account
        account that the jobs are charged to
    qos
        quality of service of the jobs
    gpus
        GPUs a worker, as a number or type:number; empty or 0 for none
    cpus
        cores a worker
    memory
        memory a worker as SLURM writes it, such as 32G
    most_memory
        memory up to which a job array's task that ran out of it is submitted again with twice as much, such as 128G;
        null: with as much as before
    time
        wall time in SLURM's formats: 90 (minutes), 90:00, 4:00:00, 2-0, 1-12:30, 1-0:0:0
    modules
        environment modules to load before a worker starts
    setup
        lines of shell to run after the modules, before a worker starts
    sbatch
        more options of sbatch, as on its command line
    signal_seconds
        time before its wall time at which SLURM asks a job to end (SIGUSR1)
    python
        interpreter on the compute nodes, perhaps with a wrapper before it
    logs
        folder for scripts and logs that submit host and compute nodes share
    max_jobs
        jobs that run at a time; null: no bound
    resubmits
        times that a lost job is replaced, or one that ran out of time is queued again
    poll_seconds
        time between looks at the queue
    interface
        not needed any more: workers of cluster=slurm share nothing but the store
    start_seconds
        time without any worker after which a run ends; null: the default of the cluster
    devices
        devices of this machine that cluster=dask-cuda uses; empty: all that are visible
    """

    partition: _Word | None = None
    account: _Word | None = None
    qos: _Word | None = None
    gpus: _Word = ""
    cpus: Annotated[int, Unit("cores")] = Field(default=1, ge=1)
    memory: _Word | None = None
    most_memory: _Word | None = None
    time: _Word | None = None
    modules: _Lines = ()
    setup: _Lines = ()
    sbatch: _Lines = ()
    signal_seconds: Annotated[int, Unit("seconds")] = Field(default=120, ge=1)
    python: str = Field(default_factory=lambda: sys.executable)
    logs: str = "wsolpipe-logs"
    max_jobs: Annotated[int | None, Unit("jobs")] = Field(default=None, ge=1)
    resubmits: int = Field(default=20, ge=0)
    poll_seconds: Annotated[float, Unit("seconds")] = Field(default=5.0, gt=0)
    interface: _Word | None = None
    start_seconds: Annotated[float | None, Unit("seconds")] = Field(default=None, gt=0)
    devices: Annotated[tuple[_Word, ...], BeforeValidator(_listed)] = ()

    @field_validator("*", mode="after")
    @classmethod
    def _one_line(cls, value: Any) -> Any:
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and ("\n" in text or "\r" in text):
                msg = "must be on one line"
                raise ValueError(msg)
        return value

    @field_validator("time", mode="after")
    @classmethod
    def _readable_time(cls, value: str | None) -> str | None:
        seconds_of(value)
        return value

    @field_validator("memory", "most_memory", mode="after")
    @classmethod
    def _readable_memory(cls, value: str | None) -> str | None:
        if value is not None:
            megabytes(value)
        return value

    def more_memory(self, now: str | None) -> str | None:
        """Twice as much memory as a task had, at most `most_memory`, as SLURM writes it; None: as before."""
        had = now or self.memory
        if self.most_memory is None or not had or not megabytes(had):  # 0 is all memory of a node
            return now
        return f"{min(2 * megabytes(had), megabytes(self.most_memory))}M"

    @property
    def wall_seconds(self) -> int | None:
        """Wall time in seconds, None without a limit."""
        return seconds_of(self.time)

    @property
    def lead(self) -> int:
        """Seconds before the wall time at which tasks are asked to end: of a short time, a quarter at most."""
        wall = self.wall_seconds
        return self.signal_seconds if wall is None else max(1, min(self.signal_seconds, wall // 4))

    @property
    def log_folder(self) -> Path:
        """Absolute folder of scripts and logs."""
        return Path(self.logs).expanduser().absolute()

    def options(self) -> list[str]:
        """Options of ``sbatch`` for every worker's job, one per item."""
        named = {
            "partition": self.partition, "account": self.account, "qos": self.qos, "cpus-per-task": self.cpus,
            "mem": self.memory, "time": self.time, "gres": f"gpu:{self.gpus}" if self.gpus not in {"", "0"} else None,
        }  # fmt: skip
        return [*(f"--{name}={value}" for name, value in named.items() if value is not None), *self.sbatch]

    def prologue(self) -> list[str]:
        """Lines of shell that prepare a compute node."""
        return [*(f"module load {name}" for name in self.modules), *self.setup]


def seconds_of(time: str | None) -> int | None:
    """Seconds of a wall time in one of SLURM's formats; None for none.

    Raises
    ------
    ValueError
        If it has another format.

    Examples
    --------
    >>> seconds_of("90"), seconds_of("1:30"), seconds_of("4:00:00"), seconds_of("1-12"), seconds_of("1-12:30")
    (5400, 90, 14400, 129600, 131400)
    """
    if time is None or time.lower() in _BOUNDLESS:
        return None
    match = _TIME.fullmatch(time)
    if not match:
        msg = f"{time!r} is not a wall time; write minutes, hours:minutes:seconds or days-hours"
        raise ValueError(msg)
    days, first, second, third = (int(match[name] or 0) for name in ("days", "first", "second", "third"))
    if match["days"] is not None or match["third"] is not None:
        return ((days * 24 + first) * 60 + second) * 60 + third
    return first * 60 + second


def megabytes(memory: str) -> int:
    """Megabytes of a size as SLURM writes it.

    Raises
    ------
    ValueError
        If it has another format.

    Examples
    --------
    >>> megabytes("4000"), megabytes("32G"), megabytes("1T")
    (4000, 32768, 1048576)
    """
    match = _MEMORY.fullmatch(memory)
    if not match:
        msg = f"{memory!r} is not a size of memory; write megabytes, or a number with K, M, G or T"
        raise ValueError(msg)
    factor = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}[(match["unit"] or "M").upper()]
    return int(int(match["number"]) * factor)


def load_profile(config: RunConfig) -> Profile:
    """Profile of a run: the site's file, and over it the words ``profile.field=value``.

    The file is ``profiles=``, else the variable ``WSOLPIPE_PROFILES``, else ``~/.config/wsolpipe/profiles.yaml`` if it
    is there. ``profile=`` names one of its profiles, else its key ``default`` does; without
    either every field has its default.

    Raises
    ------
    ConfigError
        If the file, the profile, a field or a value is invalid.
    """
    file = _find_file(config.profiles)
    fields: dict[str, Any] = {}
    origin = "profile of the command line"
    if file is not None:
        fields, origin = _read(file, config.profile)
    elif config.profile:
        msg = f"profile={config.profile}: no profiles file was found"
        raise ConfigError(msg, hint=f"name it with profiles=FILE or {VARIABLE}, or write {default_file()}")
    return _check({**fields, **config.profile_fields}, origin)


def default_file() -> Path:
    """Where a user's own profiles are looked for."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "wsolpipe" / "profiles.yaml"


def _find_file(given: str | None) -> Path | None:
    named = given or os.environ.get(VARIABLE)
    if not named:
        return default_file() if default_file().is_file() else None
    path = Path(named).expanduser()
    if not path.is_file():
        msg = f"no file of cluster profiles at {path}"
        raise ConfigError(msg, hint=f"it is named by {'profiles=' if given else VARIABLE}")
    return path


def _read(file: Path, name: str | None) -> tuple[dict[str, Any], str]:
    """Fields of one profile of a file, and its name for error messages."""
    # every scalar as text: YAML would read 4:00:00 as a number of seconds, SLURM reads a number as minutes
    content = read_yaml(file, as_text=True) or {}
    profiles = content.get("profiles") if isinstance(content, dict) else None
    if not isinstance(profiles, dict):
        msg = f"{file}: expected a mapping with the key profiles, itself a mapping of names to fields"
        raise ConfigError(msg)
    for key in content:
        if key not in {"default", "profiles"}:
            msg = f"{file}: {unknown('key', key, ('default', 'profiles'))}"
            raise ConfigError(msg)
    chosen = name or content.get("default")
    if chosen is None:
        return {}, str(file)
    if chosen not in profiles:
        msg = f"{file}: {unknown('profile', chosen, profiles)}"
        raise ConfigError(msg)
    fields = profiles[chosen] or {}
    if not isinstance(fields, dict):
        msg = f"{file}, profile {chosen}: expected a mapping of fields"
        raise ConfigError(msg)
    return {key: value for key, value in fields.items() if value not in ("", "null", "~")}, f"{file}, profile {chosen}"


def _check(fields: dict[str, Any], origin: str) -> Profile:
    for key in fields:
        if key not in Profile.model_fields:
            msg = f"{origin}: {unknown('field', key, Profile.model_fields)}"
            raise ConfigError(msg)
    try:
        return Profile(**fields)
    except ValidationError as error:
        msg = f"{origin}: {explain_all(error, values=True)}"
        raise ConfigError(msg) from error
