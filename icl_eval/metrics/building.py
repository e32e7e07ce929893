"""Building: the metrics that score a task, from what the configuration says of each."""

from collections.abc import Mapping
from typing import Any

from icl_eval.errors import ConfigError
from icl_eval.metrics.scoring import Metric
from icl_eval.targets import build, find_class


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
        metric: Metric = build(option, f"{key}.{own}")
        if metric.name in found:
            raise ConfigError(
                f"{key}.{own}: is called '{metric.name}' in a report, as {key}.{found[metric.name][0]} is; "
                "a task can have one metric of each name, so leave one of them out"
            )
        found[metric.name] = (own, metric)
    return [metric for _, metric in found.values()]


def build_own_metrics(options: Mapping[str, Any], key: str) -> list[Metric]:
    """Build the metrics that this package ships, and leave out those that run code from elsewhere.

    For configurations that come with a report: reading somebody's report must not run what it names.
    """
    from icl_eval.metrics.local import LocalMetric

    classes = {name: find_class(option, f"{key}.{name}") for name, option in options.items()}
    own = [name for name, found in classes.items() if isinstance(found, type) and issubclass(found, LocalMetric)]
    return build_metrics({name: options[name] for name in own}, key)
