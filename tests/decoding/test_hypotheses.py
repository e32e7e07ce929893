import pytest
from tiny_models import train_bpe
from transformers import LogitsProcessorList

from icl_eval.decoding.detokenization import Detokenizer
from icl_eval.decoding.hypotheses import Hypothesis
from icl_eval.decoding.stopping import StopFilter, special_stops
from icl_eval.prompts.building import EncodedPrompt, Prompt

TOKENIZER = train_bpe()
EOS, BOS = TOKENIZER.eos_token_id, TOKENIZER.bos_token_id
ENDS = {EOS, TOKENIZER.pad_token_id}  # some models have several


def encode(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def begin(stop=(), prompt="Q: a b\nA:", start_ids=()):
    encoded = EncodedPrompt(Prompt("q", None, prompt), (), tuple(encode(prompt)))
    detokenizer = Detokenizer(TOKENIZER, encoded.decoder_ids)
    return Hypothesis(
        encoded, start_ids, LogitsProcessorList(), detokenizer, StopFilter(stop, special_stops(TOKENIZER, stop))
    )


def complete(hypothesis, ids, max_new_tokens=100):
    """Append tokens until the hypothesis is finished; return what each lets be shown."""
    shown = []
    for token_id in ids:
        token = hypothesis.append(token_id, ENDS, max_new_tokens)
        assert (token.example_id, token.id) == ("q", token_id)
        shown.append(token.text)
        if hypothesis.finish_reason:
            break
    return shown


@pytest.mark.parametrize(
    ("stop", "ids", "max_new_tokens", "shown", "finish_reason"),
    [
        ([], [*encode("x y"), EOS, *encode("z")], 100, ["x", " ", "y", ""], "eos"),
        ([], [*encode("x"), TOKENIZER.pad_token_id], 100, ["x", ""], "eos"),
        ([], [EOS], 100, [""], "eos"),
        ([], encode("x yz"), 3, ["x", " ", "y"], "length"),
        ([], [*encode("xy"), EOS], 3, ["x", "y", ""], "eos"),  # the last token that is allowed
        (["\n"], encode("x\ny"), 100, ["x", ""], "stop"),
        (["\n"], encode("x\n"), 2, ["x", ""], "stop"),  # the same
        (["\n\n"], [*encode("x\n"), EOS], 100, ["x", "", "\n"], "eos"),  # what was held back is no stop string
        (["\n\n"], encode("x\ny"), 2, ["x", "\n"], "length"),
        (["xyz"], encode("xy"), 2, ["", "xy"], "length"),
        ([TOKENIZER.bos_token], [*encode("x"), BOS, *encode("y")], 100, ["x", ""], "stop"),  # no text shows that token
        ([TOKENIZER.bos_token, "\n\n"], [*encode("x\n"), BOS], 100, ["x", "", "\n"], "stop"),
        ([], [*encode("x"), BOS, EOS], 100, ["x", "", ""], "eos"),
        ([], encode("x😀"), 3, ["x", "", "\ufffd"], "length"),  # in the middle of a character
        ([], [*encode("x😀")[:3], EOS], 100, ["x", "", "", "\ufffd"], "eos"),
        ([], encode("x😀"), 5, ["x", "", "", "", "😀"], "length"),
    ],
)
def test_a_completion_ends_where_and_why_it_should(stop, ids, max_new_tokens, shown, finish_reason):
    hypothesis = begin(stop)
    assert complete(hypothesis, ids, max_new_tokens) == shown
    completion = hypothesis.completion()
    assert completion.example_id == "q"
    assert completion.finish_reason == finish_reason
    assert completion.text == "".join(shown)  # law 5
    assert completion.token_ids == tuple(ids[: len(shown)])  # all that was generated, ends and stops included


def test_the_history_is_start_tokens_prompt_and_completion():
    hypothesis = begin(start_ids=(5, 6), prompt="ab")
    complete(hypothesis, encode("xy"))
    assert hypothesis.history == (5, 6, *encode("ab"), *encode("xy"))
    assert hypothesis.finish_reason is None


def test_the_network_is_given_what_is_left_of_the_prompt_before_the_newest_token():
    hypothesis = begin()
    hypothesis.unfed.extend([8, 9])
    complete(hypothesis, encode("x"))
    assert [hypothesis.next_id() for _ in range(3)] == [8, 9, *encode("x")]
