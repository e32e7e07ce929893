import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import pytest
from hydra.core.utils import JobStatus
from launched_sweeps import QUESTIONS, LaunchedSweep, finish, run_serially

from icl_eval.cli.launching import RecoveringLauncher
from icl_eval.cli.workers import SubmittedJobs, find_culprits, separate_jobs, watching_workers
from icl_eval.errors import ConfigError
from icl_eval.runs.attempts import attempting, is_alive, queue_attempt, read_attempt
from icl_eval.runs.folders import locking, read_overrides

HOST = socket.gethostname()
LAUNCHERS = {
    "joblib": ("hydra_joblib_launcher", ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")),
    "local_jobs": ("hydra_submitit_launcher", ("hydra/launcher=local_jobs",)),
}


@pytest.fixture(params=LAUNCHERS)
def launched(request, gpt2, tmp_path):
    """A sweep by each launcher that needs no cluster."""
    plugin, options = LAUNCHERS[request.param]
    if importlib.util.find_spec(f"hydra_plugins.{plugin}") is None:
        pytest.skip(f"{plugin} is not installed (pip install 'icl-eval[parallel,submitit]')")
    return LaunchedSweep(gpt2, tmp_path, options, dict(os.environ))


def is_joblib(sweep):
    return sweep.launcher[0].endswith("joblib")


def find_processes(folder):
    """Return the processes that run in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (path / "cwd").readlink() == folder and "State:\tZ" not in (path / "status").read_text():
                found.append(path.name)
    return found


def describe_death(sweep, pid):
    """Return a pattern of the reason of a cell whose process was killed."""
    if is_joblib(sweep):
        return rf"its process was killed by SIGKILL, as when memory runs out \(process {pid} on {HOST}\)"
    return rf"its process was killed \(job \d+, process {pid} on {HOST}\); its output is in sweep/\.submitit/\S+/\d+"


@pytest.mark.slow
def test_a_cell_whose_process_is_killed_has_failed_and_the_same_command_computes_only_that_one(launched):
    serial = run_serially(launched)
    process = launched.start()
    launched.wait_for_cell(0)  # joblib computes it in another process, which its pool ends too
    pid = launched.kill_cell(1)
    exit_code, words = finish(process)

    reason = describe_death(launched, pid)
    again = "icl-eval: the launcher stopped (TerminatedWorkerError); launching 2 cells again"
    assert exit_code == 1
    assert re.fullmatch(f"icl-eval: {re.escape(launched.name(1))} failed: {reason}", words[0])
    assert words[1:] == [*[again] * is_joblib(launched), "icl-eval: 1 of 3 cells failed"]
    assert launched.outcomes() == [QUESTIONS, "WorkerDiedError", QUESTIONS]
    error = json.loads((launched.folder / launched.name(1) / "error.json").read_text(encoding="utf-8"))
    assert (error["error"], error["exit_code"]) == ("WorkerDiedError", 1)
    assert re.fullmatch(reason, error["message"])
    assert launched.read()["cells"][1]["error"] == error

    before = launched.reports()
    assert launched.run() == (0, [])
    assert [name for name, _ in launched.reports() - before] == [launched.name(1)]
    assert launched.read() == serial
    assert list(launched.folder.rglob("error.json")) == launched.remnants() == []


@pytest.mark.slow
def test_a_sweep_whose_own_process_is_killed_goes_on_with_the_same_command(launched):
    serial = run_serially(launched)
    process = launched.start()
    launched.wait_for_cell(0)
    process.kill()
    process.wait()
    if is_joblib(launched):
        end = time.monotonic() + 60
        while find_processes(launched.root) and time.monotonic() < end:
            time.sleep(0.1)
        assert find_processes(launched.root) == []

    exit_code, words = launched.run()  # jobs may still be computing
    assert exit_code == 0
    assert {re.sub(" end .*| [12] cells? again", "", word) for word in words} <= {
        "icl-eval: waiting for another run to",
        "icl-eval: launching",
    }
    assert launched.read() == serial
    assert launched.remnants() == []


@pytest.mark.slow
def test_a_cell_that_fails_by_itself_is_reported_with_its_reason_by_each_launcher(launched):
    longer = LaunchedSweep(launched.model, launched.root, (*launched.launcher, "max_new_tokens=60"), os.environ)
    exit_code, words = longer.run()

    reason = (
        "task 'qa', question 'qa-test-001': a prompt of 214 tokens plus 60 new tokens is 18 too long for the model's "
        "256 positions; lower num_fewshot or max_new_tokens, or set overflow=drop to leave out demonstrations"
    )
    assert exit_code == 2
    assert words == [f"icl-eval: {longer.name(2)} failed: {reason}", "icl-eval: 1 of 3 cells failed"]
    assert longer.outcomes() == [QUESTIONS, QUESTIONS, "PromptTooLongError"]


# The parts, with launchers that are scripts


class ScriptedLauncher:
    """Runs a function for each launch, with the folders of the cells."""

    def __init__(self, root, *launches):
        self.root, self.launches, self.launched = root, list(launches), []

    def launch(self, job_overrides, initial_job_idx):
        names = [re.search("name=(.*)", overrides[0])[1] for overrides in job_overrides]
        self.launched.append(names)
        self.launches.pop(0)({name: self.root / name for name in names})


def recover(tmp_path, *launches, cells="abc"):
    """Launch cells, and return which ones each launch got."""
    from omegaconf import OmegaConf

    class Loader:
        def load_sweep_config(self, config, overrides):
            subdir = re.search("name=(.*)", overrides[0])[1]
            places = {"job": {"name": "x"}, "sweep": {"dir": str(tmp_path), "subdir": subdir}}
            return OmegaConf.create({"hydra": places | {"overrides": {"task": overrides}}})

    launcher = ScriptedLauncher(tmp_path, *launches)
    RecoveringLauncher(launcher, Loader(), None).launch([[f"name={cell}"] for cell in cells], 0)
    assert list(tmp_path.rglob(".attempt*")) == []
    return launcher.launched


def finish_cell(folder):
    with attempting(folder, "1"), locking(folder):
        (folder / "report.json").write_text("{}")


def finish_all(folders):
    for folder in folders.values():
        finish_cell(folder)


def reasons(tmp_path):
    return {path.parent.name: json.loads(path.read_text())["message"] for path in tmp_path.glob("*/error.json")}


def test_cells_that_a_launcher_gives_up_are_launched_again_as_long_as_others_end(tmp_path, capsys):
    def break_down(folders):
        finish_cell(next(iter(folders.values())))
        raise OSError("no more processes")

    assert recover(tmp_path, break_down, break_down, finish_all) == [list("abc"), list("bc"), list("c")]
    assert reasons(tmp_path) == {}
    assert capsys.readouterr().err.splitlines() == [
        "icl-eval: the launcher stopped (OSError); launching 2 cells again",
        "icl-eval: the launcher stopped (OSError); launching 1 cell again",
    ]


def test_a_launcher_that_fails_is_the_reason_of_every_cell_that_it_left(tmp_path):
    def refuse(folders):
        raise RuntimeError("sbatch: error: invalid partition\n")

    assert recover(tmp_path, refuse) == [list("abc")]
    assert reasons(tmp_path) == dict.fromkeys(
        "abc", "the launcher failed (RuntimeError: sbatch: error: invalid partition)"
    )


def test_a_pool_whose_workers_die_before_they_begin_a_cell_is_tried_three_times(tmp_path):
    def break_down(folders):
        raise BrokenProcessPool("gone")

    assert recover(tmp_path, break_down, break_down, break_down) == [list("abc")] * 3
    assert set(reasons(tmp_path)) == set("abc")


def test_a_cell_that_another_run_is_writing_is_waited_for(tmp_path, capsys):
    other = threading.Event()

    def write():
        with locking(tmp_path / "a"):
            other.set()
            time.sleep(0.5)
            (tmp_path / "a" / "report.json").write_text("{}")

    def skip_first(folders):
        thread = threading.Thread(target=write)
        thread.start()
        other.wait()
        with attempting(folders["a"], "1"):
            pass
        finish_all({name: folder for name, folder in folders.items() if name != "a"})

    assert recover(tmp_path, skip_first) == [list("abc")]
    assert capsys.readouterr().err == "icl-eval: waiting for another run to end a\n"


def test_a_cell_without_a_report_or_a_reason_has_failed(tmp_path):
    def end_one(folders):
        with attempting(folders["b"], "1"):
            pass
        finish_all({name: folder for name, folder in folders.items() if name != "b"})

    recover(tmp_path, end_one)
    assert reasons(tmp_path) == {"b": "it ended without a report"}
    assert read_overrides(tmp_path / "b") == ("name=b",)


@pytest.mark.slow
def test_a_cell_keeps_its_folder_when_it_is_launched_again(launched):
    numbered = LaunchedSweep(
        launched.model, launched.root, (*launched.launcher, "hydra.sweep.subdir=${hydra.job.num}"), os.environ
    )
    process = numbered.start()
    end = time.monotonic() + 120
    while not ((attempt := read_attempt(numbered.folder / "0")) and attempt.pid) and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(attempt.pid, signal.SIGKILL)
    exit_code, _ = finish(process)
    assert exit_code == 1
    assert sorted(path.parent.name for path in numbered.folder.glob("*/report.json")) == ["1", "2"]
    assert [path.parent.name for path in numbered.folder.glob("*/error.json")] == ["0"]


def test_only_a_marked_cell_is_watched(tmp_path):
    with attempting(tmp_path, "1"):
        assert read_attempt(tmp_path) is None
    queue_attempt(tmp_path)
    assert (read_attempt(tmp_path).state, is_alive(tmp_path)) == ("queued", False)
    with attempting(tmp_path, "7"):
        attempt = read_attempt(tmp_path)
        assert (attempt.state, attempt.pid, attempt.host, attempt.job) == ("running", os.getpid(), HOST, "7")
        assert is_alive(tmp_path)
    assert read_attempt(tmp_path) is None


def sleep_and_be_killed(seconds):
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_workers_are_told_apart_by_who_died_first():
    context = get_context("spawn")
    with watching_workers() as ended:
        processes = [context.Process(target=sleep_and_be_killed, args=(seconds,)) for seconds in (1.0, 0.3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    slow, quick = processes
    assert [process.pid for process in ended] == [quick.pid, slow.pid]

    killed = " by SIGKILL, as when memory runs out"
    assert find_culprits(None, ended) is None
    assert find_culprits(BrokenProcessPool("exit codes: {SIGKILL(-9)}"), ended) == {quick.pid: killed}
    assert find_culprits(BrokenProcessPool("gone"), ended) == {quick.pid: killed}
    both = BrokenProcessPool("exit codes: {SIGKILL(-9), SIGKILL(-9)}")
    assert find_culprits(both, ended) == {quick.pid: killed, slow.pid: killed}
    assert find_culprits(OSError("disk full"), ended) == {}  # the pool ended them all
    assert find_culprits(BrokenProcessPool("gone"), []) is None


@pytest.mark.slow
def test_a_job_that_died_gets_an_empty_result_and_one_that_lives_does_not(tmp_path):
    import pickle

    context = get_context("spawn")
    alive = context.Process(target=time.sleep, args=(60,))
    alive.start()
    for job in ("999999999", alive.pid):
        (tmp_path / f"{job}").mkdir()
        (tmp_path / f"{job}" / f"{job}_submitted.pkl").touch()
    result = tmp_path / "999999999" / "999999999_0_result.pkl"
    with SubmittedJobs(tmp_path, is_local=True).answering():
        end = time.monotonic() + 30
        while not result.exists() and time.monotonic() < end:
            time.sleep(0.1)
    alive.kill()
    alive.join()
    outcome, job_return = pickle.loads(result.read_bytes())
    assert (outcome, job_return.status, job_return.return_value) == ("success", JobStatus.COMPLETED, None)
    assert [path.name for path in tmp_path.rglob("*_result.pkl")] == [result.name]


def test_the_jobs_of_each_launch_have_a_folder_of_their_own():
    class Submitit:
        params: dict

    launcher = Submitit()
    launcher.params = {"submitit_folder": "sweep/.submitit/%j"}
    assert str(separate_jobs(launcher, "1").folder) == "sweep/.submitit/1"
    assert launcher.params["submitit_folder"] == "sweep/.submitit/1/%j"
    assert separate_jobs(object(), "1") is None


# Words


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["hydra/launcher=local_jobs", "hydra.launcher.timeout_min=5"],
            "a cell that takes longer than 5 minutes (hydra.launcher.timeout_min) is started again, up to 3 times, "
            "and resumes",
        ),
        (["hydra/launcher=local_jobs"], None),
    ],
)
def test_a_time_limit_is_announced(options, sentence, tmp_path, compose, capsys):
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    pytest.importorskip("submitit")
    from icl_eval.config.setup import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = hydra_compose("evaluate", overrides=options, return_hydra_config=True)
    launcher = ScriptedLauncher(tmp_path)
    launcher.params = config.hydra.launcher
    RecoveringLauncher(launcher, None, None).launch([], 0)
    assert capsys.readouterr().err == (f"icl-eval: {sentence}\n" if sentence else "")


def test_a_launcher_that_is_not_installed_is_named_with_what_installs_it():
    from hydra.errors import MissingConfigException

    from icl_eval.config.explaining import explaining_errors

    for name, extra in (("joblib", "parallel"), ("submitit_slurm", "submitit")):
        missing = MissingConfigException("…", f"hydra/launcher/{name}", ["basic"])
        with pytest.raises(ConfigError) as caught, explaining_errors(()):
            raise missing
        assert str(caught.value) == (
            f"hydra/launcher={name}: there is no such hydra/launcher (known: basic; pip install 'icl-eval[{extra}]')"
        )


def test_a_cell_outside_the_folder_of_its_sweep_is_refused_before_any_is_launched(launched):
    stray = LaunchedSweep(launched.model, launched.root, (*launched.launcher, "hydra.sweep.subdir=a/b"), os.environ)
    where = stray.folder / "a" / "b"
    assert stray.run() == (
        2,
        [f"icl-eval: hydra.sweep.subdir: must put each cell directly into sweep, not into {where}"],
    )
