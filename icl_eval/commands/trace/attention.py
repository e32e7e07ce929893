"""Read the attention weights of a network, which only the implementation `eager` returns."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import Cache

from icl_eval.decoding.networks import encode, inputs_of, new_cache, reset_attention, run
from icl_eval.errors import ConfigError
from icl_eval.models.loading import LanguageModel
from icl_eval.models.quiet import quiet_transformers
from icl_eval.models.states import configs_of
from icl_eval.models.switching import AS_FOUND, Switch, evaluating, switched
from icl_eval.prompts.token_ids import Ids

Weights = list[torch.Tensor]
"""Attention weights of each layer, [heads, queries, keys], in float64 on the processor."""


def read_encoder(model: LanguageModel, ids: Ids) -> Weights:
    """Return the weights of the encoder's self-attention between all tokens.

    Raises:
        ConfigError: If the network gives none.
    """
    network: Any = model.network
    with _showing_weights(model):
        reset_attention(network)
        inputs = torch.tensor([list(ids)], device=network.device)
        shown = network.get_encoder()(input_ids=inputs, output_attentions=True).attentions
    return _check(model, shown, len(ids), len(ids))


def read_decoder(model: LanguageModel, encoder_ids: Ids, ids: Ids) -> Weights:
    """Return the weights of the decoder's self-attention between all tokens.

    Raises:
        ConfigError: If the network gives none.
    """
    cache, encoded = new_cache(model.network.config), _encode(model, encoder_ids)
    with _showing_weights(model):
        shown = _run(model, ids, cache, encoded)
    return _check(model, shown["self"], len(ids), len(ids), cache)


def read_last_token(model: LanguageModel, encoder_ids: Ids, ids: Ids, attention: str) -> Weights:
    """Return the weights with which the decoder's last token attends: queries are one token.

    The tokens before it run as they usually do, so that no layer stores the weights between all of them.

    Args:
        model: The model.
        encoder_ids: The encoder's tokens; empty for a decoder-only model.
        ids: The decoder's tokens, including its start token.
        attention: `self` or `cross`.

    Raises:
        ConfigError: If the network gives none.
    """
    network = model.network
    cache, encoded = new_cache(network.config), _encode(model, encoder_ids)
    if len(ids) > 1:
        with evaluating(network):
            run(network, [ids[:-1]], cache, encoded)
    with _showing_weights(model):
        shown = _run(model, ids[-1:], cache, encoded)
    if attention == "cross":
        return _check(model, shown["cross"], 1, len(encoder_ids))
    return _check(model, shown["self"], 1, len(ids), cache)


def _encode(model: LanguageModel, ids: Ids) -> torch.Tensor | None:
    if not ids:
        return None
    with evaluating(model.network):
        return encode(model.network, [ids])[0]


def _run(model: LanguageModel, ids: Ids, cache: Cache, encoded: torch.Tensor | None) -> dict[str, Any]:
    inputs = inputs_of(model.network, [ids], cache, encoded)
    output = model.network(**inputs, use_cache=True, output_attentions=True)
    if encoded is None:
        return {"self": getattr(output, "attentions", None)}
    return {"self": output.decoder_attentions, "cross": output.cross_attentions}


@contextmanager
def _showing_weights(model: LanguageModel) -> Iterator[None]:
    """Run a block in which the network can return attention weights, and then return it to its previous state."""
    network = model.network
    switches = [Switch(vars(config), "_attn_implementation_internal", AS_FOUND) for config in configs_of(network)]
    for module in network.modules():  # transformers leaves hooks behind that collect the weights
        switches.append(Switch(vars(module), "_forward_hooks", OrderedDict(module._forward_hooks)))
        switches.append(Switch(vars(module), "_output_capturing_hooks_installed", AS_FOUND))
    with quiet_transformers(reports=False), evaluating(network), switched(network, switches), torch.inference_mode():
        try:
            network.set_attn_implementation("eager")
        except (NotImplementedError, ValueError):
            raise _no_weights(model) from None
        yield


def _check(
    model: LanguageModel,
    shown: Sequence[torch.Tensor | None] | None,
    num_queries: int,
    num_keys: int,
    cache: Cache | None = None,
) -> Weights:
    """Return weights of each layer, [heads, queries, keys]; raises ConfigError if a layer has none.

    A sliding window shows the newest tokens alone; the older ones have no weight.
    """
    part = getattr(cache, "self_attention_cache", cache)
    if not shown or (part is not None and len(part.layers) != len(shown)):
        raise _no_weights(model)
    weights = []
    for each in shown:
        if each is None or each.dim() != 4 or each.shape[-2] != num_queries or each.shape[-1] > num_keys:
            raise _no_weights(model)
        whole = torch.zeros(each.shape[1], num_queries, num_keys, dtype=torch.float64)
        whole[..., num_keys - each.shape[-1] :] = each[0].double().cpu()
        weights.append(whole)
    return weights


def _no_weights(model: LanguageModel) -> ConfigError:
    return ConfigError(f"heads=true: {model.name} does not give the attention weights of all its layers; leave it out")
