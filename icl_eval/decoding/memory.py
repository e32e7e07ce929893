"""Memory: how many rows fit."""

from icl_eval.models.memory import free_bytes

MAX_ROWS = 64
"""More rows a step gain little once the weights are read once for many rows, and wait longer for the last one."""
MANY_PROMPTS = 256
"""From here on, twice as many rows pay."""
_SHARE_OF_FREE = 4
"""One part in how many of the free memory rows may take; activations and other programs need some too."""


def automatic_batch_size(num_prompts: int, bytes_per_row: int, device: str) -> int:
    """Return how many rows to decode together.

    Where free memory cannot be told, as many as pay: when memory runs out, they become fewer.
    """
    most = min(num_prompts, MAX_ROWS if num_prompts < MANY_PROMPTS else 2 * MAX_ROWS)
    free = free_bytes(device)
    fitting = free // _SHARE_OF_FREE // max(1, bytes_per_row) if free else most
    return max(1, min(most, fitting))
