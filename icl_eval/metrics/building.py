"""Building: the metrics that score a task, from what the configuration says of each."""

from collections.abc import Mapping
from typing import Any

from icl_eval.errors import ConfigError
from icl_eval.metrics import METRICS
from icl_eval.metrics.scoring import Metric
from icl_eval.targets import build, build_named


def build_metrics(options: Mapping[str, Any], key: str) -> list[Metric]:
    """Build a task's metrics; imports `evaluate`, which takes seconds.

    Args:
        options: The configuration of each, by a name of the user's.
        key: Where they stand, for messages.

    Raises:
        ConfigError: When one cannot be built, or two have one name: a report would have room for the last alone.
    """
    found: dict[str, tuple[str, Metric]] = {}
    for own, option in options.items():
        metric: Metric = build(option, f"{key}.{own}", METRICS)
        if metric.name in found:
            raise ConfigError(
                f"{key}.{own}: is called '{metric.name}' in a report, as {key}.{found[metric.name][0]} is; "
                "a task can have one metric of each name, so leave one of them out"
            )
        found[metric.name] = (own, metric)
    return [metric for _, metric in found.values()]


def build_own_metrics(options: Mapping[str, Any], key: str) -> list[Metric]:
    """Build the metrics that a report names, and leave out those that run code from elsewhere.

    Reading somebody's report must not run what it names.

    Args:
        options: What the report's configuration holds of each, by a name of the user's.
        key: Where they stand, for messages.

    Raises:
        ConfigError: When one cannot be built.
    """
    own = {name: option for name, option in options.items() if not _is_from_elsewhere(option)}
    return [build_named(option, f"{key}.{name}", METRICS) for name, option in own.items()]


def _is_from_elsewhere(option: Any) -> bool:
    return isinstance(option, Mapping) and str(option.get("name")).partition(":")[0] == "hub"
