"""Train on fresh episodes at every step, from easy to hard; the same seed gives the same episodes.

A step learns from one batch of each placement. With two cores, two processes share the work, one per placement.
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
"""Share of episodes that use the template `plain` instead of `labelled`."""
OWN_QUESTION_SHARE = 0.5
"""Share of steps in which the decoder attends only to the encoder's states of its question, so that the encoder has to
move the answer there."""


@dataclass(frozen=True)
class Schedule:
    """The length, learning rate and batch size of training."""

    steps: int = 9000
    learning_rate: float = 2e-3
    warmup: int = 150
    steady: float = 0.6
    """Share of the steps after which the learning rate falls to 0, along a cosine."""
    rows: int = 40
    """Number of episodes in a batch."""
    num_questions: int = 6
    """Number of questions in an episode whose demonstrations are in the encoder."""
    max_shots: int = 9
    check_every: int = 100
    """Number of steps between two evaluations."""
    checked: int = 64
    """Number of episodes of each family in an evaluation."""

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        late = max(0.0, step / self.steps - self.steady) / (1 - self.steady)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup) * 0.5 * (1 + math.cos(math.pi * late))


@dataclass
class Episodes:
    """Draws the batches for training, without held-out material."""

    schedule: Schedule
    seed: int
    curricula: Mapping[str, Curriculum] = field(
        default_factory=lambda: {placement: Curriculum() for placement in PLACEMENTS}
    )
    wordings: Mapping[str, Mapping[str, Wording]] = field(
        default_factory=lambda: {name: load_wordings(name) for name in ("labelled", "plain")}
    )

    def draw_batch(self, placement: str, step: int) -> Batch:
        """Draw episodes with the same number of demonstrations, most often the maximum."""
        rng = Random(f"{self.seed} {placement} {step}")
        shots = self.schedule.max_shots
        if placement == "encoder" and rng.random() < 0.6:  # in the decoder, the first answers attend to fewer anyway
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

    At every evaluation, and at the end, `keep` receives a line with its results.

    In a process group of two, each process trains one placement, and both end with the same weights.
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
            results = (_evaluate(model, episodes, placement, step) for placement in placements)
            keep("  ".join((f"step {step + 1}", f"loss {sum(losses) / len(losses):.3f}", *results)))
            losses.clear()


def _backward(model: Any, batch: Batch, placement: str, step: int) -> float:
    own_question = placement == "encoder" and Random(step).random() < OWN_QUESTION_SHARE
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, batch, own_question)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def _share(gradients: Sequence[torch.Tensor]) -> None:
    """Sum the gradients of both placements, if another process has those of the other one."""
    if distributed.is_initialized():
        together = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(together)
        for gradient, part in zip(gradients, torch.split(together, [each.numel() for each in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _evaluate(model: Any, episodes: Episodes, placement: str, step: int) -> str:
    """Measure every family at its level in a placement, update the curriculum, and describe both."""
    curriculum, wordings = episodes.curricula[placement], episodes.wordings["labelled"]
    shares, described = {}, [placement]
    for family, level in curriculum.levels.items():
        rng = Random(f"{step} {family}")
        drawn = [draw_episode(rng, family, level, 8, 1) for _ in range(episodes.schedule.checked)]
        shares[family] = exact_match(model, wordings[family], placement, drawn)
        described.append(f"{family}@{level} {shares[family]:.2f}")
    curriculum.update(shares)
    return "  ".join(described)
