"""Generate the same greedy completion in four ways, whose costs differ widely.

| way          | work for each new token                                  |
|--------------|----------------------------------------------------------|
| all at once  | one token, inside transformers' `generate`               |
| one by one   | the whole text again: tokenised and run without a cache  |
| by hand      | one token: the prompt is run once and its cache is kept  |
| stream       | one token, in the decoder that evaluations use           |

The rules of the model's generation config (forced tokens, penalties) and the stop strings apply in all of them.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers.generation.streamers import BaseStreamer

from icl_eval.commands.tour.meters import Meter, Reading
from icl_eval.decoding import StreamDecoder, Token
from icl_eval.decoding.generate import GenerateDecoder, build_inputs
from icl_eval.decoding.hypotheses import Hypothesis, begin_hypothesis
from icl_eval.decoding.networks import encode, new_cache, reset_attention, run
from icl_eval.decoding.preparing import prepare
from icl_eval.decoding.rules import Rules, end_ids
from icl_eval.decoding.searches import Greedy
from icl_eval.decoding.sharing import common_length
from icl_eval.formatting import count_noun
from icl_eval.models.loading import LanguageModel
from icl_eval.models.switching import evaluating
from icl_eval.prompts.building import EncodedPrompt, Prompt
from icl_eval.prompts.conventions import Conventions
from icl_eval.prompts.token_ids import pack_ids
from icl_eval.prompts.tokenization import pieces_of


@dataclass(frozen=True)
class TourSubject:
    """The model, the prompt and the limits of a tour."""

    model: LanguageModel
    conventions: Conventions
    text: str
    max_new_tokens: int
    stop: tuple[str, ...]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The generation settings passed to `generate`."""
        return {**Greedy().settings, **self.conventions.settings}

    def encode(self) -> EncodedPrompt:
        """Tokenise the prompt, with the tokens that the model's conventions add."""
        return self.conventions.encode_text("prompt", self.text)

    def begin(self, prompt: EncodedPrompt) -> Hypothesis:
        """Return an empty completion of a prompt."""
        rules = Rules(self.model.network, self.max_new_tokens, self.settings)
        return begin_hypothesis(self.model, prompt, self.stop, rules)

    def append(self, row: Hypothesis, token_id: int) -> None:
        """Add a token to a completion."""
        row.append(token_id, end_ids(self.model.network, self.settings), self.max_new_tokens)


@dataclass(frozen=True)
class Way:
    """The result and the cost of one way of generating."""

    name: str
    text: str
    token_ids: tuple[int, ...]
    marks: tuple[Reading, ...]
    """One reading for each new token."""
    seconds: float
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage, for ways that have stages."""
    remark: str = ""
    """A caveat for the reader; empty if there is none."""

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second."""
        return len(self.token_ids) / self.seconds

    @property
    def tokens_fed(self) -> int:
        """Tokens fed to the network, counting repetitions."""
        return self.marks[-1].fed


def generate_at_once(subject: TourSubject) -> Way:
    """Generate all tokens with one call to transformers' `generate`, timing tokenising and detokenising separately."""
    decoder = GenerateDecoder(subject.model, subject.settings, subject.max_new_tokens)
    with Meter(subject.model.network) as meter:
        times = [time.perf_counter()]
        prompt = subject.encode()
        times.append(time.perf_counter())
        token_ids = decoder.generate(prompt, _Marker(meter))
        times.append(time.perf_counter())
        row = subject.begin(prompt)
        for token_id in token_ids:
            if not row.finish_reason:
                subject.append(row, token_id)
        completion = row.completion()
        times.append(time.perf_counter())
    stages = {name: times[n + 1] - times[n] for n, name in enumerate(("tokenise", "generate", "detokenise"))}
    remark = ""
    if len(token_ids) > len(completion.token_ids):
        extra = len(token_ids) - len(completion.token_ids)
        remark = f"generate ignores stop strings and continued for {count_noun(extra, 'token')}"
    return Way(
        "all at once", completion.text, completion.token_ids, tuple(meter.marks), times[-1] - times[0], stages, remark
    )


def generate_one_by_one(subject: TourSubject) -> Way:
    """Run the whole text through the whole pipeline for every token: tokenise, run without a cache, detokenise."""
    prompt = subject.encode()
    row = subject.begin(prompt)
    written, remark = "", ""
    network = subject.model.network
    with Meter(network) as meter, torch.inference_mode(), evaluating(network):
        begin = time.perf_counter()
        while not row.finish_reason:
            again = _tokenise_again(subject, written, begun=bool(row.token_ids))
            if not remark and again.decoder_ids != (*prompt.decoder_ids, *row.token_ids):
                remark = _describe_change(subject, (*prompt.decoder_ids, *row.token_ids), again.decoder_ids, row)
            if subject.conventions.context(max_new_tokens=1).excess(again):
                remark += f"; after token {len(row.token_ids)} they exceed the model's context, which ends the text"
                row.end()
                break
            inputs = build_inputs(subject.model, again)
            reset_attention(network)
            logits = network(**inputs, use_cache=False).logits[:, -1].float()  # [1, vocabulary]
            history = torch.tensor([[*row.start_ids, *again.decoder_ids]], device=logits.device)
            token_id = int(row.rules(history, logits).argmax())
            subject.append(row, token_id)
            if again.decoder_ids or token_id != subject.conventions.first_id:  # which the model forces
                written += _decode_piece(subject, again.decoder_ids, token_id)
            meter.mark()
        seconds = time.perf_counter() - begin
    return Way("one by one", row.completion().text, tuple(row.token_ids), tuple(meter.marks), seconds, remark=remark)


def generate_by_hand(subject: TourSubject) -> Way:
    """Run the encoder and the prompt once (prefill), and then one token at a time with a cache."""
    network = subject.model.network
    with Meter(network) as meter, evaluating(network):
        begin = time.perf_counter()
        prompt = subject.encode()
        row = subject.begin(prompt)
        encoded = encode(network, [prompt.encoder_ids])[0] if prompt.encoder_ids else None
        cache = new_cache(network.config)
        logits = run(network, [row.history], cache, encoded)
        prefill = time.perf_counter() - begin
        while True:
            history = torch.tensor([row.history], device=logits.device)
            subject.append(row, int(row.rules(history, logits.float()).argmax()))
            meter.mark()
            if row.finish_reason:
                break
            logits = run(network, [[row.next_id()]], cache, encoded)
        seconds = time.perf_counter() - begin
    stages = {"prefill": prefill, "decode": seconds - prefill}
    return Way("by hand", row.completion().text, tuple(row.token_ids), tuple(meter.marks), seconds, stages)


def generate_in_stream(subject: TourSubject) -> Way:
    """Stream the tokens with the decoder that evaluations use."""
    decoder = StreamDecoder(subject.model, subject.max_new_tokens, subject.stop, settings=subject.conventions.settings)
    text, token_ids = "", []
    prepare(subject.model)  # happens once per model, so it is not part of the cost of a token
    with Meter(subject.model.network) as meter:
        begin = time.perf_counter()
        for event in decoder.stream([subject.encode()]):
            if isinstance(event, Token):
                meter.mark()
                text += event.text
                token_ids.append(event.id)
        seconds = time.perf_counter() - begin
    return Way("stream", text, tuple(token_ids), tuple(meter.marks), seconds)


class _Marker(BaseStreamer):  # type: ignore[misc]  # transformers is untyped for us
    """A streamer that marks each new token of `generate`."""

    def __init__(self, meter: Meter):
        self._meter = meter
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """Mark a token; the first call passes the prompt."""
        if self._prompt_seen:
            self._meter.mark()
        self._prompt_seen = True

    def end(self) -> None:
        """Do nothing at the end of generation."""


def _tokenise_again(subject: TourSubject, written: str, begun: bool) -> EncodedPrompt:
    """Tokenise the text so far from scratch; `begun` tells whether any token has been generated."""
    conventions = subject.conventions
    if subject.model.architecture == "decoder-only":
        return conventions.encode_text("prompt", subject.text + written)
    [encoded] = conventions.encode([Prompt("prompt", subject.text, written or None)])
    if begun and not encoded.decoder_ids and conventions.first_id is not None:
        return replace(encoded, decoder=pack_ids((conventions.first_id,)), num_added=1)
    return encoded


def _decode_piece(subject: TourSubject, ids: tuple[int, ...], token_id: int) -> str:
    """Return the text that a token adds after other tokens."""
    before, after = (
        subject.model.tokenizer.decode(list(some), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for some in (ids, (*ids, token_id))
    )
    return str(after[len(before) :])


def _describe_change(subject: TourSubject, chosen: tuple[int, ...], again: tuple[int, ...], row: Hypothesis) -> str:
    """Describe how the tokens of a text differ from the tokens that it was generated as."""
    place = common_length(chosen, again)
    tokens = [pieces_of(subject.model.tokenizer, ids[place : place + 4]) for ids in (chosen, again)]
    shown = [" | ".join(map(repr, some)) or "nothing" for some in tokens]
    return f"tokenising the text again after token {len(row.token_ids)} changes its tokens: {shown[0]} to {shown[1]}"
