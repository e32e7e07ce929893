"""Complete prompts that arrive one by one as if they had been asked for together.

    worker     idle │ gathers │ decodes a, b          │ decodes c, d, e     │ idle
    arrivals        a    b               c   d    e

What arrives while the model is busy waits and is then decoded together, so that prompts share their beginnings.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

from icl_eval.prompts.building import EncodedPrompt

if TYPE_CHECKING:
    from icl_eval.decoding import Completion
    from icl_eval.models.loading import LanguageModel

_GATHERING_SECONDS = 0.05
"""How long an idle worker waits for prompts that arrive together."""


@dataclass(frozen=True)
class CompletionRequest:
    """One prompt to complete greedily."""

    prompt: EncodedPrompt
    max_new_tokens: int
    stop: tuple[str, ...]

    @property
    def limits(self) -> tuple[int, tuple[str, ...]]:
        """What ends the completion; prompts are decoded together if it is the same."""
        return self.max_new_tokens, self.stop


class Gatherer:
    """Decodes prompts in a thread of its own, all that are waiting together."""

    def __init__(
        self,
        model: "LanguageModel",
        batch_size: int | None,
        prefix_cache_mb: int | None,
        end_of_turn: int | None = None,
    ):
        """Prepare to decode.

        Args:
            model: The model to decode with.
            batch_size: The maximum number of prompts in a batch; None for as many as fit.
            prefix_cache_mb: The size of the cache of shared prefixes, in megabytes; None for as much as there is room.
            end_of_turn: A token that ends a completion, besides those of the generation config.
        """
        self._model = model
        self._batch_size = batch_size
        self._prefix_cache_mb = prefix_cache_mb
        self._end_of_turn = end_of_turn
        self._waiting: list[tuple[CompletionRequest, Future[Completion]]] = []
        self._lock = Lock()
        self._worker = ThreadPoolExecutor(max_workers=1)

    def submit(self, request: CompletionRequest) -> "Future[Completion]":
        """Return at once what will hold the completion, or the error that prevented it."""
        future: Future[Completion] = Future()
        with self._lock:
            self._waiting.append((request, future))
        self._worker.submit(self._complete_waiting)
        return future

    def _complete_waiting(self) -> None:
        if not self._waiting:  # decoded together with an earlier one
            return
        time.sleep(_GATHERING_SECONDS)
        with self._lock:
            gathered, self._waiting = self._waiting, []
        alike: defaultdict[tuple[int, tuple[str, ...]], list[tuple[CompletionRequest, Future[Completion]]]]
        alike = defaultdict(list)
        for request, future in gathered:
            alike[request.limits].append((request, future))
        for members in alike.values():
            self._complete(*zip(*members, strict=True))

    def _complete(self, requests: Sequence[CompletionRequest], futures: "Sequence[Future[Completion]]") -> None:
        from icl_eval.decoding import Completion, StreamDecoder  # imports torch

        max_new_tokens, stop = requests[0].limits
        prompts = [
            replace(request.prompt, prompt=replace(request.prompt.prompt, example_id=str(number)))
            for number, request in enumerate(requests)
        ]
        try:
            decoder = StreamDecoder(
                self._model,
                max_new_tokens,
                stop,
                self._batch_size,
                self._prefix_cache_mb,
                settings=self._build_settings(),
            )
            for event in decoder.stream(prompts):
                if isinstance(event, Completion):
                    futures[int(event.example_id)].set_result(event)
        except Exception as error:  # whatever it is, those who wait have to know
            for future in futures:
                if not future.done():
                    future.set_exception(error)

    def _build_settings(self) -> dict[str, Any]:
        from icl_eval.decoding.rules import end_ids

        if self._end_of_turn is None:
            return {}
        return {"eos_token_id": [self._end_of_turn, *end_ids(self._model.network, {})]}
