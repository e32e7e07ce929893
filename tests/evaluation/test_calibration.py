"""Calibration of choices: which prompts are scored beside the question's, and what is taken off."""

import math
from dataclasses import replace

import pytest
import tiny_models

from icl_eval.decoding.branches import ScoredContinuation
from icl_eval.demonstrations import AsSelectedOrder, Demonstration
from icl_eval.errors import ConfigError
from icl_eval.evaluation.answers import AnswerBuilder, CandidateAnswers, ChoiceLikelihood
from icl_eval.evaluation.calibration import CalibratingPrompts, calibrate, draw_texts, log_mean
from icl_eval.metrics.measurements import measure_records
from icl_eval.prompts.building import (
    Context,
    DecoderPlacement,
    EncodedPrompt,
    EncoderPlacement,
    Prompt,
    PromptBuilder,
    SplitPlacement,
)
from icl_eval.prompts.templates import TextTemplate
from icl_eval.prompts.tokenization import Continuations, encode_prompts
from icl_eval.prompts.turns import ChatTemplate
from icl_eval.runs.records import Record
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

BPE, UNIGRAM = tiny_models.train_bpe(), tiny_models.train_unigram()
SHOWN = Example("d1", {"question": "is the sky blue?", "place": "sea"}, ("yes",))
ASKED = tuple(
    Example(f"q{number}", {"question": text, "place": place}, ("no",), ("yes", "no"))
    for number, (text, place) in enumerate([("is the house small?", "town"), ("the cat?", "old house")])
)
TASK = Task("sky", "Answer.", {"question": "Q", "answer": "A"}, (SHOWN,), ASKED, "")
TEMPLATE = TextTemplate("{{ instruction }}", "Q: {{ question }}\nA: ", "{{ answer }}", None, "\n\n", False)


def calibrating_prompts(mode, task=TASK, tokenizer=BPE, template=TEMPLATE, placement=None, examples=ASKED):
    """Return the encoder and decoder of each calibrating prompt of the first question."""
    prompts = PromptBuilder(
        task=task, select=lambda example: (Demonstration(SHOWN),), order=AsSelectedOrder(), template=template,
        placement=placement or DecoderPlacement(), encode=lambda prompts: encode_prompts(tokenizer, prompts),
        context=Context(None, 4), overflow="stop",
    )  # fmt: skip
    answers = AnswerBuilder(mode, prompts, tokenizer).build_all(examples, prompts.build_all(examples))
    found = [prompt for each in answers[0].calibrations for prompt in each.prompts]
    assert all(len(each.texts) == 2 for each in found)
    return [(each.context.prompt.encoder, each.context.prompt.decoder) for each in found]


def test_domain_texts_take_the_place_of_every_field_that_the_template_shows():
    template = replace(TEMPLATE, question="{{ place }}| {{ question }}\nA:")
    prompts = calibrating_prompts(ChoiceLikelihood(None, domain_texts=3, seed=5), template=template)
    questions = draw_texts("question", [each.inputs["question"] for each in ASKED], 3, 5)
    places = draw_texts("place", [each.inputs["place"] for each in ASKED], 3, 5)
    assert [decoder for _, decoder in prompts] == [
        f"Answer.\n\nsea| is the sky blue?\nA:yes\n\n{place}| {question}\nA:"
        for place, question in zip(places, questions, strict=True)
    ]


def test_domain_texts_are_as_long_as_the_mean_question_and_drawn_by_seed_from_its_words_alone():
    texts = ["a a a a", "b c"]
    drawn = draw_texts("question", texts, 400, 0)
    words = [word for text in drawn for word in text.split()]
    assert {len(text.split()) for text in drawn} == {3}
    assert {word: round(words.count(word) / len(words), 1) for word in "abc"} == {"a": 0.7, "b": 0.2, "c": 0.2}
    assert draw_texts("question", texts[::-1], 20, 0) == drawn[:20]
    assert draw_texts("question", texts, 20, 1) != drawn[:20] != draw_texts("other", texts, 20, 0)


@pytest.mark.parametrize(
    ("placement", "tokenizer", "expected"),
    [
        (DecoderPlacement(), BPE, (None, "So:")),
        (EncoderPlacement(), UNIGRAM, ("So:", None)),
        (SplitPlacement(), UNIGRAM, ("", "So:")),
    ],
)
def test_a_premise_is_all_that_the_model_reads(placement, tokenizer, expected):
    mode = ChoiceLikelihood(None, premise="So: ")
    assert calibrating_prompts(mode, placement=placement, tokenizer=tokenizer) == [expected]


def test_in_a_chat_a_premise_is_the_users_only_turn():
    template = ChatTemplate(TEMPLATE, lambda messages: "".join(f"<{m['role']}>{m['content']}" for m in messages))
    mode = ChoiceLikelihood(None, premise="So:")
    assert calibrating_prompts(mode, template=template) == [(None, "<user>So:")]


def test_what_cannot_be_calibrated_is_one_sentence():
    mode = ChoiceLikelihood(None, domain_texts=20)
    others = (ASKED[0], replace(ASKED[1], choices=("no", "maybe")))
    with pytest.raises(
        ConfigError,
        match=r"^likelihood.domain_texts=20: .* differ \('q0': \['yes', 'no'\]; 'q1': \['no', 'maybe'\]\); use",
    ):
        calibrating_prompts(mode, examples=others)
    assert calibrating_prompts(mode, examples=(ASKED[0], replace(ASKED[1], choices=("no", "yes"))))
    with pytest.raises(ConfigError, match=r"^likelihood.domain_texts=20: replaces what template 'template' shows of"):
        calibrating_prompts(mode, template=replace(TEMPLATE, question="?"))
    for number in (0, 1001):
        with pytest.raises(ConfigError, match=rf"^domain_texts={number}: must be 1 to 1,000, or null"):
            ChoiceLikelihood(None, domain_texts=number)


NOTHING = Continuations(EncodedPrompt(Prompt("q", None, None), (), (1,)), ())


def score(mode, after_question, *after_others):
    """Return the likelihoods of the choices a and b of a question, given the log-probabilities after each prompt."""
    places = iter(after_others)
    counts = {"content_free": 1, "domain_texts": mode.domain_texts, "premise": 1}
    calibrations = tuple(CalibratingPrompts(each, (NOTHING,) * counts[each.key]) for each in mode.calibrations)
    asked = CandidateAnswers("q", ("a",), ("a", "b"), NOTHING, (1, 1), calibrations)
    scores = [
        tuple(ScoredContinuation((own[text],), False) for text in "ab") for own in (after_question, *list(places))
    ]
    return asked.sum_logprobs(scores)


def planted(bias, constant=0.0):
    """Return records of questions in which each choice has its evidence, a bias of its own, and a constant.

    Only the evidence says what is right. The calibrating prompts give the bias alone, each shifted by as much for both.
    """
    mode = ChoiceLikelihood("N/A", domain_texts=3, premise="So:")
    shifts = (0.0, -2.0, 0.5, -1.0, -4.0)
    records = []
    for number in range(20):
        right = "ab"[number % 2]
        evidence = {text: 0.5 * (text == right) + number / 7 for text in "ab"}
        after_question = {text: evidence[text] + bias[text] + constant for text in "ab"}
        others = [{text: bias[text] + constant + shift for text in "ab"} for shift in shifts]
        likelihood = score(mode, after_question, *others)
        records.append(
            Record(
                f"q{number}", {}, (right,), None, "", (), 0, 0, "", "", {}, 9, 0, "undecoded", "",
                likelihood=replace(likelihood, references=likelihood.choices[:1]),
            )
        )  # fmt: skip
    return records


CALIBRATED = ("choice_accuracy_calibrated", "choice_accuracy_domain", "choice_accuracy_pmi")


def test_a_bias_towards_a_choice_cancels_in_every_calibration():
    for bias in ({"a": 3.0, "b": 0.0}, {"a": -8.0, "b": -0.5}):
        measured = {each.metric: each.statistics for each in measure_records("task", planted(bias), [])}
        assert measured["choice_accuracy"].value == 0.5  # always the same choice
        assert [measured[name].value for name in CALIBRATED] == [1.0, 1.0, 1.0]
    assert [measured[name].signature.split("norm:")[1].split("|")[0] for name in CALIBRATED] == [
        "content_free:'N/A'",
        "domain_texts:3",
        "premise:'So:'",
    ]


def test_a_constant_added_to_every_log_probability_changes_no_calibrated_value():
    def values(records):
        return [[(c.calibrated, c.domain, c.pmi) for c in record.likelihood.choices] for record in records]

    bias = {"a": 3.0, "b": 0.0}
    for before, after in zip(values(planted(bias)), values(planted(bias, -4.25)), strict=True):
        assert [pytest.approx(each) for each in before] == after


def test_probabilities_are_averaged_and_not_their_logarithms():
    found = score(
        ChoiceLikelihood(None, domain_texts=2), {"a": -1.0, "b": -2.0},
        {"a": math.log(0.5), "b": math.log(0.1)}, {"a": math.log(0.1), "b": math.log(0.3)},
    )  # fmt: skip
    assert [each.domain for each in found.choices] == pytest.approx([-1.0 - math.log(0.3), -2.0 - math.log(0.2)])
    assert [(each.calibrated, each.pmi) for each in found.choices] == [(None, None)] * 2
    assert (found.content_free, found.domain_texts, found.premise) == (None, 2, None)
    assert [each.domain for each in found.references] == [None]
    assert log_mean([math.log(0.5), math.log(0.1), math.log(0.3)]) == pytest.approx(math.log(0.3))
    assert (log_mean([-0.1]), log_mean([-5000.0, -5000.0])) == (-0.1, -5000.0)
    assert calibrate({"a": -1.0}, [{"a": -3.0, "b": 0.0}]) == {"a": 2.0}
