"""Measure free memory, and recognize errors that say it ran out."""

import errno
from pathlib import Path

_SIGNS = (
    *("allocate memory", "out of memory", "not enough memory", "alloc_failed", "bad_alloc", "memory object"),
    *("could not create a primitive", "could not create a memory"),
)
"""Phrases in the out-of-memory errors of torch's allocators, cuBLAS, oneDNN and Metal."""


def free_bytes(device: str) -> int:
    """Return the number of free bytes on a device, or 0 if it is unknown."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    try:
        memory = Path("/proc/meminfo").read_text()
    except OSError:
        return 0
    return int(memory.split("MemAvailable:")[1].split()[0]) * 1024


def swap_bytes(device: str) -> int:
    """Return the number of free bytes to which a device's memory can be swapped."""
    if device != "cpu":
        return 0
    try:
        memory = Path("/proc/meminfo").read_text()
    except OSError:
        return 0
    return int(memory.split("SwapFree:")[1].split()[0]) * 1024 if "SwapFree:" in memory else 0


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out; often it is only a RuntimeError with such a message."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):  # from a memory-mapped file
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)
