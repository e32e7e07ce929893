"""How lm-evaluation-harness splits an answer from its prompt into tokens.

White space at the end of a prompt moves to the answer. Then the prompt alone is encoded, and an answer's tokens are
those of prompt and answer together beyond that number. Our own split differs where the tokenizer merges the end of a
prompt with an answer (`icl_eval.prompts.tokenization`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from icl_eval.prompts.building import EncodedPrompt
from icl_eval.prompts.tokenization import Continuations, encode_continuations, encode_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_answers(tokenizer: "PreTrainedTokenizerBase", encoded: EncodedPrompt, texts: Sequence[str]) -> Continuations:
    """Encode the answers after a prompt as the harness does.

    Args:
        tokenizer: The model's tokenizer.
        encoded: The prompt.
        texts: The answers, with the delimiter before each.
    """
    prompt = encoded.prompt
    if prompt.encoder is not None or prompt.is_chat:
        return encode_continuations(tokenizer, encoded, texts)
    text = prompt.decoder or ""
    kept = text.rstrip()
    if not kept:
        return encode_continuations(tokenizer, encoded, texts)
    strings = [kept, *(text + answer for answer in texts)]
    context, *whole = (
        each.decoder for each in encode_prompts(tokenizer, [replace(prompt, decoder=string) for string in strings])
    )
    return Continuations(replace(encoded, decoder=context), tuple(ids.unpack()[len(context) :] for ids in whole))
