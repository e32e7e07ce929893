"""Which model another harness asks for, and in which form; the names are those of `model` in a configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from icl_eval.errors import ConfigError
from icl_eval.formatting import describe_unknown_key
from icl_eval.models.loading import LanguageModel, load_model
from icl_eval.models.specs import ModelSpec
from icl_eval.runs.records import describe_mistake


@dataclass(frozen=True)
class ModelArguments:
    """The arguments that every harness passes on."""

    __pydantic_config__ = ConfigDict(coerce_numbers_to_str=True)

    source: str | None = None
    """Where the weights come from: whatever `model.source` of a configuration can be; None for the model's name."""
    revision: str | None = None
    """Branch, tag or commit of a hub repository; None for its main branch."""
    dtype: str = "float32"
    """float32, bfloat16, float16 or float64."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    tokenizer: str | None = None
    """Where another tokenizer comes from; None for the one that comes with the weights."""
    adapter: str | None = None
    """Folder or hub name of a PEFT adapter; None for none."""
    quantization: dict[str, Any] | None = None
    """A `quantization_config` of transformers; None to load the weights as they are."""
    device_map: str | dict[str, Any] | None = None
    """How the layers are spread over several devices; None for one device."""
    attn_implementation: str | None = None
    """The attention implementation of transformers; None for the network's default."""
    trust_remote_code: bool = False
    """Whether Python code that comes with the weights may run."""
    allow_pickle: bool = False
    """Whether weights may be read from pickle files."""

    def load(self, name: str) -> LanguageModel:
        """Load the model.

        Args:
            name: Its name in the results, which is also where it comes from if `source` does not say.

        Raises:
            ConfigError: If an argument is not what it must be.
            ModelUnavailableError: If the weights cannot be fetched, read or trusted.
        """
        parts = {field.name: getattr(self, field.name) for field in fields(ModelArguments)}
        source, dtype, device = parts.pop("source") or name, parts.pop("dtype"), parts.pop("device")
        return replace(load_model(ModelSpec(source, **parts), dtype, device), name=name)


Arguments = TypeVar("Arguments", bound=ModelArguments)


def read_model_arguments(kind: type[Arguments], given: Mapping[str, Any], others: Sequence[str] = ()) -> Arguments:
    """Return the arguments that a harness passes on.

    Args:
        kind: What arguments there are.
        given: Those that are passed on.
        others: The names of further arguments, for the message about an unknown one.

    Raises:
        ConfigError: If an argument is unknown, or of the wrong type.
    """
    known = [field.name for field in fields(kind)]
    if unknown := sorted(given.keys() - set(known)):
        raise ConfigError(f"model_args: {describe_unknown_key(unknown[0], [*known, *others])}")
    try:
        return TypeAdapter(kind).validate_python(dict(given))
    except ValidationError as error:
        raise ConfigError(f"model_args: {describe_mistake(error)}") from None
