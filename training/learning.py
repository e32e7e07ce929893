"""The training loop: fresh episodes at every step, from easy to hard, the same for the same seed.

A step learns from one batch of each placement. Two processes, one for each, share the work where there are two cores.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from torch import distributed

from training.batches import PLACEMENTS, Batch, build_batch
from training.curriculum import Curriculum
from training.episodes import draw_episode
from training.evaluation import exact_match
from training.forward import loss_of
from training.starting_point import hold_words
from training.wordings import Wording, load_wordings

PLAIN_SHARE = 0.15
"""How often an episode is worded by the template `plain`, and not by `labelled`."""
OWN_QUESTION_SHARE = 0.5
"""How often the decoder sees, of the encoder, its question alone, so that the encoder has to bring the answer there."""


@dataclass(frozen=True)
class Schedule:
    """How long, how fast and from how much at a time."""

    steps: int = 9000
    learning_rate: float = 2e-3
    warmup: int = 150
    steady: float = 0.6
    """The share of the steps after which the learning rate falls to nothing, along a cosine."""
    rows: int = 40
    """Episodes in a batch."""
    num_questions: int = 6
    """Questions of an episode whose demonstrations are in the encoder."""
    max_shots: int = 9
    check_every: int = 100
    """Steps between two looks at what has been learned."""
    checked: int = 64
    """Episodes of each family that such a look takes."""

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        late = max(0.0, step / self.steps - self.steady) / (1 - self.steady)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup) * 0.5 * (1 + math.cos(math.pi * late))


@dataclass
class Episodes:
    """Draws the batches of training, never one with anything held out."""

    schedule: Schedule
    seed: int
    curricula: Mapping[str, Curriculum] = field(
        default_factory=lambda: {placement: Curriculum() for placement in PLACEMENTS}
    )
    wordings: Mapping[str, Mapping[str, Wording]] = field(
        default_factory=lambda: {name: load_wordings(name) for name in ("labelled", "plain")}
    )

    def draw_batch(self, placement: str, step: int) -> Batch:
        """Draw episodes with the same number of demonstrations, the most more often than any other."""
        rng = Random(f"{self.seed} {placement} {step}")
        shots = self.schedule.max_shots
        if placement == "encoder" and rng.random() < 0.6:  # in the decoder, the first answers have seen fewer anyway
            shots = rng.randint(1, shots)
        curriculum, rows = self.curricula[placement], []
        for _ in range(self.schedule.rows):
            family = curriculum.draw_family(rng)
            level = curriculum.draw_level(rng, family)
            num_questions = self.schedule.num_questions if placement == "encoder" else 1
            episode = draw_episode(rng, family, level, shots, num_questions)
            template = "plain" if rng.random() < PLAIN_SHARE else "labelled"
            rows.append(PLACEMENTS[placement](episode, self.wordings[template][family], dense=True))
        return build_batch(rows)


def train(model: Any, schedule: Schedule, seed: int, keep: Callable[[str], None]) -> None:
    """Train a model in place; the same seed gives the same weights on the same machine.

    At every look, and at the end, `keep` is called with a line about what has been learned.

    In a process group of two, each process takes one placement, and both end with the same weights.
    """
    episodes = Episodes(schedule, seed)
    placements = tuple(PLACEMENTS)
    if distributed.is_initialized():
        placements = (placements[distributed.get_rank()],)
    optimizer = torch.optim.AdamW(model.parameters(), schedule.learning_rate, betas=(0.9, 0.98), weight_decay=0)
    hold_words(model)
    losses: list[float] = []
    for step in range(schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        losses += [_backward(model, episodes.draw_batch(placement, step), placement, step) for placement in placements]
        _share([parameter.grad for parameter in model.parameters()])
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % schedule.check_every == 0 or step + 1 == schedule.steps:
            looks = (_look(model, episodes, placement, step) for placement in placements)
            keep("  ".join((f"step {step + 1}", f"loss {sum(losses) / len(losses):.3f}", *looks)))
            losses.clear()


def _backward(model: Any, batch: Batch, placement: str, step: int) -> float:
    own_question = placement == "encoder" and Random(step).random() < OWN_QUESTION_SHARE
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, batch, own_question)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def _share(gradients: Sequence[torch.Tensor]) -> None:
    """Add up the gradients of both placements, where another process has those of the other."""
    if distributed.is_initialized():
        together = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(together)
        for gradient, part in zip(gradients, together.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _look(model: Any, episodes: Episodes, placement: str, step: int) -> str:
    """Measure every family at its level in a placement, move its curriculum on, and describe both."""
    curriculum, wordings = episodes.curricula[placement], episodes.wordings["labelled"]
    shares, described = {}, [placement]
    for family, level in curriculum.levels.items():
        rng = Random(f"{step} {family}")
        drawn = [draw_episode(rng, family, level, 8, 1) for _ in range(episodes.schedule.checked)]
        shares[family] = exact_match(model, wordings[family], placement, drawn)
        described.append(f"{family}@{level} {shares[family]:.2f}")
    curriculum.update(shares)
    return "  ".join(described)
