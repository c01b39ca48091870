"""A private SLURM cluster on this host: munged, slurmctld and a few slurmd in one folder, on ports that were free.

```sh
python tools/slurm/cluster.py start FOLDER nodes=2     # prints the line that makes sbatch and squeue use it
python tools/slurm/cluster.py stop FOLDER
python tools/slurm/cluster.py hold FOLDER              # start, then stop when standard input ends
```

It needs Debian's packages ``slurm-wlm`` and ``munge`` and nothing of a cluster that may run here already. Only for
trying things out: one partition ``debug`` (default, no bound), one ``short`` (a minute at most), two jobs a node.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
CPUS = 2
PATIENCE = 60.0

CONFIGURATION = """\
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=10
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
# no cgroups and no binding: containers and laptops have neither
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=200000,batch_sched_delay=0
PriorityType=priority/basic
ReturnToService=2
JobRequeue=1
KillWait=5
OverTimeLimit=0
MinJobAge=300
CompleteWait=0
InactiveLimit=0
SlurmctldTimeout=30
SlurmdTimeout=30
UnkillableStepTimeout=20
MessageTimeout=30
PropagateResourceLimits=NONE
NodeName={names} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports} CPUs={cpus} RealMemory=512 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes=ALL Default=NO MaxTime=1 DefaultTime=1 State=UP
"""


class Cluster:
    """A cluster in a folder; its daemons are children of the process that starts it, and end by their numbers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._children: list[subprocess.Popen[bytes]] = []

    @property
    def configuration(self) -> Path:
        """Return what the variable SLURM_CONF must hold."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment with the cluster in it."""
        return {**os.environ, "SLURM_CONF": str(self.configuration)}

    def start(self, nodes: int = 2) -> None:
        """Start all daemons and wait until every node is idle.

        Raises
        ------
        RuntimeError
            If a program is missing, or nodes do not come up; with the end of the daemons' logs.
        """
        missing = [name for name in NEEDED if shutil.which(name) is None]
        if missing:
            msg = f"not installed: {', '.join(missing)} (Debian: apt-get install slurm-wlm munge)"
            raise RuntimeError(msg)
        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        port, *ports = free_ports(nodes + 1)
        names = [f"n{number + 1}" for number in range(nodes)]
        fields = {
            "host": socket.gethostname(), "port": port, "user": pwd.getpwuid(os.getuid()).pw_name, "cpus": CPUS,
            "folder": self.folder, "names": ",".join(names), "ports": ",".join(map(str, ports)),
        }  # fmt: skip
        self.configuration.write_text(CONFIGURATION.format(**fields))
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        try:
            self._launch(
                "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.folder}/munge.sock",
                f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/munged.log",
                f"--seed-file={self.folder}/munged.seed",
            )  # fmt: skip
            _wait_for(lambda: (self.folder / "munge.sock").exists(), "munged made no socket", self)
            self._launch("slurmctld", "-D", "-i")
            for name in names:
                self._launch("slurmd", "-D", "-N", name)
            _wait_for(lambda: self._idle() == nodes, f"fewer than {nodes} nodes are idle", self)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Cancel all jobs, then end the daemons."""
        if self.configuration.exists():
            self._ask("scancel", "--full", f"--user={os.getuid()}")
            deadline = time.monotonic() + 15
            while self._ask("squeue", "-h") and time.monotonic() < deadline:  # jobs of a daemon do not end with it
                time.sleep(0.1)
        pids = self._pids()
        for pid in reversed(pids):
            _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while any([child.poll() is None for child in self._children]) or any(map(_lives, pids)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        (self.folder / "pids.json").unlink(missing_ok=True)

    def logs(self) -> str:
        """The last lines of every daemon's log."""
        parts = []
        for path in sorted(self.folder.glob("*.log")):
            parts.append(f"{path.name}:\n" + "\n".join(path.read_text(errors="replace").splitlines()[-8:]))
        return "\n".join(parts)

    def _launch(self, *command: str) -> None:
        out = (self.folder / f"{command[0]}.out.log").open("a")
        process = subprocess.Popen(
            command, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
        self._children.append(process)
        (self.folder / "pids.json").write_text(json.dumps([*self._pids(), process.pid]))

    def _pids(self) -> list[int]:
        try:
            return list(json.loads((self.folder / "pids.json").read_text()))
        except (FileNotFoundError, ValueError):
            return []

    def _idle(self) -> int:
        return self._ask("sinfo", "-h", "-N", "-p", "debug", "-o", "%t").split().count("idle")

    def _ask(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=30)
        return done.stdout


def free_ports(count: int) -> list[int]:
    """Free ports of this host."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [int(item.getsockname()[1]) for item in sockets]
    finally:
        for item in sockets:
            item.close()


def _wait_for(holds: object, else_say: str, cluster: Cluster) -> None:
    assert callable(holds)
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            msg = f"{else_say} after {PATIENCE:.0f} s\n{cluster.logs()}"
            raise RuntimeError(msg)
        time.sleep(0.1)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def main(words: list[str]) -> int:
    """Start, stop or hold the cluster of a folder."""
    if len(words) < 2 or words[0] not in {"start", "stop", "hold"}:
        print(__doc__, file=sys.stderr)
        return 3
    cluster = Cluster(Path(words[1]))
    nodes = int(next((word.removeprefix("nodes=") for word in words[2:] if word.startswith("nodes=")), 2))
    if words[0] == "stop":
        cluster.stop()
        return 0
    cluster.start(nodes)
    print(f"export SLURM_CONF={cluster.configuration}", flush=True)
    if words[0] == "hold":
        signal.signal(signal.SIGTERM, lambda *_: sys.stdin.close())
        try:
            sys.stdin.read()
        except (KeyboardInterrupt, ValueError):
            pass
        finally:
            cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
