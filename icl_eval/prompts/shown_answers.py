"""Find the tokens with which a prompt shows the answers of its demonstrations.

The template renders the prompt again with one answer replaced by a character that no prompt has. The strings differ
where the answer stands, whatever the template and the placement:

    Q: kale          Q: kale
    A: suna          A: X              the answer is characters 11 to 14
    ...              ...
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

from icl_eval.prompts.building import EncodedPrompt, Prompt, PromptBuilder
from icl_eval.prompts.tokenization import find_added
from icl_eval.tasks.examples import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Side = Literal["encoder", "decoder"]

_MARK = "\ue000"
"""A character for private use; the common parts of two strings end at it, even if another prompt has it."""


@dataclass(frozen=True)
class ShownAnswer:
    """The tokens of one demonstration's answer in a prompt."""

    demonstration: Example
    side: Side
    tokens: range
    """Their places among the encoder or decoder ids of the encoded prompt."""


def find_shown_answers(
    builder: PromptBuilder, tokenizer: "PreTrainedTokenizerBase", encoded: EncodedPrompt, example: Example
) -> Iterator[ShownAnswer]:
    """Yield the answers that a prompt shows, in prompt order.

    A token that holds a part of the answer counts, such as one with the space before it. If a template shows the answer
    of a demonstration several times, its tokens are all those from the first to the last time.

    Args:
        builder: What built the prompt.
        tokenizer: The tokenizer that encoded it.
        encoded: The prompt.
        example: Its question.
    """
    demonstrations = builder.find_shown(encoded, example)
    num_closing = len(find_added(tokenizer)[1])
    plain = builder.write(demonstrations, example)
    for index, shown in enumerate(demonstrations):
        if not shown.references:
            continue
        marked = list(demonstrations)
        marked[index] = replace(shown, references=(_MARK, *shown.references[1:]))
        other = builder.write(marked, example)
        side: Side = "decoder" if plain.encoder == other.encoder else "encoder"
        text, changed = (getattr(prompt, side) or "" for prompt in (plain, other))
        begin = _count_common(text, changed)
        end = len(text) - _count_common(text[begin:][::-1], changed[begin:][::-1])
        if begin < end:
            whole, *parts = (
                _ids_of(each, side, num_closing)
                for each in (encoded, *builder.encode([_cut(plain, side, place) for place in (begin, end)]))
            )
            first, last = (_count_common(whole, part) for part in parts)
            yield ShownAnswer(shown, side, range(first, max(first + 1, last)))


def _cut(prompt: Prompt, side: Side, end: int) -> Prompt:
    """Return a prompt whose string on one side ends after so many characters."""
    if side == "encoder":
        return replace(prompt, encoder=(prompt.encoder or "")[:end])
    return replace(prompt, decoder=(prompt.decoder or "")[:end])


def _ids_of(encoded: EncodedPrompt, side: Side, num_closing: int) -> tuple[int, ...]:
    """Return the token ids of one side, without those that close an encoder's text."""
    if side == "decoder":
        return encoded.decoder_ids
    return encoded.encoder_ids[: len(encoded.encoder_ids) - num_closing]


def _count_common(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return the length of the beginning that two sequences share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
