"""Record a decoding step on a GPU as a CUDA graph, and repeat it.

A step consists of thousands of kernels. Python needs some microseconds to launch each of them, and a GPU often less to
run it. A CUDA graph launches all of them at once, without Python. It repeats the same kernels on the same addresses, so
that a step can be recorded if

- all that differs between two steps is in one tensor, which is copied to its place before each of them,
- nothing waits for the GPU in between, and
- no code of the caller's has to run in it.

A step is recorded for each number of rows, rounded up so that there are few of them, once it has come often enough to
be worth it. A recorded step is trusted only if it gives the logits of the step as it is; else, or if recording fails,
steps are run as they are.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from transformers import PreTrainedModel

from icl_eval.decoding.networks import agree
from icl_eval.models.memory import is_out_of_memory

logger = logging.getLogger(__name__)

_WORTHWHILE = 3
"""The number of steps of one size after which it is recorded, which takes about as long as three of them."""


@dataclass(frozen=True)
class RecordedStep:
    """A step that can be repeated."""

    numbers: torch.Tensor
    """Where it reads what differs between steps, [kinds, rows]."""
    graph: torch.cuda.CUDAGraph
    logits: torch.Tensor
    """Where it leaves its logits, [rows, vocabulary]."""

    def repeat(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the logits of a step, which are valid until the next one."""
        self.numbers.copy_(numbers)
        self.graph.replay()
        return self.logits


class StepRecorder:
    """Records steps of one network, until one of them cannot be recorded or is not repeated as it is."""

    def __init__(self) -> None:
        self._works = True

    def record(
        self,
        network: PreTrainedModel,
        run: Callable[[torch.Tensor], torch.Tensor],
        numbers: torch.Tensor,
        expected: torch.Tensor,
        pool: Any,
    ) -> RecordedStep | None:
        """Return a recorded step, or None without room for it, or if it does not give the logits of the step as it was.

        Args:
            network: The network, which is not kept.
            run: Computes the logits of a step from its numbers; doing so again changes nothing.
            numbers: Those of the step, [kinds, rows], which stay where they are.
            expected: Its logits, of the first rows, [some rows, vocabulary].
            pool: The memory that the session's graphs share, since one of them runs at a time.
        """
        if not self._works:
            return None
        try:
            run(numbers)  # lets libraries set up what they cannot while a step is recorded
            with _forbidding_waits():
                run(numbers)
            recorded = self._record(run, numbers, pool)
            if agree(recorded.repeat(numbers)[: len(expected)], expected, network):
                return recorded
            reason = "it gives other logits"
        except RuntimeError as error:
            if is_out_of_memory(error):
                return None  # there was room for the step as it is; fewer rows may leave more
            reason = str(error).partition("\n")[0]
        self._works = False
        logger.warning(
            "each step on %s launches its kernels one by one, since no CUDA graph repeats it: %s",
            numbers.device,
            reason,
        )
        return None

    def _record(self, run: Callable[[torch.Tensor], torch.Tensor], numbers: torch.Tensor, pool: Any) -> RecordedStep:
        graph = torch.cuda.CUDAGraph()
        # The current stream is entered again, so that it is left as it was also if recording fails.
        with (
            torch.cuda.device(numbers.device),
            torch.cuda.stream(torch.cuda.current_stream(numbers.device)),
            torch.cuda.graph(
                graph, pool=pool, stream=_stream_to_record(numbers.device), capture_error_mode="thread_local"
            ),
        ):
            logits = run(numbers)
        logits.fill_(float("nan"))  # so that only a repetition gives logits, whatever happened so far
        return RecordedStep(numbers, graph, logits)


@contextmanager
def _forbidding_waits() -> Iterator[None]:
    """Let operators that wait for the GPU raise RuntimeError.

    An error while a step is recorded may come before torch has taken the pool from its allocator again.
    """
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@lru_cache
def _stream_to_record(device: torch.device) -> torch.cuda.Stream:
    """Return the stream on which steps on a GPU are recorded.

    The stream that torch would take is on the GPU that recorded first in the process; what runs on another one is not
    recorded. It is the same for all graphs, since a pool shares memory, and a library its workspace, within a stream.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class StepGraphs:
    """The recorded steps of one session."""

    def __init__(self, recorder: StepRecorder, network: PreTrainedModel):
        """Start without any.

        Args:
            recorder: Records steps of the network.
            network: The network.
        """
        self._recorder = recorder
        self._network = network
        self.forget()

    def forget(self) -> None:
        """Forget all recorded steps, because tensors that they read are elsewhere."""
        self._recorded: dict[int, RecordedStep | None] = {}  # by number of rows
        self._seen: Counter[int] = Counter()
        self._pool = torch.cuda.graph_pool_handle()

    def step(
        self,
        numbers: torch.Tensor,
        run_as_it_is: Callable[[], torch.Tensor],
        run: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Return the logits of a step, [at most rows, vocabulary], which are valid until the next one.

        Args:
            numbers: What differs between steps, [kinds, rows] on the GPU, where the number of rows is one of those
                that `memory.round_up` returns.
            run_as_it_is: Computes the logits of the rows that are not idle, which are the first ones.
            run: Computes the logits of a step, [rows, vocabulary], from its numbers by the same operations on the same
                tensors each time; doing so again changes nothing. It is not kept: a session that its graphs refer to
                would hold its memory until Python looks for objects that refer to each other.
        """
        num_rows = numbers.shape[1]
        recorded = self._recorded.get(num_rows)
        if recorded is not None:
            return recorded.repeat(numbers)
        logits = run_as_it_is()
        self._seen[num_rows] += 1
        if self._seen[num_rows] == _WORTHWHILE:
            self._recorded[num_rows] = self._recorder.record(self._network, run, numbers, logits, self._pool)
        return logits
