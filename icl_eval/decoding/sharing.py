"""Plan which prompts share a prefix, and which prefixes are worth computing once.

Prompts are compared as token ids, never as text: a tokenizer may merge the end of a prefix with what follows it.
The plan depends only on the set of prompts, not on their order, the batch size or caches left by an earlier run.

    [1 2 3 4 5 6] [1 2 3 4 7 8] [1 2 3 4 9]      ──▶  PromptGroup(prefix=[1 2 3 4], prompts=all three)
"""

from bisect import bisect, insort
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise, takewhile

from icl_eval.prompts import token_ids
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.prompts.token_ids import Ids, TokenIds, order_ids

MIN_PREFIX = 16
"""A shorter prefix, in tokens, is not worth a separate forward pass."""
MIN_SAVING = 1024
"""Minimum number of tokens that splitting a group must save. A split costs a few hundred forward passes of one token
each, which the two parts no longer share."""


@dataclass(frozen=True)
class PromptGroup:
    """Prompts that are decoded together, and their shared prefix."""

    prompts: tuple[EncodedPrompt, ...]
    prefix: Ids
    """The decoder tokens that start every prompt; each prompt has at least one more token, unless it has none."""
    shares_encoder: bool
    """Whether all prompts have the same encoder tokens, so that the encoder runs once."""

    @property
    def encoder_ids(self) -> Ids:
        """The encoder tokens that all prompts have; empty if these differ, or if there is no encoder."""
        return self.prompts[0].encoder_ids if self.shares_encoder else ()

    def begin(self, start_ids: Ids, forced_ids: Ids = ()) -> Ids:
        """Return the decoder tokens that run once for all prompts, and leave each of them at least one.

        Args:
            start_ids: The tokens that a decoder begins with, before those of the prompts.
            forced_ids: The tokens of a prompt that has none.
        """
        shortest = min(len(prompt.decoder) or len(forced_ids) for prompt in self.prompts)
        shares = bool(self.prefix) or self.shares_encoder
        return start_ids + self.prefix if shares and shortest > len(self.prefix) else ()


def plan_groups(prompts: Sequence[EncodedPrompt], min_saving: int = MIN_SAVING) -> list[PromptGroup]:
    """Split prompts into groups; every prompt is in exactly one group.

    Args:
        prompts: The prompts.
        min_saving: Minimum number of tokens that splitting a group must save.
    """
    by_encoder: defaultdict[TokenIds, list[EncodedPrompt]] = defaultdict(list)
    for prompt in _sort(prompts):
        by_encoder[prompt.encoder].append(prompt)
    groups = []
    alone = []
    for encoder, members in by_encoder.items():
        if encoder and len(members) == 1:
            alone += members  # an encoder's states depend on its whole input: nothing to share
        else:
            groups += _split(members, len(encoder) > 0, min_saving)
    if alone:
        groups.append(PromptGroup(tuple(alone), (), shares_encoder=False))
    return groups


def count_reused(groups: Sequence[PromptGroup], longest_whole: int | None, keeps: bool = True) -> dict[str, int]:
    """Return the number of tokens that each prompt reuses from other prompts, by example id.

    The first prompt with a prefix pays for it, and the others reuse it. Prompt tokens minus reused tokens is therefore
    the number of tokens to compute if no cache is left from earlier runs.

    Args:
        groups: All groups, in the order in which they are decoded.
        longest_whole: The largest number of tokens that a cache keeps completely, so that it can be cropped; None if
            there is no limit.
        keeps: Whether the prefix of a group is kept for later groups.
    """
    reused = {}
    paid: defaultdict[TokenIds, _Prefixes] = defaultdict(lambda: _Prefixes(longest_whole))
    for group in groups:
        for prompt in group.prompts:
            earlier = paid[prompt.encoder]
            shared = len(group.prefix) + (len(prompt.encoder) if group.shares_encoder else 0)
            if group.prefix in earlier:
                reused[prompt.prompt.example_id] = shared
            else:
                reused[prompt.prompt.example_id] = earlier.longest_start(group.prefix) if shared and keeps else 0
                earlier.add(group.prefix)
    return reused


def count_distinct(prompts: Sequence[EncodedPrompt]) -> int:
    """Return the least number of tokens that prompts can be computed from, if nothing that they share runs twice."""
    by_encoder: defaultdict[TokenIds, list[TokenIds]] = defaultdict(list)
    for prompt in _sort(prompts):
        by_encoder[prompt.encoder].append(prompt.decoder)
    shared = sum(token_ids.common_length(*pair) for members in by_encoder.values() for pair in pairwise(members))
    return sum(map(len, by_encoder)) + sum(len(prompt.decoder) for prompt in prompts) - shared


class _Prefixes:
    """Prefixes whose caches a later one can start from."""

    def __init__(self, longest_whole: int | None):
        """Start with none; a cache of more than `longest_whole` tokens cannot be cropped."""
        self._longest_whole = longest_whole
        self._all: set[Ids] = set()
        self._whole: list[Ids] = []  # sorted
        self._other_lengths: set[int] = set()

    def __contains__(self, prefix: Ids) -> bool:
        return prefix in self._all

    def add(self, prefix: Ids) -> None:
        """Add a prefix."""
        self._all.add(prefix)
        if self._longest_whole is None or len(prefix) <= self._longest_whole:
            insort(self._whole, prefix)
        else:
            self._other_lengths.add(len(prefix))

    def longest_start(self, prefix: Ids) -> int:
        """Return the largest number of tokens of a prefix that the cache of one of these gives."""
        place = bisect(self._whole, prefix)
        common = [common_length(other, prefix) for other in self._whole[max(0, place - 1) : place + 1]]
        starts = [length for length in self._other_lengths if prefix[:length] in self._all]
        return max((*common, *starts), default=0)


def plan_pieces(prefixes: Sequence[Ids]) -> list[tuple[int, ...]]:
    """Return, for each prefix, the lengths at which its computation must pause so that others can continue from there.

    These are the numbers of tokens that it has in common with other prefixes, and its own length. They depend on the
    set of prefixes alone, so that a prefix is always computed in the same pieces.

    Args:
        prefixes: The prefixes, sorted.
    """
    common = [common_length(*pair) for pair in pairwise(prefixes)]
    pauses: list[set[int]] = [set() for _ in prefixes]
    for numbers, lengths in ((range(1, len(prefixes)), common), (range(len(common) - 1, -1, -1), common[::-1])):
        smallest: list[int] = []  # what a prefix has in common with those on this side of it, without repetitions
        for number, length in zip(numbers, lengths, strict=True):
            while smallest and smallest[-1] >= length:
                smallest.pop()
            smallest.append(length)
            pauses[number] |= set(smallest)
    return [_worthwhile(sorted(pauses[number]), len(prefix)) for number, prefix in enumerate(prefixes)]


def _worthwhile(pauses: Sequence[int], length: int) -> tuple[int, ...]:
    """Return the pauses after pieces that are worth a forward pass of their own, and the length."""
    kept = [0]
    for pause in pauses:
        if pause - kept[-1] >= MIN_PREFIX and pause < length:
            kept.append(pause)
    return (*kept[1:], length)


def _sort(prompts: Sequence[EncodedPrompt]) -> list[EncodedPrompt]:
    """Return prompts in the order of their decoder ids, then of their names."""
    order = order_ids([prompt.decoder for prompt in prompts])
    return sorted(prompts, key=lambda prompt: (order(prompt.decoder), prompt.prompt.example_id))


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the length of the common prefix of two sequences."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _split(members: Sequence[EncodedPrompt], shares_encoder: bool, min_saving: int) -> list[PromptGroup]:
    """Split sorted prompts into groups: a branch that saves enough becomes a group, before the group it leaves."""
    groups = []
    unsplit = [members]
    while unsplit:
        together = unsplit.pop()
        branches, rest = _part(together, min_saving)
        unsplit += branches
        if rest:
            rest = _sort(rest)
            depth = _shared_length(rest if len(rest) > 1 else together)  # one that is left begins as they all do
            worthwhile = len(together) > 1 and (depth >= MIN_PREFIX or shares_encoder)
            prefix = rest[0].decoder.cut(depth if worthwhile else 0).unpack()
            groups.append(PromptGroup(tuple(rest), prefix, shares_encoder))
    return groups[::-1]


def _part(
    members: Sequence[EncodedPrompt], min_saving: int
) -> tuple[list[Sequence[EncodedPrompt]], list[EncodedPrompt]]:
    """Return the branches of sorted prompts that save enough by leaving the others, and the others."""
    depth = _shared_length(members)
    leaving: list[Sequence[EncodedPrompt]] = []
    rest: list[EncodedPrompt] = []
    unparted = [(members, depth)]  # prompts that have so many tokens in common
    while unparted:
        prompts, common = unparted.pop()
        # A prompt that ends here would keep prompts that continue with the same token from sharing more.
        rest += [prompt for prompt in prompts if len(prompt.decoder) <= common + 1]
        deeper = [prompt for prompt in prompts if len(prompt.decoder) > common + 1]
        for _, continued in groupby(deeper, key=lambda prompt: prompt.decoder[common]):
            branch = list(continued)
            shared = _shared_length(branch)
            if (len(branch) - 1) * (shared - depth) >= min_saving:  # not all members, or `depth` would be greater
                leaving.append(branch)
            elif (len(branch) - 1) * (max(len(prompt.decoder) for prompt in branch) - depth) >= min_saving:
                unparted.append((branch, shared))  # some of it may save enough: passages often begin with one word
            else:
                rest += branch
    return leaving, rest


def _shared_length(members: Sequence[EncodedPrompt]) -> int:
    """Return the length of the longest common prefix that leaves every prompt one token; members are sorted."""
    shortest = min(len(prompt.decoder) for prompt in members)
    return max(0, min(token_ids.common_length(members[0].decoder, members[-1].decoder), shortest - 1))
