"""The arguments of `--model icl_eval`: those of `--model_args`, and what the harness adds from its own options."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from icl_eval.decoding.stream import PREFIX_CACHE_MB
from icl_eval.errors import ConfigError
from icl_eval.formatting import describe_unknown_key
from icl_eval.models.cards import build_local_options
from icl_eval.models.loading import LanguageModel, load_model
from icl_eval.models.weights import ModelSpec, resolve_weights
from icl_eval.runs.records import describe_mistake

_DEFAULT_DEVICE = "cuda:0"
"""The device that the harness passes if its user gives none, whether it exists or not."""
_ABOUT_LOADING = ("source", "revision", "dtype", "device", "add_bos_token", "trust_remote_code", "allow_pickle")


@dataclass(frozen=True)
class ModelArguments:
    """Which model to load, and how to run it."""

    __pydantic_config__ = ConfigDict(coerce_numbers_to_str=True)

    pretrained: str
    """The model's name in the harness's files and, without `source`, where its weights come from."""
    source: str | None = None
    """Where the weights come from: whatever `model.source` of a configuration can be."""
    revision: str | None = None
    dtype: str = "float32"
    device: str = "auto"
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """The maximum number of prompts in a batch; None for as many as fit."""
    max_length: Annotated[int, Field(ge=2)] | None = None
    """The number of tokens to which prompts are cut; None for the model's."""
    add_bos_token: bool | None = None
    prefix_token_id: Annotated[int, Field(ge=0)] | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False
    prefix_cache_mb: Annotated[int, Field(ge=0)] = PREFIX_CACHE_MB

    @property
    def spec(self) -> ModelSpec:
        """The specification of the weights."""
        return ModelSpec(self.source or self.pretrained, self.revision, self.trust_remote_code, self.allow_pickle)

    def load(self) -> LanguageModel:
        """Load the model.

        Raises:
            ConfigError: If the dtype is unknown or the device is not available.
            ModelUnavailableError: If the weights cannot be fetched or read, are not trusted, or do not complete text.
        """
        model = load_model(self.spec, self.dtype, self.device)
        return model if self.add_bos_token is None else self._with_own_tokenizer(model)

    def require_no_loading(self) -> None:
        """Refuse arguments about loading for a model that is loaded already; raises ConfigError."""
        for field in fields(self):
            if field.name in _ABOUT_LOADING and getattr(self, field.name) != field.default:
                raise ConfigError(f"{field.name}: has no effect on a model in memory; leave it out")

    def choose_max_length(self, model: LanguageModel) -> int:
        """Return the number of tokens to which prompts are cut; without `max_length`, what `hf` reads from the model.

        Raises:
            ConfigError: If `max_length` is more than the model has positions.
        """
        from lm_eval.models.utils import resolve_max_length

        if self.max_length is None:
            return int(resolve_max_length(model.network.config, model.tokenizer))
        if model.max_length is not None and self.max_length > model.max_length:
            raise ConfigError(f"max_length={self.max_length}: must be at most the model's {model.max_length} positions")
        return self.max_length

    def _with_own_tokenizer(self, model: LanguageModel) -> LanguageModel:
        """Return a model with a tokenizer that was loaded with `add_bos_token`, as some can only be told then."""
        from transformers import AutoTokenizer

        folder = resolve_weights(self.spec, descriptions_only=True).folder
        options = build_local_options(self.spec) | {"add_bos_token": self.add_bos_token}
        return replace(model, tokenizer=AutoTokenizer.from_pretrained(folder, **options))


_ARGUMENTS = TypeAdapter(ModelArguments)


def read_model_arguments(given: Mapping[str, Any]) -> ModelArguments:
    """Return arguments with their types.

    Raises:
        ConfigError: If an argument is unknown, or its value is not allowed.
    """
    known = [field.name for field in fields(ModelArguments)]
    for key in given:
        if key not in known:
            raise ConfigError(f"model_args: {describe_unknown_key(key, known)}")
    values = dict(given)
    if values.get("device") in (None, _DEFAULT_DEVICE):
        values["device"] = "auto"
    if values.get("batch_size") == "auto":
        values["batch_size"] = None
    try:
        return _ARGUMENTS.validate_python(values)
    except ValidationError as error:
        raise ConfigError(f"model_args: {describe_mistake(error)}") from None
