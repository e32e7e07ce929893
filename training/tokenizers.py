"""Define the model's vocabulary: invented words, the words of the instructions, and single characters."""

import re
from typing import Any

from training.families import CONSONANTS, FAMILIES, LETTERS, VOWELS, WORDS

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"
"""The first three tokens; the decoder starts with the first one, as in T5."""
_WORDING = sorted({word for family in FAMILIES.values() for word in re.findall(r"[A-Za-z]{2,}", family.instruction)})
SYMBOLS = (*WORDS, *LETTERS, *"0123456789")
"""The parts of questions and answers; like instruction words, each also has a token with a leading space."""
_SPACED = (*_WORDING, *SYMBOLS)
_PIECES = ("\n\n", "\nOutput:", "Input:", *(f" {piece}" for piece in _SPACED), *_WORDING, *WORDS)
_CHARACTERS = ("\n", *map(chr, range(32, 127)))
VOCABULARY = {token: token_id for token_id, token in enumerate((PAD, EOS, UNKNOWN, *_PIECES, *_CHARACTERS))}
PAD_ID, EOS_ID, UNKNOWN_ID = (VOCABULARY[token] for token in (PAD, EOS, UNKNOWN))
_WORD = f"[{CONSONANTS}](?:{'|'.join(f'{first}[{CONSONANTS}]{second}' for first, second in VOWELS.items())})"
_PATTERN = rf"\n\n|\nOutput:|Input:| ?(?:{'|'.join(_WORDING)})| ?{_WORD}| [{LETTERS}0-9]|[\s\S]"
"""The first alternative that matches wins; the last one splits everything else into characters."""
_CUT = re.compile(_PATTERN)


def encode(text: str) -> list[int]:
    """Turn text into token ids, like the saved tokenizer but faster."""
    return [VOCABULARY.get(piece, UNKNOWN_ID) for piece in _CUT.findall(text)]


def build_tokenizer() -> Any:
    """Build the tokenizer as transformers saves and loads it; like T5's, it appends `</s>`."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(f"$A {EOS}", f"$A {EOS} $B {EOS}", [(EOS, EOS_ID)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )
