"""Build a metric of `conf/metrics` outside a run."""

from collections.abc import Mapping
from typing import Any, cast

from omegaconf import OmegaConf

from icl_eval.config.setup import conf_dir
from icl_eval.errors import ConfigError
from icl_eval.metrics import Metric
from icl_eval.metrics.building import build_metrics


def find_metric(name: str, options: Mapping[str, Any]) -> Metric:
    """Return a metric of `conf/metrics` with the given options; raises ConfigError."""
    path = conf_dir() / "metrics" / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(each.stem for each in path.parent.glob("*.yaml")))
        raise ConfigError(f"metrics={name}: there is no such metric (known: {known})")
    config = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(path)))
    [metric] = build_metrics({name: {**config[name], **options}}, "metrics")
    return metric
