"""Build the options of a model, which all commands with one share."""

from icl_eval.config.schema import ModelConfig, ModelOptions
from icl_eval.config.sources import build_model_spec
from icl_eval.errors import ConfigError
from icl_eval.formatting import format_value
from icl_eval.models.loading import LanguageModel, ModelSource
from icl_eval.prompts.conventions import RequestedConventions

_FORMS = ("tokenizer", "adapter", "quantization", "device_map", "attn_implementation")
"""Options of a model that say in which form it is loaded."""


def choose_source(config: ModelConfig, in_memory: LanguageModel | None) -> ModelSource:
    """Return a model in memory, or the specification of the one to load.

    Raises:
        ConfigError: If an option says in which form to load the model, and it is in memory.
    """
    if in_memory is None:
        return build_model_spec(config)
    for key in _FORMS:
        if value := getattr(config, key):
            raise ConfigError(f"model.{key}={format_value(value)}: the model is in memory, and is used as it is")
    return in_memory


def build_requested_conventions(config: ModelOptions) -> RequestedConventions:
    """Return the model conventions that the options request."""
    model = config.model
    return RequestedConventions(config.task_prefix, model.source_language, model.target_language, model.chat_template)
