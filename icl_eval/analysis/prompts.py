"""Scores over prompts: how a score is distributed over wordings, draws and orders, with noise taken off.

Each cell of a sweep whose options are incidental is a prompt. The quantiles of the cells' scores are too far apart,
because each score has the error of its questions. With Rasch's model (`icl_eval.analysis.rasch`) the distribution of
what prompts would score on any number of such questions is that of the abilities of all prompts, given the answers.
This is PromptEval's question (Polo et al., 2024, https://arxiv.org/abs/2405.17202), and prompts need not have seen the
same questions. Where they have not, its own estimate is given as well: the answers that a prompt gave and, for the
other questions, the model's chance of a right one (X-pIRT).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from icl_eval.analysis.designs import SweepCell, is_incidental, merge_unseeded, split
from icl_eval.analysis.rasch import fit_rasch
from icl_eval.analysis.tables import PlainTable, condition_keys
from icl_eval.metrics.intervals import FloatArray

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MIN_PROMPTS = 10
"""With fewer prompts there is no 5th percentile to speak of."""


@dataclass(frozen=True)
class PromptQuantiles:
    """Quantiles of a score over prompts, by their shares of prompts (`QUANTILES`)."""

    printed: tuple[float, ...]
    """Of the scores as they are, each on the questions that its prompt has seen."""
    all_questions: tuple[float, ...] | None
    """Of the scores that prompts are expected to have on all questions of the sweep (X-pIRT); None if each prompt has
    seen all of them."""
    true: tuple[float, ...]
    """Of the scores with noise taken off: on any number of such questions."""


@dataclass(frozen=True)
class ScoreOverPrompts:
    """The distribution of one metric of one task over prompts."""

    task: str
    metric: str
    conditions: Mapping[str, str]
    """Values of the other options that vary in the sweep. Each combination has its own distribution."""
    options: tuple[str, ...]
    """The options whose combinations are the prompts."""
    num_prompts: int
    n: int
    """Number of questions that any prompt has seen."""
    n_per_prompt: float
    """Mean number of questions that a prompt has seen."""
    shares: tuple[float, ...]
    """The shares of prompts that the quantiles are of."""
    quantiles: PromptQuantiles

    @property
    def kinds(self) -> list[tuple[str, tuple[float, ...]]]:
        """The quantiles with the names of their kinds."""
        kinds = [("as printed", self.quantiles.printed)]
        if self.quantiles.all_questions is not None:
            kinds.append(("on all questions", self.quantiles.all_questions))
        return [*kinds, ("noise taken off", self.quantiles.true)]


def scores_over_prompts(cells: Sequence[SweepCell]) -> list[ScoreOverPrompts]:
    """Return the distribution over prompts for each combination of the other options.

    There is none for fewer than ten prompts, nor where answers are not right or wrong, or all the same.

    Args:
        cells: Cells with the same task and metric; they need not have the same questions.
    """
    found = []
    for group in split(cells, is_incidental):
        members = merge_unseeded(group.cells)
        if len(members) < MIN_PROMPTS or not all(cell.measurement.statistics.is_share for cell in members):
            continue
        if {cell.measurement.score for cell in members} not in ({0.0}, {1.0}):
            options = {key: {cell.options.get(key) for cell in members} for key in group.options}
            varying = tuple(key for key, values in options.items() if len(values) > 1)
            found.append(_summarize(members, group.conditions, varying))
    return found


def prompts_table(found: Sequence[ScoreOverPrompts]) -> PlainTable:
    """Return one row per distribution and kind of score."""
    conditions = condition_keys(each.conditions for each in found)
    rows = []
    for each in found:
        label = (each.task, each.metric, *(each.conditions.get(key) for key in conditions))
        for kind, quantiles in each.kinds:
            rows.append((*label, each.num_prompts, each.n_per_prompt, kind, *quantiles))
    names = tuple(f"{100 * share:.0f} %" for share in QUANTILES)
    return PlainTable("prompts", ("task", "metric", *conditions, "prompts", "n", "scores", *names), tuple(rows))


def _summarize(cells: Sequence[SweepCell], conditions: Mapping[str, str], options: tuple[str, ...]) -> ScoreOverPrompts:
    answers = _gather_answers(cells)
    model = fit_rasch(answers)
    is_seen = ~np.isnan(answers)
    expected = np.where(is_seen, answers, model.expected).mean(axis=1)
    measured = cells[0].measurement
    return ScoreOverPrompts(
        task=measured.task,
        metric=measured.metric,
        conditions=conditions,
        options=options,
        num_prompts=len(cells),
        n=answers.shape[1],
        n_per_prompt=float(is_seen.sum(axis=1).mean()),
        shares=QUANTILES,
        quantiles=PromptQuantiles(
            printed=_quantiles(np.nanmean(answers, axis=1)),
            all_questions=None if is_seen.all() else _quantiles(expected),
            true=model.quantiles(QUANTILES),
        ),
    )


def _gather_answers(cells: Sequence[SweepCell]) -> FloatArray:
    """Return 1 or 0 for each prompt and question, NaN where it is unseen, `[num_prompts, num_questions]`."""
    ids = sorted({example_id for cell in cells for example_id in cell.measurement.example_ids})
    places = {example_id: place for place, example_id in enumerate(ids)}
    answers = np.full((len(cells), len(ids)), np.nan)
    for row, cell in zip(answers, cells, strict=True):
        row[[places[example_id] for example_id in cell.measurement.example_ids]] = cell.measurement.values
    return answers


def _quantiles(scores: FloatArray) -> tuple[float, ...]:
    return tuple(np.quantile(scores, QUANTILES).tolist())
