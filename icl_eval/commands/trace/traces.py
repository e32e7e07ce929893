"""The content of a trace as plain data, in the order in which things happen."""

from dataclasses import asdict, dataclass
from pathlib import Path

from icl_eval.runs.reports import write_json

SCHEMA_VERSION = 1

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TokenInfo:
    """A token of the tokenizer's vocabulary."""

    id: int
    piece: str
    """Its entry in the vocabulary, where a space may be written as `Ġ` or `▁`."""
    text: str
    """The text that it decodes to on its own, which may differ from what it contributes in context."""


@dataclass(frozen=True)
class InputToken:
    """A token of the prompt."""

    token: TokenInfo
    added: bool
    """Whether the tokenizer or the model added it to the text (`</s>`, a start token …)."""


@dataclass(frozen=True)
class Side:
    """The input of the encoder or of the decoder."""

    text: str | None
    """None for a decoder that begins with its start token alone."""
    tokens: tuple[InputToken, ...]
    embeddings: Shape
    """[1, tokens, size]: the shape of the token embeddings."""


@dataclass(frozen=True)
class CacheBlock:
    """Neighbouring layers of a key/value cache whose tensors have the same shapes."""

    attention: str
    """`self` for attention over the decoder's tokens, `cross` for attention over the encoder's output."""
    first_layer: int
    last_layer: int
    shapes: dict[str, Shape]
    """Shapes by tensor; keys and values are [1, heads, tokens, size]."""
    bytes_per_layer: int


@dataclass(frozen=True)
class CacheState:
    """A key/value cache after a forward pass."""

    blocks: tuple[CacheBlock, ...]
    bytes: int
    """Size of all layers together."""


@dataclass(frozen=True)
class Candidate:
    """A candidate for the next token."""

    token: TokenInfo
    probability: float
    """Softmax of the model's logits, before any rule of the generation config."""


@dataclass(frozen=True)
class ChosenToken:
    """The chosen token and its alternatives."""

    chosen: Candidate
    log_probability: float
    """Natural logarithm of the chosen token's probability."""
    entropy_bits: float
    """Entropy of the whole distribution in bits: 0 if the token is certain, n if 2^n tokens are equally likely."""
    runners_up: tuple[Candidate, ...]
    """The most likely of the other tokens, in descending order of probability."""
    rules: tuple[str, ...]
    """The rules of the generation config that changed the most likely token."""


@dataclass(frozen=True)
class Step:
    """One forward pass and the token chosen from its logits."""

    fed: int
    """Number of decoder tokens fed to the pass: first the whole prompt (prefill), then one token at a time."""
    cache: CacheState
    """The cache after the pass."""
    logits: Shape
    """[1, vocabulary]: the shape of the logits of the last position."""
    choice: ChosenToken
    shown: str
    """The text that the token completes. It is empty while the text may be part of a character or a stop string."""


@dataclass(frozen=True)
class LogLikelihoodGain:
    """The effect of one demonstration on the log-likelihood (natural logarithm) of an answer.

    Each number is the log-likelihood with all demonstrations minus the log-likelihood without this one. It is positive
    if the demonstration makes the answer more likely.
    """

    demonstration_id: str
    question: str
    answer: str | None
    """None if a control hides the answers."""
    generated: float
    """Effect on the generated answer, with all of its tokens."""
    reference: float | None
    """Effect on the first reference; None if there is no reference."""


@dataclass(frozen=True)
class HeadMap:
    """How much of the attention of each head goes to one kind of token, from 0 to 1."""

    attention: str
    """`encoder` for the encoder's self-attention, `self` for the decoder's, `cross` for its attention over the
    encoder's output."""
    target: str
    """On repeated sequences, `induction`, `previous_token` or `same_token`; in the prompt, `answers` or
    `right_answers`."""
    uniform: float
    """The score of a head that attends to all tokens evenly: the share of tokens that are of this kind."""
    scores: tuple[tuple[float, ...], ...]
    """[layers][heads]"""


@dataclass(frozen=True)
class AnswerTokens:
    """The tokens of a demonstration's answer, among those to which the answering position attends."""

    demonstration_id: str
    answer: str
    first: int
    last: int
    right: bool
    """Whether the answer is a reference of the question."""


@dataclass(frozen=True)
class Heads:
    """What the attention heads attend to."""

    num_sequences: int
    """Number of repeated sequences."""
    sequence_length: int
    """Number of tokens that each sequence repeats once."""
    seed: int
    """Seed of the sequences' tokens."""
    answers: tuple[AnswerTokens, ...]
    maps: tuple[HeadMap, ...]


@dataclass(frozen=True)
class Trace:
    """Everything between text in and text out."""

    model: str
    architecture: str
    dtype: str
    device: str
    written: dict[str, str]
    """The user's input: a prompt, or the fields of a question."""
    task: str | None
    example_id: str | None
    template: str | None
    """Name of the template that rendered the prompt; None for a free prompt."""
    placement: str | None
    search: str
    """How tokens were chosen: greedy or sample."""
    encoder: Side | None
    """None for a decoder-only model."""
    encoder_output: Shape | None
    """[1, tokens, size]."""
    decoder: Side
    steps: tuple[Step, ...]
    finish_reason: str
    """`eos`, `stop` or `length`."""
    ended_by: str
    """The token, the stop string or the number of tokens that ended decoding."""
    completion: str
    """The generated text."""
    prediction: str
    """The completion after postprocessing."""
    reference: str | None
    generated_log_likelihood: float
    """Natural logarithm of the probability of the generated tokens given the prompt."""
    reference_log_likelihood: float | None
    influences: tuple[LogLikelihoodGain, ...]
    """One per demonstration, in the order of the prompt."""
    heads: Heads | None
    """None unless `heads=true`."""


def write_trace(trace: Trace, path: Path) -> None:
    """Write a trace as JSON."""
    write_json({"schema_version": SCHEMA_VERSION, **asdict(trace)}, path)
