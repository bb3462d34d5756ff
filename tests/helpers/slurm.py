"""A Slurm of one controller and two nodes on this machine, one of which can be killed. Needs root, and Debian's
`slurm-wlm` and `munge`; state and logs lie in a folder of the caller, the configuration in /etc/slurm, where Slurm's
commands look for it inside jobs too."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

CONFIGURATION = Path("/etc/slurm/slurm.conf")
MARK = "# of shapeloss's tests/cluster: may be overwritten"
NODES = ("n1", "n2")
TIMEOUT = 15
"""Seconds without an answer after which the controller takes a node for dead."""
CONF = """{mark}
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
SlurmctldPort=16817
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SlurmdTimeout={timeout}
"""


def missing() -> str:
    """What this machine lacks for it; empty if nothing."""
    if os.name != "posix" or os.geteuid() != 0:
        return "needs root, as in a container or a virtual machine of its own"
    lacking = [name for name in ("slurmctld", "slurmd", "sbatch", "munged", "runuser") if shutil.which(name) is None]
    if lacking:
        return f"needs {', '.join(lacking)}: apt-get install slurm-wlm munge"
    if CONFIGURATION.is_file() and MARK not in CONFIGURATION.read_text(encoding="utf-8"):
        return f"{CONFIGURATION} is there: this machine belongs to a cluster, which the tests leave alone"
    return ""


def output(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8", timeout=60).stdout.strip()


class Slurm:
    """The cluster; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.munged: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Slurm:
        for part in ("state", *(f"spool.{node}" for node in NODES)):
            (self.folder / part).mkdir(parents=True)
        host = socket.gethostname().split(".")[0]
        text = CONF.format(mark=MARK, host=host, folder=self.folder, timeout=TIMEOUT)
        for number, node in enumerate(NODES):
            text += (
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={17001 + number} CPUs=1 RealMemory=4000\n"
            )
        text += f"PartitionName=main Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP\n"
        CONFIGURATION.parent.mkdir(parents=True, exist_ok=True)
        CONFIGURATION.write_text(text, encoding="utf-8")
        self.start_munge()
        try:
            subprocess.run(["slurmctld"], check=True)
            for node in NODES:
                subprocess.run(["slurmd", "-N", node], check=True)
            self.wait_for("idle", *NODES)
        except BaseException:
            self.__exit__()
            raise
        return self

    def start_munge(self) -> None:
        """Start the service that signs Slurm's messages, unless it runs."""
        if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
            return
        key = Path("/etc/munge/munge.key")
        if not key.is_file():
            key.write_bytes(os.urandom(128))
        for place in (Path("/run/munge"), Path("/var/log/munge"), Path("/var/lib/munge"), key):
            if place != key:
                place.mkdir(parents=True, exist_ok=True)
            shutil.chown(place, "munge", "munge")
        key.chmod(0o400)
        self.munged = subprocess.Popen(["runuser", "-u", "munge", "--", "munged", "--foreground"])
        deadline = time.monotonic() + 20
        while subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode:
            if time.monotonic() > deadline:
                raise TimeoutError("munged does not answer")
            time.sleep(0.2)

    def state(self, node: str) -> str:
        """Of a node: idle, allocated, down*, …"""
        return output("sinfo", "--noheader", "--Node", "--nodes", node, "--format", "%T")

    def wait_for(self, state: str, *nodes: str, seconds: float = 60) -> None:
        """Wait until nodes are in a state.

        Raises:
            TimeoutError: they are not.
        """
        deadline = time.monotonic() + seconds
        while any(not self.state(node).startswith(state) for node in nodes):
            if time.monotonic() > deadline:
                raise TimeoutError(f"nodes are not {state}: {output('sinfo')}")
            time.sleep(0.5)

    def jobs(self) -> list[dict[str, str]]:
        """All jobs that the controller knows: their number, step, state, node, and how often they began again."""
        names = ("job", "comment", "state", "node", "restarts")
        form = "JobID:|,Comment:200|,State:|,NodeList:|,RestartCnt:"
        lines = output("squeue", "--noheader", "--states=all", "--Format", form).splitlines()
        return [dict(zip(names, (cell.strip() for cell in line.split("|")), strict=True)) for line in lines]

    def daemon(self, name: str) -> psutil.Process | None:
        """A daemon by the file with its number, which it removes when it ends."""
        try:
            return psutil.Process(int((self.folder / f"{name}.pid").read_text()))
        except (OSError, ValueError, psutil.NoSuchProcess):
            return None

    def kill_node(self, node: str) -> list[str]:
        """Let a node die as by loss of power: its daemon, and all processes of its jobs; returns the jobs."""
        jobs = [job["job"] for job in self.jobs() if job["node"] == node and job["state"] == "RUNNING"]
        if (daemon := self.daemon(f"slurmd.{node}")) is not None:
            daemon.kill()
        keepers = [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(" ".join(process.info["cmdline"] or ()).startswith(f"slurmstepd: [{job}.") for job in jobs)
        ]
        # first those that would tell the controller that something ended
        for process in keepers + [child for keeper in keepers for child in keeper.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return jobs

    def __exit__(self, *error: object) -> None:
        with suppress(subprocess.SubprocessError):
            output("scancel", "--user", "root")
            time.sleep(2)
        for name in (*(f"slurmd.{node}" for node in NODES), "slurmctld"):
            if (daemon := self.daemon(name)) is not None:
                daemon.terminate()
        if self.munged is not None:
            with suppress(psutil.Error):
                for each in psutil.Process(self.munged.pid).children(recursive=True):
                    each.send_signal(signal.SIGTERM)
            self.munged.wait(20)
        CONFIGURATION.unlink(missing_ok=True)
