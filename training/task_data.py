"""Write held-out episodes as the rows of `data/induction/`.

The field `rule` names the episode of a row and links a question to its own demonstrations:

    {"id": "lexicon-test-001", "rule": "lexicon-001", "question": "dobi kalu", "references": ["mepo suni"]}
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from training.episodes import Episode, draw_pairs
from training.families import FAMILIES, Pair
from training.holding_out import is_held_out

POOL_SIZE = 12
"""Number of demonstrations in an episode's pool."""
ANY = 8
"""Any subset of this size shows everything that the question needs."""


def write_task_data(folder: Path, seed: int, num_episodes: int) -> None:
    """Write `<family>/pool.jsonl` and `<family>/test.jsonl` for every family.

    The files depend only on the arguments and contain nothing that training draws.
    """
    for family in FAMILIES:
        rng = Random(f"{seed} {family}")
        episodes = [draw_answerable(rng, family) for _ in range(num_episodes)]
        pairs = [(index, pair) for index, episode in enumerate(episodes, start=1) for pair in episode.demonstrations]
        questions = [(index, episode.questions[0]) for index, episode in enumerate(episodes, start=1)]
        (folder / family).mkdir(parents=True, exist_ok=True)
        _write(folder / family / "pool.jsonl", _rows(family, "pool", pairs))
        _write(folder / family / "test.jsonl", _rows(family, "test", questions))


def draw_answerable(rng: Random, family: str, num_demonstrations: int = POOL_SIZE) -> Episode:
    """Draw a held-out episode of distinct pairs, in which any eight demonstrations show every part of the answer."""
    while True:
        pairs = draw_pairs(rng, FAMILIES[family].draw_held_out(rng), num_demonstrations + 1)
        episode = Episode(family, tuple(pairs[1:]), tuple(pairs[:1]))
        if _is_answerable(episode):
            return episode


def _is_answerable(episode: Episode) -> bool:
    pairs = (*episode.demonstrations, *episode.questions)
    if len({pair.question for pair in pairs}) < len(pairs):
        return False
    question = episode.questions[0]
    if episode.family == "numbers":
        return is_held_out(f"{question.question}{int(question.answer) - int(question.question):+}")
    if episode.family == "rearrange":
        return True
    answers = [pair.answer.split() for pair in episode.demonstrations]
    needed = len(answers) - ANY + 1
    return all(sum(word in answer for answer in answers) >= needed for word in question.answer.split())


def _rows(family: str, split: str, pairs: Sequence[tuple[int, Pair]]) -> Iterator[dict[str, Any]]:
    for number, (episode, pair) in enumerate(pairs, start=1):
        yield {
            "id": f"{family}-{split}-{number:04}",
            "rule": f"{family}-{episode:03}",
            "question": pair.question,
            "references": [pair.answer],
        }


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
