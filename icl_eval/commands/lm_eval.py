"""The command `icl-eval lm-eval`: lm-evaluation-harness with this package as one of its models."""

import sys
from collections.abc import Sequence

from icl_eval.harnesses.lm_eval.installation import require_lm_eval

_NAME = "icl_eval"


def run_lm_eval(arguments: Sequence[str]) -> None:
    """Register the model and hand over to the harness's own command.

    Args:
        arguments: The arguments of `lm-eval`, such as `run --model icl_eval --tasks arc_easy`. With this model, the
            batch size is `auto` unless they say otherwise: the harness's own default is 1.

    Raises:
        ConfigError: If the harness is not installed, or the model refuses its arguments.
    """
    require_lm_eval("icl-eval lm-eval")
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.registry import register_model

    from icl_eval.harnesses.lm_eval.model import IclEvalLM

    register_model(_NAME)(IclEvalLM)
    words = list(arguments)
    uses_file = any(word.startswith(("-C", "--conf")) for word in words)
    if words[:1] == ["run"] and not uses_file and {_NAME, f"--model={_NAME}"} & set(words):
        words[1:1] = ["--batch_size", "auto"]  # first, so that the user's own wins
    sys.argv = ["lm-eval", *words]
    cli_evaluate()
