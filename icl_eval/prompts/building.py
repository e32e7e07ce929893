"""Prompts: which side of the model sees which block, and whether it fits.

| placement | encoder input                       | decoder input                      |
|-----------|-------------------------------------|------------------------------------|
| `decoder` | none                                | instruction, demonstrations, question |
| `encoder` | instruction, demonstrations, question | the start token                  |
| `split`   | instruction                         | demonstrations, question           |
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from icl_eval.demonstrations import Demonstration, Order, Selection
from icl_eval.errors import ConfigError, PromptTooLongError
from icl_eval.prompts.templates import Blocks, Template
from icl_eval.runs.records import ShownDemonstration
from icl_eval.targets import Family
from icl_eval.tasks.examples import Example, Task

PLACEMENTS = Family(__name__, {"decoder": "DecoderPlacement", "encoder": "EncoderPlacement", "split": "SplitPlacement"})

Overflow = Literal["stop", "drop"]
"""What to do with a prompt that does not fit: stop the run, or drop whole demonstrations."""


@dataclass(frozen=True)
class Prompt:
    """What a model is given for one question."""

    example_id: str
    encoder: str | None
    """Text for the encoder; None for a decoder-only model."""
    decoder: str | None
    """Text that the decoder goes on from; None where that is the start token alone."""
    demonstrations: tuple[ShownDemonstration, ...] = ()
    """In the order of the text."""
    is_chat: bool = False
    """Whether the text is a conversation, with all special tokens written out."""

    def __str__(self) -> str:
        """The prompt as a person reads it; where a model has two sides, each under its name."""
        if self.encoder is None:
            return self.decoder or ""
        decoder = "" if self.decoder is None else f"\n[decoder]\n{self.decoder}"
        return f"[encoder]\n{self.encoder}{decoder}"

    @property
    def demonstration_ids(self) -> tuple[str, ...]:
        """The demonstrations' ids, in the order of the text."""
        return tuple(shown.id for shown in self.demonstrations)

    @property
    def hash(self) -> str:
        """A digest of both texts."""
        return hashlib.sha256(json.dumps([self.encoder, self.decoder]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as token ids. A decoder's start token is not among them: the model brings it."""

    prompt: Prompt
    encoder_ids: tuple[int, ...]
    decoder_ids: tuple[int, ...]
    num_added: int = 0
    """How many ids open the decoder's text that are no part of it: a first token that the model asks for."""

    @property
    def num_tokens(self) -> int:
        """How many tokens the prompt has, both sides together."""
        return len(self.encoder_ids) + len(self.decoder_ids)


class Placement(Protocol):
    """Decides which side of the model sees which blocks."""

    @property
    def name(self) -> str:
        """What the placement is called in a configuration."""

    @property
    def uses_encoder(self) -> bool:
        """Whether the placement needs an encoder-decoder model."""

    def place(self, blocks: Blocks) -> tuple[str | None, str | None]:
        """Return the texts for the encoder and for the decoder."""


@dataclass(frozen=True)
class DecoderPlacement:
    """Everything in the decoder, for decoder-only models."""

    name = "decoder"
    uses_encoder = False

    def place(self, blocks: Blocks) -> tuple[str | None, str | None]:
        """Return no text for an encoder and all blocks for the decoder."""
        return None, blocks.everything()


@dataclass(frozen=True)
class EncoderPlacement:
    """Everything in the encoder; the decoder begins with its start token."""

    name = "encoder"
    uses_encoder = True

    def place(self, blocks: Blocks) -> tuple[str | None, str | None]:
        """Return all blocks for the encoder and none for the decoder."""
        return blocks.examples_after_question(), None


@dataclass(frozen=True)
class SplitPlacement:
    """The instruction in the encoder; demonstrations and question as the beginning of the decoder's output."""

    name = "split"
    uses_encoder = True

    def place(self, blocks: Blocks) -> tuple[str | None, str | None]:
        """Return the instruction for the encoder and the rest for the decoder."""
        return blocks.split()


@dataclass(frozen=True)
class Context:
    """How much a model can hold."""

    max_length: int | None
    """Positions of the model, on either side; None where there is no limit (relative positions)."""
    max_new_tokens: int
    """Positions of the decoder that are kept free for the completion."""
    max_encoder_length: int | None = None
    """Positions of the encoder; None for as many as the decoder has."""

    @property
    def positions(self) -> str:
        """How many positions there are, in words."""
        if self.max_encoder_length is None:
            return f"{self.max_length}"
        return f"{self.max_encoder_length} (encoder) and {self.max_length} (decoder)"

    def excess(self, encoded: EncodedPrompt) -> int:
        """Return by how many tokens a prompt is too long; 0 where it fits."""
        if self.max_length is None:
            return 0
        start_token = 1 if encoded.prompt.encoder is not None else 0
        decoder_length = len(encoded.decoder_ids) + start_token + self.max_new_tokens
        encoder_excess = len(encoded.encoder_ids) - (self.max_encoder_length or self.max_length)
        return max(0, decoder_length - self.max_length, encoder_excess)

    def require_fit(self, encoded: EncodedPrompt, where: str = "") -> None:
        """Raise PromptTooLongError, with a sentence that begins with `where`, unless the prompt fits."""
        excess = self.excess(encoded)
        if excess:
            remedy = "shorten it or lower max_new_tokens"
            if encoded.prompt.demonstrations:
                remedy = "lower num_fewshot or max_new_tokens, or set overflow=drop to leave demonstrations out"
            raise PromptTooLongError(
                f"{where}a prompt of {encoded.num_tokens} tokens, with {self.max_new_tokens} new ones to come, is "
                f"{excess} too long for the model's {self.positions} positions; {remedy}"
            )


@dataclass(frozen=True)
class PromptBuilder:
    """Builds the prompts of a task's questions."""

    task: Task
    select: Selection
    order: Order
    template: Template
    placement: Placement
    encode: Callable[[Prompt], EncodedPrompt]
    context: Context
    overflow: Overflow

    def build_all(self, examples: Iterable[Example]) -> list[EncodedPrompt]:
        """Build the prompts of some of the task's examples, in their order."""
        return [self.build(example) for example in examples]

    def build(self, example: Example) -> EncodedPrompt:
        """Build the prompt of one question; never cut, it fits with as many demonstrations as it keeps.

        Raises:
            PromptTooLongError: When it does not fit, and (unless `overflow` is "stop") not even without
                demonstrations.
        """
        selected = self.select(example)
        encoded = self._encode(example, selected)
        while self.overflow == "drop" and selected and self.context.excess(encoded):
            selected = selected[:-1]  # ranked: the least wanted is last
            encoded = self._encode(example, selected)
        self.context.require_fit(encoded, f"task '{self.task.name}', question {example.id!r}: ")
        return encoded

    def shown(self, encoded: EncodedPrompt, example: Example) -> list[Example]:
        """Return the demonstrations that a question's prompt shows, in its order."""
        by_id = {demonstration.example.id: demonstration.example for demonstration in self.select(example)}
        return [by_id[demonstration_id] for demonstration_id in encoded.prompt.demonstration_ids]

    def build_without(self, encoded: EncodedPrompt, example: Example, demonstration_id: str) -> EncodedPrompt:
        """Build a question's prompt again with one demonstration left out and the others in their order."""
        kept = [shown for shown in self.shown(encoded, example) if shown.id != demonstration_id]
        return self._render(kept, example)

    def build_content_free(self, example: Example, built: EncodedPrompt, text: str) -> EncodedPrompt:
        """Build a question's prompt again, with a text that says nothing in place of the question.

        Raises:
            ConfigError: When the task's examples have no field `question`.
        """
        if "question" not in example.inputs:
            known = ", ".join(sorted(example.inputs))
            raise ConfigError(
                f"likelihood.content_free={text}: it takes the place of the field 'question', which task "
                f"'{self.task.name}' does not have (it has: {known}); set it to null"
            )
        blank = replace(example, inputs={**example.inputs, "question": text})
        return self._render(self.shown(built, example), blank)

    def _encode(self, example: Example, selected: Sequence[Demonstration]) -> EncodedPrompt:
        arranged = self.order.arrange(selected)
        shown = [demonstration.example for demonstration in arranged]
        return self._render(shown, example, tuple(map(_shown, arranged)))

    def _render(
        self, demonstrations: Sequence[Example], example: Example, listed: tuple[ShownDemonstration, ...] = ()
    ) -> EncodedPrompt:
        blocks = self.template.render(self.task, demonstrations, example)
        encoder, decoder = self.placement.place(blocks)
        return self.encode(Prompt(example.id, encoder, decoder, listed, self.template.is_chat))


def _shown(demonstration: Demonstration) -> ShownDemonstration:
    example = demonstration.example
    return ShownDemonstration(example.id, next(iter(example.references), None), demonstration.similarity)
