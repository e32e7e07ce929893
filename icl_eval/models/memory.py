"""Measure free memory, and recognize errors that say it ran out.

A container or a job of a cluster may have less memory than its machine: the limits of its control groups count, too
(https://docs.kernel.org/admin-guide/cgroup-v2.html, and version 1, which has other names for the same).
"""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_SIGNS = (
    *("allocate memory", "out of memory", "not enough memory", "alloc_failed", "bad_alloc", "memory object"),
    *("could not create a primitive", "could not create a memory"),
)
"""Phrases in the out-of-memory errors of torch's allocators, cuBLAS, oneDNN and Metal."""


_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


class _Version(NamedTuple):
    """The names of a version of control groups."""

    folder: str
    limit: str
    usage: str
    reclaimable: str
    """The entry of `memory.stat` for pages of files that are given back when memory is needed."""
    swap_limit: str = ""
    swap_usage: str = ""


_FIRST = _Version("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_SECOND = _Version("", "memory.max", "memory.current", "inactive_file", "memory.swap.max", "memory.swap.current")


def free_bytes(device: str) -> int:
    """Return the number of free bytes on a device, or 0 if it is unknown."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    available = _read_meminfo("MemAvailable")
    return 0 if available is None else max(0, min((available, *_list_free_in_groups())))


def swap_bytes(device: str) -> int:
    """Return the number of free bytes to which a device's memory can be swapped."""
    free = _read_meminfo("SwapFree") if device == "cpu" else None
    return 0 if free is None else max(0, min((free, *_list_free_swap_in_groups())))


def _read_meminfo(name: str) -> int | None:
    """Return an entry of Linux's list, in bytes; None if there is none."""
    try:
        found = (_PROC / "meminfo").read_text().partition(f"{name}:")[2].split()
    except OSError:
        return None
    return int(found[0]) * 1024 if found else None


def _list_free_in_groups() -> Iterator[int]:
    """Yield the free bytes of each control group of this process that has a limit."""
    for version, folder in _list_groups():
        if (room := _read_room(folder / version.limit, folder / version.usage)) is not None:
            yield room + _read_reclaimable(folder / "memory.stat", version.reclaimable)


def _list_free_swap_in_groups() -> Iterator[int]:
    for version, folder in _list_groups():
        if version.swap_limit:
            room = _read_room(folder / version.swap_limit, folder / version.swap_usage)
            if room is not None:
                yield room


def _list_groups() -> Iterator[tuple[_Version, Path]]:
    """Yield the folders of the control groups that this process is in, up to the root that it sees."""
    try:
        lines = (_PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, place = line.split(":", 2)
        version = _SECOND if number == "0" else _FIRST
        if number == "0" or "memory" in controllers.split(","):
            root = _CGROUPS / version.folder
            own = root / place.strip("/")  # in a container, the place may be one that only the machine sees
            yield from ((version, folder) for folder in (own, *own.parents) if folder.is_relative_to(root))


def _read_room(limit: Path, usage: Path) -> int | None:
    """Return how far the number in a file is above that in another; None without a limit, which is `max`."""
    try:
        return int(limit.read_text()) - int(usage.read_text())
    except (OSError, ValueError):
        return None


def _read_reclaimable(path: Path, name: str) -> int:
    try:
        entries = dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
        return int(entries.get(name, 0))
    except (OSError, ValueError):
        return 0


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out; often it is only a RuntimeError with such a message."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):  # from a memory-mapped file
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)
