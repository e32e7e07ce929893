"""Metrics from elsewhere: of the Hugging Face Hub, or of a script of the user's.

Both run code that this package does not ship, so they are only used when they are asked for by name.
"""

from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from icl_eval.errors import ConfigError, DataError
from icl_eval.formatting import describe_error
from icl_eval.metrics.scoring import Statistics

_LOCAL_METRICS = "bleu, chrf, exact_match, numeric_flexible, numeric_strict, ter, token_f1"


class HubMetric:
    """A metric that `evaluate.load` finds: one value, without an interval.

    Args:
        name: a name on the hub such as rouge, or the path of a metric script, which ends in .py.
        key: which entry of the metric's result is the score; None where it holds only one number.
        higher_is_better: whether a greater value is a better one.
        trust_remote_code: whether the metric's code may run; a config file from elsewhere cannot allow it.

    Raises:
        ConfigError: the metric is not trusted, or cannot be loaded.
    """

    def __init__(
        self, name: str, key: str | None = None, higher_is_better: bool = True, trust_remote_code: bool = False
    ) -> None:
        if not trust_remote_code:
            raise ConfigError(
                f"trust_remote_code=false: the metric {name!r} is code from elsewhere; if you trust it, "
                "set this key to true on the command line"
            )
        self.name = f"hub/{Path(name).stem}"
        self.higher_is_better = higher_is_better
        self._key = key
        self._module = _load(name)

    def check_references(self, references: Sequence[Sequence[str]]) -> None:
        """Raise DataError where the metric takes one reference an example and an example has more."""
        self._fit_references(references)

    def per_example(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """Return the corpus value alone: these metrics do not say what they summed up.

        Raises:
            ConfigError: the metric rejects texts, or `key` does not point at a number of its result.
            DataError: the metric takes one reference an example, and an example has more.
        """
        expected = self._fit_references(references)
        try:
            result = self._module.compute(predictions=list(predictions), references=expected)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.name} cannot score these texts: {_describe(error)}") from error
        key = self._choose_key(result)
        return Statistics(
            value=float(result[key]),
            rows=np.empty((len(predictions), 0)),
            score_sums=None,
            per_example=(None,) * len(predictions),
            signature=self._signature(key),
        )

    def _fit_references(self, references: Sequence[Sequence[str]]) -> list[list[str]] | list[str]:
        import datasets

        features = self._module.features  # a metric with several input formats has a list of them
        formats = features if isinstance(features, list) else [features]
        if not all(isinstance(inputs.get("references"), datasets.Value) for inputs in formats):
            return [list(answers) for answers in references]
        for number, answers in enumerate(references, start=1):
            if len(answers) > 1:
                raise DataError(f"{self.name} takes one reference an example, example {number} has {len(answers)}")
        return [answers[0] for answers in references]

    def _choose_key(self, result: dict[str, Any]) -> str:
        numbers = [key for key, value in result.items() if isinstance(value, Real)]
        if self._key in numbers:
            return self._key
        if self._key is None and len(numbers) == 1:
            return numbers[0]
        found = ", ".join(numbers) or "none"
        raise ConfigError(f"{self.name}: key={self._key} does not choose one number of the result; there are: {found}")

    def _signature(self, key: str) -> str:
        import evaluate

        script = self._module._hash[:8]
        return f"{self.name}|key:{key}|script:{script}|evaluate:{evaluate.__version__}"


def _load(name: str) -> Any:
    import evaluate
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if not name.isprintable() or len(name) > 1000 or any(len(part) > 250 for part in Path(name).parts):
        raise ConfigError(f"name={name[:80]!r}: neither a metric's name nor a path")
    if not name.endswith(".py") and Path(name, f"{Path(name).name}.py").exists():
        # evaluate 0.4.6 would run that file instead of the hub's metric, without a word.
        raise ConfigError(
            f"name={name}: a metric of the hub and a folder here; for the latter give the path of its .py file"
        )
    if HF_HUB_OFFLINE:
        evaluate.config.HF_EVALUATE_OFFLINE = True  # evaluate 0.4.6 only knows a variable of its own
    try:
        with TemporaryDirectory() as folder:
            # Without module_type evaluate would ask for three kinds of modules: three waits when offline.
            return evaluate.load(name, module_type="metric", keep_in_memory=True, cache_dir=folder)
    except Exception as error:  # a foreign script can raise anything
        hint = "" if name.endswith(".py") else f"; without a network choose one of: {_LOCAL_METRICS}"
        raise ConfigError(f"name={name}: cannot be loaded: {_describe(error)}{hint}") from error


def _describe(error: Exception) -> str:
    return describe_error(error).rstrip(".")
