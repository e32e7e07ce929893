"""Noisy channel: questions are scored after their answers."""

import json
import math
from dataclasses import dataclass, replace

import pytest
import tiny_models
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from icl_eval.decoding.branches import ScoredContinuation
from icl_eval.demonstrations import AsSelectedOrder, Demonstration
from icl_eval.errors import ConfigError, PromptTooLongError
from icl_eval.evaluation.answers import AnswerBuilder, ChannelLikelihood, ChoiceLikelihood, score_answers
from icl_eval.evaluation.channel import ChannelBuilder
from icl_eval.metrics.measurements import measure_records
from icl_eval.prompts.building import Context, DecoderPlacement, PromptBuilder
from icl_eval.prompts.templates import ChannelForm, TextTemplate
from icl_eval.prompts.tokenization import encode_continuations, encode_prompts
from icl_eval.runs.records import Record
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

BPE = tiny_models.train_bpe()
SHOWN = tuple(
    Example(f"d{n}", {"question": text}, (answer,)) for n, (text, answer) in enumerate([("sun", "yes"), ("rain", "no")])
)
ASKED = (
    Example("q0", {"question": "sky"}, ("no", "nope"), ("yes", "no")),
    Example("q1", {"question": "the cat"}, ("yes",), ("yes", "no")),
)
TASK = Task("sky", "", {}, SHOWN, ASKED, "")
FORM = ChannelForm("A: {{ answer }}\nQ: ", "{{ question }}")
TEMPLATE = TextTemplate("", "Q: {{ question }}\nA:", " {{ answer }}", None, "\n\n", False, channel=FORM)


def builder(**changes):
    prompts = PromptBuilder(
        task=TASK, select=lambda example: tuple(map(Demonstration, SHOWN)), order=AsSelectedOrder(), template=TEMPLATE,
        placement=DecoderPlacement(), encode=lambda prompts: encode_prompts(BPE, prompts), context=Context(None, 4),
        overflow="stop",
    )  # fmt: skip
    return replace(prompts, **changes)


def build(kind, mode, examples=ASKED, **changes):
    prompts = builder(**changes)
    return kind(mode, prompts, BPE, encode_continuations).build_all(examples, prompts.build_all(examples))


def test_each_answer_has_a_prompt_of_the_same_demonstrations_and_the_question_continues_it():
    first, _ = build(ChannelBuilder, ChannelLikelihood())
    assert (first.references, first.choices, first.texts) == (("no", "nope"), ("yes", "no"), ("no", "nope", "yes"))
    shown = "A: yes\nQ: sun\n\nA: no\nQ: rain\n\n"
    assert [each.context.prompt.decoder for each in first.parts] == [f"{shown}A: {text}\nQ:" for text in first.texts]
    assert [[BPE.decode(ids) for ids in each.texts] for each in first.parts] == [[" sky"]] * 3
    assert (first.scored.encoder, first.scored.decoder, first.scored.question) == (None, f"{shown}A: no\nQ:", " sky")


def test_tokens_and_bytes_of_an_answer_are_those_of_the_question():
    first, second = build(ChannelBuilder, ChannelLikelihood())
    scores = [(ScoredContinuation((-1.0, -0.5 * number), number == 0),) for number in range(3)]
    found = first.sum_logprobs(scores)
    assert [(each.text, each.logprob, each.tokens, each.bytes) for each in found.references] == [
        ("no", -1.0, 2, 3), ("nope", -1.5, 2, 3),
    ]  # fmt: skip
    assert [(each.text, each.logprob, each.is_greedy) for each in found.choices] == [
        ("yes", -2.0, False),
        ("no", -1.0, True),
    ]
    assert (found.channel, found.content_free) == (first.scored, None)
    assert second.sum_logprobs(scores[:2]).choices[0].bytes == len("the cat")


def test_what_cannot_be_scored_is_one_sentence():
    with pytest.raises(ConfigError, match=r"^likelihood=channel: task 'sky' has no choices; define them in its fields"):
        build(ChannelBuilder, ChannelLikelihood(), (replace(ASKED[0], choices=()),))
    long = (replace(ASKED[1], choices=("yes", "no " * 9)),)
    with pytest.raises(
        PromptTooLongError, match=r"^task 'sky', question 'q1': prompt and longest question are \d+ tok"
    ):
        build(ChannelBuilder, ChannelLikelihood(), long, context=Context(32, 1))


@dataclass
class JointModel:
    """Scores by a joint distribution of answers and questions, in which one answer is nearly always given.

    ln p(answer | question) follows from ln p(answer) + ln p(question | answer), as in a language model that has learned
    the joint distribution.
    """

    prior = {"yes": math.log(0.99), "no": math.log(0.01)}  # noqa: RUF012
    given = {"yes": {"sky": 0.1, "the cat": 0.9}, "no": {"sky": 0.9, "the cat": 0.1}}  # noqa: RUF012

    def score(self, asked, wanted):
        for number in wanted:
            prompt = asked[number].context.prompt.decoder
            last = prompt.split("\n\n")[-1]
            texts = [BPE.decode(ids).strip() for ids in asked[number].texts]
            yield number, tuple(ScoredContinuation((self._logprob(last, text),), False) for text in texts)

    def _logprob(self, last, text):
        if last.startswith("A:"):
            return math.log(self.given[last[3:].split("\n")[0]][text])
        question = last[3:].split("\n")[0]
        joint = {answer: self.prior[answer] + math.log(self.given[answer][question]) for answer in self.prior}
        return joint[text] - math.log(sum(map(math.exp, joint.values())))


def test_the_questions_that_lack_likelihoods_are_not_searched_for_each_question():
    class Listed(list):
        def __contains__(self, each):
            raise AssertionError("as long as the list")

    answers = build(ChannelBuilder, ChannelLikelihood())
    assert [example_id for example_id, _ in score_answers(JointModel(), answers, Listed(["q1"]))] == ["q1"]


def test_where_one_answer_is_always_likelier_the_channel_finds_the_right_one_and_the_answer_does_not():
    examples = (replace(ASKED[0], references=("no",)), ASKED[1])
    accuracies = {}
    for kind, mode in ((AnswerBuilder, ChoiceLikelihood(None)), (ChannelBuilder, ChannelLikelihood())):
        found = dict(score_answers(JointModel(), build(kind, mode, examples), {"q0", "q1"}))
        records = [
            Record(
                each.id, {}, each.references, None, "", (), 0, 0, "", "", {}, 9, 0, "undecoded", "",
                likelihood=found[each.id],
            )
            for each in examples
        ]  # fmt: skip
        measured = {each.metric: each.statistics for each in measure_records("sky", records, [])}
        accuracies[mode.name] = measured["choice_accuracy"].value
        assert ("scored:question" in measured["reference_logprob"].signature) == (mode.name == "channel")
        assert ("choice_accuracy_per_byte" in measured) == (mode.name == "choices")
    assert accuracies == {"choices": 0.5, "channel": 1.0}
    assert measured["reference_logprob"].value == pytest.approx(math.log(0.9))


YAML = """
# @package task.sky
defaults: [{/metrics@metrics: [exact_match]}, _self_]
pool: {path: pool.jsonl}
test: {path: test.jsonl}
fields: {choices: "['yes', 'no']"}
"""


@pytest.mark.slow
@pytest.mark.parametrize(("model", "placement"), [("gpt2", "decoder"), ("t5", "encoder"), ("t5", "split")])
def test_a_record_holds_the_log_probability_of_the_question_that_the_library_gives(
    model, placement, icl_eval_command, request, tmp_path
):
    folder = request.getfixturevalue(model)
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "sky.yaml").write_text(YAML)
    for split, count in (("pool", 3), ("test", 4)):
        rows = [{"question": f"is the sky blue in {split} {n}?", "references": ["yes"]} for n in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = icl_eval_command(
        "--config-dir", ".", "task=sky", "num_fewshot=2", "device=cpu", "dtype=float64", "likelihood=channel",
        "max_new_tokens=0", f"model.source={folder}", f"placement={placement}", "hydra.run.dir=run",
    )  # fmt: skip
    assert (outcome.exit_code, outcome.err) == (0, "")
    lines = (tmp_path / "run" / "samples_sky.jsonl").read_text(encoding="utf-8").splitlines()
    for record in map(json.loads, lines):
        scored = record["likelihood"]["channel"]
        assert scored["question"] == f" {record['doc']['question']}"
        for choice in record["likelihood"]["choices"]:
            sides = [
                text and _replace_last(text, ": yes\n", f": {choice['text']}\n")
                for text in (scored["encoder"], scored["decoder"])
            ]
            expected, tokens = log_prob(folder, *sides, scored["question"])
            assert (choice["logprob"], choice["tokens"]) == (pytest.approx(expected, abs=1e-4), tokens)
        assert record["likelihood"]["choices"][0]["logprob"] != record["likelihood"]["choices"][1]["logprob"]


def _replace_last(text, old, new):
    return new.join(text.rsplit(old, 1))


def log_prob(folder, encoder, decoder, question):
    """By the library alone: the question's tokens are those behind the prompt's."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if encoder is None:
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
        ids, prompt = (tokenizer(text, return_tensors="pt")["input_ids"] for text in (decoder + question, decoder))
        logits, ids = network(ids).logits[0, prompt.shape[1] - 1 : -1], ids[0, prompt.shape[1] :]
    else:
        network = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float64)
        text = decoder + question if decoder else question.strip()
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        length = len(tokenizer(decoder or "", add_special_tokens=False)["input_ids"])
        start = network.config.decoder_start_token_id
        inputs = {"input_ids": tokenizer(encoder, return_tensors="pt")["input_ids"]}
        logits = network(**inputs, decoder_input_ids=torch.tensor([[start, *whole[:-1]]])).logits[0, length:]
        ids = torch.tensor(whole[length:])
    return logits.log_softmax(-1).gather(1, ids[:, None]).sum().item(), len(ids)
