"""Choosing: the next token of each row, from the logits after it.

logits ─▶ rules: penalties, forced tokens, temperature, top-k, top-p ─▶ the most likely token, or a drawn one

A draw is the Gumbel-max trick (Gumbel, 1954; Maddison et al., 2014): the largest logit after a Gumbel variate was
added to each is distributed as their softmax. The variates come from a counter-based generator (Philox; Salmon et al.,
2011) keyed by seed, example and place, so there is no state that a neighbour, a batch or a resumed run could disturb.
Where logits differ by rounding, as between batch sizes, so do the sums, and the choice is as stable as a greedy one.
"""

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
import torch

from icl_eval.decoding.hypotheses import Hypothesis
from icl_eval.decoding.networks import not_finite
from icl_eval.decoding.rules import apply_rules
from icl_eval.decoding.searches import Greedy, Sample

NO_TOKEN = -1
"""What is picked where the largest logit is infinite or not a number."""

Pick = Callable[[Sequence[Hypothesis], torch.Tensor], list[int]]
"""Returns a token for each row, from its logits after the rules, [rows, vocabulary]."""


def choose(rows: Sequence[Hypothesis], logits: torch.Tensor, pick: Pick) -> list[int]:
    """Return the next token of each row under its model's rules, from logits [rows, vocabulary].

    Raises:
        IclEvalError: When a row's logits are not numbers.
    """
    if not rows:
        return []
    dtype, logits = logits.dtype, logits.float()  # as `generate` compares them
    if any(row.rules for row in rows):
        logits = apply_rules([row.rules for row in rows], [row.history for row in rows], logits)
    chosen = pick(rows, logits)
    if NO_TOKEN in chosen:
        example_id = rows[chosen.index(NO_TOKEN)].example_id
        raise not_finite(f"{example_id}: the largest logit", dtype)
    return chosen


def build_pick(search: Greedy | Sample) -> Pick:
    """Return how a search picks a token."""
    if isinstance(search, Greedy):
        return most_likely
    return lambda rows, logits: _draw_each(rows, logits, search.seed)


def most_likely(rows: Sequence[Hypothesis], logits: torch.Tensor) -> list[int]:
    """Return each row's most likely token; NO_TOKEN where logits are not numbers."""
    token_ids: list[int] = _largest(logits).tolist()
    return token_ids


def draw(logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Draw a token for each row from the softmax of its logits.

    Args:
        logits: [rows, vocabulary]; minus infinity for tokens that cannot be drawn.
        uniforms: Independent and uniform on [0, 1), of the same shape.

    Returns:
        Token ids, [rows]; NO_TOKEN where logits are not numbers.
    """
    gumbels = -(-uniforms.log()).log()
    return _largest(logits.double() + gumbels)


def _largest(logits: torch.Tensor) -> torch.Tensor:
    # max, not argmax: the same index on ties, several times faster on a large vocabulary
    values, token_ids = logits.max(dim=-1)
    return torch.where(values < float("inf"), token_ids, NO_TOKEN)  # in the one tensor that leaves the device


def uniforms_of(seed: int, example_id: str, place: int, count: int) -> torch.Tensor:
    """Return uniform variates on [0, 1) that depend on nothing but these arguments, [count], float64."""
    digest = hashlib.sha256(json.dumps([seed, example_id, place]).encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    return torch.from_numpy(generator.random(count))


def _draw_each(rows: Sequence[Hypothesis], logits: torch.Tensor, seed: int) -> list[int]:
    """Draw a token for each row; a row at a time, so that the variates of a large vocabulary take little memory."""
    logits = logits.cpu()  # where every device has the same float64, if it has any
    drawn = []
    for row, own in zip(rows, logits, strict=True):
        uniforms = uniforms_of(seed, row.example_id, len(row.token_ids), len(own))
        drawn.append(draw(own[None], uniforms[None]))
    token_ids: list[int] = torch.cat(drawn).tolist()
    return token_ids
