"""Plan in which parts prompts are scored: a part runs what all of its prompts begin with once, and they come after it.

Small parts run fewer tokens twice, since their prompts have more in common; large ones take fewer passes. So prompts
are divided in several ways, and what a plan runs is counted before anything runs.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter

from transformers import Cache, DynamicCache

from icl_eval.decoding.branches import Branches, BranchingPrompt
from icl_eval.decoding.networks import MOST_FED, PASS_TOKENS
from icl_eval.decoding.opening import NO_BEGINNING, Beginning
from icl_eval.decoding.pooled_branches import PooledBranches
from icl_eval.decoding.prefixes import Key, PrefixStack
from icl_eval.decoding.preparing import PreparedModel
from icl_eval.decoding.prompt_branches import PromptBranches, RunContinuations
from icl_eval.decoding.prompt_copies import run_copies
from icl_eval.decoding.prompt_trees import run_trees
from icl_eval.decoding.sharing import MIN_PREFIX, MIN_SAVING, PromptGroup, count_distinct, plan_groups, plan_pieces
from icl_eval.decoding.tree_branches import TreeBranches
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.prompts.token_ids import Ids, TokenIds
from icl_eval.prompts.tokenization import Continuations

_MIN_SAVINGS = {TreeBranches: (MIN_SAVING, 256, 64), PooledBranches: (256,), PromptBranches: (256, 64, MIN_PREFIX)}
"""`sharing.MIN_SAVING` for each way to run continuations, the first one to try first. A split costs a pass or two:
there are no further steps that its parts would share. A tree shares more than its prefix, but only within a pass."""
_MOST_REPEATED = {TreeBranches: MOST_FED - 1, PromptBranches: 0.01}
"""The share of their tokens that prompts may run twice, if there is a way to it; copied prompts have padding, too."""


@dataclass(frozen=True)
class PlannedPart:
    """Prompts that run together."""

    begins_with: Key
    """What all of them begin with: the encoder's input if they have the same, and the decoder's tokens with the start
    token if these are worth a pass."""
    pauses: tuple[int, ...]
    """Where the computation of the decoder's tokens pauses, so that other parts can continue from there."""
    rows: tuple[BranchingPrompt, ...]


def choose_branches(prepared: PreparedModel, part: PlannedPart, beginning: Beginning) -> Branches:
    """Return the best way that a network allows to run a part after its beginning."""
    network, capabilities = prepared.model.network, prepared.capabilities
    longest = max(len(row.own_ids) + row.num_inner for row in part.rows)
    if capabilities.splits(len(part.begins_with.decoder_ids) + longest):
        return TreeBranches(network, beginning.prefix)
    aligned = not capabilities.pools
    if prepared.can_pool(beginning.prefix, aligned):
        return PooledBranches(network, beginning, capabilities.bytes_per_token, aligned)
    run_continuations: RunContinuations = run_copies
    if beginning.encoded is None and prepared.can_pool_apart(max(len(row.own_ids) for row in part.rows)):
        run_continuations = partial(run_trees, aligned=aligned)
    return PromptBranches(network, beginning, capabilities.bytes_per_token, run_continuations)


class PartPlanner:
    """Divides prompts into parts."""

    def __init__(self, prepared: PreparedModel, asked: Sequence[Continuations], start_ids: Ids, forced_ids: Ids):
        """Find equal prompts.

        Args:
            prepared: The model that will run them.
            asked: Prompts with their continuations.
            start_ids: The tokens that a decoder begins with.
            forced_ids: The tokens that follow them if the decoder's part of a prompt is empty.
        """
        self._prepared = prepared
        self._asked = asked
        self._start_ids = start_ids
        self._forced_ids = forced_ids
        self._contexts: list[EncodedPrompt] = []
        self._numbers: defaultdict[tuple[TokenIds, TokenIds], list[int]] = defaultdict(list)  # of equal prompts
        for number, each in enumerate(asked):
            equal = self._numbers[each.context.encoder, each.context.decoder]
            # Equal inputs of an encoder count once: as a group of their own, they would not run beside others. Equal
            # prompts of a decoder count: what they begin with saves more, the more of them there are.
            if not (equal and each.context.encoder):
                self._contexts.append(each.context)
            equal.append(number)

    def history(self, prompt: EncodedPrompt) -> Ids:
        """Return the decoder's tokens of a prompt, with the start token."""
        return self._start_ids + (prompt.decoder_ids or self._forced_ids)

    def plan(self) -> list[PlannedPart]:
        """Return the parts, those that begin alike after each other.

        Of the plans that run few tokens twice, this is the one with the fewest parts; if there is none, the one that
        costs the least.
        """
        can = self._prepared.capabilities
        kind = TreeBranches if can.split else PooledBranches if can.pools_aligned else PromptBranches
        min_savings = _MIN_SAVINGS[kind]
        if len(min_savings) == 1:
            return self._divide(*min_savings)
        num_encoder = sum(map(len, {each.encoder for each in self._contexts}))
        most = (1 + _MOST_REPEATED[kind]) * count_distinct(self._contexts)
        plans: list[tuple[int, list[PlannedPart]]] = []
        for min_saving in min_savings:
            parts = self._divide(min_saving)
            num_tokens, num_passes = self._count(parts)
            if num_encoder + num_tokens <= most:
                return parts
            plans.append((num_tokens + PASS_TOKENS * num_passes, parts))
        return min(plans, key=itemgetter(0))[1]

    def _divide(self, min_saving: int) -> list[PlannedPart]:
        """Return the parts in which prompts share a prefix, if splitting a part must save so many tokens."""
        groups = plan_groups(self._contexts, min_saving)
        keyed = [(Key(each.encoder_ids, each.begin(self._start_ids, self._forced_ids)), each) for each in groups]
        keyed.sort(key=itemgetter(0))
        pauses = plan_pieces([key.decoder_ids for key, _ in keyed])
        return [
            PlannedPart(key, each, self._place(key, group)) for (key, group), each in zip(keyed, pauses, strict=True)
        ]

    def _place(self, begins_with: Key, group: PromptGroup) -> tuple[BranchingPrompt, ...]:
        """Return the rows of a group, each without what all of them begin with."""
        return tuple(
            BranchingPrompt(
                number,
                () if begins_with.encoder_ids else prompt.encoder_ids,
                self.history(prompt)[len(begins_with.decoder_ids) :],
                self._asked[number].texts,
            )
            for ids, prompt in {(each.encoder, each.decoder): each for each in group.prompts}.items()
            for number in self._numbers[ids]
        )

    def _count(self, parts: Sequence[PlannedPart]) -> tuple[int, int]:
        """Return how many of the prompts' tokens a decoder runs in some parts, and in how many passes.

        Nothing runs: a stack of prefixes is asked for what it would compute. Rows are counted as if they came after
        nothing; where they hold copies of their prefix, a pass may have fewer of them.
        """
        sizes: list[int] = []  # of the passes

        def note(_start: Cache | None, ids: Ids) -> Cache:
            sizes.append(len(ids))
            return DynamicCache()

        prefixes = PrefixStack()
        for part in parts:
            if part.begins_with.decoder_ids:
                prefixes.get(part.begins_with, part.pauses, note)
            branches = choose_branches(self._prepared, part, NO_BEGINNING)
            sizes.extend(map(branches.count_prompts, branches.batches(part.rows)))
        return sum(sizes), len(sizes)
