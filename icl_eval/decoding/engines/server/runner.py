"""Ask a server for completions and scores, many at a time."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from icl_eval.decoding.branches import ScoredContinuation, ScoredPrompt
from icl_eval.decoding.completions import Completion
from icl_eval.decoding.engines.interface import Generation
from icl_eval.decoding.engines.server.answers import Ending
from icl_eval.decoding.engines.server.client import Client
from icl_eval.decoding.engines.server.dispatch import run_all
from icl_eval.decoding.engines.server.echoes import score_echo
from icl_eval.decoding.engines.server.failures import KEY_HINT, PassingError, RefusedError
from icl_eval.decoding.engines.server.probing import Findings
from icl_eval.decoding.engines.server.requests import Sampling, SentPrompt, derive_seed, path_of
from icl_eval.decoding.engines.server.schema import Answer
from icl_eval.decoding.rules import stop_strings
from icl_eval.decoding.searches import Sample, Search
from icl_eval.errors import ConfigError, IclEvalError, PromptTooLongError
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.prompts.conventions import Conventions
from icl_eval.prompts.tokenization import Continuations

if TYPE_CHECKING:
    from icl_eval.decoding.engines.server.engine import OpenAIEngine

Result = TypeVar("Result")

_FACTS = ("root", "max_model_len")


@dataclass(frozen=True)
class _Question:
    """One completion to ask for."""

    prompt: EncodedPrompt
    sample: int


@dataclass(frozen=True)
class _Scoring:
    """One continuation to score."""

    number: int
    """The index of its prompt."""
    place: int
    """Its index among the continuations of the prompt."""
    context: tuple[int, ...]
    ids: tuple[int, ...]


class ServerRunner:
    """A server that was found to do what the run needs."""

    def __init__(
        self,
        engine: "OpenAIEngine",
        client: Client,
        conventions: Conventions,
        findings: Findings,
        facts: Mapping[str, Any],
    ):
        """Hold a connection.

        Args:
            engine: The options.
            client: The connection.
            conventions: What the model requires, and how its completions end.
            findings: What the probe found.
            facts: What the server says of the model.
        """
        self._engine = engine
        self._client = client
        self._conventions = conventions
        self._findings = findings
        self._dialect = findings.dialect
        self._facts = {name: facts[name] for name in _FACTS if name in facts}
        if "root" in self._facts:
            self._facts["root"] = client.hide(str(self._facts["root"]))
        self._version = client.hide(client.read_version() or "") or None
        self._path = path_of(engine.api)

    def complete(
        self, prompts: Sequence[EncodedPrompt], generation: Generation, among: Sequence[EncodedPrompt]
    ) -> Iterator[Completion]:
        """Yield the completions of prompts in the order in which they are finished."""
        search = generation.search
        self._require_expressible(search)
        self._require_room((prompt.num_tokens for prompt in prompts), generation.max_new_tokens)
        penalty = self._conventions.card.generation.repetition_penalty or 1.0
        sampling = Sampling.of(search, penalty)
        stop = stop_strings(self._conventions.card.generation, generation.stop)
        ending = Ending(self._conventions.card.tokenizer, stop, self._conventions.end_ids, generation.max_new_tokens)
        seed = search.seed if isinstance(search, Sample) else 0

        def ask(question: _Question) -> Completion:
            example_id = question.prompt.prompt.example_id
            body = self._dialect.ask(
                self._write(question.prompt),
                ending.max_new_tokens,
                sampling,
                stop,
                derive_seed(seed, example_id, question.sample),
            )
            num_tokens = question.prompt.num_tokens + ending.max_new_tokens
            return self._send(body, num_tokens, example_id, lambda answer: self._read(answer, question, ending))

        questions = (_Question(prompt, sample) for prompt in prompts for sample in range(search.num_samples))
        yield from run_all(questions, ask, self._engine.num_concurrent, self._client.stop_retrying)

    def score(self, asked: Sequence[Continuations], wanted: Collection[int]) -> Iterator[tuple[int, ScoredPrompt]]:
        """Yield the index of each wanted prompt with the log-probabilities of its continuations."""
        numbers = sorted(wanted)
        self._require_room((len(asked[each].context.decoder) + asked[each].longest for each in numbers), 1)

        def ask(scoring: _Scoring) -> tuple[_Scoring, ScoredContinuation]:
            whole = (*scoring.context, *scoring.ids)
            example_id = asked[scoring.number].context.prompt.example_id
            sizes = len(scoring.context), len(scoring.ids)
            body = self._dialect.ask_echo(whole)
            return scoring, self._send(body, len(whole) + 1, example_id, lambda answer: score_echo(answer, *sizes))

        tasks = chain.from_iterable(self._split(number, asked[number]) for number in numbers)
        found: dict[int, dict[int, ScoredContinuation]] = {}
        for scoring, scored in run_all(tasks, ask, self._engine.num_concurrent, self._client.stop_retrying):
            scores = found.setdefault(scoring.number, {})
            scores[scoring.place] = scored
            if len(scores) == len(asked[scoring.number].texts):
                scores = found.pop(scoring.number)
                yield scoring.number, tuple(scores[place] for place in sorted(scores))

    def describe(self) -> Mapping[str, Any]:
        """Return the server, what was found out about it, what it was asked, and what cannot be known."""
        return {
            "base_url": self._client.base_url,
            "version": self._version,
            "model": self._engine.model,
            "answered_as": self._findings.served,
            "system_fingerprint": self._findings.fingerprint,
            **self._facts,
            "api": self._engine.api,
            "parameters": self._dialect.describe(),
            "probe": self._findings.describe(),
            "counts": asdict(self._client.counts),
            "unknown": "which weights and which dtype answer, and whether completions depend on their batch",
        }

    def close(self) -> None:
        """End all connections."""
        self._client.close()

    def _split(self, number: int, asked: Continuations) -> Iterator[_Scoring]:
        for place, ids in enumerate(asked.texts):
            yield _Scoring(number, place, asked.context.decoder_ids, ids)

    def _read(self, answer: Answer, question: _Question, ending: Ending) -> Completion:
        told = answer.usage.prompt_tokens if answer.usage else 0
        if self._engine.api == "completions" and self._findings.same_tokenizer and told > 0:
            own = len(question.prompt.decoder)
            if told != own:
                raise PassingError(f"the server counts {told} tokens for a prompt of {own}")
        return ending.read(answer, question.prompt, question.sample)

    def _write(self, prompt: EncodedPrompt) -> SentPrompt:
        if self._engine.api == "chat":
            return prompt.prompt.messages
        return prompt.decoder_ids if self._dialect.takes_ids else self._write_text(prompt)

    def _write_text(self, prompt: EncodedPrompt) -> str:
        """Return the text that the server's tokenizer turns into the tokens of a prompt.

        A rendered conversation begins with the special token that the tokenizer puts before every text.

        Raises:
            ConfigError: If no text does, although the tokenizer there is the one here.
        """
        tokenizer: Any = self._conventions.card.tokenizer
        text = prompt.prompt.decoder or ""
        for candidate in (text, text.removeprefix(tokenizer.bos_token or "")):
            if tuple(tokenizer(candidate, verbose=False)["input_ids"]) == prompt.decoder_ids:
                return candidate
        if self._findings.same_tokenizer is False:
            return text
        raise ConfigError(
            f"engine=openai: {self._client.base_url} takes only text, and no text has the tokens of question "
            f"{prompt.prompt.example_id!r}; use a server that takes token ids, or engine=transformers"
        )

    def _send(
        self, body: Mapping[str, Any], num_tokens: int, example_id: str, read: Callable[[Answer], Result]
    ) -> Result:
        """Send a request about a question until its answer can be read."""
        try:
            return self._client.complete(self._path, body, read, num_tokens)
        except RefusedError as error:
            hint = f"; {KEY_HINT}" if error.is_about_key else ""
            raise IclEvalError(
                f"{self._client.base_url} refuses question {example_id!r}: {error.status} {error}{hint}"
            ) from None

    def _require_room(self, lengths: Iterable[int], num_new: int) -> None:
        """Refuse prompts that the server would shorten, or whose completions it would; raises PromptTooLongError."""
        limit = self._facts.get("max_model_len") or None
        longest = max(lengths, default=0)
        if limit is not None and longest + num_new > limit:
            raise PromptTooLongError(
                f"{self._client.base_url} serves {self._engine.model} with {limit} tokens, and a prompt has {longest} "
                f"and {num_new} new ones; lower num_fewshot or max_new_tokens, or set engine.max_length={limit} with "
                "overflow=drop"
            )

    def _require_expressible(self, search: Search) -> None:
        """Refuse a search that the server cannot be asked for; raises ConfigError."""
        where = f"engine=openai: {self._client.base_url}"
        top_k = search.top_k if isinstance(search, Sample) else None
        if top_k is not None and "top_k" not in self._dialect.fields:
            raise ConfigError(f"{where} takes no top_k; set decoding.top_k=null, or use engine=transformers")
        top_p = search.top_p if isinstance(search, Sample) else None
        if top_p is not None and "top_p" not in self._dialect.fields:
            raise ConfigError(f"{where} takes no top_p; set decoding.top_p=null, or use engine=transformers")
        card = self._conventions.card
        if (card.generation.repetition_penalty or 1.0) != 1.0 and "token_ids" not in self._dialect.fields:
            raise ConfigError(
                f"{where} is not known to take a repetition_penalty, which the generation config of {card.name} sets; "
                "use vLLM or engine=transformers"
            )
