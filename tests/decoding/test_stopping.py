import random

import pytest
from tiny_models import train_bpe
from transformers import AddedToken, ByT5Tokenizer

from icl_eval.decoding.stopping import StopFilter, special_stops


def pieces(stop, texts):
    """What is shown for each text, what is shown at the end, and whether a stop string appeared."""
    stops = StopFilter(stop)
    shown = []
    for text in texts:
        shown.append(stops.feed(text))
        if stops.stopped:
            break
    return [*shown, stops.flush()], stops.stopped


@pytest.mark.parametrize(
    ("stop", "texts", "shown", "stopped"),
    [
        ([], ["a\n", "b"], ["a\n", "b", ""], False),
        (["\n"], ["a\nb"], ["a", ""], True),
        (["\n"], ["\n"], ["", ""], True),
        (["\n\n"], ["a\n", "b\n", "\nc"], ["a", "\nb", "", ""], True),
        (["\n\n"], ["a\n"], ["a", "\n"], False),  # at the end, what waited is shown
        (["END"], ["the E", "N", "T EN", "D of"], ["the ", "", "ENT ", "", ""], True),
        (["aab"], ["a", "a", "a", "b"], ["", "", "a", "", ""], True),
        (["abab", "abc"], ["ab", "ab"], ["", "", ""], True),
        (["ababc"], ["abab", "abc"], ["", "ab", ""], True),
        (["Q:", "\n\n"], ["a\n", "Q:"], ["a", "\n", ""], True),
        # Two stop strings that overlap: the one that is complete first counts, wherever the pieces begin and end.
        (["abc", "b"], ["abc"], ["a", ""], True),
        (["abc", "b"], ["a", "b", "c"], ["", "a", ""], True),
        (["abc", "bc"], ["xabc"], ["x", ""], True),  # complete at once: the longer one
        (["(", ".*", "\\n"], ["a.", "b(c"], ["a", ".b", ""], True),  # texts, not patterns
        (["é"], ["e", "\u0301", "é"], ["e", "\u0301", "", ""], True),  # one code point, not two
    ],
)
def test_nothing_of_a_stop_string_is_shown(stop, texts, shown, stopped):
    assert pieces(stop, texts) == (shown, stopped)


def test_law_5_the_pieces_are_the_text_before_the_stop_string_that_is_complete_first():
    generator = random.Random(0)
    for _ in range(5000):
        text = "".join(generator.choices("ab\n", k=generator.randrange(25)))
        stop = ["".join(generator.choices("ab\n", k=generator.randrange(1, 6))) for _ in range(generator.randrange(4))]
        cuts = sorted(generator.choices(range(len(text) + 1), k=generator.randrange(8)))
        texts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        shown, stopped = pieces(stop, texts)
        assert ("".join(shown), stopped) == expected_of(stop, text), (stop, texts)


def test_text_is_shown_as_soon_as_it_cannot_belong_to_a_stop_string():
    generator = random.Random(1)
    for _ in range(2000):
        stop = ["".join(generator.choices("ab", k=generator.randrange(1, 6))) for _ in range(2)]
        stops, fed, shown = StopFilter(stop), "", ""
        for letter in generator.choices("ab", k=20):
            fed += letter
            shown += stops.feed(letter)
            if stops.stopped:
                break
            held = fed[len(shown) :]
            assert fed.startswith(shown)
            assert not held or any(string.startswith(held) for string in stop)


def expected_of(stop, text):
    """The text before the first stop string to be complete, found by looking at every beginning of the text."""
    for end in range(len(text) + 1):
        complete = [string for string in stop if text[:end].endswith(string)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


def test_special_tokens_to_stop_at_are_those_that_no_text_shows():
    tokenizer = train_bpe()
    tokenizer.add_tokens([AddedToken("<|eot|>", special=True), AddedToken("<shown>", special=False)])
    eot = tokenizer.convert_tokens_to_ids("<|eot|>")
    assert "<|eot|>" not in tokenizer.all_special_tokens
    assert special_stops(tokenizer, ["<|eot|>", "<shown>", tokenizer.eos_token, "A"]) == {
        eot: "<|eot|>",
        tokenizer.eos_token_id: tokenizer.eos_token,
    }


@pytest.mark.parametrize("stop", ["。", "é", "\n"])
def test_a_character_is_no_special_token_of_a_tokenizer_of_bytes(stop):
    tokenizer = ByT5Tokenizer()
    assert special_stops(tokenizer, [stop, tokenizer.eos_token]) == {tokenizer.eos_token_id: tokenizer.eos_token}
