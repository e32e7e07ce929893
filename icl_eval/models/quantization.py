"""Quantization: weights stored in fewer bits, as their files say or as they are to be loaded.

`model.quantization` has the keys and values of a `quantization_config` in config.json; transformers builds its own
config class from it, such as `BitsAndBytesConfig` for `{quant_method: bitsandbytes, load_in_4bit: true}`.
"""

import inspect
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from icl_eval.errors import ConfigError, ModelUnavailableError
from icl_eval.formatting import describe_error, list_names
from icl_eval.models.quiet import Once

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel
    from transformers.quantizers import HfQuantizer
    from transformers.utils.quantization_config import QuantizationConfigMixin

_BITSANDBYTES = "bitsandbytes"
_REPEATING = ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops")
"""Loggers that repeat a message for every layer."""


def find_quantization(config: "PreTrainedConfig") -> dict[str, Any] | None:
    """Return the quantization config in a model's configuration; None if its weights are not quantized."""
    for part in (config, config.get_text_config(decoder=True)):
        found = getattr(part, "quantization_config", None)
        if found is not None:
            content = dict(found if isinstance(found, Mapping) else found.to_dict())
            method = content.get("quant_method", _BITSANDBYTES)  # older files of bitsandbytes do not say
            return content | {"quant_method": str(getattr(method, "value", method))}
    return None


def check_quantization(config: "PreTrainedConfig", requested: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """Return the quantization in effect, for the report; an empty dict if there is none.

    Args:
        config: The model's configuration.
        requested: The quantization that the user requests.
        name: The model's name, for error messages.

    Raises:
        ConfigError: If the requested quantization has an unknown method or option, or contradicts the model's own.
    """
    own = find_quantization(config)
    described = {} if own is None else {key: value for key, value in own.items() if _is_scalar(value)}
    if not requested:
        return described
    built = build_quantization_config(requested)
    if own is None:
        return dict(requested)
    method = own.get("quant_method")
    if requested.get("quant_method", _BITSANDBYTES) != method:
        raise ConfigError(f"model.quantization: {name} is quantized already ({method}); leave it out")
    settable = built.get_loading_attributes() if hasattr(built, "get_loading_attributes") else {}
    if fixed := sorted(set(requested) - set(settable) - {"quant_method"}):
        raise ConfigError(
            f"model.quantization.{fixed[0]}: {name} is quantized already ({method}); the options that remain are "
            f"{list_names(sorted(settable)) or 'none'}"
        )
    return described | dict(requested)


def build_quantization_config(requested: Mapping[str, Any]) -> "QuantizationConfigMixin":
    """Build the config object of transformers; raises ConfigError for an unknown method or option, or a wrong value."""
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AutoQuantizationConfig

    bits = [key for key in ("load_in_4bit", "load_in_8bit") if requested.get(key)]
    method = requested.get("quant_method", _BITSANDBYTES if bits else None)
    methods = {name.partition("_4bit")[0].partition("_8bit")[0] for name in AUTO_QUANTIZATION_CONFIG_MAPPING} - {"gguf"}
    if method not in methods:
        raise ConfigError(
            f"model.quantization: quant_method={method}: must be one of {', '.join(sorted(methods))}, with the options "
            "of transformers' config class for it"
        )
    if method == _BITSANDBYTES and len(bits) != 1:
        raise ConfigError("model.quantization: bitsandbytes needs either load_in_4bit: true or load_in_8bit: true")
    key = f"{method}_{bits[0].removeprefix('load_in_')}" if method == _BITSANDBYTES else method
    parameters = inspect.signature(AUTO_QUANTIZATION_CONFIG_MAPPING[key].__init__).parameters.values()
    known = {each.name for each in parameters if each.kind is not each.VAR_KEYWORD} - {"self", "quant_method"}
    if unknown := sorted(set(requested) - known - {"quant_method"}):
        raise ConfigError(
            f"model.quantization.{unknown[0]}: not an option of {method} (its options: {', '.join(sorted(known))})"
        )
    try:
        built: QuantizationConfigMixin = AutoQuantizationConfig.from_dict({**requested, "quant_method": method})
    except ImportError as error:
        raise ConfigError(f"model.quantization: {_explain(error, str(method))}") from error
    except Exception as error:  # the constructors of transformers raise ValueError, TypeError, KeyError and more
        raise ConfigError(f"model.quantization: {describe_error(error)}") from error
    return built


def open_quantizer(
    config: "PreTrainedConfig", requested: Mapping[str, Any] | None, name: str, device_map: Any
) -> "HfQuantizer | None":
    """Return what transformers quantizes with; None if the weights are not quantized.

    Raises:
        ConfigError: If the library for a requested quantization is missing, or it does not run on the devices.
        ModelUnavailableError: If the model's files are quantized so.
    """
    from transformers.quantizers.auto import AutoHfQuantizer

    own = find_quantization(config)
    if own is None and not requested:
        return None
    try:
        given = build_quantization_config(requested) if requested else own
        quantizer: HfQuantizer = AutoHfQuantizer.from_config(given, pre_quantized=own is not None)
        quantizer.validate_environment(device_map=device_map, weights_only=True)
    except ConfigError:
        raise
    except Exception as error:  # each method has checks of its own
        method = str((own or dict(requested or {})).get("quant_method", _BITSANDBYTES))
        if own is not None:
            raise ModelUnavailableError(f"{name} is quantized ({method}): {_explain(error, method)}") from error
        raise ConfigError(f"model.quantization: {_explain(error, method)}") from error
    for logger in map(logging.getLogger, _REPEATING):
        if not any(isinstance(each, Once) for each in logger.filters):
            logger.addFilter(Once())
    return quantizer


def count_quantized_bytes(quantizer: "HfQuantizer", described: "PreTrainedModel") -> int:
    """Return the size of the weights after quantization, from the quantizer's own arithmetic.

    Args:
        quantizer: The quantizer.
        described: The network without weights, in the dtype of its other weights; it is changed.
    """
    quantizer.preprocess_model(described, dtype=described.dtype, device_map={"": "cpu"})
    sizes = (
        parameter.numel() * quantizer.param_element_size(described, name, parameter)
        for name, parameter in described.named_parameters()
    )
    return int(sum(sizes))


def _explain(error: Exception, method: str) -> str:
    """Return a library's reason; some say only that a module is missing."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{method} requires the package {error.name}: pip install {error.name}"
    return describe_error(error)


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float)
