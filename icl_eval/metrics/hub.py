"""External metrics, from the Hugging Face Hub or from a user's script.

Both run code that is not part of this package, so they are used only if the configuration names them.
"""

from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from icl_eval.errors import ConfigError, DataError
from icl_eval.formatting import describe_error
from icl_eval.metrics import METRICS
from icl_eval.metrics.scoring import Statistics, value_alone


class HubMetric:
    """A metric loaded with `evaluate.load`: a corpus value without an interval.

    Args:
        name: A name on the hub such as rouge, or the path of a metric script, which ends in .py.
        key: The entry of the metric's result that is the score; may be None if the result has only one number.
        higher_is_better: Whether higher values are better.
        trust_remote_code: Whether the metric's code may run; a configuration file of the user's cannot allow it.

    Raises:
        ConfigError: If the metric is not trusted, or cannot be loaded.
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
        """Raise DataError if the metric accepts one reference per example and an example has more."""
        self._fit_references(references)

    def per_example(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """Return only the corpus value: these metrics do not expose statistics per example.

        Raises:
            ConfigError: If the metric rejects the strings, or `key` does not select a number in its result.
            DataError: If the metric accepts one reference per example, and an example has more.
        """
        expected = self._fit_references(references)
        try:
            result = self._module.compute(predictions=list(predictions), references=expected)
        except Exception as error:  # an external script can raise anything, such as a division by the length of nothing
            raise ConfigError(f"{self.name}: cannot score these strings: {_describe(error)}") from error
        key = self._choose_key(result)
        return value_alone(float(result[key]), len(predictions), self._signature(key))

    def _fit_references(self, references: Sequence[Sequence[str]]) -> list[list[str]] | list[str]:
        import datasets

        features = self._module.features  # a list if the metric accepts several input formats
        formats = features if isinstance(features, list) else [features]
        if not all(isinstance(inputs.get("references"), datasets.Value) for inputs in formats):
            return [list(answers) for answers in references]
        for number, answers in enumerate(references, start=1):
            if len(answers) > 1:
                raise DataError(
                    f"{self.name}: accepts one reference per example, but example {number} has {len(answers)}"
                )
        return [answers[0] for answers in references]

    def _choose_key(self, result: dict[str, Any]) -> str:
        numbers = [key for key, value in result.items() if isinstance(value, Real)]
        if self._key in numbers:
            return self._key
        if self._key is None and len(numbers) == 1:
            return numbers[0]
        allowed = ", ".join(numbers) or "none"
        raise ConfigError(f"{self.name}: key={self._key} does not select a number in the result (it has: {allowed})")

    def _signature(self, key: str) -> str:
        import evaluate

        script = self._module._hash[:8]
        return f"{self.name}|key:{key}|script:{script}|evaluate:{evaluate.__version__}"


def _load(name: str) -> Any:
    import evaluate
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if not name.isprintable() or len(name) > 1000 or any(len(part) > 250 for part in Path(name).parts):
        raise ConfigError(f"name={name[:80]!r}: neither the name of a metric nor a path")
    if not name.endswith(".py") and Path(name, f"{Path(name).name}.py").exists():
        # evaluate 0.4.6 would silently run that file instead of the hub's metric
        raise ConfigError(
            f"name={name}: ambiguous, a metric on the hub and a local folder; for the folder, give the path of its "
            ".py file"
        )
    if HF_HUB_OFFLINE:
        evaluate.config.HF_EVALUATE_OFFLINE = True  # evaluate 0.4.6 reads only its own environment variable
    try:
        with TemporaryDirectory() as folder:
            # without module_type, evaluate would request three module types, with three timeouts when offline
            return evaluate.load(name, module_type="metric", keep_in_memory=True, cache_dir=folder)
    except Exception as error:  # an external script can raise anything
        local = ", ".join(sorted(METRICS.classes.keys() - {"hub"}))
        hint = "" if name.endswith(".py") else f"; metrics that need no network: {local}"
        raise ConfigError(f"name={name}: cannot be loaded: {_describe(error)}{hint}") from error


def _describe(error: Exception) -> str:
    return describe_error(error).rstrip(".")
