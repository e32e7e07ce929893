import os
import re
import socket
import subprocess

import pytest
import slurm_cluster
from launched_sweeps import QUESTIONS, LaunchedSweep, finish, run_serially

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(slurm_cluster.why_not() is not None, reason=str(slurm_cluster.why_not())),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Run Slurm on this machine, and return the environment of its commands."""
    pytest.importorskip("submitit", reason="submitit is not installed (pip install 'icl-eval[submitit]')")
    with slurm_cluster.one_node_slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture
def launched(slurm, gpt2, tmp_path):
    """A sweep whose cells are jobs of Slurm."""
    return LaunchedSweep(gpt2, tmp_path, ("hydra/launcher=slurm",), slurm)


LIMIT = (
    "icl-eval: a cell that takes longer than 60 minutes (hydra.launcher.timeout_min) is started again, up to 100 "
    "times, and resumes"
)


def ask(sweep, *command):
    return subprocess.run(command, env=sweep.environment, capture_output=True, text=True, check=True).stdout.split()


def test_a_job_that_is_killed_is_a_failed_cell_and_the_same_command_computes_only_that_one(launched):
    serial = run_serially(launched)
    process = launched.start()
    pid = launched.kill_cell(1)
    exit_code, words = finish(process)

    assert exit_code == 1
    reason = (
        rf"its process was killed \(job \d+_1, process {pid} on {socket.gethostname()}\) "
        r"\(srun: error: \S+: task 0: Killed\); its output is in sweep/\.submitit/\S+/\d+_1"
    )
    assert (words[0], words[2:]) == (LIMIT, ["icl-eval: 1 of 3 cells failed"])
    assert re.fullmatch(f"icl-eval: {re.escape(launched.name(1))} failed: {reason}", words[1])
    assert launched.outcomes() == [QUESTIONS, "WorkerDiedError", QUESTIONS]

    before = launched.reports()
    assert launched.run() == (0, [LIMIT])
    assert [name for name, _ in launched.reports() - before] == [launched.name(1)]
    assert launched.read() == serial
    assert list(launched.folder.rglob("error.json")) == launched.remnants() == []


def test_a_job_that_is_cancelled_before_it_begins_is_a_failed_cell(launched):
    queue = LaunchedSweep(
        launched.model, launched.root, (*launched.launcher, "hydra.launcher.array_parallelism=1"), launched.environment
    )
    process = queue.start()
    queue.wait_for_cell(0)
    [job] = [job for job in ask(queue, "squeue", "--noheader", "--array", "--format=%F_%K") if job.endswith("_2")]
    ask(queue, "scancel", job)
    exit_code, words = finish(process)

    assert exit_code == 1
    assert re.fullmatch(
        rf"icl-eval: {re.escape(queue.name(2))} failed: its job ended before the cell began; the output of all jobs is "
        r"in sweep/\.submitit/\S+",
        words[1],
    )
    assert queue.outcomes() == [QUESTIONS, QUESTIONS, "WorkerDiedError"]


def test_jobs_outlive_the_sweep_and_are_not_computed_twice(launched):
    serial = run_serially(launched)
    process = launched.start()
    launched.wait_for_cell(0)
    os.kill(process.pid, 9)
    process.wait()
    assert ask(launched, "squeue", "--noheader", "--format=%i")

    exit_code, _ = launched.run()
    assert exit_code == 0
    assert launched.read() == serial


def test_a_partition_that_does_not_exist_is_the_reason_of_every_cell(launched):
    lost = LaunchedSweep(
        launched.model, launched.root, (*launched.launcher, "hydra.launcher.partition=none"), launched.environment
    )
    exit_code, words = lost.run()
    assert exit_code == 1
    assert words[-1] == "icl-eval: 3 of 3 cells failed"
    assert "invalid partition specified: none" in words[1]


def test_a_job_that_gets_the_signal_of_its_time_limit_is_queued_again_and_resumes(launched):
    serial = run_serially(launched)
    process = launched.start()
    launched.wait_for_cell(0)
    [job] = [job for job in ask(launched, "squeue", "--noheader", "--array", "--format=%F_%K") if job.endswith("_0")]
    ask(launched, "scancel", "--signal=USR2", job)

    assert finish(process) == (0, [LIMIT])
    [output] = launched.folder.glob(f".submitit/*/{job}/{job}_0_log.out")
    assert f"Requeued job {job}" in output.read_text(encoding="utf-8")
    assert launched.read() == serial
