"""Likelihood scores: how often the correct choice is the most probable, and how probable the references are.

`choice_accuracy` corresponds to `acc` in lm-evaluation-harness, and `choice_accuracy_per_byte` to `acc_norm`, which
divides by the number of characters instead of bytes (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness).
`choice_accuracy_batch` is computed where all questions have the same choices. With `likelihood=channel`, probabilities
are those of the question after each answer, as signatures say.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from icl_eval.metrics.intervals import FloatArray
from icl_eval.metrics.means import format_signature, mean_statistics
from icl_eval.metrics.scoring import NamedStatistics, ScoreKind, Statistics
from icl_eval.runs.records import AnswerLikelihood, QuestionLikelihood, Record


def likelihood_statistics(records: Sequence[Record]) -> Iterator[NamedStatistics]:
    """Yield the likelihood statistics of a task; nothing if its records have no likelihoods.

    Scores per token are left out if the number of tokens is not known.

    Only the first reference of each example counts, which is also the one that demonstrations show. The rank of the
    correct answer is the rank of its most probable correct choice; wrong choices with equal probability rank before it.
    """
    likelihoods = [record.likelihood for record in records if record.likelihood is not None]
    if not likelihoods:
        return
    first = [likelihood.references[0] for likelihood in likelihoods]
    is_channel = likelihoods[0].channel is not None
    scored = {"scored": "question"} if is_channel else {}
    yield _mean("reference_logprob", True, [reference.logprob for reference in first], answer="first", **scored)
    if all(reference.tokens is not None for reference in first):
        yield "reference_perplexity", False, _perplexity(first, **scored)
    if not likelihoods[0].choices:
        return
    ranks = [float(_rank(record, lambda choice: choice.logprob)) for record in records]
    yield _mean("reference_rank", False, ranks, norm="none", ties="wrong", **scored)
    yield _accuracy("", records, lambda choice: choice.logprob, norm="none", **scored)
    if not is_channel:  # where lengths differ, and a prompt may favour a choice
        yield from _corrected_accuracies(records, likelihoods)


def _corrected_accuracies(
    records: Sequence[Record], likelihoods: Sequence[QuestionLikelihood]
) -> Iterator[NamedStatistics]:
    """Yield how often the right choice is first with its length, or a bias towards it, taken into account."""
    if not any(choice.tokens is None for each in likelihoods for choice in each.choices):
        yield _accuracy("_per_token", records, _per_token, norm="tokens")
    yield _accuracy("_per_byte", records, lambda choice: choice.logprob / max(1, choice.bytes), norm="bytes")
    for suffix, option, value in _CALIBRATIONS:
        recipe = getattr(likelihoods[0], option)
        if recipe is not None:
            yield _accuracy(suffix, records, value, norm=f"{option}:{recipe!r}")
    texts = {choice.text for choice in likelihoods[0].choices}
    if len(records) > 1 and all(texts == {choice.text for choice in each.choices} for each in likelihoods):
        priors = batch_priors([each.choices for each in likelihoods])
        yield _accuracy("_batch", records, lambda choice: choice.logprob - priors[choice.text], norm="batch")


def batch_priors(questions: Sequence[Sequence[AnswerLikelihood]]) -> dict[str, float]:
    """Return the log-probability of each choice, averaged over the questions of a batch.

    Batch calibration subtracts it from the log-probability of a choice after a question (Zhou et al., 2024, Batch
    Calibration, arXiv:2309.17249): log p(y|x) - log 1/M sum_j p(y|x_j), where the probabilities of a question's choices
    are divided by their sum. A preference of the prompt for a label is in every question, and cancels; so does a label
    that is right more often than others.

    Args:
        questions: The choices of each question, which all have the same ones, in any order.
    """
    names = [choice.text for choice in questions[0]]
    values = np.array([[{each.text: each.logprob for each in own}[name] for name in names] for own in questions])
    shares = values - np.logaddexp.reduce(values, axis=1, keepdims=True)  # [questions, choices], in logarithms
    priors = np.logaddexp.reduce(shares, axis=0) - np.log(len(questions))
    return dict(zip(names, priors.tolist(), strict=True))


def perplexities(sums: FloatArray) -> FloatArray:
    """Return exp(-sum of log-probabilities / count), for sums in nats and counts of shape (..., 2)."""
    values: FloatArray = np.exp(-sums[..., 0] / sums[..., 1])
    return values


def _per_token(choice: AnswerLikelihood) -> float:
    assert choice.tokens is not None
    return choice.logprob / choice.tokens


def _known(value: Callable[[AnswerLikelihood], float | None]) -> Callable[[AnswerLikelihood], float]:
    def find(choice: AnswerLikelihood) -> float:
        found = value(choice)
        assert found is not None
        return found

    return find


_CALIBRATIONS: tuple[tuple[str, str, Callable[[AnswerLikelihood], float]], ...] = (
    ("_calibrated", "content_free", _known(lambda choice: choice.calibrated)),
    ("_domain", "domain_texts", _known(lambda choice: choice.domain)),
    ("_pmi", "premise", _known(lambda choice: choice.pmi)),
)
"""Names of calibrations in metrics, the fields of records that say how choices were calibrated, and the values."""


def _rank(record: Record, value: Callable[[AnswerLikelihood], float]) -> int:
    """Return the rank of the most probable correct choice, from 1."""
    assert record.likelihood is not None
    right = [value(choice) for choice in record.likelihood.choices if choice.text in record.targets]
    wrong = [value(choice) for choice in record.likelihood.choices if choice.text not in record.targets]
    return 1 + sum(other >= max(right) for other in wrong)


def _accuracy(
    suffix: str, records: Sequence[Record], value: Callable[[AnswerLikelihood], float], **options: str
) -> NamedStatistics:
    hits = [float(_rank(record, value) == 1) for record in records]
    return _mean(f"choice_accuracy{suffix}", True, hits, **options, ties="wrong")


def _mean(name: str, higher_is_better: bool, values: Sequence[float], **options: str) -> NamedStatistics:
    kind: ScoreKind = "share" if name.startswith("choice_accuracy") else "mean"
    statistics = mean_statistics(values, format_signature(name, **options), kind=kind)
    return name, higher_is_better, statistics


def _perplexity(answers: Sequence[AnswerLikelihood], **options: str) -> Statistics:
    """Return the perplexity over all tokens of all answers: exp(-sum of log-probabilities / number of tokens)."""
    rows = np.array([[answer.logprob, answer.tokens] for answer in answers], dtype=np.float64)
    return Statistics(
        value=float(perplexities(rows.sum(axis=0))),
        rows=rows,
        score_sums=perplexities,
        per_example=tuple(float(value) for value in perplexities(rows)),
        signature=format_signature("reference_perplexity", answer="first", per="token", **options),
    )
