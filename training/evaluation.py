"""Measure shot curves: exact match by the number of demonstrations."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import torch

from training.batches import IGNORED, PLACEMENTS, build_batch
from training.episodes import Episode
from training.families import FAMILIES
from training.forward import logits_of
from training.task_data import draw_answerable
from training.wordings import Wording, load_wordings

SHOTS = (0, 1, 2, 4, 8)


def exact_match(model: Any, wording: Wording, placement: str, episodes: Sequence[Episode]) -> float:
    """Return the share of episodes whose single question greedy decoding would answer exactly.

    No text is generated: an answer is the greedy one if each of its tokens is the most likely after the ones before it.
    """
    batch = build_batch([PLACEMENTS[placement](episode, wording, dense=False) for episode in episodes])
    with torch.no_grad():
        predicted = logits_of(model, batch).argmax(-1)
    right = torch.ones_like(batch.targets, dtype=torch.bool)
    is_target = batch.targets != IGNORED
    right[is_target] = predicted == batch.targets[is_target]
    return right.all(1).float().mean().item()


def render_curves(model: Any, seed: int, count: int) -> str:
    """Measure shot curves on freshly drawn held-out episodes and return them as a Markdown table."""
    wordings = load_wordings("labelled")
    lines = [f"| family | placement | {' | '.join(map(str, SHOTS))} |", "|---|---|" + "---:|" * len(SHOTS)]
    for family in FAMILIES:
        rng = Random(f"{seed} {family}")
        episodes = [draw_answerable(rng, family) for _ in range(count)]
        for placement in PLACEMENTS:
            shares = [
                exact_match(
                    model,
                    wordings[family],
                    placement,
                    [replace(episode, demonstrations=episode.demonstrations[:shots]) for episode in episodes],
                )
                for shots in SHOTS
            ]
            lines.append(f"| {family} | {placement} | {' | '.join(f'{share:.3f}' for share in shares)} |")
    return "\n".join(lines)
