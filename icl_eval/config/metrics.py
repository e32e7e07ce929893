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
    paths = {path.stem: path for path in sorted((conf_dir() / "metrics").glob("*.yaml"))}
    path = paths.get(str(name))
    if path is None:
        raise ConfigError(f"metrics={name}: there is no such metric (known: {', '.join(paths)})")
    config = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(path)))
    [metric] = build_metrics({name: {**config[name], **options}}, "metrics")
    return metric
