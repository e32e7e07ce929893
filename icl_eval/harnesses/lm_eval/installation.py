"""Whether lm-evaluation-harness is installed."""

import importlib.util

from icl_eval.errors import ConfigError


def require_lm_eval(wanted_by: str) -> None:
    """Check that lm-evaluation-harness is installed, without importing it.

    Args:
        wanted_by: What needs it, for the error message: a key with its value, or a command.

    Raises:
        ConfigError: If it is not installed.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(f"{wanted_by}: needs lm-evaluation-harness; install it with pip install 'icl-eval[lm-eval]'")
