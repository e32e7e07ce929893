"""Decide how many rows to decode together.

If memory runs out all the same, `stream` and `log_probs` continue with fewer rows.
"""

from icl_eval.models.memory import free_bytes

MAX_ROWS = 64
"""More rows per step gain little once the cost of reading the weights is spread over many, and they finish later."""
MANY_PROMPTS = 256
"""From this number of prompts on, twice as many rows pay off."""
_SHARE_OF_FREE = 4
"""Rows may use one part in this many of the free memory; activations and other programs need the rest."""


def choose_batch_size(num_prompts: int, bytes_per_row: int, device: str) -> int:
    """Return how many rows to decode together.

    If free memory is unknown, return as many rows as pay off; the decoder reduces them if memory runs out.
    """
    most = min(num_prompts, MAX_ROWS if num_prompts < MANY_PROMPTS else 2 * MAX_ROWS)
    free = free_bytes(device)
    fitting = free // _SHARE_OF_FREE // max(1, bytes_per_row) if free else most
    return max(1, min(most, fitting))
