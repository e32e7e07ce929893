"""Building: creating the metrics of a task from their configuration."""

from collections.abc import Mapping
from typing import Any

from icl_eval.errors import ConfigError
from icl_eval.metrics import METRICS
from icl_eval.metrics.scoring import Metric
from icl_eval.targets import build, build_named


def build_metrics(options: Mapping[str, Any], key: str) -> list[Metric]:
    """Build the metrics of a task.

    Args:
        options: The configuration of each metric, by user-chosen name.
        key: The configuration key of the metrics, for error messages.

    Raises:
        ConfigError: If a metric cannot be built, or two metrics have the same name in reports.
    """
    built: dict[str, tuple[str, Metric]] = {}
    for own, option in options.items():
        metric: Metric = build(option, f"{key}.{own}", METRICS)
        if metric.name in built:
            raise ConfigError(
                f"{key}.{own}: its name in reports is '{metric.name}', like that of {key}.{built[metric.name][0]}; "
                "the metrics of a task need different names, so leave one of them out"
            )
        built[metric.name] = (own, metric)
    return [metric for _, metric in built.values()]


def build_own_metrics(options: Mapping[str, Any], key: str) -> list[Metric]:
    """Build the metrics that a report names, except those that run external code.

    Reading a report must not run code that the report names.

    Args:
        options: The configuration of each metric in the report, by user-chosen name.
        key: The configuration key of the metrics, for error messages.

    Raises:
        ConfigError: If a metric cannot be built.
    """
    own = {name: option for name, option in options.items() if not _is_external(option)}
    return [build_named(option, f"{key}.{name}", METRICS) for name, option in own.items()]


def runs_external_code(options: Mapping[str, Any]) -> bool:
    """Return whether one of the metrics of a task runs code that is not part of this package.

    Args:
        options: The configuration of each metric as a report names it, by user-chosen name.
    """
    return any(map(_is_external, options.values()))


def _is_external(option: Any) -> bool:
    return isinstance(option, Mapping) and str(option.get("name")).partition(":")[0] == "hub"
