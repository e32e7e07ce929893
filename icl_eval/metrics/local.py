"""The base of the metrics of this package, and the checks and warnings that they share."""

from collections.abc import Sequence

from icl_eval.errors import ConfigError, warn_once
from icl_eval.metrics.spacing import find_unspaced


class LocalMetric:
    """A metric whose code is in this package. `icl_eval.metrics.evaluate_metrics` makes an `evaluate.Metric` of it."""

    def __init__(self, name: str, higher_is_better: bool = True) -> None:
        self.name = name
        self.higher_is_better = higher_is_better

    def check_references(self, references: Sequence[Sequence[str]]) -> None:
        """Accept any references."""


def require_choice(option: str, value: str, choices: Sequence[str]) -> None:
    """Check that an option has one of the allowed values.

    Raises:
        ConfigError: If it does not.
    """
    if value not in choices:
        shown = value if value.isprintable() else repr(value)
        raise ConfigError(f"{option}={shown}: must be one of {', '.join(choices)}")


def require_whole(option: str, value: int, least: int, most: int) -> None:
    """Check that an option is a whole number (not true or false) within a range.

    Raises:
        ConfigError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{option}={value}: must be a whole number from {least} to {most}")


def warn_of_unspaced(name: str, references: Sequence[Sequence[str]], advice: str) -> None:
    """Warn about references without spaces between words, for a metric that treats each as one word."""
    num_unspaced, num_references = len(find_unspaced(references)), sum(map(len, references))
    if num_unspaced:
        warn_once(
            f"{name}: {num_unspaced} of {num_references} references are written without spaces between words, and each "
            f"counts as one word: {advice}"
        )
