"""Choose the next token of each row from its logits.

logits ─▶ rules: penalties, forced tokens, temperature, top-k, top-p ─▶ the most likely token, or a sampled one

Sampling uses the Gumbel-max trick (Gumbel, 1954; Maddison et al., 2014): add a Gumbel variate to each logit, and the
argmax is distributed as their softmax. The variates come from a counter-based generator (Philox; Salmon et al., 2011)
keyed by seed, example, sample and position. It has no state that other rows, the batch size or a resumed run could
disturb. Logits that differ by rounding, as between batch sizes, change the sums only by rounding, so that a sampled
token is as stable as a greedy one.
"""

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
import torch

from icl_eval.decoding.hypotheses import Hypothesis
from icl_eval.decoding.networks import not_finite_error
from icl_eval.decoding.rules import apply_rules
from icl_eval.decoding.searches import Greedy, Sample

NO_TOKEN = -1
"""Stands for a token where the largest logit is infinite or NaN."""

Pick = Callable[[Sequence[Hypothesis], torch.Tensor], list[int]]
"""Picks a token for each row from its logits after the rules, [rows, vocabulary]."""


def choose(rows: Sequence[Hypothesis], logits: torch.Tensor, pick: Pick) -> list[int]:
    """Apply each row's rules to its logits, [rows, vocabulary], and return the next token of each row.

    Raises:
        IclEvalError: If a row's logits are not finite.
    """
    if not rows:
        return []
    dtype, logits = logits.dtype, logits.float()  # as `generate` compares them
    if any(row.rules for row in rows):
        logits = apply_rules([row.rules for row in rows], [row.history for row in rows], logits)
    chosen = pick(rows, logits)
    if NO_TOKEN in chosen:
        example_id = rows[chosen.index(NO_TOKEN)].example_id
        raise not_finite_error(f"{example_id}: the largest logit", dtype)
    return chosen


def build_pick(search: Greedy | Sample) -> Pick:
    """Return the function that picks tokens for a search."""
    if isinstance(search, Greedy):
        return pick_most_likely
    return lambda rows, logits: _draw_each(rows, logits, search.seed)


def pick_most_likely(rows: Sequence[Hypothesis], logits: torch.Tensor) -> list[int]:
    """Return each row's most likely token, or NO_TOKEN if its logits are not finite."""
    token_ids: list[int] = _find_largest(logits).tolist()
    return token_ids


def draw(logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Sample a token for each row from the softmax of its logits.

    Args:
        logits: [rows, vocabulary]; minus infinity for tokens that must not be sampled.
        uniforms: Independent uniform variates on [0, 1), of the same shape.

    Returns:
        Token ids, [rows]; NO_TOKEN for a row whose logits are not finite.
    """
    gumbels = -(-uniforms.log()).log()
    return _find_largest(logits.double() + gumbels)


def _find_largest(logits: torch.Tensor) -> torch.Tensor:
    # max, not argmax: the same index on ties, and several times faster on a large vocabulary
    values, token_ids = logits.max(dim=-1)
    return torch.where(values < float("inf"), token_ids, NO_TOKEN)  # one tensor, so that one transfer suffices


def uniforms_of(seed: int, example_id: str, place: int, count: int, sample: int = 0) -> torch.Tensor:
    """Return uniform variates on [0, 1) as [count] float64; they depend on these arguments alone."""
    key = [seed, example_id, place, *[sample] * (sample > 0)]  # the first sample is that of a search for only one
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    return torch.from_numpy(generator.random(count))


def _draw_each(rows: Sequence[Hypothesis], logits: torch.Tensor, seed: int) -> list[int]:
    """Sample a token for each row, one row at a time, since the variates of a large vocabulary take much memory."""
    logits = logits.cpu()  # some devices have no float64, and the CPU's results are the same for all
    drawn = []
    for row, own in zip(rows, logits, strict=True):
        uniforms = uniforms_of(seed, row.example_id, len(row.token_ids), len(own), row.sample)
        drawn.append(draw(own[None], uniforms[None]))
    token_ids: list[int] = torch.cat(drawn).tolist()
    return token_ids
