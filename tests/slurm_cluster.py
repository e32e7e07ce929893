"""Slurm with one node, this machine, for tests: its daemons run on loopback, with all their files in one folder."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
PACKAGES = "munge slurmctld slurmd slurm-client"
_CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Return why Slurm cannot be started; None if it can."""
    if missing := [program for program in PROGRAMS if shutil.which(program, path=_path()) is None]:
        return f"Slurm is not installed: {', '.join(missing)} not found (apt-get install {PACKAGES})"
    if os.geteuid() != 0:
        return "Slurm's daemons must be started by root"
    return None


@contextmanager
def one_node_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Run Slurm within a `with` block, and yield the environment in which its commands find it."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    host = socket.gethostname().split(".")[0]
    controller_port, node_port = _find_ports()
    config = folder / "slurm.conf"
    config.write_text(
        _CONFIG.format(
            host=host, folder=folder, cores=os.cpu_count(), controller_port=controller_port, node_port=node_port
        )
    )
    environment = os.environ | {"SLURM_CONF": str(config), "PATH": _path()}
    files = [
        f"--{name}={folder}/munge.{name.split('-')[0]}" for name in ("socket", "pid-file", "log-file", "seed-file")
    ]
    with ExitStack() as stack:
        stack.enter_context(_running(["munged", "--foreground", "--force", f"--key-file={key}", *files], environment))
        _wait_for(lambda: (folder / "munge.socket").exists(), folder)
        for daemon in ("slurmctld", "slurmd"):
            log = str(folder / f"{daemon}.log")
            stack.enter_context(_running([daemon, "-D", "-f", str(config), "-L", log], environment))
        _wait_for(lambda: "idle" in _ask("sinfo", "--noheader", "--format=%T", environment=environment), folder)
        yield environment
        _ask("scancel", "--user=root", environment=environment)
        _wait_for(lambda: not _ask("squeue", "--noheader", environment=environment), folder)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _find_ports() -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _ask(*command: str, environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip()


def _wait_for(condition, folder: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            logs = "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in folder.glob("*.log"))
            raise TimeoutError(f"Slurm does not start or stop:\n{logs}")
        time.sleep(0.2)
