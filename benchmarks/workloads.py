"""Generate the prompts from a seed, so that everyone can measure the same workloads.

The questions are arithmetic word problems with worked answers. With SmolLM2's tokenizer, a demonstration has about 60
tokens and a question 26 to 31. The model's answers end at an empty line and have different lengths.

    Solve each problem step by step, …               ─┐
                                                      │
    Question: Ana has 7 boxes with 12 pens …          │ shared by all questions of k1, k8, k16
    Answer: Ana has 7 * 12 = 84 pens and then …      ─┘

    Question: Tom picks 31 plums on Monday …         ─┐ a question's own tokens
    Answer:                                          ─┘
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from icl_eval.models.loading import LanguageModel
from icl_eval.prompts.building import EncodedPrompt, Prompt
from icl_eval.prompts.tokenization import Continuations, encode_continuations, encode_prompt

MAX_NEW_TOKENS = 48
_INSTRUCTION = "Solve each problem step by step, then give the answer."
_NAMES = ("Ana", "Tom", "Mia", "Ben", "Eva", "Leo", "Zoe", "Max")
_THINGS = ("pens", "plums", "books", "stamps", "coins", "shells", "cards", "tickets")
_SHAPES = (
    (
        "{name} picks {a} {things} on Monday and {b} more on Tuesday, then gives {c} away. How many are left?",
        "{name} has {a} + {b} = {a_plus_b} {things} and keeps {a_plus_b} - {c} = {sum_left} {things}.",
    ),
    (
        "{name} has {c} boxes with {b} {things} in each box and finds {a} more. How many are there now?",
        "{name} has {c} * {b} = {c_times_b} {things} and then {c_times_b} + {a} = {product_more} {things}.",
    ),
    (
        "{name} packs {c} bags of {a} {things} and sells {b} of them. How many {things} remain?",
        "{name} has {c} * {a} = {c_times_a} {things} and keeps {c_times_a} - {b} = {product_left} {things}.",
    ),
)
_T5_VOCABULARY = 32128
_T5_INSTRUCTION_TOKENS = 12
_T5_SHARED_TOKENS = 500


@dataclass(frozen=True)
class Workload:
    """Prompts to complete, or with answers to choose from."""

    name: str
    model: LanguageModel
    prompts: tuple[EncodedPrompt, ...]
    max_new_tokens: int
    stop: tuple[str, ...]
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The answers to choose from, by prompt id; empty if text is generated."""


@dataclass(frozen=True)
class Problem:
    """A word problem and its worked answer."""

    question: str
    answer: str
    candidates: tuple[str, ...]
    """The right answer, and the answers that other kinds of problem would have."""


def make_problems(what: str, seed: int, count: int) -> list[Problem]:
    """Return word problems that depend only on the seed; a smaller count gives the first ones."""
    chance = _chance(what, seed)
    return [_make_problem(chance) for _ in range(count)]


def _chance(what: str, seed: int) -> random.Random:
    return random.Random(f"{what}, seed {seed}" if seed else what)


def _make_problem(chance: random.Random) -> Problem:
    a, b, c = chance.randint(21, 99), chance.randint(11, 20), chance.randint(3, 9)
    names = {"name": chance.choice(_NAMES), "things": chance.choice(_THINGS)}
    sums = {"a_plus_b": a + b, "sum_left": a + b - c, "c_times_b": c * b, "product_more": c * b + a}
    values = {"a": a, "b": b, "c": c, **names, **sums, "c_times_a": c * a, "product_left": c * a - b}
    question, answer = chance.choice(_SHAPES)
    candidates = tuple(other.format(**values) for _, other in _SHAPES)
    return Problem(question.format(**values), answer.format(**values), candidates)


def word_problems(model: LanguageModel, num_demonstrations: int, num_questions: int, seed: int) -> Workload:
    """Return a workload in which all questions have the same demonstrations."""
    shared = make_problems("demonstrations", seed, num_demonstrations)
    return _ask(
        f"k{num_demonstrations}", model, [shared] * num_questions, make_problems("questions", seed, num_questions)
    )


def own_demonstrations(model: LanguageModel, num_demonstrations: int, num_questions: int, seed: int) -> Workload:
    """Return a workload in which the questions have only the instruction in common."""
    own = [make_problems(f"demonstrations of {number}", seed, num_demonstrations) for number in range(num_questions)]
    return _ask(f"own{num_demonstrations}", model, own, make_problems("questions", seed, num_questions))


def word_choices(model: LanguageModel, num_demonstrations: int, num_questions: int, seed: int) -> Workload:
    """Return `word_problems` with answers to choose from."""
    questions = make_problems("questions", seed, num_questions)
    workload = word_problems(model, num_demonstrations, num_questions, seed)
    ids = [prompt.prompt.example_id for prompt in workload.prompts]
    choices = [tuple(f" {text}" for text in question.candidates) for question in questions]
    return replace(
        workload,
        name=f"choices{num_demonstrations}",
        max_new_tokens=0,
        choices=dict(zip(ids, choices, strict=True)),
    )


def encode_choices(workload: Workload) -> dict[str, Continuations]:
    """Return the choices as token ids, by a prompt's id."""
    pairs = [(prompt, workload.choices[prompt.prompt.example_id]) for prompt in workload.prompts if workload.choices]
    tokenizer = workload.model.tokenizer
    return {prompt.prompt.example_id: encode_continuations(tokenizer, prompt, texts) for prompt, texts in pairs}


def _ask(
    name: str, model: LanguageModel, demonstrations: Sequence[Sequence[Problem]], questions: Sequence[Problem]
) -> Workload:
    prompts = []
    for number, (shown, asked) in enumerate(zip(demonstrations, questions, strict=True)):
        blocks = [f"Question: {problem.question}\nAnswer: {problem.answer}" for problem in shown]
        text = "\n\n".join([_INSTRUCTION, *blocks, f"Question: {asked.question}\nAnswer:"])
        prompts.append(encode_prompt(model.tokenizer, Prompt(str(number), None, text)))
    return Workload(name, model, tuple(prompts), MAX_NEW_TOKENS, ("\n\n",))


def t5_encoder(model: LanguageModel, num_questions: int, seed: int) -> Workload:
    """Return a workload for `random_t5`: encoder inputs of 135 to 540 tokens, with nothing shared."""
    chance = _chance("t5-encoder", seed)
    prompts = [
        EncodedPrompt(Prompt(str(number), "", None), _random_ids(chance, chance.randint(135, 540)), ())
        for number in range(num_questions)
    ]
    return Workload("t5-encoder", random_t5(model), tuple(prompts), MAX_NEW_TOKENS, ())


def t5_split(model: LanguageModel, num_questions: int, seed: int) -> Workload:
    """Return a workload for `random_t5`: one short encoder input, and decoder prefixes that share 500 tokens."""
    chance = _chance("t5-split", seed)
    instruction, shared = _random_ids(chance, _T5_INSTRUCTION_TOKENS), _random_ids(chance, _T5_SHARED_TOKENS)
    prompts = [
        EncodedPrompt(Prompt(str(number), "", ""), instruction, shared + _random_ids(chance, chance.randint(26, 35)))
        for number in range(num_questions)
    ]
    return Workload("t5-split", random_t5(model), tuple(prompts), MAX_NEW_TOKENS, ())


def _random_ids(chance: random.Random, count: int) -> tuple[int, ...]:
    return tuple(chance.randrange(100, _T5_VOCABULARY) for _ in range(count))


def random_t5(model: LanguageModel) -> LanguageModel:
    """Return a network with flan-t5-small's sizes and random weights, which never ends a sequence.

    Its prompts are random ids; the tokenizer of `model` only turns the output into comparable text.
    """
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 6}
    kind = {"feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = T5ForConditionalGeneration(T5Config(vocab_size=_T5_VOCABULARY, **sizes, **kind))
        # A separate head, as in flan-t5: with a tied embedding, it would repeat one token forever.
        network.lm_head = torch.nn.Linear(sizes["d_model"], _T5_VOCABULARY, bias=False)
    network.generation_config.eos_token_id = None  # every row runs to the last token
    network = network.to(model.device, getattr(torch, model.dtype)).eval().requires_grad_(False)
    return LanguageModel(
        network, model.tokenizer, "encoder-decoder", "random t5-small", None, "", model.dtype, model.device
    )


WORKLOADS: dict[str, Callable[[LanguageModel, int, int], Workload]] = {
    "k8": lambda model, questions, seed: word_problems(model, 8, questions, seed),
    "k1": lambda model, questions, seed: word_problems(model, 1, questions, seed),
    "k16": lambda model, questions, seed: word_problems(model, 16, questions, seed),
    "own8": lambda model, questions, seed: own_demonstrations(model, 8, questions, seed),
    "choices8": lambda model, questions, seed: word_choices(model, 8, questions, seed),
    "t5-encoder": t5_encoder,
    "t5-split": t5_split,
}
"""Functions that build a workload from a model, a number of questions and a seed, by name."""
