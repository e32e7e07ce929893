"""Send one request: within rate limits, again if it fails in passing, and without a secret in any message."""

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import tenacity
from pydantic import BaseModel, ValidationError

from icl_eval.decoding.engines.server.failures import PassingError, RefusedError
from icl_eval.decoding.engines.server.schema import Answer, ModelList
from icl_eval.errors import ConfigError, IclEvalError
from icl_eval.formatting import join_lines

if TYPE_CHECKING:
    import httpx2
    import openai

logger = logging.getLogger(__name__)

_PASSING = (408, 409, 425, 429)
"""The status codes, beside those from 500 on, of failures that may pass."""
_CONNECT_SECONDS = 10
_LONGEST_BACKOFF = 30
_LONGEST_WAIT = 3600
"""A server that asks to wait longer than this ends the run, which the same command resumes."""
_SHOWN = 300
"""The number of characters of a server's sentence that a message shows."""

_GOES_ON = "what is answered is recorded, and the same command goes on from there"

Kind = TypeVar("Kind", bound=BaseModel)
Result = TypeVar("Result")


@dataclass
class Traffic:
    """What was sent and answered, in this process."""

    requests: int = 0
    """Requests that were answered."""
    retries: int = 0
    """Attempts that failed in passing."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    """The failed attempts, by what happened."""


class Pace:
    """Spreads events over time, so that no minute sees more than a given number of them."""

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic):
        """Begin without a debt; None for no limit."""
        self._seconds = 0.0 if per_minute is None else 60 / per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._next = clock()

    def reserve(self, count: int) -> float:
        """Reserve time for a number of events, and return how many seconds to wait before they begin."""
        with self._lock:
            now = self._clock()
            begin = max(self._next, now)
            self._next = begin + count * self._seconds
            return begin - now


class Client:
    """A connection to a server, for many threads at once."""

    def __init__(
        self,
        base_url: str,
        key: str | None,
        timeout: float,
        max_retries: int,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ):
        """Connect when the first request is sent.

        Args:
            base_url: The address, up to and including `/v1`.
            key: The API key; None for none.
            timeout: Seconds that an attempt may be silent, in the server's queue or later.
            max_retries: The number of times that a request is sent again.
            requests_per_minute: The rate limit of the provider; None for none.
            tokens_per_minute: The same for tokens, of prompts and completions.
        """
        import openai

        for name in ("httpx", "httpx2"):  # they log every request
            logging.getLogger(name).setLevel(logging.WARNING)
        self.base_url = base_url
        self.counts = Traffic()
        self._key = key
        self._timeout = timeout
        self._max_retries = max_retries
        self._paces = Pace(requests_per_minute), Pace(tokens_per_minute)
        self._client = openai.OpenAI(
            base_url=base_url,
            api_key=key or "none",
            max_retries=0,  # retried here, where every wait is announced
            timeout=openai.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
        )
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._resume_at = 0.0

    def close(self) -> None:
        """End all connections; requests in flight fail."""
        self._closed.set()
        self._client.close()

    def stop_retrying(self) -> None:
        """Let requests in flight end, but send none of them again."""
        self._closed.set()

    def complete(
        self, path: str, body: Mapping[str, Any], read: Callable[[Answer], Result], num_tokens: int = 0
    ) -> Result:
        """Send a request until its answer can be read.

        Args:
            path: `/completions` or `/chat/completions`.
            body: The request.
            read: Returns what is in an answer; raises PassingError if it is not whole.
            num_tokens: The most tokens that it takes, for the rate limit.

        Raises:
            RefusedError: If the server refuses the request.
            IclEvalError: If the server gives no answer, however often it is asked.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(PassingError),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(self._max_retries + 1), tenacity.stop_when_event_set(self._closed)
            ),
            wait=_choose_wait,
            sleep=tenacity.sleep_using_event(self._closed),
            before_sleep=self._announce,
            reraise=True,
        )
        try:
            return retrying(lambda: read(self.attempt(path, body, num_tokens)))
        except PassingError as error:
            times = "" if self._max_retries == 0 else f" after {self._max_retries + 1} attempts"
            raise IclEvalError(f"{self.base_url}: no answer{times} ({error}); {_GOES_ON}") from None

    def list_models(self) -> ModelList | None:
        """Return the models that the server lists; None if it does not tell, asked twice."""
        for _ in range(2):
            try:
                return self._read(ModelList, self._send("GET", "/models", None))
            except PassingError:
                self._closed.wait(1)
            except RefusedError:
                return None
        return None

    def read_version(self) -> str | None:
        """Return the server's version, as vLLM tells it beside the API; None for other servers."""
        try:
            root = self.base_url.rstrip("/").removesuffix("/v1")
            return str(json.loads(self._send("GET", f"{root}/version", None))["version"])
        except (PassingError, RefusedError, ValueError, KeyError, TypeError):
            return None

    def attempt(self, path: str, body: Mapping[str, Any], num_tokens: int = 0) -> Answer:
        """Send a request once; raises PassingError or RefusedError."""
        self._wait_for_turn(num_tokens)
        if self._closed.is_set():
            raise PassingError("given up")
        answer = self._read(Answer, self._send("POST", path, body))
        usage = answer.usage
        with self._lock:
            self.counts.requests += 1
            if usage is not None:
                self.counts.prompt_tokens += usage.prompt_tokens
                self.counts.cached_tokens += usage.cached_tokens
                self.counts.completion_tokens += usage.completion_tokens
        return answer

    def _wait_for_turn(self, num_tokens: int) -> None:
        """Wait for the rate limits, and for the end of a pause that the server asked for."""
        requests, tokens = self._paces
        with self._lock:
            pause = self._resume_at - time.monotonic()
        wait = max(requests.reserve(1), tokens.reserve(num_tokens), pause)
        if wait > 0:
            self._closed.wait(wait)

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> bytes:
        """Send a request and return the bytes of its answer."""
        import openai

        raw = openai.HttpxBinaryResponseContent  # read here, where an answer that is not whole is an error
        try:
            if method == "GET":
                return self._client.get(path, cast_to=raw).content
            answer = self._client.post(path, cast_to=raw, body=dict(body or {}))
            self._require_method(answer.response, method)
            return answer.content
        except openai.APIStatusError as error:
            self._require_method(error.response, method)
            raise self._sort(error) from None
        except openai.APITimeoutError:
            raise PassingError(f"no answer in {self._timeout:g} s") from None
        except openai.APIConnectionError as error:
            raise PassingError(self.hide(_name_cause(error))) from None

    def _require_method(self, response: "httpx2.Response", method: str) -> None:
        """Raise ConfigError if a redirection turned the request into another, as 301 turns POST into GET."""
        if response.request.method != method:
            raise ConfigError(
                f"engine.base_url={self.base_url} redirects ({response.history[0].status_code}) to "
                f"{self.hide(str(response.url))}, where requests arrive without their content; set engine.base_url to "
                "the server's own address"
            )

    def _sort(self, error: "openai.APIStatusError") -> PassingError | RefusedError:
        reason = self.hide(_read_reason(error.body) or str(error.response.reason_phrase))
        if error.status_code not in _PASSING and error.status_code < 500:
            return RefusedError(error.status_code, reason)
        wait = _read_wait(error.response.headers)
        if wait is not None and wait > _LONGEST_WAIT:
            raise IclEvalError(f"{self.base_url} asks to wait {wait:.0f} s ({error.status_code} {reason}); {_GOES_ON}")
        return PassingError(f"{error.status_code} {reason}", wait)

    def _read(self, kind: type[Kind], content: bytes) -> Kind:
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            if reason := _find_error(content):
                raise PassingError(f"an error as an answer: {self.hide(reason)}") from None
            mistake = error.errors()[0]
            where = ".".join(map(str, mistake["loc"]))
            raise PassingError(
                f"an answer that is not whole ({where + ': ' if where else ''}{mistake['msg']})"
            ) from None

    def _announce(self, state: tenacity.RetryCallState) -> None:
        """Say why a request is sent again, once for all that wait for the same reason."""
        error = state.outcome.exception() if state.outcome else None
        assert isinstance(error, PassingError)
        wait = state.upcoming_sleep
        with self._lock:
            self.counts.retries += 1
            kind = str(error).split(" (")[0][:60]
            is_new = kind not in self.counts.failures
            self.counts.failures[kind] = self.counts.failures.get(kind, 0) + 1
            now = time.monotonic()
            is_longer = error.wait is not None and now + wait > self._resume_at + 1
            if error.wait is not None:
                self._resume_at = max(self._resume_at, now + wait)
        if is_new or is_longer:
            asked = ", as it asks" if error.wait is not None else ""
            logger.warning("%s: %s; asked again in %.0f s%s", self.base_url, error, wait, asked)

    def hide(self, text: str) -> str:
        """Return a text in one line, without the key."""
        line = join_lines(text)
        return line.replace(self._key, "…")[:_SHOWN] if self._key else line[:_SHOWN]


_backoff = tenacity.wait_random_exponential(multiplier=0.5, max=_LONGEST_BACKOFF)


def _choose_wait(state: tenacity.RetryCallState) -> float:
    """Return the seconds before the next attempt: what the server asks for, or a random backoff that doubles."""
    error = state.outcome.exception() if state.outcome else None
    wait = error.wait if isinstance(error, PassingError) else None
    return _backoff(state) if wait is None else wait


def _read_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a `Retry-After` header, which holds a number or a date; None if there is none."""
    from email.utils import parsedate_to_datetime

    value = headers.get("retry-after")
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _read_reason(body: Any) -> str:
    """Return the sentence in a server's error; empty if there is none."""
    for key in ("error", "message", "detail"):
        if isinstance(body, Mapping) and body.get(key):
            body = body[key]
    return json.dumps(body) if isinstance(body, list | Mapping) else str(body or "")


def _find_error(content: bytes) -> str:
    """Return the sentence of an error that was sent as an answer; empty if it is none."""
    try:
        body = json.loads(content)
    except ValueError:
        return ""
    return _read_reason(body) if isinstance(body, Mapping) and body.get("error") else ""


def _name_cause(error: Exception) -> str:
    """Return why a connection failed: the innermost exception in words."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return str(error) or type(error).__name__
