import pytest
from tiny_models import train_bpe, train_unigram
from tokenizers import processors

from icl_eval.demonstrations import AsSelectedOrder, Demonstration
from icl_eval.errors import ConfigError
from icl_eval.prompts import tokenization
from icl_eval.prompts.building import Context, DecoderPlacement, Prompt, PromptBuilder
from icl_eval.prompts.chats import build_chat
from icl_eval.prompts.shown_answers import find_shown_answers
from icl_eval.prompts.templates import TextTemplate
from icl_eval.prompts.tokenization import encode_prompt, encode_prompts
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

BOS, EOS = "<|bos|>", "<|eos|>"


def tokenizer_that_adds(pattern):
    """A byte-level tokenizer whose special tokens stand around a text as in `<|bos|> $A <|eos|>`."""
    tokenizer = train_bpe()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=pattern, special_tokens=[(BOS, 0), (EOS, 1)]
    )
    return tokenizer


def decoded(tokenizer, prompt):
    """The texts of both sides with all special tokens."""
    encoded = encode_prompt(tokenizer, prompt)
    assert encoded.prompt is prompt
    assert encoded.num_tokens == len(encoded.encoder_ids) + len(encoded.decoder_ids)
    return tokenizer.decode(encoded.encoder_ids), tokenizer.decode(encoded.decoder_ids)


@pytest.mark.parametrize(
    ("adds", "text", "expected"),
    [
        ("$A", "a b", "a b"),
        (f"{BOS} $A", "a b", f"{BOS}a b"),
        (f"$A {EOS}", "a b", "a b"),
        (f"{BOS} $A {EOS}", "a b", f"{BOS}a b"),
        # what the text itself begins or ends with is there once
        ("$A", f"{BOS}a b", f"{BOS}a b"),
        (f"{BOS} $A", f"{BOS}a b", f"{BOS}a b"),
        (f"{BOS} $A {EOS}", f"{BOS}a b", f"{BOS}a b"),
        ("$A", f"a b{EOS}", f"a b{EOS}"),
        (f"$A {EOS}", f"a b{EOS}", f"a b{EOS}"),
        (f"{BOS} $A {EOS}", f"a b{EOS}", f"{BOS}a b{EOS}"),
        # and so are several tokens, of which the text may have written the last alone
        (f"{EOS} {BOS} $A", f"{EOS}{BOS}a b", f"{EOS}{BOS}a b"),
        (f"{EOS} {BOS} $A", f"{BOS}a b", f"{EOS}{BOS}a b"),
        # what is no end of a sequence closes a text as well
        (f"$A {BOS}", "a b", "a b"),
        (f"$A {EOS} {BOS}", f"a b{EOS}", f"a b{EOS}"),
        # special tokens inside stay
        (f"{BOS} $A {EOS}", f"a{EOS}{BOS}b", f"{BOS}a{EOS}{BOS}b"),
        # an empty text
        ("$A", "", BOS),
        (f"{BOS} $A", "", BOS),
        (f"$A {EOS}", "", BOS),
        (f"{BOS} $A {EOS}", "", BOS),
    ],
)
def test_a_decoders_text_begins_with_at_most_one_bos_and_does_not_end(adds, text, expected):
    assert decoded(tokenizer_that_adds(adds), Prompt("q", None, text)) == ("", expected)


@pytest.mark.parametrize("text", ["", "a b", "<|eos|>a b"])
def test_a_token_that_is_both_bos_and_eos_is_put_before_an_empty_text_alone(text):
    assert decoded(train_bpe(single_special=True), Prompt("q", None, text)) == ("", text or EOS)


def test_an_empty_prompt_needs_a_token_to_begin_with():
    tokenizer = train_bpe()
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(ConfigError) as error:
        encode_prompt(tokenizer, Prompt("q", None, ""))
    assert str(error.value) == "the prompt is empty, and the tokenizer has no beginning-of-sequence token"


def test_an_encoder_needs_a_token_to_read():
    with pytest.raises(ConfigError) as error:
        encode_prompt(train_bpe(), Prompt("q", "", "a b"))
    assert str(error.value) == "the encoder input is empty, and the tokenizer adds no special token to it"


@pytest.mark.parametrize(
    ("encoder", "decoder", "expected"),
    [
        ("a b", None, ("a b</s>", "")),
        ("a b", "c d", ("a b</s>", "c d")),
        ("", "c d", ("</s>", "c d")),
        ("a b", "c?</s>d?", ("a b</s>", "c?</s> d?")),
    ],
)
def test_a_t5_encoder_reads_an_end_and_its_decoder_goes_on_from_plain_text(encoder, decoder, expected):
    assert decoded(train_unigram(), Prompt("q", encoder, decoder)) == expected


def test_the_separator_of_a_t5_decoder_is_one_end_of_sequence_token():
    tokenizer = train_unigram()
    ids = encode_prompt(tokenizer, Prompt("q", "a", "c?</s>d?")).decoder_ids
    assert ids.count(tokenizer.eos_token_id) == 1
    assert ids[-1] != tokenizer.eos_token_id


def test_a_tokenizer_without_a_chat_template_and_one_with_a_broken_one_are_one_sentence():
    with pytest.raises(ConfigError) as error:
        build_chat(train_bpe())
    assert str(error.value) == (
        "template=chat: this model has no chat template in its tokenizer; use another template, or "
        "model.chat_template=./FILE.jinja"
    )
    with pytest.raises(ConfigError) as error:
        build_chat(train_bpe(chat_template="{{ raise_exception('no system role') }}"))(
            [{"role": "user", "content": "q"}]
        )
    assert str(error.value) == "template=chat: the chat template of this model failed: no system role"


TEXTS = ("a b", f"{BOS}a b", "a b", "", "naïve 🦉", f"a{EOS}b")


@pytest.mark.parametrize("adds", ["$A", f"{BOS} $A", f"{BOS} $A {EOS}", f"{EOS} {BOS} $A"])
@pytest.mark.parametrize("is_chat", [False, True])
def test_prompts_encoded_together_are_those_encoded_one_by_one(adds, is_chat):
    tokenizer = tokenizer_that_adds(adds)
    prompts = [Prompt(f"q{number}", None, text, is_chat=is_chat) for number, text in enumerate(TEXTS)]
    together = encode_prompts(tokenizer, prompts)
    assert together == [encode_prompt(tokenizer, prompt) for prompt in prompts]
    assert [each.prompt for each in together] == prompts


def test_both_sides_encoded_together_are_those_encoded_one_by_one():
    tokenizer = train_unigram()
    sides = [("What is 12?", None), ("What is 30?", "The answer"), ("What is 12?", "")]
    prompts = [Prompt(f"q{number}", *side) for number, side in enumerate(sides)]
    together = encode_prompts(tokenizer, prompts)
    assert together == [encode_prompt(tokenizer, prompt) for prompt in prompts]
    assert [bool(each.decoder_ids) for each in together] == [False, True, False]


def test_prompts_that_are_encoded_together_keep_once_what_they_begin_with():
    tokenizer = train_bpe()
    strings = [f"The answer is {number} é" for number in range(3)]
    together = encode_prompts(tokenizer, [Prompt(string, None, string) for string in strings])
    assert [each.decoder_ids for each in together] == [tuple(tokenizer(string)["input_ids"]) for string in strings]
    first = together[0].decoder
    assert first.beginning
    assert all(each.decoder.beginning is first.beginning for each in together)


def test_ids_do_not_depend_on_how_many_characters_are_encoded_together(monkeypatch):
    tokenizer = train_bpe()
    prompts = [Prompt("q", None, string) for string in ("The answer is", "", "é", "The answer is", "yes")]
    sizes = []
    encode = type(tokenizer).__call__

    def count_and_encode(self, texts, **options):
        sizes.append(len(texts))
        return encode(self, texts, **options)

    monkeypatch.setattr(type(tokenizer), "__call__", count_and_encode)
    whole = encode_prompts(tokenizer, prompts)
    monkeypatch.setattr(tokenization, "_PART_CHARACTERS", 14)
    assert encode_prompts(tokenizer, prompts) == whole
    assert sizes == [5, 3, 1, 1]


@pytest.mark.parametrize(("answer", "rest", "token"), [("yes", ".", " yes"), ("y", "es", " yes"), ("ye", "s", " yes")])
def test_the_token_of_a_shown_answer_is_found_also_if_it_goes_on_after_the_answer(answer, rest, token):
    tokenizer = train_bpe()
    shown, asked = Example("d", {"question": "Q"}, (answer,)), Example("q", {"question": "R"}, ("no",))
    builder = PromptBuilder(
        task=Task("t", "", {}, (shown,), (asked,), ""),
        select=lambda example: (Demonstration(shown),),
        order=AsSelectedOrder(),
        template=TextTemplate("", "{{ question }}:", " {{ answer }}" + rest, None, "\n\n", False),
        placement=DecoderPlacement(),
        encode=lambda prompts: encode_prompts(tokenizer, prompts),
        context=Context(None, 4),
        overflow="stop",
    )
    [encoded] = builder.build_all([asked])
    [found] = find_shown_answers(builder, tokenizer, encoded, asked)
    assert [tokenizer.decode([encoded.decoder_ids[place]]) for place in found.tokens] == [token]
