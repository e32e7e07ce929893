"""Batching: which prompts are decoded together, so that little of a batch is padding."""

from collections.abc import Iterator, Sequence

from icl_eval.prompts import EncodedPrompt


def make_batches(prompts: Sequence[EncodedPrompt], batch_size: int) -> Iterator[list[EncodedPrompt]]:
    """Yield batches of prompts of like length, the longest first: what does not fit into memory fails early.

    Rows of an encoder-decoder batch have decoder prompts of one length, since not every decoder can be padded
    on the left.
    """
    ordered = sorted(prompts, key=lambda prompt: (len(prompt.decoder_ids), len(prompt.encoder_ids)), reverse=True)
    batch: list[EncodedPrompt] = []
    for prompt in ordered:
        if batch and (len(batch) == batch_size or not _go_together(batch[0], prompt)):
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch


def _go_together(first: EncodedPrompt, other: EncodedPrompt) -> bool:
    return not first.encoder_ids or len(first.decoder_ids) == len(other.decoder_ids)
