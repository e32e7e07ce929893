"""Continuations: texts that could follow a prompt, as token ids.

Prompt and text are tokenized together, as one text, and what follows the prompt is found among the ids:

    prompt            [Answer] [:]
    with " yes"       [Answer] [:] [ yes]            ──▶  context [Answer] [:], texts [ yes] and [ no] [body]
    with " nobody"    [Answer] [:] [ no] [body]

Where a tokenizer joins the end of the prompt with what follows, the context ends before that token, for all texts of
the prompt alike: so they are always compared after the same context, and none is cut where the model never cuts.
"""

from dataclasses import dataclass

from icl_eval.prompts.building import EncodedPrompt


@dataclass(frozen=True)
class Continuations:
    """Some texts that could follow one prompt."""

    context: EncodedPrompt
    """The encoder's ids, and those of the decoder that the prompt has in common with all of its texts."""
    texts: tuple[tuple[int, ...], ...]
    """What follows the context in each text."""

    @property
    def longest(self) -> int:
        """How many tokens the longest text has."""
        return max(map(len, self.texts))
