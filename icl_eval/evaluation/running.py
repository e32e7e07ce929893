"""Open an evaluation's engine when the first prompt needs it, and keep what it says of itself with the records.

A server is asked in sessions: one for each time that the run was started and something was missing. `engine.json` in
the run's folder has what each of them found, so that it outlives a session that is killed, and a run that is scored
again.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from icl_eval.decoding.engines import Runner
from icl_eval.evaluation.preparation import Evaluation
from icl_eval.evaluation.stopwatch import Stopwatch
from icl_eval.prompts.conventions import Conventions
from icl_eval.runs.reports import write_json

logger = logging.getLogger(__name__)

ENGINE_FILE = "engine.json"
_SAME = ("model", "root", "version", "system_fingerprint", "max_model_len")
"""What must not change between the sessions of a run, or its records may come from different models."""


class LazyRunner:
    """The runner of an evaluation."""

    def __init__(self, evaluation: Evaluation, conventions: Conventions, folder: Path, stopwatch: Stopwatch):
        """Open nothing yet.

        Args:
            evaluation: The evaluation.
            conventions: What the model requires.
            folder: The folder of the run.
            stopwatch: Counts the seconds that opening takes.
        """
        self._evaluation = evaluation
        self._conventions = conventions
        self._path = folder / ENGINE_FILE
        self._stopwatch = stopwatch
        self._opened: Runner | None = None
        self._earlier = _read_sessions(self._path)

    def open(self) -> Runner:
        """Return the runner, after loading its model or connecting to its server the first time."""
        if self._opened is None:
            evaluation = self._evaluation
            with self._stopwatch.stage("model"):
                self._opened = evaluation.engine.open(evaluation.model, self._conventions, evaluation.asks_likelihoods)
            self._warn_of_change(self._opened.describe())
            self._keep()
        return self._opened

    def close(self) -> None:
        """Close the runner, if it was opened."""
        if self._opened is not None:
            self._keep()
            self._opened.close()

    def describe(self) -> dict[str, Any]:
        """Return the engine, its sessions, and what they cost, for the report."""
        sessions = self._sessions()
        described: dict[str, Any] = {"name": self._evaluation.engine.name}
        if sessions:
            described["sessions"] = sessions
        if prices := self._evaluation.engine.prices:
            described["cost"] = prices.cost(_sum(sessions, "prompt_tokens"), _sum(sessions, "completion_tokens"))
        return described

    def _sessions(self) -> list[Mapping[str, Any]]:
        own = self._opened.describe() if self._opened is not None else {}
        return [*self._earlier, *([own] if own else [])]

    def _keep(self) -> None:
        if sessions := self._sessions():
            write_json({"sessions": sessions}, self._path)

    def _warn_of_change(self, own: Mapping[str, Any]) -> None:
        """Warn if what answers now is not what answered earlier."""
        if not self._earlier:
            return
        earlier = self._earlier[-1]
        known = [key for key in _SAME if None not in (earlier.get(key), own.get(key))]
        changed = [key for key in known if earlier[key] != own[key]]
        if changed:
            pairs = ", ".join(f"{key} {earlier.get(key)!r}, now {own.get(key)!r}" for key in changed)
            logger.warning("the server has changed since the run began (%s): its records may differ", pairs)


def _read_sessions(path: Path) -> list[Mapping[str, Any]]:
    """Return the sessions of earlier starts; none if the file cannot be read, since no score depends on them."""
    try:
        sessions = json.loads(path.read_bytes())["sessions"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [session for session in sessions if isinstance(session, dict)] if isinstance(sessions, list) else []


def _sum(sessions: Sequence[Mapping[str, Any]], name: str) -> int:
    """Return the sum of a count over all sessions that have it."""
    counts = [counted.get(name) for session in sessions if isinstance(counted := session.get("counts"), dict)]
    return sum(count for count in counts if isinstance(count, int))
