"""Servers of other programs, started on loopback for as long as a test needs them."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def started(command, port, folder, seconds=180, **environment):
    """Start a server, wait until it is healthy, and yield the process."""
    log = Path(folder) / f"server-{port}.log"
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HOME": str(folder)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**os.environ, **quiet, **environment},
            cwd=folder,
            start_new_session=True,  # so that processes of its own end with it
        )
    try:
        _wait_until_healthy(process, port, log, time.monotonic() + seconds)
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_healthy(process, port, log, deadline):
    while True:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        assert time.monotonic() < deadline, f"not up: {log.read_text(errors='replace')[-3000:]}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)


@contextmanager
def serve_with_transformers(python, model, folder):
    """Run `transformers serve` and yield its address up to and including /v1."""
    port = free_port()
    command = [str(Path(python).parent / "transformers"), "serve", str(model), "--device", "cpu", "--dtype", "float32"]
    with started([*command, "--host", "127.0.0.1", "--port", str(port)], port, folder):
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def serve_with_vllm(python, model, folder, port=None, *options):
    """Run vLLM on the processor; yield its address up to and including /v1, and its process."""
    port = port or free_port()
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--dtype", "float32"]
    command += ["--served-model-name", "served", "--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "32"]
    command += ["--block-size", "32", "--enable-prompt-tokens-details", "--host", "127.0.0.1", "--port", str(port)]
    with started([*command, *options], port, folder, 400, VLLM_CPU_KVCACHE_SPACE="1") as process:
        yield f"http://127.0.0.1:{port}/v1", process
