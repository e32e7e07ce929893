"""Find the options in which several runs differ.

The options of a run are its overrides, as typed on the command line (`num_fewshot=8`), or its flat configuration.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def find_varying_options(overrides: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """Return, for each run, the overridden options whose values differ between runs.

    >>> find_varying_options([["task=[qa]", "seed=0"], ["task=[qa]", "seed=1"]])
    [{'seed': '0'}, {'seed': '1'}]
    """
    options = [dict(override.lstrip("+").split("=", 1) for override in given if "=" in override) for given in overrides]
    keys = dict.fromkeys(key for own in options for key in own)
    varying = [key for key in keys if len({own.get(key) for own in options}) > 1]
    return [{key: own[key] for key in varying if key in own} for own in options]


def find_differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys whose values differ between flat configurations, in the order of first appearance."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({json.dumps(config.get(key), sort_keys=True) for config in configs}) > 1]
