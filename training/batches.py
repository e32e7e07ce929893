"""Turn episodes into batches of padded ids, with as many answers to learn from as an episode allows.

`encoder`: the encoder gets the demonstrations and several questions, and the decoder gets the answers one after
another. Each answer attends to all demonstrations but only to its own question, as if a prompt had no other:

    encoder  instruction · demonstrations · question 1 · question 2 </s>
    decoder  <pad> answer 1   <pad> answer 2
    target   answer 1 </s>    answer 2 </s>

`split`: the encoder gets the instruction and the decoder the rest, where every answer and its end are targets:

    encoder  instruction </s>
    decoder  <pad> question 1 · answer 1 · question 2 · answer 2
    target                      answer 1                answer 2
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from training.episodes import Episode
from training.tokenizers import EOS_ID, PAD_ID, encode
from training.wordings import Wording

IGNORED = -100
"""Marks a position without a target, as in torch's cross-entropy."""
_SHARED, _PADDING = 0, -1
"""Groups of shared tokens and of padding; the groups of questions count from 1."""


class Builder(Protocol):
    """Lays an episode out for a model."""

    def __call__(self, episode: Episode, wording: Wording, dense: bool) -> "Sequences":
        """Return the ids of both sides, and the targets."""


@dataclass
class Side:
    """Token ids, and the group of each."""

    ids: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], group: int = _SHARED) -> None:
        """Append tokens of one group."""
        self.ids += ids
        self.groups += [group] * len(ids)


@dataclass
class Sequences:
    """One episode as input and targets of a model."""

    encoder: Side = field(default_factory=Side)
    decoder: Side = field(default_factory=Side)
    targets: list[int] = field(default_factory=list)


def encoder_sequences(episode: Episode, wording: Wording, dense: bool) -> Sequences:
    """Put demonstrations and questions in the encoder, and the questions' answers in the decoder."""
    sequences, between = Sequences(), encode(wording.separator)
    if wording.instruction:
        sequences.encoder.add(encode(wording.instruction) + between)
    for pair in episode.demonstrations:
        sequences.encoder.add(encode(wording.question(pair)) + encode(wording.answer(pair)) + between)
    for group, pair in enumerate(episode.questions, start=1):
        sequences.encoder.add((between if group > 1 else []) + encode(wording.question(pair)), group)
        answer = encode(pair.answer)
        sequences.decoder.add([PAD_ID, *answer], group)
        sequences.targets += [*answer, EOS_ID]
    sequences.encoder.add([EOS_ID])
    return sequences


def split_sequences(episode: Episode, wording: Wording, dense: bool) -> Sequences:
    """Put the instruction in the encoder, and all pairs in the decoder; `dense`: demonstrations are targets too."""
    sequences, between = Sequences(), encode(wording.separator)
    sequences.encoder.add([*encode(wording.instruction), EOS_ID])
    sequences.decoder.add([PAD_ID])
    for index, pair in enumerate((*episode.demonstrations, *episode.questions)):
        question, answer = encode(wording.question(pair)), encode(wording.answer(pair))
        sequences.decoder.add([*question, *answer, *between])
        learned = dense or index >= len(episode.demonstrations)
        sequences.targets += [IGNORED] * len(question)
        sequences.targets += [*answer, *between] if learned else [IGNORED] * len([*answer, *between])
    sequences.targets.append(IGNORED)
    return sequences


PLACEMENTS: Mapping[str, Builder] = {
    "encoder": encoder_sequences,
    "split": split_sequences,
}


@dataclass(frozen=True)
class Batch:
    """Episodes padded to the longest one."""

    encoder_ids: torch.Tensor  # [batch, encoder_seq]
    encoder_groups: torch.Tensor  # [batch, encoder_seq]
    decoder_ids: torch.Tensor  # [batch, decoder_seq]
    decoder_groups: torch.Tensor  # [batch, decoder_seq]
    targets: torch.Tensor  # [batch, decoder_seq]


def build_batch(rows: Sequence[Sequences]) -> Batch:
    """Pad episodes to the same length in the encoder and in the decoder."""
    return Batch(
        _pad([row.encoder.ids for row in rows], PAD_ID),
        _pad([row.encoder.groups for row in rows], _PADDING),
        _pad([row.decoder.ids for row in rows], PAD_ID),
        _pad([row.decoder.groups for row in rows], _PADDING),
        _pad([row.targets for row in rows], IGNORED),
    )


def _pad(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
