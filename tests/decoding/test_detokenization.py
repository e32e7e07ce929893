import random

import pytest
from tiny_models import train_bpe, train_unigram
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from icl_eval.decoding.detokenization import Detokenizer

TEXTS = (
    "plain words, 12 + 30 = 42",
    "naïve café, Straße, año",
    "e\u0301 n\u0303o o\u0308",  # letters and combining marks
    "😀👍🏽 👨‍👩‍👧 🇪🇸",  # skin tone, family, flag: several code points each
    "日本語 العربية हिन्दी ไทย",
    "  two  spaces \n\n lines \t",
    "\ufffd is a character too \ufffd",
    "a\u00a0b\u200bc\ufeffd",
)


def byte_fallback_tokenizer():
    """A tokenizer like Llama's: words begin with `▁`, and what is in no word is spelt in bytes."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "c", "▁a", "▁bc"]
    merges = [("▁", "a"), ("▁b", "c")]
    words.insert(-2, "▁b")
    merges.insert(1, ("▁", "b"))
    backend = Tokenizer(
        models.BPE({word: n for n, word in enumerate(words)}, merges, unk_token="<unk>", byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


TOKENIZERS = {
    "byte-level": train_bpe(),
    "one special token": train_bpe(single_special=True),
    "unigram": train_unigram(),
    "bytes": ByT5Tokenizer(),
    "byte fallback": byte_fallback_tokenizer(),
}
every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def decode(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def pieces(tokenizer, ids, context_ids=()):
    """The text that each token lets be shown, and what still waits at the end."""
    detokenizer = Detokenizer(tokenizer, context_ids)
    return [*(detokenizer.feed(token_id) for token_id in ids), detokenizer.flush()]


@every_tokenizer
@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_of_any_text_are_the_text(text, tokenizer):
    ids = encode(tokenizer, text)
    assert "".join(pieces(tokenizer, ids)) == decode(tokenizer, ids)


@pytest.mark.parametrize("name", ["byte-level", "one special token", "unigram", "bytes"])
def test_the_pieces_of_random_tokens_are_what_the_tokenizer_makes_of_them_all(name):
    tokenizer = TOKENIZERS[name]
    generator = random.Random(0)
    for _ in range(300):
        ids = generator.choices(range(len(tokenizer)), k=generator.randrange(1, 20))
        assert "".join(pieces(tokenizer, ids)) == decode(tokenizer, ids), ids


@every_tokenizer
@pytest.mark.parametrize("prompt", ["a b a c", "日本語 😀"])
def test_pieces_go_on_from_a_prompt(prompt, tokenizer):
    context = encode(tokenizer, prompt)
    for text in TEXTS:
        ids = encode(tokenizer, text)
        whole = decode(tokenizer, [*context, *ids])
        assert decode(tokenizer, context) + "".join(pieces(tokenizer, ids, context)) == whole


@pytest.mark.parametrize("name", ["byte-level", "bytes", "byte fallback"])
def test_pieces_go_on_from_a_prompt_that_ends_within_a_word(name):
    tokenizer = TOKENIZERS[name]
    ids = encode(tokenizer, "日本語日本😀é")
    for prompt in ("日", "日本", "日本語"):
        length = len(encode(tokenizer, prompt))
        shown = pieces(tokenizer, ids[length:], ids[:length])
        assert prompt + "".join(shown) == "日本語日本😀é"


@pytest.mark.parametrize("name", ["byte-level", "bytes", "byte fallback"])
def test_no_part_of_a_character_is_shown(name):
    tokenizer = TOKENIZERS[name]
    shown = pieces(tokenizer, encode(tokenizer, "a😀é日b"))
    assert "".join(shown) == "a😀é日b"
    assert not any("\ufffd" in piece for piece in shown)


def test_a_character_appears_with_its_last_token():
    tokenizer = TOKENIZERS["byte-level"]
    assert pieces(tokenizer, encode(tokenizer, "😀e\u0301")) == ["", "", "", "😀", "e", "", "\u0301", ""]


def test_a_character_without_its_last_token_is_shown_as_the_tokenizer_shows_it():
    tokenizer = TOKENIZERS["byte-level"]
    assert pieces(tokenizer, encode(tokenizer, "a😀")[:-1]) == ["a", "", "", "", "\ufffd"]


@pytest.mark.parametrize(
    ("context", "expected"), [("", ["a", " bc", ""]), ("a", [" a", " bc", ""]), ("a a a a a a", [" a", " bc", ""])]
)
def test_the_space_before_a_first_word_is_there_only_after_a_prompt(context, expected):
    tokenizer = TOKENIZERS["byte fallback"]
    assert pieces(tokenizer, encode(tokenizer, "a bc"), encode(tokenizer, context)) == expected


def test_a_t5_completion_begins_without_a_space_and_goes_on_with_one():
    tokenizer = TOKENIZERS["unigram"]
    ids = encode(tokenizer, "Das Haus ist klein.")
    assert "".join(pieces(tokenizer, ids)) == "Das Haus ist klein."
    assert "".join(pieces(tokenizer, ids, encode(tokenizer, "German:"))) == " Das Haus ist klein."
    assert "".join(pieces(tokenizer, ids, encode(tokenizer, "x</s>"))) == " Das Haus ist klein."


def test_special_tokens_show_nothing():
    tokenizer = TOKENIZERS["byte-level"]
    assert pieces(tokenizer, [0, *encode(tokenizer, "a"), 1, 2]) == ["", "a", "", "", ""]


@pytest.mark.parametrize("name", ["unigram", "byte fallback"])
@pytest.mark.parametrize("length", [1, 3, 4, 9, 40])
def test_a_space_after_any_number_of_special_tokens_is_that_between_words(name, length):
    tokenizer = TOKENIZERS[name]
    word = encode(tokenizer, "a")
    ids = [*word, *[tokenizer.eos_token_id] * length, *word]
    assert "".join(pieces(tokenizer, ids)) == decode(tokenizer, ids) == "a a"
    assert "".join(pieces(tokenizer, word, ids[:-1])) == " a"
