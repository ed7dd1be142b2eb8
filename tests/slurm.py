"""A real SLURM of two nodes on one machine, with its own munge, ports and folder: started, asked, stopped."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from machines import free_ports, lacks, need, wait_until

NODES = ("node1", "node2")
CPUS, MEMORY_MB = 4, 4000
"""What each node says it has; SLURM shares it out and need not find it."""
START_SECONDS, JOB_SECONDS = 30, 150

CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=100000
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
ReturnToService=2
SlurmdParameters=config_overrides
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
KillWait=5
TreeWidth=2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Sockets=1 CoresPerSocket={cpus}"
    " ThreadsPerCore=1 RealMemory={memory} State=UNKNOWN\n"
)


@dataclass(frozen=True)
class Job:
    """How a job ended."""

    state: str
    code: int
    output: str


class Slurm:
    """A running SLURM, by the folder that holds all of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Tests may run on a cluster themselves.
        outer = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        self._environment = {**outer, "SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *command: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        """Run one of SLURM's commands and return what it printed."""
        done = subprocess.run(
            command,
            env={**self._environment, **(environment or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def submit(self, *command: str, environment: Mapping[str, str], cwd: Path) -> Job:
        """Submit a batch script from a folder and wait for its end; `sbatch --wait` asks too seldom."""
        output = self.folder / f"job-{secrets.token_hex(4)}.out"
        job = self.run("sbatch", "--parsable", f"--output={output}", *command, environment=environment, cwd=cwd).strip()
        ended = wait_until(lambda: not self.run("squeue", "-h", "-j", job, "-o", "%T").strip(), JOB_SECONDS)
        text = output.read_text() if output.exists() else ""
        assert ended, f"job {job} still ran after {JOB_SECONDS} s:\n{text}"
        facts = self.run("scontrol", "show", "job", job)
        state, code = re.findall(r"JobState=(\w+)", facts)[0], re.findall(r"ExitCode=(\d+):", facts)[0]
        return Job(state, int(code), text)

    def ready(self) -> bool:
        """Tell whether both nodes wait for work."""
        command = ["sinfo", "-h", "-t", "idle", "-o", "%D"]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=START_SECONDS)
        return done.stdout.strip() == str(len(NODES))


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[Slurm]:
    """Start SLURM in an empty folder and stop it in the end, or skip where its programs are not installed."""
    need("slurmctld", "slurmd", "sbatch", "munged", packages="slurmctld, slurmd, slurm-client and munge")
    _configure(folder)
    slurm = Slurm(folder)
    try:
        try:
            _start(slurm)
        except AssertionError as error:
            logs = "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in folder.glob("*.log"))
            lacks(f"SLURM did not start: {error}\n{logs}")
        yield slurm
    finally:
        _stop(slurm)


def _configure(folder: Path) -> None:
    host, user = socket.gethostname().split(".")[0], getpass.getuser()
    ports = free_ports(1 + len(NODES))
    (folder / "state").mkdir()
    nodes = [
        NODE.format(name=name, host=host, port=port, cpus=CPUS, memory=MEMORY_MB)
        for name, port in zip(NODES, ports[1:], strict=True)
    ]
    text = "".join(nodes) + CONFIGURATION.format(host=host, user=user, folder=folder, ports=ports)
    (folder / "slurm.conf").write_text(text)


def _start(slurm: Slurm) -> None:
    """Start munge, the controller and the nodes, and wait for these; the key and socket are not the machine's own."""
    folder = slurm.folder
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    files = {"socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "munged.seed"}
    options = [f"--{option}={folder / name}" for option, name in files.items()]
    # Forced, because pytest's folders are closed to other users, and munge warns of that.
    slurm.run("munged", "--force", f"--key-file={key}", *options)
    slurm.run("slurmctld", "-c")
    for node in NODES:
        slurm.run("slurmd", "-N", node, "-c")
    assert wait_until(slurm.ready, START_SECONDS), f"no two idle nodes within {START_SECONDS} s"


def _stop(slurm: Slurm) -> None:
    """End all jobs, then the daemons that this folder names, the nodes first."""
    with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):  # it may not have started
        slurm.run("scancel", "--state=RUNNING", "--state=PENDING")
        wait_until(lambda: not slurm.run("squeue", "-h").strip(), START_SECONDS)
    for pattern in ("slurmd-*.pid", "slurmctld.pid", "munged.pid"):
        for file in slurm.folder.glob(pattern):
            # A daemon may be gone already, and its file left.
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(file.read_text()), signal.SIGTERM)
