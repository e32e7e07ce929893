"""Find out what a server does with a request, before money is spent: a handful of requests of a few tokens each.

fields      which fields does it take? All are sent, then none, then one after the other
token ids   does it take them as the tokens that we mean? It must count as many
tokenizer   is it ours? A text must have the same ids there, or at least as many tokens
greedy      does it take the likeliest token? Its log-probability must be the best one
stops       does it cut a completion at a stop string? One out of the middle of its own completion is tried
echo        are the log-probabilities of given text right? Those of its own completion must be the same again
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from icl_eval.decoding.engines.server.client import Client
from icl_eval.decoding.engines.server.failures import KEY_HINT, PassingError, RefusedError
from icl_eval.decoding.engines.server.requests import FIELDS, Api, Dialect, Prompts, Sampling, SentPrompt, path_of
from icl_eval.decoding.engines.server.schema import Answer, LogProbs
from icl_eval.errors import ConfigError
from icl_eval.prompts.building import Prompt
from icl_eval.prompts.tokenization import encode_prompt

_TEXT = "Red, green, blue, red, green, blue, red, green, blue, red,"
"""A text that repeats itself, so that a penalty on repetition shows."""
_NEW_TOKENS = 8
_SAME = 0.25
"""The largest difference, in nats, between two computations of a log-probability that rounding explains: in bfloat16, a
server's prefill and its decoding differ by a few hundredths."""
_NOT_FOUND = 404


@dataclass(frozen=True)
class Findings:
    """What was found out about a server."""

    dialect: Dialect
    same_tokenizer: bool | None = None
    """Whether a text has the same tokens there and here; None if the server counts no tokens."""
    takes_likeliest: bool | None = None
    """Whether greedy requests give the likeliest tokens; None if it gives no log-probabilities."""
    stops: Literal["cut", "kept", "ignored", "unknown"] = "unknown"
    """What becomes of a stop string: it is cut off, or kept at the end, or the completion goes on."""
    echoes: bool | None = None
    """Whether the log-probabilities of given text are right; None if that was not asked."""
    fingerprint: str | None = None
    served: str | None = None
    notes: tuple[str, ...] = field(default=())
    """What the user should know."""

    def describe(self) -> dict[str, Any]:
        """Return the findings, for the report."""
        return {
            "token_ids_taken": self.dialect.takes_ids,
            "token_ids_returned": "token_ids" in self.dialect.fields,
            "same_tokenizer": self.same_tokenizer,
            "takes_likeliest_token": self.takes_likeliest,
            "stop_strings": self.stops,
            "echoed_log_probabilities_right": self.echoes,
            "notes": list(self.notes),
        }


class Prober:
    """Asks a server a few small questions."""

    def __init__(self, client: Client, model: str, api: Api, tokenizer: PreTrainedTokenizerBase):
        """Ask nothing yet.

        Args:
            client: The connection.
            model: The name of the served model.
            api: Which of its interfaces to use.
            tokenizer: The tokenizer that prompts are counted and encoded with.
        """
        self._client = client
        self._dialect = Dialect(api, model)
        self._tokenizer = tokenizer
        self._path = path_of(api)

    def probe(self, prompts: Prompts, needs_echo: bool) -> Findings:
        """Find out what the server does.

        Raises:
            ConfigError: If it refuses plain requests, or does not do what the run needs.
            IclEvalError: If it gives no answer.
        """
        ids = encode_prompt(self._tokenizer, Prompt("probe", None, _TEXT)).decoder_ids
        dialect, answer = self._negotiate(self._write(_TEXT))
        notes: list[str] = []
        same_tokenizer = self._compare_tokens(answer, ids) if dialect.api == "completions" else None
        if dialect.api == "completions" and prompts != "text":
            dialect, answer = self._try_ids(dialect, answer, ids, prompts, same_tokenizer)
        if not (answer.choice.token_ids and "token_ids" in dialect.fields):
            dialect = dialect.without("token_ids")
        if same_tokenizer is False:
            notes.append("its tokenizer is not the one of model.source, so that token counts here are not the server's")
        prompt: SentPrompt = ids if dialect.takes_ids else self._write(_TEXT)
        takes_likeliest = self._check_greedy(dialect, prompt)
        stops = self._check_stops(dialect, prompt, answer.choice.content or "")
        if stops == "ignored":
            notes.append("it ignores stop strings: completions are cut here, and cost max_new_tokens each")
        echoes = None
        if needs_echo:
            self._check_echo(dialect, ids)
            echoes = True
        return Findings(
            dialect,
            same_tokenizer,
            takes_likeliest,
            stops,
            echoes,
            self._client.hide(answer.system_fingerprint or "") or None,
            self._client.hide(answer.model or "") or None,
            tuple(notes),
        )

    def _write(self, text: str) -> SentPrompt:
        return text if self._dialect.api == "completions" else [{"role": "user", "content": text}]

    def _negotiate(self, prompt: SentPrompt) -> tuple[Dialect, Answer]:
        """Return the most explicit way of asking that the server takes, and its answer."""
        dialect = self._dialect
        try:
            return dialect, self._ask(dialect, prompt)
        except RefusedError as error:
            self._require_welcome(error)
        plain = replace(dialect, fields=())
        try:
            answer = self._ask(plain, prompt)
        except RefusedError as error:
            plain = replace(plain, length_key="max_completion_tokens")
            answer = self._ask_or_fail(plain, prompt, error)
        taken = plain
        for name in FIELDS:
            wider = replace(taken, fields=(*taken.fields, name))
            try:
                answer = self._ask(wider, prompt)
                taken = wider
            except RefusedError:
                pass
        return taken, answer

    def _ask(self, dialect: Dialect, prompt: SentPrompt, **more: Any) -> Answer:
        stop: Sequence[str] = more.pop("stop", ())
        body = {**dialect.ask(prompt, _NEW_TOKENS, Sampling(), stop), **more}
        return self._client.complete(self._path, body, _as_it_is)

    def _ask_or_fail(self, dialect: Dialect, prompt: SentPrompt, first: RefusedError) -> Answer:
        try:
            return self._ask(dialect, prompt)
        except RefusedError:
            raise ConfigError(
                f"engine=openai: {self._client.base_url} refuses a plain request: {first.status} {first}"
            ) from None

    def _require_welcome(self, error: RefusedError) -> None:
        """Raise ConfigError if the refusal is about who asks, or for which model or interface."""
        if error.is_about_key:
            raise ConfigError(f"{self._client.base_url}: {error.status} {error}; {KEY_HINT}")
        if error.status == _NOT_FOUND:
            raise ConfigError(f"{self._client.base_url}{self._path}, engine.model={self._dialect.model}: 404 {error}")

    def _compare_tokens(self, answer: Answer, ids: Sequence[int]) -> bool | None:
        """Return whether the text has the same tokens there; None if the server does not tell."""
        if answer.choice.prompt_token_ids is not None:
            return tuple(answer.choice.prompt_token_ids) == tuple(ids)
        if answer.usage is None or not answer.usage.prompt_tokens:
            return None
        return answer.usage.prompt_tokens == len(ids)

    def _try_ids(
        self, dialect: Dialect, answer: Answer, ids: Sequence[int], prompts: Prompts, same_tokenizer: bool | None
    ) -> tuple[Dialect, Answer]:
        """Ask with token ids if the server takes them as what they are."""
        reason = ""
        try:
            by_ids = self._client.attempt(self._path, dialect.ask(ids, _NEW_TOKENS, Sampling()))
            told = by_ids.usage.prompt_tokens if by_ids.usage else len(ids)
            if told != len(ids):
                reason = f"it counts {told} tokens for {len(ids)} ids"
        except (RefusedError, PassingError) as error:  # a server may answer 500 to what it does not know
            reason = str(error)
        if not reason and same_tokenizer is False:
            raise ConfigError(
                f"engine=openai: the tokenizer of engine.model={dialect.model} is not that of model.source: a text has "
                "other tokens there; name the served model's own files in model.source, or set engine.prompts=text"
            )
        if not reason:
            return replace(dialect, takes_ids=True), by_ids
        if prompts == "token_ids":
            raise ConfigError(f"engine.prompts=token_ids: {self._client.base_url} takes none ({reason})")
        return dialect, answer

    def _check_greedy(self, dialect: Dialect, prompt: SentPrompt) -> bool | None:
        """Return whether every token was the likeliest; raises ConfigError if one was not."""
        asked = {"logprobs": 1} if dialect.api == "completions" else {"logprobs": True, "top_logprobs": 1}
        try:
            choice = self._ask(dialect, prompt, **asked).choice
        except RefusedError:
            return None
        pairs = [(number, max(tops.values())) for number, tops in _pair(choice.logprobs) if number is not None and tops]
        if not pairs:
            return None
        for number, best in pairs:
            if not number >= best - _SAME:  # also for NaN
                raise ConfigError(
                    f"engine=openai: {self._client.base_url} does not take the likeliest token although temperature is "
                    f"0 (log-probability {number:.2f} where {best:.2f} was the best): a penalty or a sampler is on "
                    "there, and no request turns it off"
                )
        return True

    def _check_stops(
        self, dialect: Dialect, prompt: SentPrompt, text: str
    ) -> Literal["cut", "kept", "ignored", "unknown"]:
        """Return what becomes of a stop string out of the middle of a completion."""
        middle = text[len(text) // 2 :].strip()[:1] if len(text) > 1 else ""
        if not middle:
            return "unknown"
        found = self._ask(dialect, prompt, stop=[middle]).choice.content or ""
        if middle not in found:
            return "cut"
        return "kept" if len(found) < len(text) else "ignored"

    def _check_echo(self, dialect: Dialect, ids: Sequence[int]) -> None:
        """Refuse a server whose echoed log-probabilities are not those of the tokens that it generated itself."""
        where = f"engine=openai: {self._client.base_url}"
        if not dialect.takes_ids:
            raise ConfigError(
                f"{where} takes no token ids, without which answers cannot be scored by likelihood; use a server that "
                "does (vLLM), or engine=transformers"
            )
        try:
            choice = self._ask(dialect, ids, logprobs=1).choice
            generated = tuple(choice.token_ids or ())
            told = tuple(choice.logprobs.token_logprobs if choice.logprobs else ())
            if not generated or len(told) < len(generated):
                raise ConfigError(
                    f"{where} returns no ids and log-probabilities of its tokens; use engine=transformers"
                )
            whole = (*ids, *generated)
            answer = self._client.complete(self._path, dialect.ask_echo(whole), _as_it_is)
        except RefusedError as error:
            raise ConfigError(f"{where} gives no log-probabilities of given text ({error.status} {error})") from None
        echoed = answer.choice.logprobs.token_logprobs if answer.choice.logprobs else ()
        if not len(whole) <= len(echoed) <= len(whole) + 1 or None in echoed[1 : len(whole)]:
            raise ConfigError(
                f"{where} gives no log-probabilities of given text ({len(echoed)} numbers for {len(whole)} tokens); "
                "use engine=transformers"
            )
        again = [float(number or 0) for number in echoed[len(ids) : len(whole)]]
        worst = max(abs(float(first or 0) - second) for first, second in zip(told, again, strict=False))
        if not any(told):
            raise ConfigError(f"{where} gives 0 as the log-probability of every token; use engine=transformers")
        if not worst <= _SAME:  # also for NaN
            raise ConfigError(
                f"{where}: its echoed log-probabilities are wrong: they differ by up to {worst:.2f} nats from those of "
                "the same tokens when it generates them; use engine=transformers"
            )


def _as_it_is(answer: Answer) -> Answer:
    return answer


def _pair(logprobs: LogProbs | None) -> list[tuple[float | None, Mapping[str, float] | None]]:
    """Return the log-probability of each token with those of the best ones."""
    if logprobs is None or not logprobs.top_logprobs:
        return []
    return list(zip(logprobs.token_logprobs, logprobs.top_logprobs, strict=False))


def require_served(client: Client, model: str) -> Mapping[str, Any] | None:
    """Return what the server says of a model; None if it lists none.

    Raises:
        ConfigError: If it lists others only.
    """
    models = client.list_models()
    if models is None:
        return None
    for served in models.data:
        if served.id == model:
            return served.model_dump(exclude_none=True)
    names = ", ".join(sorted(each.id for each in models.data)[:10]) or "none"
    raise ConfigError(f"engine.model={model}: {client.base_url} does not serve it (it has: {names})")
