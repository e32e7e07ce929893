"""Decode prompts as a stream: every step chooses the next token of each row and yields it.

prompts ─▶ groups that share a prefix ─▶ session.join ─▶ choose ─▶ Token … Completion
                                           ▲   ▲            │
                     waiting prompts ──────┘   └─── step ◀──┘   finished rows leave, waiting ones join
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import Any

import torch

from icl_eval.decoding.capabilities import Capabilities, check_history
from icl_eval.decoding.choosing import build_pick, choose
from icl_eval.decoding.completions import Completion, Token
from icl_eval.decoding.hypotheses import Hypothesis, Unbegun, begin_hypothesis
from icl_eval.decoding.memory import Lengths, choose_num_rows, count_worthwhile, free_bytes_of, read_size, require_room
from icl_eval.decoding.networks import copy_to, most_prefill_tokens
from icl_eval.decoding.opening import Beginning, OpenSession, begin_group, open_session
from icl_eval.decoding.preparing import PreparedModel, prepare
from icl_eval.decoding.rules import Rules, end_ids, start_ids, stop_strings
from icl_eval.decoding.searches import Greedy, Sample
from icl_eval.decoding.sessions import NewRow, Session, max_columns
from icl_eval.decoding.sharing import PromptGroup, plan_groups
from icl_eval.decoding.split_attention import stores_scores
from icl_eval.errors import IclEvalError
from icl_eval.models.loading import LanguageModel
from icl_eval.models.memory import is_out_of_memory
from icl_eval.prompts.building import EncodedPrompt

_MEGABYTE = 1_000_000
_FREE_SHARE = 8
"""Waiting rows join when one slot in this many is free: a forward pass for one row costs almost as much as for two."""
_LENGTH_SPREAD = 16
"""Rows that cannot be padded are decoded together if their lengths differ by at most this number of tokens."""
_LENGTH_RATIO = 2
"""Rows that hold copies of their prefix, and padding, are decoded together if the longest has at most so many times as
many tokens."""

_Waiting = Unbegun | Hypothesis
"""A completion that waits for a place among the rows: not begun, or interrupted when memory ran out."""


class StreamDecoder:
    """Decodes prompts with a model; greedy search gives the same tokens as `generate(do_sample=False)`."""

    def __init__(
        self,
        model: LanguageModel,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        batch_size: int | None = None,
        prefix_cache_mb: int | None = None,
        search: Greedy | Sample | None = None,
        settings: Mapping[str, Any] = MappingProxyType({}),
    ):
        """Prepare to decode.

        Args:
            model: The model to decode with.
            max_new_tokens: The maximum number of tokens in a completion.
            stop: Strings that end a completion and are not part of it, in addition to those of the generation config.
            batch_size: The number of rows to decode together; None for as many as fit.
            prefix_cache_mb: The size of the prefix cache, in megabytes; None for as much as there is room for.
            search: How tokens are chosen; None for greedy search. The caller passes its stop strings as `stop`.
            settings: Options of `generate` that override the model's generation config.
        """
        self._model = model
        self._max_new_tokens = max_new_tokens
        self._stop = stop_strings(model.network.generation_config, stop)
        self._batch_size = batch_size
        self._prefix_bytes = None if prefix_cache_mb is None else prefix_cache_mb * _MEGABYTE
        search = search or Greedy()
        self._rules = Rules(model.network, max_new_tokens, {**search.settings, **settings})
        self._pick = build_pick(search)
        self._num_samples = search.num_samples
        self._end_ids = end_ids(model.network, settings)
        self._start_ids = start_ids(model)

    def stream(
        self, prompts: Sequence[EncodedPrompt], among: Sequence[EncodedPrompt] | None = None
    ) -> Iterator[Token | Completion]:
        """Yield every token as soon as it is chosen, and each completion after its last token.

        Completions come in the order in which they finish, not in the order of the prompts. Between two yields, the
        network is in its original state. Changes that the caller makes to it apply from the next call on; for prompts
        that are already being decoded, the result is then undefined.

        Args:
            prompts: The prompts to decode.
            among: The set on which prefix sharing is planned, if the prompts are only a part of it; None otherwise.

        Raises:
            ConfigError: If the model cannot be decoded token by token, or its cache cannot hold a prompt with its
                completion.
            IclEvalError: If there is not enough memory for a single prompt, or logits are not finite.
        """
        prepared = prepare(self._model)
        for prompt in prompts:
            check_history(
                self._model, prepared.capabilities, (*self._start_ids, *prompt.decoder_ids), self._max_new_tokens
            )
        longest = max((prompt.num_tokens for prompt in prompts), default=0)
        encoded = max((len(prompt.encoder_ids) for prompt in prompts), default=0)
        require_room(self._model.network, longest + self._max_new_tokens, encoded, prepared.prefixes.num_bytes)
        wanted = {prompt.prompt.example_id for prompt in prompts}
        for number, group in enumerate(plan_groups(among or prompts)):
            # The cache of what they share is kept, and the caller may have changed the network.
            if number and (group.prefix or group.shares_encoder):
                prepared = prepared.renew()
            asked = [
                Unbegun(prompt, sample, len(self._start_ids))
                for prompt in group.prompts
                if prompt.prompt.example_id in wanted
                for sample in range(self._num_samples)
            ]
            yield from self._decode(prepared, group, asked)

    def _decode(
        self, prepared: PreparedModel, group: PromptGroup, asked: Sequence[Unbegun]
    ) -> Iterator[Token | Completion]:
        """Decode a group; if memory runs out, continue every row where it is, with half as many rows at a time."""
        waiting: deque[_Waiting] = deque(sorted(asked, key=attrgetter("size"), reverse=True))
        num_rows = self._batch_size
        beginning: Beginning | None = None
        while waiting:
            rows: list[Hypothesis] = []
            try:
                beginning = beginning or begin_group(prepared, group, self._start_ids, self._prefix_bytes)
                num_rows = num_rows or self._automatic_batch_size(prepared.capabilities, beginning, waiting)
                yield from self._decode_session(prepared, beginning, waiting, rows, num_rows)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                waiting.extendleft(row for row in reversed(rows) if not row.finish_reason)
                if prepared.prefixes.drop_others(beginning.prefix if beginning else None):
                    continue
                if num_rows is None or num_rows == 1:
                    raise IclEvalError(f"not enough memory for one prompt on {self._model.device}") from None
                num_rows = max(1, min(num_rows, len(rows) or num_rows) // 2)

    def _automatic_batch_size(
        self, capabilities: Capabilities, beginning: Beginning, waiting: Sequence[_Waiting]
    ) -> int:
        network = self._model.network
        longest = max(each.size for each in waiting)
        splits = capabilities.splits(longest + self._max_new_tokens)
        shared = beginning.length if splits else 0
        own = longest - shared
        columns = max_columns(own, self._max_new_tokens)
        lengths = (
            Lengths(shared, columns, own, most_prefill_tokens(network.device))
            if splits
            else Lengths(columns, columns, longest - beginning.length, None)
        )
        size = read_size(
            network.config, network.dtype.itemsize, stores_scores(network, splits), capabilities.bytes_per_token
        )
        num_rows = choose_num_rows(len(waiting), size, lengths, free_bytes_of(network), network.device.type)
        if network.device.type != "cpu":
            return num_rows
        weight_bytes = sum(parameter.nbytes for parameter in network.parameters())
        return min(num_rows, count_worthwhile(weight_bytes, size, lengths))

    def _decode_session(
        self,
        prepared: PreparedModel,
        beginning: Beginning,
        waiting: deque[_Waiting],
        rows: list[Hypothesis],
        num_rows: int,
    ) -> Iterator[Token | Completion]:
        """Decode in one session, until no row waits or, if rows cannot join later, until the session is empty."""
        num_rows = min(num_rows, len(waiting))
        lengths = [each.length for each in waiting]
        opened = open_session(prepared, beginning, lengths, self._max_new_tokens)
        session = opened.session
        while True:
            free = num_rows - len(rows)
            if waiting and (not rows or (session.refills and free >= max(1, num_rows // _FREE_SHARE))):
                joining = self._take(waiting, free, session, rows)
                with prepared.accelerated():
                    logits = _join(opened, joining)
                yield from self._advance(joining, logits)
            else:
                with prepared.accelerated():
                    logits = session.step([row.next_id() for row in rows])
                yield from self._advance(rows, logits)
            self._remove_finished(opened, rows)
            if not rows and (not waiting or not session.refills):
                return

    def _take(self, waiting: deque[_Waiting], count: int, session: Session, rows: list[Hypothesis]) -> list[Hypothesis]:
        """Move the next completions that may join a session to its rows, longest first."""
        shortest = _shortest_length(session, waiting[0].length)
        taken: list[Hypothesis] = []
        while waiting and len(taken) < count and waiting[0].length >= shortest:
            taken.append(self._begin(waiting[0]))  # it waits until it has begun: memory may run out here, too
            rows.append(taken[-1])
            waiting.popleft()
        return taken

    def _begin(self, waiting: _Waiting) -> Hypothesis:
        """Return the row of a completion, begun if it is not."""
        if isinstance(waiting, Hypothesis):
            return waiting
        return begin_hypothesis(self._model, waiting.prompt, self._stop, self._rules, waiting.sample)

    def _advance(self, rows: Sequence[Hypothesis], logits: torch.Tensor) -> Iterator[Token | Completion]:
        """Append the next token to each row whose history is fully fed, from logits [rows, vocabulary]."""
        ready = [number for number, row in enumerate(rows) if not row.unfed and not row.finish_reason]
        logits = logits if len(ready) == len(rows) else logits[copy_to(ready, logits.device)]
        chosen = choose([rows[number] for number in ready], logits, self._pick)
        for number, token_id in zip(ready, chosen, strict=True):
            row = rows[number]
            yield row.append(token_id, self._end_ids, self._max_new_tokens)
            if row.finish_reason:
                yield row.completion()

    def _remove_finished(self, opened: OpenSession, rows: list[Hypothesis]) -> None:
        """Remove finished rows from the session: immediately if that is cheap, else once a quarter is finished."""
        unfinished = [number for number, row in enumerate(rows) if not row.finish_reason]
        if len(unfinished) == len(rows):
            return
        few = not opened.session.refills and 0.75 * len(rows) < len(unfinished)
        if few and not (opened.session.pads and _is_ahead(rows)):
            return
        # The last rows move into the gaps; all others stay in place.
        movers = [number for number in unfinished if number >= len(unfinished)]
        order = [number if not rows[number].finish_reason else movers.pop() for number in range(len(unfinished))]
        if order or opened.session.refills:
            opened.session.keep(order)
        rows[:] = [rows[number] for number in order]


def _is_ahead(rows: Sequence[Hypothesis]) -> bool:
    """Return whether a finished row has more new tokens than another row, which could take it beyond all positions.

    It went on after memory ran out, beside rows that began later.
    """
    finished = max(len(row.token_ids) for row in rows if row.finish_reason)
    return finished > min((len(row.token_ids) for row in rows if not row.finish_reason), default=finished)


def _shortest_length(session: Session, longest: int) -> int:
    """Return the number of tokens that a row must have to join a session at once with one of the longest."""
    if session.refills:
        return 0
    return longest // _LENGTH_RATIO if session.pads else longest - _LENGTH_SPREAD


def _join(opened: OpenSession, rows: Sequence[Hypothesis]) -> torch.Tensor:
    """Add rows to the session; if it does not pad, tokens beyond the shortest row are fed step by step."""
    own_ids = [row.history[opened.prefix_length :] for row in rows]
    width = max(map(len, own_ids)) if opened.session.pads else min(map(len, own_ids))
    for row, ids in zip(rows, own_ids, strict=True):
        row.unfed = deque(ids[width:])  # replaces the unfed tokens of an earlier session
    own_ids = [ids[:width] for ids in own_ids]
    joining = [NewRow(row.encoder_ids, ids) for row, ids in zip(rows, own_ids, strict=True)]
    return opened.session.join(joining)
