"""Vectors: embeddings that were computed before, in the user's cache folder."""

import hashlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from icl_eval.models.weights.cache import cache_folder

logger = logging.getLogger(__name__)

Float32Array = npt.NDArray[np.float32]

_SCHEME = 1
"""Raised when the same weights give other vectors, because they are computed in another way."""

_ASKED_TOGETHER = 500
_MOST_OPEN = 4
"""The number of tables that stay open; one in memory is let go with its vectors."""
_WAIT = 30.0
"""How long to wait for another run that writes, in seconds."""


def open_vectors(identity: str, device: str, *, kept: bool) -> "Vectors":
    """Return the vectors that an encoder has computed.

    Args:
        identity: Of the encoder's weights.
        device: Where they are used.
        kept: Whether they are in the cache folder, not in this process only.
    """
    parts = (str(_SCHEME), identity, device, version("torch"), version("transformers"))
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    return _open(cache_folder() / "vectors" / f"{name}.sqlite" if kept else None, name)


@lru_cache(maxsize=_MOST_OPEN)
def _open(path: Path | None, name: str) -> "Vectors":
    return Vectors(path)


class Vectors:
    """A table of vectors by string; it is in memory if its file cannot be used."""

    def __init__(self, path: Path | None) -> None:
        """Open the table of a file, or without one, of this process."""
        self._path = path
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._table = _make_table(path or ":memory:")
        except (OSError, sqlite3.Error) as error:
            self._leave_file(error)

    def find_missing(self, texts: Iterable[str]) -> list[str]:
        """Return the distinct strings that have no vector."""
        by_digest = {_digest(text): text for text in texts}
        for digest, _ in self._find(by_digest):
            del by_digest[digest]
        return list(by_digest.values())

    def add(self, texts: Sequence[str], vectors: Float32Array) -> None:
        """Keep the vectors of strings, [strings, size]."""
        rows = [(_digest(text), vector.astype("<f4").tobytes()) for text, vector in zip(texts, vectors, strict=True)]
        try:
            self._insert(rows)
        except sqlite3.Error as error:  # a full disk, a file that another program writes to
            self._leave_file(error)
            self._insert(rows)

    def read(self, texts: Sequence[str]) -> Float32Array | None:
        """Return the vectors of strings, [strings, size]; None if one has none, or none any more."""
        places: dict[bytes, list[int]] = {}
        for place, text in enumerate(texts):
            places.setdefault(_digest(text), []).append(place)
        vectors = None
        num_found = 0
        for digest, stored in self._find(places):
            vector = np.frombuffer(stored, "<f4")
            if vectors is None:
                vectors = np.empty((len(texts), len(vector)), np.float32)
            vectors[places[digest]] = vector
            num_found += 1
        return vectors if num_found == len(places) else None

    def _find(self, digests: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        wanted = list(digests)
        for start in range(0, len(wanted), _ASKED_TOGETHER):
            part = wanted[start : start + _ASKED_TOGETHER]
            query = f"SELECT digest, vector FROM vectors WHERE digest IN ({', '.join('?' * len(part))})"
            try:
                yield from self._table.execute(query, part).fetchall()
            except sqlite3.Error as error:  # a damaged file
                self._leave_file(error)

    def _insert(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        with self._table:
            self._table.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def _leave_file(self, error: Exception) -> None:
        """Go on in memory, without what the file holds."""
        logger.warning("embeddings cannot be kept in %s (%s); this run computes its own", self._path, error)
        self._table = _make_table(":memory:")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _make_table(path: Path | str) -> sqlite3.Connection:
    table = sqlite3.connect(path, timeout=_WAIT, check_same_thread=False)
    table.execute("CREATE TABLE IF NOT EXISTS vectors (digest BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID")
    return table
