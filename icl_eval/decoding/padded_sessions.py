"""Rows of any length with copies of their prefix, for networks that cannot attend to a prefix in place.

A row ends in the last column, and what is before its first token is masked:

    . . p p p a a      Keys and values of new rows are computed in a pool (see `pooled_caches`), all but those of their
    p p p b b b b      last tokens, and then moved to where they end in the same column. The last tokens are the first
    . . . p p p c      step.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from icl_eval.decoding.growing import grow_in_place
from icl_eval.decoding.networks import copy_to, divide, last_logits
from icl_eval.decoding.pooled_caches import PooledCache, find_encoding, padded_inputs
from icl_eval.decoding.sessions import NewRow, find_distinct
from icl_eval.prompts.token_ids import Ids


class PaddedSession:
    """Rows of any length; they join at once and leave one by one."""

    pads = True
    refills = False

    def __init__(self, network: PreTrainedModel, prefix: Cache | None, encoded: torch.Tensor | None):
        """Start from a prefix.

        Args:
            network: A network whose rows can be padded (see `Capabilities.pools`).
            prefix: The cache of the shared prefix, which is copied; None if there is no prefix, which must be there
                after an encoder.
            encoded: The encoder's states, [1, tokens, size], which all rows share.
        """
        self._network = network
        self._prefix = prefix
        self._encoded = encoded
        self._encoding = find_encoding(prefix, encoded)
        self._cache = DynamicCache()
        self._firsts: list[int] = []  # the column of each row's first token
        self._end = 0  # the next free column

    @torch.inference_mode()
    def join(self, rows: Sequence[NewRow]) -> torch.Tensor:
        """Add all rows and return the next logits, [rows, vocabulary]."""
        distinct, sources = find_distinct(rows)
        self._begin([row.own_ids[:-1] for row in distinct])
        logits = self.step([row.own_ids[-1] for row in distinct])
        if len(distinct) == len(rows):
            return logits
        self.keep(sources)
        return logits[sources]

    @torch.inference_mode()
    def step(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Append one token to each row and return the next logits, [rows, vocabulary]."""
        firsts = copy_to(self._firsts, self._network.device)[:, None]
        mask = (torch.arange(self._end + 1, device=self._network.device) >= firsts).long()
        ids = copy_to(token_ids, self._network.device)[:, None]
        encoding = None if self._encoding is None else self._encoding.repeat(len(token_ids))
        inputs = padded_inputs(self._network, self._cache, ids, mask, self._end - firsts, encoding)
        self._end += 1
        return last_logits(self._network, **inputs)

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in the given order."""
        self._firsts = [self._firsts[row] for row in rows]
        self._cache.reorder_cache(copy_to(rows, self._network.device))

    def _begin(self, begun: Sequence[Ids]) -> None:
        """Compute the keys and values of what rows begin with, after the prefix."""
        prefix = np.arange(0 if self._prefix is None else self._prefix.get_seq_length())
        numbers = sorted((number for number, ids in enumerate(begun) if ids), key=lambda number: -len(begun[number]))
        passes = [numbers[part] for part in divide([len(begun[number]) for number in numbers])]
        sizes = [len(part) * len(begun[part[0]]) for part in passes]
        pool = PooledCache(self._network, self._prefix, self._encoded, len(prefix) + sum(sizes))
        columns = [prefix] * len(begun)  # of each row, in the pool
        end = len(prefix)
        for part, size in zip(passes, sizes, strict=True):
            ids = [begun[number] for number in part]
            last_logits(self._network, **pool.prepare(ids, [prefix] * len(ids), begin=end))
            for number, first in zip(part, range(end, end + size, len(ids[0])), strict=True):
                columns[number] = np.concatenate([prefix, np.arange(first, first + len(begun[number]))])
            end += size
        self._move(pool, columns)

    def _move(self, pool: PooledCache, columns: Sequence[np.ndarray]) -> None:
        """Let each row hold some columns of the pool, as the last ones of its own."""
        self._end = max(map(len, columns))
        self._firsts = [self._end - len(each) for each in columns]
        read = np.zeros((len(columns), self._end), dtype=np.int64)
        for row, first, each in zip(read, self._firsts, columns, strict=True):
            row[first:] = each
        for layer in pool.layers:
            held = DynamicLayer()
            if (states := layer.gather(torch.from_numpy(read).to(self._network.device))) is not None:
                held.lazy_initialization(*states)
                held.keys, held.values = states
            self._cache.layers.append(held)
        grow_in_place(self._cache)
