"""What training never sees: a fixed fifth of all words, sums and rearrangements, chosen by a hash.

The hash knows nothing of a seed, so that a model stays comparable with every set of episodes, whoever draws them.
"""

import hashlib


def is_held_out(thing: str) -> bool:
    """Return whether a word, a sum (`27+4`) or a rearrangement (`3>210`) is kept for evaluation alone."""
    return hashlib.sha256(thing.encode()).digest()[0] % 5 == 0
