"""Prompt building: which side of the model receives which block, and whether the prompt fits.

| placement | encoder input                         | decoder input                         |
|-----------|---------------------------------------|---------------------------------------|
| `decoder` | none                                  | instruction, demonstrations, question |
| `encoder` | instruction, demonstrations, question | the start token                       |
| `split`   | instruction                           | demonstrations, question              |
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Literal, Protocol

from icl_eval.demonstrations import Demonstration, Order, Selection
from icl_eval.errors import PromptTooLongError
from icl_eval.prompts.templates import Blocks, Template
from icl_eval.prompts.token_ids import Ids, TokenIds, pack_ids
from icl_eval.runs.records import ShownDemonstration
from icl_eval.targets import Family
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

PLACEMENTS = Family(__name__, {"decoder": "DecoderPlacement", "encoder": "EncoderPlacement", "split": "SplitPlacement"})

Overflow = Literal["stop", "drop"]
"""How to handle a prompt that is too long: stop the run, or drop whole demonstrations."""
_PART = 512
"""The number of prompts that are encoded together."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The model's input for one question, as strings."""

    example_id: str
    encoder: str | None
    """Encoder input; None for a decoder-only model."""
    decoder: str | None
    """Text that the decoder continues; None if it begins with only the start token."""
    demonstrations: tuple[ShownDemonstration, ...] = ()
    """The demonstrations, in prompt order."""
    is_chat: bool = False
    """Whether the prompt is a rendered conversation that already contains all its special tokens."""
    messages: tuple[Mapping[str, str], ...] = ()
    """The turns of the conversation; empty if it is none."""

    def __str__(self) -> str:
        """Return a readable form of the prompt; an encoder-decoder prompt has one titled section per side."""
        if self.encoder is None:
            return self.decoder or ""
        decoder = "" if self.decoder is None else f"\n[decoder]\n{self.decoder}"
        return f"[encoder]\n{self.encoder}{decoder}"

    @property
    def demonstration_ids(self) -> tuple[str, ...]:
        """The ids of the demonstrations, in prompt order."""
        return _list_ids(self.demonstrations)

    @property
    def hash(self) -> str:
        """A digest of the encoder and decoder strings."""
        return hashlib.sha256(json.dumps([self.encoder, self.decoder]).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, init=False)
class EncodedPrompt:
    """A prompt as token ids, without the decoder's start token, which the model adds."""

    prompt: Prompt
    encoder: TokenIds
    decoder: TokenIds
    num_added: int
    """Number of leading decoder ids that do not come from the decoder string, such as a forced first token."""

    def __init__(self, prompt: Prompt, encoder: Ids | TokenIds, decoder: Ids | TokenIds, num_added: int = 0):
        """Keep the ids of both sides, in whichever form they are given."""
        object.__setattr__(self, "prompt", prompt)
        object.__setattr__(self, "encoder", encoder if isinstance(encoder, TokenIds) else pack_ids(encoder))
        object.__setattr__(self, "decoder", decoder if isinstance(decoder, TokenIds) else pack_ids(decoder))
        object.__setattr__(self, "num_added", num_added)

    @property
    def encoder_ids(self) -> Ids:
        """The encoder's ids as numbers, made at each call."""
        return self.encoder.unpack()

    @property
    def decoder_ids(self) -> Ids:
        """The decoder's ids as numbers, made at each call."""
        return self.decoder.unpack()

    @property
    def num_tokens(self) -> int:
        """The total number of tokens on both sides."""
        return len(self.encoder) + len(self.decoder)


class Placement(Protocol):
    """Decides which side of the model receives which blocks."""

    @property
    def name(self) -> str:
        """The name of the placement in a configuration."""

    @property
    def uses_encoder(self) -> bool:
        """Whether the placement needs an encoder-decoder model."""

    def place(self, blocks: Blocks) -> tuple[str | None, str | None]:
        """Return the encoder string and the decoder string."""


@dataclass(frozen=True)
class DecoderPlacement:
    """Everything in the decoder, for decoder-only models."""

    name = "decoder"
    uses_encoder = False

    def place(self, blocks: Blocks) -> tuple[str | None, str | None]:
        """Return None for the encoder and all blocks for the decoder."""
        return None, blocks.everything()


@dataclass(frozen=True)
class EncoderPlacement:
    """Everything in the encoder; the decoder starts from its start token."""

    name = "encoder"
    uses_encoder = True

    def place(self, blocks: Blocks) -> tuple[str | None, str | None]:
        """Return all blocks for the encoder and None for the decoder."""
        return blocks.examples_after_question(), None


@dataclass(frozen=True)
class SplitPlacement:
    """The instruction in the encoder; demonstrations and question in the decoder, which continues them."""

    name = "split"
    uses_encoder = True

    def place(self, blocks: Blocks) -> tuple[str | None, str | None]:
        """Return the instruction for the encoder and the rest for the decoder."""
        return blocks.split()


@dataclass(frozen=True)
class Context:
    """The length limits of a model."""

    max_length: int | None
    """Number of positions on each side; None if the model has no limit (relative positions)."""
    max_new_tokens: int
    """Number of decoder positions reserved for the completion."""
    max_encoder_length: int | None = None
    """Number of encoder positions; None if the encoder has as many as the decoder."""

    @property
    def positions(self) -> str:
        """The number of positions, formatted for messages."""
        if self.max_encoder_length is None:
            return f"{self.max_length}"
        return f"{self.max_encoder_length} (encoder) and {self.max_length} (decoder)"

    def excess(self, encoded: EncodedPrompt) -> int:
        """Return the number of tokens by which a prompt is too long; 0 if it fits."""
        if self.max_length is None:
            return 0
        start_token = 1 if encoded.prompt.encoder is not None else 0
        decoder_length = len(encoded.decoder) + start_token + self.max_new_tokens
        encoder_excess = len(encoded.encoder) - (self.max_encoder_length or self.max_length)
        return max(0, decoder_length - self.max_length, encoder_excess)

    def require_fit(self, encoded: EncodedPrompt, where: str = "") -> None:
        """Raise PromptTooLongError, with a message that begins with `where`, unless the prompt fits."""
        excess = self.excess(encoded)
        if excess:
            remedy = "shorten it or lower max_new_tokens"
            if encoded.prompt.demonstrations:
                remedy = "lower num_fewshot or max_new_tokens, or set overflow=drop to leave out demonstrations"
            raise PromptTooLongError(
                f"{where}a prompt of {encoded.num_tokens} tokens plus {self.max_new_tokens} new tokens is {excess} "
                f"too long for the model's {self.positions} positions; {remedy}"
            )


@dataclass(frozen=True)
class PromptBuilder:
    """Builds the prompts for the questions of a task."""

    task: Task
    select: Selection
    order: Order
    template: Template
    placement: Placement
    encode: Callable[[Sequence[Prompt]], Sequence[EncodedPrompt]]
    context: Context
    overflow: Overflow

    def build_all(
        self, examples: Iterable[Example], fits: Callable[[Example, EncodedPrompt], bool] = lambda example, built: True
    ) -> list[EncodedPrompt]:
        """Build the prompts for several examples of the task, in the given order; demonstrations are whole or left out.

        Args:
            examples: The examples.
            fits: Whether there is room after a prompt for more than the completion, if `overflow` is "drop".

        Raises:
            PromptTooLongError: If a prompt does not fit and `overflow` is "stop", or if it does not fit even without
                demonstrations.
        """
        left = iter(examples)
        parts = iter(lambda: list(islice(left, _PART)), [])
        return [prompt for part in parts for prompt in self._build_part(part, fits)]

    def _build_part(
        self, examples: Sequence[Example], fits: Callable[[Example, EncodedPrompt], bool]
    ) -> list[EncodedPrompt]:
        """Build the prompts of a few examples: tokenizers take strings faster together than one by one."""
        selected = [self.select(example) for example in examples]
        encoded = list(self.encode(list(map(self._arrange, examples, selected))))
        if self.overflow == "drop" and self.context.max_length is not None:
            self._drop(examples, selected, encoded, fits)
        for example, prompt in zip(examples, encoded, strict=True):
            self.context.require_fit(prompt, f"task '{self.task.name}', question {example.id!r}: ")
        return encoded

    def _drop(
        self,
        examples: Sequence[Example],
        selected: Sequence[Sequence[Demonstration]],
        encoded: list[EncodedPrompt],
        fits: Callable[[Example, EncodedPrompt], bool],
    ) -> None:
        """Replace prompts that do not fit by the longest that do: without as many of the lowest ranks as necessary.

        For a question with n demonstrations, some 2 log2(n) prompts are tried, and one if leaving out one is enough.
        """

        def is_long(number: int) -> bool:
            return self.context.excess(encoded[number]) > 0 or not fits(examples[number], encoded[number])

        # For each prompt, a number of demonstrations that is too many, and one that is not; none is known at first.
        many = {number: len(selected[number]) for number in range(len(examples)) if is_long(number)}
        few = dict.fromkeys(many, -1)
        step = 1
        while tried := {
            number: count
            for number in many
            if few[number] < (count := _choose_between(few[number], many[number], step)) < many[number]
        }:
            shown = {number: selected[number][:count] for number, count in tried.items()}  # the best ranks are first
            again = self.encode([self._arrange(examples[number], some) for number, some in shown.items()])
            for (number, count), prompt in zip(tried.items(), again, strict=True):
                before, encoded[number] = encoded[number], prompt
                if count and is_long(number):
                    many[number], encoded[number] = count, before
                else:
                    few[number] = count
            step *= 2

    def find_shown(self, encoded: EncodedPrompt, example: Example) -> list[Example]:
        """Return the demonstrations in the prompt for a question, in prompt order."""
        by_id = {demonstration.example.id: demonstration.example for demonstration in self.select(example)}
        return [by_id[demonstration_id] for demonstration_id in encoded.prompt.demonstration_ids]

    def build_without(self, encoded: EncodedPrompt, example: Example, demonstration_id: str) -> EncodedPrompt:
        """Rebuild the prompt for a question without one demonstration; the others keep their order."""
        kept = [shown for shown in self.find_shown(encoded, example) if shown.id != demonstration_id]
        return self._render(kept, example)

    def rebuild(self, example: Example, built: EncodedPrompt, changed: Example) -> EncodedPrompt:
        """Build the prompt for a changed question with the demonstrations in the prompt of the question itself.

        Args:
            example: The question.
            built: Its prompt.
            changed: The question with other fields or references.
        """
        return self._render(self.find_shown(built, example), changed)

    def build_bare(self, example: Example, text: str) -> EncodedPrompt:
        """Build a prompt that is nothing but a text: no instruction, no demonstrations, no question."""
        return self.encode([self._place(example, self.template.bare(text))])[0]

    def write(
        self, demonstrations: Sequence[Example], example: Example, listed: tuple[ShownDemonstration, ...] = ()
    ) -> Prompt:
        """Return the strings of the prompt for a question with given demonstrations, without encoding them."""
        return self._place(example, self.template.render(self.task, demonstrations, example), listed)

    def _arrange(self, example: Example, selected: Sequence[Demonstration]) -> Prompt:
        arranged = self.order.arrange(selected)
        shown = [demonstration.example for demonstration in arranged]
        return self.write(shown, example, _list_shown(tuple(map(_describe_shown, arranged))))

    def _render(self, demonstrations: Sequence[Example], example: Example) -> EncodedPrompt:
        return self.encode([self.write(demonstrations, example)])[0]

    def _place(self, example: Example, blocks: Blocks, listed: tuple[ShownDemonstration, ...] = ()) -> Prompt:
        encoder, decoder = self.placement.place(blocks)
        return Prompt(example.id, encoder, decoder, listed, self.template.is_chat, blocks.messages)


def _choose_between(few: int, many: int, step: int) -> int:
    """Return the number of demonstrations to try next: `step` less than too many, or once few are known, the middle."""
    return max(0, many - step) if few < 0 else (few + many) // 2


@lru_cache(maxsize=1024)
def _list_shown(shown: tuple[tuple[str, str | None, float | None], ...]) -> tuple[ShownDemonstration, ...]:
    """Return demonstrations as prompts list them; prompts with the same demonstrations share one list."""
    return tuple(ShownDemonstration(*each) for each in shown)


@lru_cache(maxsize=1024)
def _list_ids(shown: tuple[ShownDemonstration, ...]) -> tuple[str, ...]:
    """Return the ids of demonstrations; prompts with the same demonstrations share one list of them, too."""
    return tuple(each.id for each in shown)


def _describe_shown(demonstration: Demonstration) -> tuple[str, str | None, float | None]:
    example = demonstration.example
    return example.id, next(iter(example.references), None), demonstration.similarity
