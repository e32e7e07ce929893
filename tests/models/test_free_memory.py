import pytest

from icl_eval.models import memory

MEMINFO = "MemTotal: 64000000 kB\nMemAvailable: 40000000 kB\nSwapFree: 2000000 kB\n"
NO_LIMIT_1 = str(2**63 - 4096)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Put files of Linux where free memory is read."""
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")

    def write(files):
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)

    return write


def group(folder, limit, usage, stat="", swap="max"):
    names = ("memory.max", "memory.current", "memory.stat", "memory.swap.max", "memory.swap.current")
    return {
        f"cgroup/{folder}{name}": text for name, text in zip(names, (limit, usage, stat, swap, "1000"), strict=True)
    }


@pytest.mark.parametrize(
    ("files", "free", "swap"),
    [
        ({}, 40_960_000_000, 2_048_000_000),
        ({"proc/self/cgroup": "0::/\n"} | group("", "max", "7"), 40_960_000_000, 2_048_000_000),
        (  # of a job and its step, the one with less counts
            {"proc/self/cgroup": "0::/job/step\n"}
            | group("job/", "9000000000", "2000000000", "active_file 5\ninactive_file 1000000000\n", "5000")
            | group("job/step/", "max", "1000000000"),
            8_000_000_000,
            4_000,
        ),
        (  # a container knows its group by the name that it has on the machine
            {"proc/self/cgroup": "0::/docker/3f1\n"} | group("", "3000000000", "3500000000", "", "0"),
            0,
            0,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/\n4:memory,hugetlb:/job\n0::/\n",
                "cgroup/memory/job/memory.limit_in_bytes": "6000000000",
                "cgroup/memory/job/memory.usage_in_bytes": "2000000000",
                "cgroup/memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 500000000\n",
                "cgroup/memory/memory.limit_in_bytes": NO_LIMIT_1,
                "cgroup/memory/memory.usage_in_bytes": "2000000000",
            },
            4_500_000_000,
            2_048_000_000,
        ),
    ],
    ids=["no groups", "no limit", "a job's step", "a container", "version 1"],
)
def test_the_limits_of_control_groups_count(files, free, swap, machine):
    machine({"proc/meminfo": MEMINFO} | files)
    assert (memory.free_bytes("cpu"), memory.swap_bytes("cpu")) == (free, swap)


def test_free_memory_is_unknown_where_linux_says_nothing(machine):
    assert (memory.free_bytes("cpu"), memory.swap_bytes("cpu"), memory.swap_bytes("mps")) == (0, 0, 0)
