"""Describe the machine, and measure how much of it other processes used.

A second program on the same cores slows a loop of many small parallel steps down several times. Each timing therefore
comes with the share of CPU time that other processes used.
"""

import os
import platform
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

_PACKAGES = ("torch", "transformers", "lm-eval", "llama-cpp-python", "ctranslate2", "vllm", "icl-eval")
_BUSY = (0, 1, 2, 5, 6, 7)
"""Columns of /proc/stat: user, nice, system, irq, softirq and steal (used by other virtual machines)."""


def machine_facts(device: str = "cpu") -> dict[str, str]:
    """Return the facts about this machine and its software that affect timings on a device, by name."""
    import torch

    facts = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "torch threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
    }
    if device == "cuda":
        facts["GPU"] = torch.cuda.get_device_name()
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@dataclass(frozen=True)
class CpuClock:
    """CPU seconds so far, summed over all cores: of all processes, and of this one and those that it started."""

    total: float = field(default_factory=lambda: _all_processes())
    own: float = field(default_factory=lambda: _own_processes())


def foreign_share(start: CpuClock, end: CpuClock, seconds: float) -> float | None:
    """Return the share of the machine that other processes used between two moments; None if it is unknown."""
    if not end.total:
        return None
    foreign = (end.total - start.total) - (end.own - start.own)
    return max(0.0, foreign / (seconds * (os.cpu_count() or 1)))


def _own_processes() -> float:
    running = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended
            running += sum(process.cpu_times()[:2])
    return running + sum(os.times()[:4])


def _all_processes() -> float:
    try:
        counts = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return 0.0
    return sum(int(counts[column]) for column in _BUSY) / os.sysconf("SC_CLK_TCK")
