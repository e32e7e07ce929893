"""The command `python -m benchmarks tokens`: how many tokens likelihoods feed to the network, and the least possible.

A hook on the network's body counts what it is fed, rows times columns, so that padding counts. The least possible is
computed from the token ids alone: the prompts with their continuations form a tree, in which equal beginnings are one
path, and every token but the last of a path must be run, once; so must every distinct input of an encoder.

The networks are tiny and the ids made up: neither changes how many tokens are fed. The trial runs that find out what a
network can do are the same for any number of questions, and counted apart.
"""

import argparse
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from icl_eval.decoding import LikelihoodScorer
from icl_eval.decoding.rules import start_ids
from icl_eval.models.cards import Architecture
from icl_eval.models.loading import LanguageModel
from icl_eval.prompts.building import EncodedPrompt, Prompt
from icl_eval.prompts.tokenization import Continuations

Ids = tuple[int, ...]

_VOCABULARY = 32_000
_SIZES = {"vocab_size": _VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
_QUESTIONS = 64
_HEADER = (
    "| network | questions | number | tokens fed | the least | ratio | trial runs |\n|---|---|---:|---:|---:|---:|---:|"
)


@dataclass
class Fed:
    """What a network has been fed."""

    tokens: int = 0
    passes: int = 0


@contextmanager
def count_fed(network: Any) -> Iterator[Fed]:
    """Count the tokens that a network's encoder and decoder are fed, padding included."""
    fed = Fed()

    def add(_module: Any, arguments: Any, options: Any) -> None:
        ids = arguments[0] if arguments else options["input_ids"]
        fed.tokens += ids.numel()
        fed.passes += 1

    bodies = [network.base_model]
    if network.config.is_encoder_decoder:
        bodies = [network.get_encoder(), network.get_decoder()]
    hooks = [body.register_forward_pre_hook(add, with_kwargs=True) for body in bodies]
    try:
        yield fed
    finally:
        for hook in hooks:
            hook.remove()


def count_least(asked: Sequence[Continuations], start: Ids = ()) -> int:
    """Return the least number of tokens that the log-probabilities of some continuations can be computed from.

    Args:
        asked: The prompts, each with its continuations.
        start: The tokens that a decoder begins with, before those of the prompts.
    """
    roots: dict[Ids, dict[int, Any]] = {}
    for each in asked:
        for text in each.texts:
            node = roots.setdefault(each.context.encoder_ids, {})
            for token_id in (*start, *each.context.decoder_ids, *text):
                node = node.setdefault(token_id, {})
    least = sum(map(len, roots))
    for root in roots.values():
        waiting = list(root.values())
        while waiting:
            node = waiting.pop()
            least += bool(node)  # a token after which nothing comes need not be run
            waiting += node.values()
    return least


class _Author:
    """Makes up questions in token ids, from a seed."""

    def __init__(self, seed: int):
        self._chance = random.Random(seed)

    def ids(self, shortest: int, longest: int) -> Ids:
        """Return some ids, of a random number."""
        count = self._chance.randint(shortest, longest)
        return tuple(self._chance.randrange(100, _VOCABULARY) for _ in range(count))

    def opening(self) -> Ids:
        """Return one of the ways in which many questions begin: no, one, two or three tokens."""
        return (11, 12, 13)[: self._chance.randrange(4)]

    def text(self, shortest: int, longest: int) -> Ids:
        """Return some ids that may begin as others do."""
        return self.opening() + self.ids(shortest, longest)


def _letters(_author: _Author) -> tuple[Ids, ...]:
    return tuple((letter,) for letter in range(20, 24))


def _endings(author: _Author) -> tuple[Ids, ...]:
    return tuple(author.text(8, 40) for _ in range(4))


def _shared(author: _Author, count: int, choices: Callable[[_Author], tuple[Ids, ...]]) -> list[tuple[Ids, Any]]:
    shown = author.ids(500, 500)
    return [(shown + author.text(15, 90), choices(author)) for _ in range(count)]


def _alone(author: _Author, count: int) -> list[tuple[Ids, Any]]:
    return [(author.text(15, 90), _endings(author)) for _ in range(count)]


def _own(author: _Author, count: int) -> list[tuple[Ids, Any]]:
    instruction = author.ids(12, 12)
    return [(instruction + author.ids(80, 700), _letters(author)) for _ in range(count)]


def _uneven(author: _Author, count: int) -> list[tuple[Ids, Any]]:
    shown = author.ids(500, 500)
    longest = [round(4 * 100 ** (number / count)) for number in range(count)]
    return [(shown + author.ids(length, length), _endings(author)) for length in longest]


def _about_texts(
    author: _Author, count: int, questions: int, shortest: int, longest: int
) -> list[tuple[Ids, tuple[Ids, ...]]]:
    """Several questions about each of some texts of `shortest` to `longest` tokens."""
    shown = author.ids(500, 500)
    texts = [shown + author.ids(shortest, longest) for _ in range(-(-count // questions))]
    return [(texts[number // questions] + author.ids(10, 25), _letters(author)) for number in range(count)]


def _twice(author: _Author, count: int) -> list[tuple[Ids, Any]]:
    """Every question with its choices at once and one by one, as different callers ask."""
    together = _shared(author, max(1, count // 5), _endings)
    return [*together, *((prompt, (choice,)) for prompt, choices in together for choice in choices)]


_KINDS: Mapping[str, Callable[[_Author, int], list[tuple[Ids, Any]]]] = {
    "letters": lambda author, count: _shared(author, count, _letters),
    "endings": lambda author, count: _shared(author, count, _endings),
    "own demonstrations": _own,
    "uneven lengths": _uneven,
    "2 questions a passage": lambda author, count: _about_texts(author, count, 2, 100, 250),
    "4 questions a passage": lambda author, count: _about_texts(author, count, 4, 60, 400),
    "16 questions a passage": lambda author, count: _about_texts(author, count, 16, 300, 500),
    "asked twice": _twice,
    "6 questions": lambda author, _: _shared(author, 6, _endings),
    "no demonstrations": _alone,
    "6 without demonstrations": lambda author, _: _alone(author, 6),
}

_INSTRUCTION = tuple(range(20, 32))
"""What an encoder reads if the decoder has the prompts."""


def _build_t5() -> Any:
    config = transformers.T5Config(
        vocab_size=_VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config)


_NETWORKS: Mapping[str, Callable[[], Any]] = {
    "decoder (Llama)": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**_SIZES, num_attention_heads=4, num_key_value_heads=2)
    ),
    "decoder that copies prefixes (Bloom)": lambda: transformers.BloomForCausalLM(
        transformers.BloomConfig(vocab_size=_VOCABULARY, hidden_size=32, n_layer=2, n_head=4)
    ),
    "encoder-decoder (T5)": _build_t5,
    "its decoder has the prompts (T5)": _build_t5,
    "its decoder counts positions (BART)": lambda: transformers.BartForConditionalGeneration(
        transformers.BartConfig(
            vocab_size=_VOCABULARY,
            d_model=32,
            **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
            **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
            **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 48),
        )
    ),
}
_READ_BY_ENCODER = ("encoder-decoder (T5)",)
"""Networks whose encoder reads the prompts, so that the decoder has only the answers."""


def build_network(name: str) -> LanguageModel:
    """Return one of the tiny networks; it has no tokenizer, and its weights are random."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = _NETWORKS[name]().eval().requires_grad_(False)
    architecture: Architecture = "encoder-decoder" if network.config.is_encoder_decoder else "decoder-only"
    return LanguageModel(network, None, architecture, name, None, "", "float32", "cpu")


def write_questions(kind: str, count: int, model: LanguageModel, seed: int) -> list[Continuations]:
    """Return questions of a kind.

    Args:
        kind: The kind.
        count: The number of questions.
        model: One of the networks that are built here, which decides which side reads the prompts.
        seed: Questions depend on nothing else.
    """
    asked = []
    instruction = _INSTRUCTION if model.architecture == "encoder-decoder" else ()
    for number, (prompt, choices) in enumerate(_KINDS[kind](_Author(seed), count)):
        encoder_ids, decoder_ids = (prompt, ()) if model.name in _READ_BY_ENCODER else (instruction, prompt)
        asked.append(Continuations(EncodedPrompt(Prompt(str(number), None, None), encoder_ids, decoder_ids), choices))
    return asked


def measure_tokens(arguments: Sequence[str]) -> None:
    """Print a table of the tokens that each kind of question takes on each kind of network."""
    options = _parse(arguments)
    print(_HEADER, flush=True)
    for name in _NETWORKS:
        model = build_network(name)
        with count_fed(model.network) as trial:
            list(LikelihoodScorer(model).score([]))
        for kind in options.kinds:
            asked = write_questions(kind, options.questions, model, options.seed)
            with count_fed(model.network) as fed:
                list(LikelihoodScorer(model).score(asked))
            tokens, least = fed.tokens - trial.tokens, count_least(asked, start_ids(model))
            print(
                f"| {name} | {kind} | {len(asked)} | {tokens:,} | {least:,} | {tokens / least:.3f} | {trial.tokens} |"
            )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks tokens", description=__doc__)
    parser.add_argument(
        "--kinds", nargs="+", choices=_KINDS, default=list(_KINDS), metavar="KIND", help=", ".join(_KINDS)
    )
    parser.add_argument("--questions", type=int, default=_QUESTIONS, help="the number of questions of a kind")
    parser.add_argument("--seed", type=int, default=0, help="the seed that questions are made up from")
    options = parser.parse_args(arguments)
    if options.questions < 1:
        parser.error("--questions: must be 1 or more")
    return options
