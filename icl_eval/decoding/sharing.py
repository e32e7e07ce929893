"""Sharing: which prompts begin with the same tokens, and which of those beginnings are worth computing once.

Prompts are compared as token ids, never as text: a tokenizer may join the end of a prefix with what follows it.
The plan depends on the set of prompts alone, not on their order, a batch size, or what an earlier run has left over.

    [1 2 3 4 5 6] [1 2 3 4 7 8] [1 2 3 4 9]      ──▶  PromptGroup(prefix=[1 2 3 4], prompts=all three)
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

from icl_eval.prompts.building import EncodedPrompt

Ids = tuple[int, ...]

MIN_PREFIX = 16
"""Tokens below which a prefix is not worth its own forward pass."""
MIN_SAVING = 1024
"""Tokens that must be saved for some prompts of a group to leave it for a group of their own: it costs a few
hundred forward passes of one token each, which are then not shared with the rest."""


@dataclass(frozen=True)
class PromptGroup:
    """Prompts that are decoded together, and what they share."""

    prompts: tuple[EncodedPrompt, ...]
    prefix: Ids
    """The beginning of all their decoder tokens; every prompt has at least one token more."""
    shares_encoder: bool
    """Whether all their encoder tokens are the same, so that the encoder runs once."""


def plan_groups(prompts: Sequence[EncodedPrompt]) -> list[PromptGroup]:
    """Return groups that contain every prompt once."""
    by_encoder: defaultdict[Ids, list[EncodedPrompt]] = defaultdict(list)
    for prompt in sorted(prompts, key=_order):
        by_encoder[prompt.encoder_ids].append(prompt)
    groups = []
    alone = []
    for encoder_ids, members in by_encoder.items():
        if encoder_ids and len(members) == 1:
            alone += members  # an encoder's states depend on all of its input: nothing to share
        else:
            groups += _split(members, bool(encoder_ids))
    if alone:
        groups.append(PromptGroup(tuple(alone), (), shares_encoder=False))
    return groups


def count_reused(groups: Sequence[PromptGroup], longest_whole: int | None, keeps: bool = True) -> dict[str, int]:
    """Return for each prompt how many of its tokens another prompt's computation serves.

    The first prompt that has a prefix pays for it, the others reuse it; so prompt tokens minus reused tokens is what
    has to be computed when nothing is left over from earlier runs.

    Args:
        groups: All groups, in the order in which they are decoded.
        longest_whole: Up to how many tokens a cache keeps all of them, so that a beginning of it is of use, too.
        keeps: Whether a group's prefix is kept for those after it.
    """
    reused = {}
    paid: set[tuple[Ids, Ids]] = set()
    for group in groups:
        for prompt in group.prompts:
            key = (prompt.encoder_ids, group.prefix)
            shared = len(group.prefix) + (len(prompt.encoder_ids) if group.shares_encoder else 0)
            if key in paid:
                reused[prompt.prompt.example_id] = shared
            else:
                reused[prompt.prompt.example_id] = _longest_paid(paid, key, longest_whole) if shared and keeps else 0
                paid.add(key)
    return reused


def _order(prompt: EncodedPrompt) -> tuple[Ids, str]:
    return prompt.decoder_ids, prompt.prompt.example_id


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many ids two sequences have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _longest_paid(paid: set[tuple[Ids, Ids]], key: tuple[Ids, Ids], longest_whole: int | None) -> int:
    """Return how many tokens of a prefix those before it have in common with it; no encoder runs for two groups."""
    encoder_ids, prefix = key
    longest = 0
    for other_encoder_ids, other in paid:
        length = common_length(prefix, other)
        usable = length == len(other) or longest_whole is None or len(other) <= longest_whole
        if other_encoder_ids == encoder_ids and usable:
            longest = max(longest, length)
    return longest


def _split(members: Sequence[EncodedPrompt], shares_encoder: bool) -> list[PromptGroup]:
    """Return the groups of sorted prompts: branches that save enough on their own, each before what it branches off."""
    groups = []
    unsplit = [members]
    while unsplit:
        members = unsplit.pop()
        depth = _shared_length(members)
        # A prompt that ends here would keep those that go on with the same token from sharing more.
        rest = [prompt for prompt in members if len(prompt.decoder_ids) <= depth + 1]
        deeper = [prompt for prompt in members if len(prompt.decoder_ids) > depth + 1]
        for _, branch in groupby(deeper, key=lambda prompt: prompt.decoder_ids[depth]):
            prompts = list(branch)
            saving = (len(prompts) - 1) * (_shared_length(prompts) - depth)
            if saving >= MIN_SAVING:  # some members are not in this branch, or `depth` would be greater
                unsplit.append(prompts)
            else:
                rest += prompts
        if rest:
            rest.sort(key=_order)
            depth = _shared_length(rest)
            worthwhile = len(rest) > 1 and (depth >= MIN_PREFIX or shares_encoder)
            groups.append(PromptGroup(tuple(rest), rest[0].decoder_ids[: depth if worthwhile else 0], shares_encoder))
    return groups[::-1]


def _shared_length(members: Sequence[EncodedPrompt]) -> int:
    """Return the length of the common beginning that leaves every prompt one token; members are sorted."""
    first, last = members[0].decoder_ids, members[-1].decoder_ids
    shortest = min(len(prompt.decoder_ids) for prompt in members)
    return max(0, min(common_length(first, last), shortest - 1))
