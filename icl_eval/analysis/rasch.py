"""Rasch's model of right and wrong answers: prompts have an ability, questions a difficulty.

The log odds of prompt i answering question j rightly are a_i - d_j (Rasch, 1960). PromptEval (Polo et al., 2024,
https://arxiv.org/abs/2405.17202) fits it to the scores of many prompts, of which each may have seen few questions. Here
both are random effects, a_i ~ N(0, s²_a) and d_j ~ N(m, s²_d), so that what noise adds to abilities is taken off:

1. Difficulties are fitted by the EM algorithm with abilities integrated out by quadrature (Bock and Aitkin, 1981,
   https://doi.org/10.1007/BF02293801), each with the error of its normal approximation.
2. Given these, the likelihood of each ability is computed on a grid, and the mean and the standard deviation of
   abilities are integrated over a grid with a uniform prior.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icl_eval.metrics.intervals import FloatArray

_NUM_STEPS = 60
_NUM_NODES = 21
_ABILITIES = np.linspace(-6.0, 6.0, 601)
_COARSE = 10
"""Every so many abilities the likelihood is computed; it is smooth in between."""
_DEVIATIONS = 0.02 + 3 * np.linspace(0.0, 1.0, 31) ** 2
"""Standard deviations of abilities that are considered; the smallest is as good as 0."""
_NUM_MEANS = 21


@dataclass(frozen=True)
class RaschModel:
    """What answers say about prompts."""

    shares: FloatArray
    """The expected share of right answers to all questions, by ability `[num_abilities]`, in ascending order."""
    mixtures: FloatArray
    """How frequent each ability is among the prompts, if abilities have a certain mean and standard deviation,
    `[num_pairs, num_abilities]`."""
    probable: FloatArray
    """How probable each such pair is, given all answers, `[num_pairs]`."""
    expected: FloatArray
    """The chance that each prompt answers each question rightly, `[num_prompts, num_questions]`."""

    def quantiles(self, shares: Sequence[float]) -> tuple[float, ...]:
        """Return the expected quantiles of the prompts' shares of right answers, by shares of the prompts."""
        below = np.cumsum(self.mixtures, axis=1) - self.mixtures / 2
        each = np.stack([np.interp(shares, row, self.shares) for row in below])  # [num_pairs, num_shares]
        return tuple((self.probable @ each).tolist())


def fit_rasch(answers: FloatArray) -> RaschModel:
    """Fit the model to right and wrong answers.

    Args:
        answers: 1 for a right answer, 0 for a wrong one, NaN where a prompt has not seen a question, `[num_prompts,
            num_questions]`. Each question has been seen by a prompt.
    """
    fitted = _fit_difficulties(answers)
    logs = _log_likelihoods(answers, fitted)
    likelihoods = np.exp(logs - logs.max(axis=1, keepdims=True))
    priors, volumes = _list_priors(logs.sum(axis=0), len(answers))
    marginals = np.maximum(likelihoods @ priors.T, 1e-300)  # [num_prompts, num_pairs]
    evidence = np.log(marginals).sum(axis=0)
    probable = volumes * np.exp(evidence - evidence.max())
    kept = probable > 1e-5 * probable.max()
    priors, marginals, probable = priors[kept], marginals[:, kept], probable[kept] / probable[kept].sum()
    weights = likelihoods * ((probable / marginals) @ priors)  # [num_prompts, num_abilities]
    chances = _chance(_flatten(fitted.errors) * (_ABILITIES[:, None] - fitted.difficulties))
    mixtures = priors * ((1 / marginals).T @ likelihoods) / len(answers)
    return RaschModel(chances.mean(axis=1), mixtures, probable, weights @ chances)


@dataclass(frozen=True)
class _Difficulties:
    """Difficulties given all answers."""

    difficulties: FloatArray
    """`[num_questions]`"""
    errors: FloatArray
    """Their variances, `[num_questions]`."""
    chances: FloatArray
    """The chance that a prompt answers a question rightly, `[num_prompts, num_questions]`."""
    information: FloatArray
    """What its answer says about the difficulty, `[num_prompts, num_questions]`."""


def _fit_difficulties(answers: FloatArray) -> _Difficulties:
    nodes, densities = np.polynomial.hermite_e.hermegauss(_NUM_NODES)
    right, wrong = (answers == 1.0).astype(float), (answers == 0.0).astype(float)
    seen = right + wrong
    share = (right.sum() + 0.5) / (seen.sum() + 1)
    deviation, mean, variance = 0.5, float(np.log((1 - share) / share)), 1.0
    difficulties, errors = np.full(right.shape[1], mean), np.full(right.shape[1], variance)
    for _ in range(_NUM_STEPS):
        logits = deviation * nodes[:, None] - difficulties  # [num_nodes, num_questions]
        flat = _flatten(errors) * logits
        logs = right @ _log_chance(flat).T + wrong @ _log_chance(-flat).T
        posterior = densities * np.exp(logs - logs.max(axis=1, keepdims=True))
        posterior /= posterior.sum(axis=1, keepdims=True)  # [num_prompts, num_nodes]
        counts = posterior.T @ seen  # [num_nodes, num_questions]
        chances = _chance(logits)
        curvature = (counts * chances * (1 - chances)).sum(axis=0) + 1 / variance
        slope = right.sum(axis=0) - (counts * chances).sum(axis=0) + (difficulties - mean) / variance
        difficulties = difficulties - np.clip(slope / curvature, -1.0, 1.0)
        errors = 1 / curvature
        mean = float(difficulties.mean())
        variance = max(1e-4, float(((difficulties - mean) ** 2 + errors).mean()))
        deviation = float(np.clip(deviation * (posterior @ nodes**2).mean() ** 0.5, 0.05, _DEVIATIONS[-1]))
    return _Difficulties(difficulties, errors, posterior @ chances, posterior @ (chances * (1 - chances)))


def _log_likelihoods(answers: FloatArray, fitted: _Difficulties) -> FloatArray:
    """Return the logarithm of the likelihood of each ability of each prompt, `[num_prompts, num_abilities]`.

    A prompt's own answer is taken out of the difficulty of a question (one step of Newton's method), so that it does
    not count twice.
    """
    from scipy.interpolate import CubicSpline

    coarse = _ABILITIES[::_COARSE]
    rows = []
    for row, chances, information in zip(answers, fitted.chances, fitted.information, strict=True):
        seen = ~np.isnan(row)
        errors = 1 / (1 / fitted.errors[seen] - information[seen])
        difficulties = fitted.difficulties[seen] + errors * (row[seen] - chances[seen])
        signs = 2 * row[seen] - 1
        rows.append(_log_chance(signs * _flatten(errors) * (coarse[:, None] - difficulties)).sum(axis=1))
    likelihoods: FloatArray = CubicSpline(coarse, np.stack(rows), axis=1)(_ABILITIES)
    return likelihoods


def _list_priors(pooled: FloatArray, num_prompts: int) -> tuple[FloatArray, FloatArray]:
    """Return distributions of abilities for pairs of a mean and a deviation, `[num_pairs, num_abilities]`.

    Their volumes `[num_pairs]` are those of a uniform prior over means and deviations.

    Args:
        pooled: The logarithm of the likelihood of each ability, if all prompts had the same one.
        num_prompts: Number of prompts.
    """
    centre = int(pooled[1:-1].argmax()) + 1
    curvature = max(1e-3, -float(np.diff(pooled, 2)[centre - 1]) / (_ABILITIES[1] - _ABILITIES[0]) ** 2)
    reaches = 4 * (_DEVIATIONS**2 / num_prompts + 1 / curvature) ** 0.5  # of the mean, by deviation
    means = _ABILITIES[centre] + reaches[:, None] * np.linspace(-1.0, 1.0, _NUM_MEANS)
    standardized = (_ABILITIES - means[..., None]) / _DEVIATIONS[:, None, None]
    priors = np.exp(-(standardized**2) / 2).reshape(-1, len(_ABILITIES))
    priors /= np.maximum(priors.sum(axis=1, keepdims=True), 1e-300)
    return priors, np.repeat(np.gradient(_DEVIATIONS) * reaches, _NUM_MEANS)


def _flatten(errors: FloatArray) -> FloatArray:
    """Return the factor by which uncertain difficulties flatten a logistic curve (MacKay, 1992)."""
    factors: FloatArray = 1 / np.sqrt(1 + np.pi * errors / 8)
    return factors


def _chance(logits: FloatArray) -> FloatArray:
    from scipy.special import expit

    chances: FloatArray = expit(logits)
    return chances


def _log_chance(logits: FloatArray) -> FloatArray:
    from scipy.special import log_expit

    logs: FloatArray = log_expit(logits)
    return logs
