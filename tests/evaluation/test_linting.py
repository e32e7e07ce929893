from dataclasses import dataclass, replace

import pytest
from tiny_models import train_bpe, train_unigram

from icl_eval.config.composing import ComposedConfig
from icl_eval.config.evaluations import build_evaluation
from icl_eval.demonstrations import AsSelectedOrder, Demonstration, FewShot, FirstDemonstrations, NoControl
from icl_eval.evaluation.linting import lint_clusters, lint_task
from icl_eval.evaluation.preparation import PreparedTask, TaskPlan
from icl_eval.metrics.postprocessing import Strip
from icl_eval.prompts.building import Prompt
from icl_eval.prompts.templates import Template, TextTemplate
from icl_eval.prompts.tokenization import encode_prompt
from icl_eval.prompts.turns import ChatTemplate
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

BYTES, UNIGRAM, GPT2 = train_bpe(), train_unigram(), train_bpe(single_special=True)
GPT2.unk_token = GPT2.eos_token  # as GPT-2 has it


def template(question="Q: {{ question }}\nA:", answer=" {{ answer }}", demonstration=None):
    return TextTemplate("", question, answer, demonstration, "\n\n", question_first=False)


TEMPLATE = template()
FEW_SHOT = FewShot(FirstDemonstrations(), NoControl(), AsSelectedOrder(), num_fewshot=1)


@dataclass
class Builder:
    """What linting asks of a builder of prompts."""

    template: Template

    def find_shown(self, prompt, example):
        return []


def lint(
    tokenizer=BYTES,
    prompts=("Q: a\nA:",),
    examples=(("What?", "x"),),
    pool=(),
    stop=("\n",),
    encoder=None,
    shown=(),
    wording=TEMPLATE,
):
    """The sentences about prompts (or texts for the encoder) and about (question, first reference, …) rows.

    Where there are more of one than of the other, the last is repeated.
    """
    count = max(len(prompts), len(examples))
    prompts, examples = ((*some, *some[-1:] * (count - len(some))) for some in (tuple(prompts), tuple(examples)))
    tests, candidates = (
        tuple(Example(f"{split}-{n}", {"question": row[0]}, row[1:]) for n, row in enumerate(rows))
        for split, rows in (("test", examples), ("pool", pool))
    )
    task = Task("words", "", {}, candidates, tests, "")
    plan = TaskPlan(task, tests, None, TEMPLATE, FEW_SHOT, lambda example: (), stop, 8, Strip(), list)
    encoded = tuple(encode_prompt(tokenizer, Prompt("q", encoder, text, shown)) for text in prompts)
    return list(lint_task(PreparedTask(plan, encoded, Builder(wording)), tokenizer))


SHOWN = (Demonstration(Example("pool-9", {"question": "Who?"}, ("she",))),)
STOPPED = "the first reference contains a stop string, so it can never be generated in full"
SPECIAL = "the row contains the text of a special token, which is encoded as that token"
UNKNOWN = "prompts contain the unknown token: the vocabulary lacks a character"


@pytest.mark.parametrize(
    ("task", "sentences"),
    [
        ({}, []),
        ({"examples": [("What?", "this", "that\nmore")], "pool": [("Who?", " she\n")]}, []),
        # prompts
        ({"prompts": ["a b", "a  b", "a   b"]}, ["prompts contain runs of two or more spaces"]),
        ({"prompts": ["a b"], "encoder": "a  b", "tokenizer": UNIGRAM}, ["prompts contain runs of two or more spaces"]),
        ({"prompts": ["a b", "日 b", "本"], "tokenizer": UNIGRAM, "encoder": "c"}, [f"2 of 3 {UNKNOWN}"]),
        ({"prompts": [None], "tokenizer": UNIGRAM, "encoder": "日"}, [f"1 of 1 {UNKNOWN}"]),
        ({"prompts": ["日"]}, []),  # a tokenizer of bytes knows every character
        ({"prompts": [""], "tokenizer": GPT2}, []),  # its only special token is not there for lack of a character
        # templates
        (
            {"wording": template(question="Q:\nA:")},
            ["no field of the row (question) is used in the template's question"],
        ),
        ({"wording": template(answer=" yes")}, []),  # no demonstration shows it
        ({"wording": template(answer=" yes"), "shown": SHOWN}, ["the template's demonstration does not use 'answer'"]),
        ({"wording": template(answer=" yes", demonstration="{{ question }} {{ answer }}"), "shown": SHOWN}, []),
        (
            {"wording": ChatTemplate(template("Q:"), str), "shown": SHOWN},
            ["no field of the row (question) is used in the template's question and demonstration"],
        ),
        # rows
        ({"examples": [("What?", "this\nthat")]}, [f"test-0: {STOPPED}"]),
        ({"pool": [("What?", "this\nthat")]}, [f"pool-0: {STOPPED}"]),
        ({"examples": [("What?", "this\nthat")], "stop": ()}, []),
        ({"examples": [("What?", "this; that")], "stop": ("END", ";")}, [f"test-0: {STOPPED}"]),
        ({"examples": [("What <|eos|> is it?", "x")]}, [f"test-0: {SPECIAL}"]),
        ({"pool": [("What?", "x", "y<|bos|>")]}, [f"pool-0: {SPECIAL}"]),
        ({"pool": [("Is it <extra_id_3>?", "x")], "tokenizer": UNIGRAM}, [f"pool-0: {SPECIAL}"]),
        (
            {"examples": [("?", "a\nb")] * 5, "pool": [("?", "a\nb")]},
            [f"pool-0, test-0, test-1 and 3 more: {STOPPED}"],
        ),
        ({"examples": [("What?", "zzzzzzzzz", "a")]}, ["test-0: the first reference is longer than max_new_tokens=8"]),
        ({"examples": [("What?", "zzzzzzzz", "zzzzzzzzz")]}, []),
        (
            {"prompts": ["a  b"], "examples": [("<|pad|>", "zzzzzzz\nz")]},
            [
                "prompts contain runs of two or more spaces",
                f"test-0: {SPECIAL}",
                f"test-0: {STOPPED}",
                "test-0: the first reference is longer than max_new_tokens=8",
            ],
        ),
    ],
)
def test_what_is_probably_not_meant_is_said(task, sentences):
    assert lint(**task) == sentences


PASSAGE = "A passage of some length, which several questions are about, as in SQuAD, BoolQ or RACE. " * 3


@pytest.mark.parametrize(
    ("inputs", "match_field", "sentence"),
    [
        ([{"text": PASSAGE + f"Question {n}"} for n in range(3)] + [{"text": "another"}], None, None),  # all share one
        (
            [{"text": f"{n // 2} {PASSAGE} Question {n}"} for n in range(4)] + [{"text": f"{n}?"} for n in range(4)],
            None,
            "4 of 8 questions share their text with others (2 groups)",
        ),
        ([{"text": f"{n // 2} {PASSAGE}"} for n in range(4)] + [{"text": f"{n}?"} for n in range(5)], None, None),
        ([{"text": f"{n}?", "kind": f"kind {n // 2}"} for n in range(4)], None, None),  # a label, not a text
        (
            [{"text": f"{n}?", "kind": f"kind {n // 3}"} for n in range(6)],
            "kind",
            "6 of 6 questions share their kind with others (2 groups)",
        ),
        ([{"text": f"{n}?", "kind": f"kind {n}"} for n in range(6)], "kind", None),
    ],
)
def test_questions_that_share_something_should_name_it(inputs, match_field, sentence):
    examples = tuple(Example(f"test-{n}", each, ("x",)) for n, each in enumerate(inputs))
    task = Task("words", "", {}, (), examples, "")
    plan = TaskPlan(task, examples, match_field, TEMPLATE, FEW_SHOT, lambda example: (), (), 8, Strip(), list)
    advice = "so they are not independent and intervals are too narrow: name it as fields.cluster"
    assert list(lint_clusters(PreparedTask(plan, (), Builder(TEMPLATE)))) == (
        [f"{sentence}, {advice}"] if sentence else []
    )
    named = tuple(replace(each, cluster="a") for each in examples)
    assert list(lint_clusters(PreparedTask(replace(plan, examples=named), (), Builder(TEMPLATE)))) == []


def test_the_shipped_rows_are_clean(compose):
    tasks = "translation,translation_en_fr,commonsense,math,qa,dialogue,story,showcase"
    for plan in build_evaluation(ComposedConfig(compose(f"task=[{tasks}]"))).plans:
        prompts = (encode_prompt(BYTES, Prompt("q", None, "Q: a\nA:")),) * len(plan.examples)
        sentences = list(lint_task(PreparedTask(plan, prompts, Builder(TEMPLATE)), BYTES))
        assert not [sentence for sentence in sentences if "max_new_tokens" not in sentence]  # BYTES needs more of them
