"""Run continuations after copies of their prompts' key/value caches, for networks that allow nothing better.

Prompts of equal length run together, and padding follows a continuation, so that no real token attends to it.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from icl_eval.decoding.branches import join, pick
from icl_eval.decoding.networks import count_padding, divide_closely, run_columns
from icl_eval.decoding.prompt_branches import Batch, PromptBranches, PromptStates, Scores, copy_rows
from icl_eval.prompts.token_ids import Ids


def run_copies(branches: PromptBranches, batch: Batch) -> Scores:
    """Run each continuation after a copy of its prompt; those that differ only in their last token share a copy."""
    asked = [(number, text) for number, texts in enumerate(batch.texts) for text in texts]
    ends: defaultdict[tuple[int, Ids], list[Ids]] = defaultdict(list)
    for number, text in asked:
        if len(text) > 1:
            ends[number, text[:-1]].append(text)
    lines = sorted(ends, key=lambda line: (-len(line[1]), line))
    spare = batch.count_spare(sum(len(begun) for _, begun in lines))
    states = branches.run_prompts(batch.prompts, spare / 2)
    inputs = [len(row.encoder_ids) for row in batch.prompts]
    spare -= count_padding(inputs, divide_closely(inputs, inputs, spare / 2))  # that of the encoder is used up
    firsts = pick(states.logits, [([number], text[:1]) for number, text in asked])
    scores = dict(zip(asked, firsts, strict=True))
    costs = [branches.cost(batch.prompts[number], len(begun), len(begun)) for number, begun in lines]
    for chunk in divide_closely([len(begun) for _, begun in lines], costs, spare):
        for line, logits in zip(lines[chunk], _run_lines(branches.network, states, lines[chunk]), strict=True):
            number, begun = line
            rest = pick(logits, [(range(len(begun)), text[1:]) for text in ends[line]])
            for text, scored in zip(ends[line], rest, strict=True):
                scores[number, text] = join([scores[number, text], scored])
    return scores


def _run_lines(network: PreTrainedModel, states: PromptStates, lines: Sequence[tuple[int, Ids]]) -> torch.Tensor:
    """Run continuations without their last token and return the logits, [lines, tokens, vocabulary]."""
    sources = [number for number, _ in lines]
    width = max(len(begun) for _, begun in lines)
    padded = [[*begun, *[0] * (width - len(begun))] for _, begun in lines]
    cache = copy_rows(states.cache, sources, network.device)
    encoded = None if states.encoded is None else states.encoded[sources]
    mask = None if states.encoder_mask is None else states.encoder_mask[sources]
    return run_columns(network, padded, cache, encoded, mask, count=width)
