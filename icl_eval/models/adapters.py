"""Adapters of PEFT, such as LoRA: small files that change a model's weights.

An adapter is merged into the weights, so that the network stays plain: the shared-prefix decoding, its exactness and
its speed are those of any other model. In float32 merging changes logits by rounding alone; in a narrower dtype each
merged weight is rounded once. Merging into quantized weights would lose the adapter's precision, so that there its
layers stay beside them.
"""

import importlib.util
import logging
import warnings
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_eval.errors import ConfigError, ModelUnavailableError
from icl_eval.formatting import count_noun, describe_error, list_names
from icl_eval.models.quiet import quiet_transformers
from icl_eval.models.weights import Weights
from icl_eval.models.weights.folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_json_object, read_safetensors_header

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

_TASK_TYPES = (None, "CAUSAL_LM", "SEQ_2_SEQ_LM")
_NOT_IN_WEIGHTS = ("ADAPTION_PROMPT", "POLY", "SHADOW", "XLORA")
"""Kinds whose effect depends on the input, besides those that learn a prompt."""
_CONDITIONAL = {"alora_invocation_tokens": "aLoRA", "arrow_config": "Arrow"}
"""Options of LoRA that make its effect depend on the input."""
_PREFIX = "base_model.model."


def read_adapter_config(adapter: Weights) -> "PeftConfig":
    """Read an adapter's configuration and refuse what is not a change of weights, without reading its weights.

    Raises:
        ConfigError: If the package peft is not installed.
        ModelUnavailableError: If the configuration is damaged, or the adapter is of another kind.
    """
    if importlib.util.find_spec("peft") is None:
        raise ConfigError("model.adapter: requires the package peft: pip install 'icl-eval[adapters]'")
    content = read_json_object(adapter.folder / ADAPTER_CONFIG)
    if content.get("megatron_config") is not None:
        raise ModelUnavailableError(
            f"the adapter {adapter.name} imports the module {content.get('megatron_core')!r}, which its configuration "
            "names (megatron_config): adapters that run code of their own are refused"
        )
    from peft import PeftConfig

    config: PeftConfig
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            config = PeftConfig.from_pretrained(str(adapter.folder))
    except Exception as error:  # a damaged file can raise nearly anything
        raise ModelUnavailableError(
            f"{ADAPTER_CONFIG} of the adapter {adapter.name} cannot be read ({describe_error(error)})"
        ) from error
    ignored = [str(each.message) for each in found if "Unexpected keyword arguments" in str(each.message)]
    if ignored:
        raise ModelUnavailableError(f"the adapter {adapter.name} needs another version of peft: {ignored[0]}")
    _require_weight_change(config, adapter.name)
    return config


def _require_weight_change(config: "PeftConfig", name: str) -> None:
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if config.task_type not in _TASK_TYPES:
        raise ModelUnavailableError(
            f"the adapter {name} is for {config.task_type}, not for a model that completes text"
        )
    if config.is_prompt_learning:
        raise ModelUnavailableError(f"the adapter {name} ({kind}) learns a prompt, not a change of the weights")
    conditional = [word for key, word in _CONDITIONAL.items() if getattr(config, key, None)]
    if kind in _NOT_IN_WEIGHTS or conditional:
        raise ModelUnavailableError(
            f"the adapter {name} ({(conditional or [kind])[0]}) acts on some inputs only, which is no change of the "
            "weights"
        )


def require_fit(adapter: Weights, config: "PeftConfig", described: "PreTrainedModel", model: str) -> None:
    """Refuse an adapter of another model, by the names and shapes of its weights.

    Args:
        adapter: The adapter.
        config: Its configuration.
        described: The network that the model's configuration describes, without weights; it is changed.
        model: The model's name.

    Raises:
        ModelUnavailableError: If the adapter does not fit.
    """
    path = adapter.folder / ADAPTER_WEIGHTS
    if not path.is_file():  # a pickle file does not list its tensors
        return
    present = {name: tuple(each["shape"]) for name, each in read_safetensors_header(path).items()}
    expected, own = _list_expected(adapter, config, described, model)
    trained_on = f" (it was trained on {config.base_model_name_or_path})" if config.base_model_name_or_path else ""
    for name, shape in present.items():
        wanted = expected.get(name) or own.get(name.removeprefix(_PREFIX))
        if wanted is None:
            raise ModelUnavailableError(
                f"the adapter {adapter.name} is for another model{trained_on}: {model} has no place for {name}"
            )
        if wanted != shape:
            raise ModelUnavailableError(
                f"the adapter {adapter.name} is for another model{trained_on}: {name} has the shape {list(shape)}, and "
                f"{model} needs {list(wanted)}"
            )
    if missing := sorted(set(expected) - set(present)):
        raise ModelUnavailableError(
            f"the adapter {adapter.name} lacks {count_noun(len(missing), 'weight')}: {list_names(missing)}"
        )
    if trained_on and Path(str(config.base_model_name_or_path)).name.lower() != Path(model).name.lower():
        logger.warning("the adapter %s fits %s, but is for another model%s", adapter.name, model, trained_on)


def _list_expected(
    adapter: Weights, config: "PeftConfig", described: "PreTrainedModel", model: str
) -> tuple[Mapping[str, tuple[int, ...]], Mapping[str, tuple[int, ...]]]:
    """Return the names and shapes of the weights that the adapter must have, and of the model's own weights."""
    import torch
    from peft import get_peft_model, get_peft_model_state_dict

    own = {name: tuple(each.shape) for name, each in described.state_dict().items()}
    empty = deepcopy(config)
    empty.inference_mode = True
    if hasattr(empty, "init_lora_weights"):
        empty.init_lora_weights = True  # the other ways read the model's weights
    try:
        with torch.device("meta"), quiet_transformers(reports=False), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted = get_peft_model(described, empty, low_cpu_mem_usage=True)
            state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    except Exception as error:  # for example, none of its target modules exists
        raise ModelUnavailableError(
            f"the adapter {adapter.name} does not fit {model} ({describe_error(error)})"
        ) from error
    return {name: tuple(each.shape) for name, each in state.items()}, own


def apply_adapter(network: "PreTrainedModel", adapter: Weights, config: "PeftConfig", merge: bool) -> "PreTrainedModel":
    """Return a network with an adapter.

    Args:
        network: The network, which is changed.
        adapter: The adapter.
        config: Its configuration.
        merge: Whether the adapter is merged into the weights; otherwise its layers stay beside them.

    Raises:
        ModelUnavailableError: If the adapter cannot be applied, or its weights are not finite.
    """
    from peft import PeftModel

    try:
        with quiet_transformers(reports=False), warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            adapted: Any = PeftModel.from_pretrained(network, str(adapter.folder), config=config)
            changed = adapted.merge_and_unload(safe_merge=True) if merge else adapted.get_base_model()
    except Exception as error:
        raise ModelUnavailableError(
            f"the adapter {adapter.name} cannot be applied ({describe_error(error)})"
        ) from error
    if lacking := [str(each.message) for each in found if "missing adapter keys" in str(each.message)]:
        raise ModelUnavailableError(f"the adapter {adapter.name} is incomplete: {lacking[0]}")
    return changed
