"""The arguments with which other harnesses say what model to load, and how to run it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from icl_eval.errors import ConfigError
from icl_eval.formatting import describe_unknown_key
from icl_eval.harnesses.serving import ServedModel
from icl_eval.models.loading import load_model
from icl_eval.models.weights import ModelSpec
from icl_eval.runs.records import describe_mistake

Arguments = TypeVar("Arguments")


@dataclass(frozen=True)
class ServingArguments:
    """Which model to load, and how to run it."""

    __pydantic_config__ = ConfigDict(coerce_numbers_to_str=True)

    source: str | None = None
    """Where the weights come from: whatever `model.source` of a configuration can be; None for the model's name."""
    revision: str | None = None
    dtype: str = "float32"
    device: str = "auto"
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """The maximum number of prompts in a batch; None for as many as fit."""
    trust_remote_code: bool = False
    allow_pickle: bool = False
    prefix_cache_mb: Annotated[int, Field(ge=0)] = 1000

    def load(self, name: str) -> ServedModel:
        """Load the model of a name.

        Raises:
            ConfigError: If the dtype is unknown or the device is not available.
            ModelUnavailableError: If the weights cannot be fetched or read, are not trusted, or do not complete text.
        """
        spec = ModelSpec(self.source or name, self.revision, self.trust_remote_code, self.allow_pickle)
        return ServedModel(load_model(spec, self.dtype, self.device), self.batch_size, self.prefix_cache_mb)


def read_arguments(kind: type[Arguments], given: Mapping[str, Any], key: str) -> Arguments:
    """Return arguments with their types; `batch_size=auto` is None.

    Args:
        kind: The dataclass of the arguments.
        given: The arguments as given.
        key: What error messages call them.

    Raises:
        ConfigError: If an argument is unknown, or its value is not allowed.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if unknown := sorted(given.keys() - set(known)):
        raise ConfigError(f"{key}: {describe_unknown_key(unknown[0], known)}")
    values = {name: None if (name, value) == ("batch_size", "auto") else value for name, value in given.items()}
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise ConfigError(f"{key}: {describe_mistake(error)}") from None
