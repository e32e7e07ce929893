"""Run a batch, so that each answer of an episode attends to all demonstrations but only to its own question."""

from typing import Any

import torch

from training.batches import IGNORED, Batch

_MASKED = -1e9


def logits_of(model: Any, batch: Batch, own_question: bool = False) -> torch.Tensor:
    """Return the logits at positions with a target, `[targets, vocabulary]`.

    Args:
        model: A T5 with eager attention, which uses masks unchanged.
        batch: Episodes.
        own_question: Whether the decoder attends only to the encoder's states of its question, not to demonstrations.
    """
    encoded = model.encoder(input_ids=batch.encoder_ids, attention_mask=(batch.encoder_groups >= 0).long())
    decoded = model.decoder(
        input_ids=batch.decoder_ids,
        attention_mask=_additive(_causal_mask(batch)),
        encoder_hidden_states=encoded.last_hidden_state,
        encoder_attention_mask=_additive(_cross_mask(batch, own_question)),
        use_cache=False,
    )
    predicting = decoded.last_hidden_state[batch.targets != IGNORED]
    logits: torch.Tensor = model.lm_head(predicting * model.model_dim**-0.5)
    return logits


def loss_of(model: Any, batch: Batch, own_question: bool = False) -> torch.Tensor:
    """Return the mean cross-entropy of the answers' tokens, in nats."""
    logits = logits_of(model, batch, own_question).float()
    return torch.nn.functional.cross_entropy(logits, batch.targets[batch.targets != IGNORED])


def _cross_mask(batch: Batch, own_question: bool) -> torch.Tensor:
    """Return which encoder tokens each decoder token attends to, `[batch, decoder_seq, encoder_seq]`."""
    encoder, decoder = batch.encoder_groups[:, None, :], batch.decoder_groups[:, :, None]
    own = (encoder > 0) & (encoder == decoder)
    return own if own_question else own | (encoder == 0)


def _causal_mask(batch: Batch) -> torch.Tensor:
    """Return which decoder tokens a decoder token attends to: earlier ones of its own answer, `[batch, seq, seq]`."""
    groups = batch.decoder_groups
    length = groups.shape[1]
    return (groups[:, :, None] == groups[:, None, :]) & torch.ones(length, length, dtype=torch.bool).tril()


def _additive(mask: torch.Tensor) -> torch.Tensor:
    """Turn a boolean mask into an additive one for all heads, `[batch, 1, from, to]`."""
    return (~mask[:, None]).float() * _MASKED
