import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import tiny_models

from icl_eval.decoding.branches import ScoredContinuation
from icl_eval.demonstrations import AsSelectedOrder, Demonstration
from icl_eval.errors import ConfigError, DataError, PromptTooLongError
from icl_eval.evaluation.answers import (
    AnswerBuilder,
    AnswerLikelihood,
    CandidateAnswers,
    ChoiceLikelihood,
    QuestionLikelihood,
    ReferenceLikelihood,
    deduplicate,
    has_room,
)
from icl_eval.evaluation.calibration import CalibratingPrompts, ContentFreeCalibration
from icl_eval.metrics.likelihood import batch_priors
from icl_eval.metrics.measurements import measure_records
from icl_eval.metrics.scoring import score_statistics
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
from icl_eval.prompts.tokenization import Continuations, encode_continuations, encode_prompt, encode_prompts
from icl_eval.prompts.turns import ChatTemplate
from icl_eval.runs.records import Record
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

BPE, UNIGRAM = tiny_models.train_bpe(), tiny_models.train_unigram()
SHOWN = Example("d1", {"question": "is the sky blue?"}, ("yes",))
ASKED = Example("q1", {"question": "is the house small?"}, ("no", "no, it is not"), ("yes", "no"))
TASK = Task("sky", "Answer.", {"question": "Q", "answer": "A"}, (SHOWN,), (ASKED,), "")
TEMPLATE = TextTemplate("{{ instruction }}", "Q: {{ question }}\nA: ", "{{ answer }}", None, "\n\n", False)


def prompt_builder(tokenizer=BPE, placement=None, template=TEMPLATE, max_length=None):
    return PromptBuilder(
        task=TASK,
        select=lambda example: (Demonstration(SHOWN),),
        order=AsSelectedOrder(),
        template=template,
        placement=placement or DecoderPlacement(),
        encode=lambda prompts: encode_prompts(tokenizer, prompts),
        context=Context(max_length, 4),
        overflow="stop",
    )


def build(asked, example=ASKED, tokenizer=BPE, **options):
    builder = prompt_builder(tokenizer, **options)
    return AnswerBuilder(asked, builder, tokenizer).build(example, builder.build_all([example])[0])


def read(tokenizer, continuations):
    """What the context and each text say."""
    return [tokenizer.decode(ids) for ids in (continuations.context.decoder_ids, *continuations.texts)]


def test_an_answer_reads_as_in_a_demonstration_with_the_space_that_its_question_has_lost():
    answers = build(ReferenceLikelihood())
    assert answers.texts == ("no", "no, it is not")
    assert read(BPE, answers.after_question) == [
        "Answer.\n\nQ: is the sky blue?\nA: yes\n\nQ: is the house small?\nA:",
        " no",
        " no, it is not",
    ]
    assert (answers.choices, answers.calibrations) == ((), ())


def test_what_is_scored_after_a_rationale_is_the_answer_and_its_bytes_are_those_of_its_sentence():
    worked = replace(SHOWN, demonstration_fields={"why": "It is noon."})
    template = replace(TEMPLATE, rationale="{{ why }}", answer=" So {{ answer }}.")
    builder = replace(prompt_builder(template=template), select=lambda example: (Demonstration(worked),))
    answers = AnswerBuilder(ReferenceLikelihood(), builder, BPE).build(ASKED, builder.build_all([ASKED])[0])
    context, *texts = read(BPE, answers.after_question)
    assert context.startswith("Answer.\n\nQ: is the sky blue?\nA: It is noon. So yes.\n\n")
    assert [context + text for text in texts] == [f"{context}  So {answer}." for answer in ASKED.references]
    assert answers.num_bytes == (len("So no."), len("So no, it is not."))


def test_choices_are_calibrated_after_the_same_prompt_with_another_question():
    answers = build(ChoiceLikelihood("N/A"))
    assert answers.texts == ("no", "no, it is not", "yes")
    (blank,) = answers.calibrations
    assert [read(BPE, each) for each in blank.prompts] == [
        ["Answer.\n\nQ: is the sky blue?\nA: yes\n\nQ: N/A\nA:", " yes", " no"]
    ]
    assert build(ChoiceLikelihood(None)).calibrations == ()
    (several,) = build(ChoiceLikelihood(["N/A", ""])).calibrations
    assert several.calibration.recipe == ("N/A", "")
    assert several.prompts[0] == blank.prompts[0]
    assert read(BPE, several.prompts[1])[0].endswith("\n\nQ: \nA:")


def test_a_decoder_of_its_own_begins_with_the_answer_itself():
    answers = build(ReferenceLikelihood(), placement=EncoderPlacement())
    assert read(BPE, answers.after_question) == ["", "no", "no, it is not"]


def test_with_split_placement_the_answer_follows_the_question_in_the_decoder():
    answers = build(ReferenceLikelihood(), tokenizer=UNIGRAM, placement=SplitPlacement())
    text = "Q: is the sky blue?\nA: yes\n\nQ: is the house small?\nA: no"
    context, first = answers.after_question.context.decoder_ids, answers.after_question.texts[0]
    assert context + first == tuple(UNIGRAM(text, add_special_tokens=False)["input_ids"])


def test_in_a_chat_the_answer_is_all_of_the_assistants_turn():
    template = ChatTemplate(TEMPLATE, lambda messages: messages[-1]["content"] + "<|assistant|>")
    assert read(BPE, build(ReferenceLikelihood(), template=template).after_question)[1:] == ["no", "no, it is not"]


def test_where_prompt_and_text_merge_the_context_ends_before_for_all_texts():
    prompt = Prompt("q", None, "Answer: y")
    encoded = encode_prompt(BPE, prompt)
    found = encode_continuations(BPE, encoded, ["es", "o"])
    assert read(BPE, found) == ["Answer:", " yes", " yo"]
    assert encoded.decoder_ids[: len(found.context.decoder_ids)] == found.context.decoder_ids
    for text, ids in zip(("Answer: yes", "Answer: yo"), found.texts, strict=True):
        assert found.context.decoder_ids + ids == tuple(BPE(text)["input_ids"])


@pytest.mark.parametrize("text", ["", "y"])
def test_a_text_that_leaves_no_context_follows_the_beginning_of_a_sequence(text):
    found = encode_continuations(BPE, encode_prompt(BPE, Prompt("q", None, text)), ["es" if text else "yes"])
    assert found.context.decoder_ids == (BPE.bos_token_id,)
    assert found.texts == (tuple(BPE("yes")["input_ids"]),)


def test_what_cannot_be_scored_is_one_sentence():
    with pytest.raises(ConfigError, match=r"^likelihood=choices: task 'sky' has no choices; define them in its"):
        build(ChoiceLikelihood("N/A"), replace(ASKED, choices=()))
    asked, shown = replace(ASKED, inputs={"text": "x"}), replace(SHOWN, inputs={"text": "x"})
    builder = prompt_builder(template=replace(TEMPLATE, question="{{ text }}"))
    builder = replace(builder, select=lambda example: (Demonstration(shown),))
    with pytest.raises(ConfigError, match=r"^content_free=\[\]: needs at least one string; null for no calibration$"):
        ChoiceLikelihood([])
    with pytest.raises(ConfigError, match=r"content_free=N/A: replaces the field 'question', which task"):
        AnswerBuilder(ChoiceLikelihood("N/A"), builder, BPE).build(asked, builder.build_all([asked])[0])
    length = len(build(ReferenceLikelihood()).after_question.context.decoder_ids)
    with pytest.raises(PromptTooLongError, match=r"^task 'sky', question 'q1': prompt and longest answer are 2 tokens"):
        build(ReferenceLikelihood(), replace(ASKED, references=("no", "yes " * 5 + "yes")), max_length=length + 4)
    with pytest.raises(DataError, match=r"^task 'sky', question 'q1': the answer ' ' adds no token to the prompt$"):
        build(ReferenceLikelihood(), replace(ASKED, references=(" ",)), tokenizer=UNIGRAM, placement=EncoderPlacement())


def test_demonstrations_are_dropped_until_the_longest_answer_fits_too():
    asked = replace(ASKED, references=("yes yes yes yes yes yes",))
    whole = prompt_builder()
    [built] = whole.build_all([asked])
    room = len(built.decoder) + len(BPE(" yes yes yes yes yes yes")["input_ids"])
    kept = []
    for length in (room, room - 1):
        builder = replace(whole, context=Context(length, max_new_tokens=0), overflow="drop")
        answers = AnswerBuilder(ReferenceLikelihood(), builder, BPE)
        [prompt] = builder.build_all([asked], partial(has_room, answers.build))
        assert answers.build(asked, prompt).after_question.context.num_tokens <= length
        kept.append(len(prompt.prompt.demonstrations))
    assert kept == [1, 0]
    with pytest.raises(PromptTooLongError, match="; lower num_fewshot, or set overflow=drop to leave out demonstrat"):
        AnswerBuilder(ReferenceLikelihood(), replace(builder, overflow="stop"), BPE).build(asked, built)


def test_what_is_asked_twice_is_scored_once_and_the_encoders_input_counts():
    def asked(name, encoder, text):
        prompt = EncodedPrompt(Prompt(name, "", None), (encoder,), (2,))
        return SimpleNamespace(example_id=name, parts=(Continuations(prompt, ((text,),)),))

    answers = [asked("a", 0, 5), asked("b", 1, 5), asked("c", 0, 5), asked("d", 0, 6)]
    requests, places = deduplicate(answers)
    assert requests == [answers[number].parts[0] for number in (0, 1, 3)]
    assert places == {"a": [0], "b": [1], "c": [0], "d": [2]}


def test_what_is_found_adds_up_tokens_and_takes_off_what_nothing_gives():
    prompt = EncodedPrompt(Prompt("q", None, None), (), (1,))
    nothing = Continuations(prompt, ())
    blank = CalibratingPrompts(ContentFreeCalibration("N/A"), (nothing,))
    asked = CandidateAnswers("q", ("né",), ("oui", "né"), nothing, (3, 3), (blank,))
    after_question = (ScoredContinuation((-1.0, -0.5), True), ScoredContinuation((-3.0,), False))
    after_nothing = (ScoredContinuation((-3.5,), False), ScoredContinuation((-0.25, -0.25), False))
    assert asked.sum_logprobs([after_question, after_nothing]) == QuestionLikelihood(
        references=(AnswerLikelihood("né", -1.5, 2, 3, None, True),),
        choices=(AnswerLikelihood("oui", -3.0, 1, 3, 0.5, False), AnswerLikelihood("né", -1.5, 2, 3, -1.0, True)),
        content_free="N/A",
    )


def record(number, references, choices=(), content_free="N/A"):
    likelihood = QuestionLikelihood(
        tuple(AnswerLikelihood(*answer, None) for answer in references),
        tuple(AnswerLikelihood(*answer) for answer in choices),
        content_free,
    )
    targets = tuple(answer[0] for answer in references)
    sizes = {"prompt_tokens": 9, "completion_tokens": 0, "shots_requested": 0, "shots_effective": 0}
    return Record(
        f"q{number}", {}, targets, None, "", (), completion="", prediction="", metrics={}, finish_reason="undecoded",
        prompt_hash="", likelihood=likelihood, **sizes,
    )  # fmt: skip


RECORDS = [
    # raw: right first; per token: wrong first (-0.75 < -0.5); per byte: right; calibrated: right
    record(1, [("yes", -1.5, 2, 3), ("yeah", -9.0, 1, 4)], [("yes", -1.5, 2, 3, 0.5), ("no", -2.0, 4, 2, 0.0)]),
    # raw: third; per token: second; per byte: first; calibrated: a tie, which counts as wrong
    record(2, [("abcdef", -4.0, 4, 6)], [("a", -1.0, 1, 1, 1.0), ("bc", -2.0, 1, 2, 2.0), ("abcdef", -4.0, 4, 6, 2.0)]),
    # two right choices, of which the better one counts; per byte (and not per character): the wrong one first
    record(
        3, [("x", -3.0, 3, 1), ("y", -1.0, 1, 1)],
        [("x", -3.0, 3, 1, -9.0), ("y", -1.0, 1, 1, 0.0), ("né", -2.5, 1, 3, -1.0)],
    ),
]  # fmt: skip


def test_scores_are_those_computed_by_hand():
    values = {metric.metric: metric.statistics.value for metric in measure_records("task", RECORDS, [])}
    assert values == pytest.approx(
        {
            "reference_logprob": -8.5 / 3,
            "reference_perplexity": math.exp(8.5 / 9),
            "reference_rank": (1 + 3 + 1) / 3,
            "choice_accuracy": 2 / 3,
            "choice_accuracy_per_token": 1 / 3,
            "choice_accuracy_per_byte": 2 / 3,
            "choice_accuracy_calibrated": 2 / 3,
        }
    )


def planted(evidence, bias, per_label=50):
    """Return records of questions with two labels each, of equally many, in which a label has evidence and a bias."""
    records = []
    for number in range(2 * per_label):
        right = "yn"[number % 2]
        logprobs = {label: bias[label] + evidence * (label == right) for label in "yn"}
        choices = [(label, logprobs[label] - 10, 1, 1, None) for label in ("yn" if number % 3 else "ny")]
        records.append(record(number, [(right, logprobs[right] - 10, 1, 1)], choices, None))
    return records


def scores_of(records):
    return {metric.metric: metric.statistics.value for metric in measure_records("task", records, [])}


def test_batch_calibration_takes_off_what_a_prompt_adds_to_a_label_in_every_question():
    biased = scores_of(planted(1.0, {"y": 3.0, "n": 0.0}))
    assert (biased["choice_accuracy"], biased["choice_accuracy_batch"]) == (0.5, 1.0)
    fair = scores_of(planted(1.0, {"y": 0.0, "n": 0.0}))
    assert (fair["choice_accuracy"], fair["choice_accuracy_batch"]) == (1.0, 1.0)
    assert scores_of(planted(1.0, {"y": 7.0, "n": 4.0})) == biased | {
        "reference_logprob": pytest.approx(biased["reference_logprob"] + 4),
        "reference_perplexity": pytest.approx(biased["reference_perplexity"] * math.exp(-4)),
    }


def test_batch_priors_are_the_mean_of_probabilities_that_sum_to_one():
    likelihoods = [
        record(n, [("a", 0.0, 1, 1)], [("a", first, 1, 1, None), ("b", second, 1, 1, None)]).likelihood
        for n, (first, second) in enumerate([(math.log(0.3), math.log(0.1)), (-2.0, -2.0), (-5000.0, -1.0)])
    ]
    priors = batch_priors([each.choices for each in likelihoods])
    assert priors == pytest.approx({"a": math.log((0.75 + 0.5 + 0) / 3), "b": math.log((0.25 + 0.5 + 1) / 3)})
    # a choice that is never possible does not become the most probable one
    impossible = batch_priors([likelihoods[2].choices] * 2)
    assert impossible == pytest.approx({"a": -4999.0, "b": 0.0})


def test_where_choices_differ_by_question_there_is_no_batch():
    records = planted(1.0, {"y": 3.0, "n": 0.0})
    assert "choice_accuracy_batch" not in scores_of([*records, RECORDS[0]])
    assert "choice_accuracy_batch" not in scores_of(records[:1])


def test_each_score_has_a_recipe_an_interval_and_a_value_a_question():
    for metric in measure_records("task", RECORDS, []):
        found = score_statistics(metric.metric, metric.higher_is_better, metric.statistics, seed=0)
        assert found.signature.startswith(f"{metric.metric}|")
        assert found.ci95[0] <= found.value <= found.ci95[1]
        assert len(found.per_example) == 3
        assert found.higher_is_better == (metric.metric not in ("reference_rank", "reference_perplexity"))


def test_references_alone_have_no_ranks_and_other_records_no_likelihoods():
    alone = [replace(each, likelihood=replace(each.likelihood, choices=())) for each in RECORDS]
    assert [metric.metric for metric in measure_records("task", alone, [])] == [
        "reference_logprob",
        "reference_perplexity",
    ]
    assert measure_records("task", [replace(each, likelihood=None) for each in RECORDS], []) == []
    plain = [replace(each, likelihood=replace(each.likelihood, content_free=None)) for each in RECORDS]
    assert "choice_accuracy_calibrated" not in {metric.metric for metric in measure_records("task", plain, [])}
