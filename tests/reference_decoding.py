"""Prompts, and how the library itself completes them, for tests of the decoder."""

import random

import torch

from icl_eval.decoding import Completion, StreamDecoder
from icl_eval.decoding.branches import ScoredContinuation
from icl_eval.decoding.networks import decoder_of, reset_attention, takes
from icl_eval.decoding.rules import start_ids
from icl_eval.prompts.building import EncodedPrompt, Prompt
from icl_eval.prompts.tokenization import Continuations

NEW_TOKENS = 10


def make_prompts(model, seed=0, count=14):
    """Prompts that share a prefix, prompts that share nothing, the prefix itself, a single token, and a copy."""
    draw = random.Random(seed)
    vocabulary = decoder_of(model.network).get_input_embeddings().num_embeddings

    def ids(length):
        return tuple(draw.randrange(10, vocabulary) for _ in range(length))

    prefix, shared_input = ids(20), ids(9)
    decoder_ids = [prefix + ids(draw.randint(1, 12)) for _ in range(count - 4)]
    decoder_ids += [prefix, ids(1), ids(30), decoder_ids[0]]
    prompts = []
    for number, own in enumerate(decoder_ids):
        encoder_ids = ()
        if model.architecture == "encoder-decoder":
            encoder_ids = ids(draw.randint(1, 30)) if number % 2 else shared_input
            own = () if number % 5 == 4 else own
        prompts.append(EncodedPrompt(Prompt(f"p{number}", None, None), encoder_ids, own))
    return prompts


def generate(model, prompt, **options):
    """The library's own greedy search, one prompt at a time, as if it were the first."""
    reset_attention(model.network)
    context = [*start_ids(model), *prompt.decoder_ids]
    device = model.network.device
    inputs = {"input_ids": torch.tensor([context], device=device)}
    if prompt.encoder_ids:
        encoder_ids = torch.tensor([prompt.encoder_ids], device=device)
        inputs = {"input_ids": encoder_ids, "decoder_input_ids": inputs["input_ids"]}
    ids = model.network.generate(
        **inputs,
        attention_mask=torch.ones_like(inputs["input_ids"]),
        do_sample=False,
        num_beams=1,
        max_new_tokens=NEW_TOKENS,
        pad_token_id=0,
        tokenizer=model.tokenizer,
        **options,
    )
    return tuple(ids[0, len(context) :].tolist())


def decode(model, prompts, **options):
    events = list(StreamDecoder(model, NEW_TOKENS, **options).stream(prompts))
    completions = [event for event in events if isinstance(event, Completion)]
    assert len(completions) == len(prompts)
    return {completion.example_id: completion for completion in completions}


def assert_as_generate(model, prompts, **options):
    decoded = decode(model, prompts, **options)
    for prompt in prompts:
        name = prompt.prompt.example_id
        assert decoded[name].token_ids == generate(model, prompt), name


def make_questions(model, seed=0, count=10):
    """Questions after shared demonstrations, one after nothing, one of a single token, and a copy.

    Their texts are uneven; some begin alike, and one is a prefix of another.
    """
    draw = random.Random(seed)
    vocabulary = decoder_of(model.network).get_input_embeddings().num_embeddings

    def ids(length):
        return tuple(draw.randrange(10, vocabulary) for _ in range(length))

    prefix, shared_input, label = ids(20), ids(9), ids(3)
    contexts = [prefix + ids(draw.randint(1, 9)) for _ in range(count - 3)] + [ids(1), ids(25)]
    contexts.append(contexts[0])
    asked = []
    for number, context in enumerate(contexts):
        encoder_ids = ()
        if model.architecture == "encoder-decoder":
            encoder_ids = ids(draw.randint(1, 30)) if number % 2 else shared_input
            context = () if number % 5 == 4 else context
        texts = (ids(1), label, label + ids(4), label[:2], label[:2] + ids(1), ids(draw.randint(2, 6)))
        asked.append(Continuations(EncodedPrompt(Prompt("", None, None), encoder_ids, context), texts))
    return asked


def plain_scores(model, each, forced=()):
    """One forward pass of the library's network for each text, without a cache."""
    start = start_ids(model)
    context = (*start, *(each.context.decoder_ids or forced))
    found = []
    for text in each.texts:
        ids = torch.tensor([[*context, *text]])
        inputs = {"input_ids": ids}
        if each.context.encoder_ids:
            inputs = {"input_ids": torch.tensor([each.context.encoder_ids]), "decoder_input_ids": ids}
        if not each.context.encoder_ids and takes(model.network, "position_ids"):
            inputs["position_ids"] = torch.arange(ids.shape[1])[None]
        reset_attention(model.network)
        logits = model.network(**inputs, use_cache=False).logits[0, len(context) - 1 : -1]
        values = logits.log_softmax(-1)[range(len(text)), list(text)]
        found.append(ScoredContinuation(tuple(values.tolist()), logits.argmax(-1).tolist() == list(text)))
    return found
