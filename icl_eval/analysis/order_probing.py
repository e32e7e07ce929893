"""Order probing: which order of the same demonstrations to use, chosen without a right answer.

Orders differ in their scores, and the bad ones tend to give one label to everything. The cells of a sweep show the same
demonstrations in several orders before the same questions, the probes. Two entropies of a cell's predictions, in nats,
rank the orders from best to worst (Lu et al., 2022, Fantastically Ordered Prompts, arXiv:2104.08786):

    GlobalE   -sum_v p_v ln p_v, where p_v is the share of probes for which choice v is the most probable one
    LocalE    the mean over probes of -sum_v p_v ln p_v, where p_v is the probability of choice v, divided by the sum
              over the probe's choices

Both are 0 where a prompt is sure of one label for everything, and ln(labels) at most. No reference is read for them. Lu
et al. sample the probes from the model, so that they need no questions; here the task's own questions are the probes.
How well the entropies rank is the rank correlation with the scores of the orders (Spearman, 1904,
https://doi.org/10.2307/1412159), for which references are read.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from icl_eval.analysis.designs import group_runs
from icl_eval.analysis.measurements import measure_answers
from icl_eval.analysis.tables import PlainTable, TableValue, condition_keys
from icl_eval.formatting import format_options
from icl_eval.metrics.intervals import FloatArray
from icl_eval.runs.folders import Run
from icl_eval.runs.records import QuestionLikelihood, Record

MIN_ORDERS = 3
"""The smallest number of different orders that are ranked."""
SCORE = "choice_accuracy"
"""The metric that the entropies are compared with."""


@dataclass(frozen=True)
class ProbedOrder:
    """One order of the demonstrations."""

    options: Mapping[str, str]
    """The options that arrange the demonstrations so; of several cells with this order, those of the first."""
    demonstration_ids: tuple[str, ...]
    """The demonstrations, as prompts show them."""
    global_entropy: float | None
    """GlobalE, in nats; None if the choices differ by question, so that there are no labels."""
    local_entropy: float
    """LocalE, in nats."""
    score: float
    """Share of questions whose right choice is the most probable one."""


@dataclass(frozen=True)
class OrderProbing:
    """The orders of one set of demonstrations for one task."""

    task: str
    conditions: Mapping[str, str]
    """Values of the other options that vary in the sweep. Each combination has its own analysis."""
    n: int
    """Number of probes."""
    orders: tuple[ProbedOrder, ...]
    """The different orders, the one to use first: by GlobalE, and by LocalE where these are equal or there is none."""
    global_correlation: float | None
    """Rank correlation of GlobalE and the score over orders; None if one of them is the same for all."""
    local_correlation: float | None
    """The same for LocalE."""

    @property
    def mean_score(self) -> float:
        """The mean score of all orders, which is what an order drawn at random is expected to have."""
        return float(np.mean([each.score for each in self.orders]))


def order_probings(runs: Sequence[Run], options: Sequence[Mapping[str, str]]) -> tuple[list[OrderProbing], list[str]]:
    """Return an analysis for each task and combination of the other options, and notes on what could not be analysed.

    Runs that differ only in the order of demonstrations are analysed together, if choices have likelihoods and at least
    `MIN_ORDERS` orders differ.

    Args:
        runs: Finished runs, such as the cells of a sweep.
        options: For each run, the options that distinguish it; see `icl_eval.runs.options`.

    Raises:
        DataError: When records are missing or do not match the report.
    """
    analyses, notes = [], []
    own = {id(run): chosen for run, chosen in zip(runs, options, strict=True)}
    for conditions, members in group_runs(runs, options, _is_order):
        if len(members) < MIN_ORDERS:
            continue
        for task in members[0].report.results:
            if any(SCORE not in run.report.results[task].metrics for run in members if task in run.report.results):
                continue
            cells = [
                ({key: value for key, value in own[id(run)].items() if _is_order(key)}, run, run.records(task))
                for run in members
                if task in run.report.results
            ]
            where = f"order probing, {task} {format_options(conditions)}".rstrip()
            if any(_find_order(records) is None for _, _, records in cells):
                notes.append(f"{where}: questions have demonstrations of their own, so that no order is shared")
            elif len({frozenset(record.example_id for record in records) for _, _, records in cells}) > 1:
                notes.append(f"{where}: cells answered different questions and cannot be analysed together")
            else:
                orders = _probe_all(task, cells)
                if len(orders) >= MIN_ORDERS:
                    analyses.append(_summarize(task, conditions, len(cells[0][2]), orders))
    return analyses, notes


def order_probing_table(analyses: Sequence[OrderProbing]) -> PlainTable:
    """Return one row per order."""
    conditions = condition_keys(analysis.conditions for analysis in analyses)
    rows: list[tuple[TableValue, ...]] = []
    for analysis in analyses:
        varying = [analysis.conditions.get(key) for key in conditions]
        for rank, each in enumerate(analysis.orders, start=1):
            order = format_options(each.options)
            rows.append((analysis.task, *varying, rank, order, each.global_entropy, each.local_entropy, each.score))
    columns = ("task", *conditions, "rank", "order", "GlobalE", "LocalE", SCORE)
    return PlainTable("order_probing", columns, tuple(rows))


def global_entropy(likelihoods: Sequence[QuestionLikelihood]) -> float | None:
    """Return the entropy of the labels that are the most probable ones; None if choices differ by question."""
    labels = {choice.text for choice in likelihoods[0].choices}
    if any(labels != {choice.text for choice in each.choices} for each in likelihoods):
        return None
    predicted = Counter(
        max(sorted(each.choices, key=lambda choice: choice.text), key=lambda choice: choice.logprob).text
        for each in likelihoods
    )
    return entropy(np.array(list(predicted.values())) / len(likelihoods))


def local_entropy(likelihoods: Sequence[QuestionLikelihood]) -> float:
    """Return the mean entropy of the probabilities of a question's choices, divided by their sum."""
    entropies = []
    for each in likelihoods:
        logprobs = np.array([choice.logprob for choice in each.choices])
        entropies.append(entropy(np.exp(logprobs - np.logaddexp.reduce(logprobs))))
    return float(np.mean(entropies))


def entropy(probabilities: FloatArray) -> float:
    """Return the entropy of a distribution in nats."""
    known = probabilities[probabilities > 0]
    return abs(float(-(known * np.log(known)).sum()))  # abs: not -0.0


def rank_correlation(first: Sequence[float | None], second: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation; None if a value is missing, or a side is constant."""
    from scipy.stats import spearmanr

    known = [value for value in first if value is not None]
    if len(known) < len(second) or len(set(known)) == 1 or len(set(second)) == 1:
        return None
    return float(spearmanr(known, second).statistic)


def _is_order(option: str) -> bool:
    return option == "order" or option.startswith("order.")


def _find_order(records: Sequence[Record]) -> tuple[str, ...] | None:
    """Return the demonstrations that all questions of a cell share, in their order; None if they differ."""
    orders = {record.demonstration_ids for record in records}
    return orders.pop() if len(orders) == 1 else None


def _probe_all(task: str, cells: Sequence[tuple[Mapping[str, str], Run, Sequence[Record]]]) -> list[ProbedOrder]:
    """Return the different orders of the cells of a task."""
    probed: dict[tuple[str, ...], ProbedOrder] = {}
    for options, run, records in cells:
        shown = records[0].demonstration_ids
        if shown not in probed:
            likelihoods = [record.likelihood for record in records if record.likelihood is not None]
            score = next(each.score for each in measure_answers(run, task, records) if each.metric == SCORE)
            entropies = global_entropy(likelihoods), local_entropy(likelihoods)
            probed[shown] = ProbedOrder(options, shown, *entropies, score)
    return list(probed.values())


def _summarize(
    task: str, conditions: Mapping[str, str], num_probes: int, orders: Sequence[ProbedOrder]
) -> OrderProbing:
    scores = [each.score for each in orders]
    return OrderProbing(
        task=task,
        conditions=conditions,
        n=num_probes,
        orders=tuple(sorted(orders, key=lambda each: (-(each.global_entropy or 0.0), -each.local_entropy))),
        global_correlation=rank_correlation([each.global_entropy for each in orders], scores),
        local_correlation=rank_correlation([each.local_entropy for each in orders], scores),
    )
