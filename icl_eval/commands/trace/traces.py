"""What a trace holds: nouns without behaviour, in the order in which things happen."""

from dataclasses import asdict, dataclass
from pathlib import Path

from icl_eval.runs.reports import write_json

SCHEMA_VERSION = 1

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TokenInfo:
    """A token as the tokenizer knows it."""

    id: int
    piece: str
    """What the vocabulary calls it; a space may be `Ġ` or `▁` in it."""
    text: str
    """What it reads as on its own; not always what it contributes among its neighbours."""


@dataclass(frozen=True)
class InputToken:
    """A token of the prompt."""

    token: TokenInfo
    added: bool
    """Whether the text does not hold it: the tokenizer or the model put it there (`</s>`, a start token …)."""


@dataclass(frozen=True)
class Side:
    """What one side of the model is given."""

    text: str | None
    """None where a decoder begins with its start token alone."""
    tokens: tuple[InputToken, ...]
    embeddings: Shape
    """[1, tokens, size]: what the tokens become before the first layer."""


@dataclass(frozen=True)
class CacheBlock:
    """Neighbouring layers of a key/value cache that look the same."""

    attention: str
    """`self`: of the decoder's own tokens; `cross`: of the encoder's output."""
    first_layer: int
    last_layer: int
    shapes: dict[str, Shape]
    """By tensor: keys and values are [1, heads, tokens, size]."""
    bytes_per_layer: int


@dataclass(frozen=True)
class CacheState:
    """A key/value cache after a forward pass."""

    blocks: tuple[CacheBlock, ...]
    bytes: int
    """Of all layers together."""


@dataclass(frozen=True)
class Candidate:
    """A token that could have been next."""

    token: TokenInfo
    probability: float
    """The softmax of the model's logits, before any rule of its generation config."""


@dataclass(frozen=True)
class ChosenToken:
    """The token that was chosen, and what else there was to choose from."""

    chosen: Candidate
    log_probability: float
    """Natural logarithm of the chosen token's probability."""
    entropy_bits: float
    """Of the whole distribution, in bits: 0 for certainty, n where 2^n tokens are equally likely."""
    runners_up: tuple[Candidate, ...]
    """The likeliest of the other tokens, the likeliest first."""
    rules: tuple[str, ...]
    """The rules of the model's generation config that made another token the likeliest."""


@dataclass(frozen=True)
class Step:
    """One forward pass and the token that was chosen after it."""

    fed: int
    """Decoder tokens that the pass was given: the whole prompt at first (prefill), then the last chosen one."""
    cache: CacheState
    """After the pass."""
    logits: Shape
    """[1, vocabulary]: of the last position"""
    choice: ChosenToken
    shown: str
    """The text that the token let be shown; empty while it may be a part of a character or of a stop string."""


@dataclass(frozen=True)
class LogLikelihoodGain:
    """How much one demonstration mattered to an answer's log-likelihood (natural logarithm).

    Each number is the log-likelihood with all demonstrations minus that without this one: above zero, the
    demonstration made the answer more likely.
    """

    demonstration_id: str
    question: str
    answer: str | None
    """None where a control shows none."""
    generated: float
    """For the generated answer, all of its tokens."""
    reference: float | None
    """For the first reference; None where there is none."""


@dataclass(frozen=True)
class Trace:
    """Everything between text in and text out."""

    model: str
    architecture: str
    dtype: str
    device: str
    written: dict[str, str]
    """What the user wrote: a prompt, or the fields of a question."""
    task: str | None
    example_id: str | None
    template: str | None
    """The wording that made a prompt of it; None where the prompt is taken as it is."""
    placement: str | None
    search: str
    """How tokens were chosen: greedy or sample"""
    encoder: Side | None
    """None for a decoder-only model."""
    encoder_output: Shape | None
    """[1, tokens, size]"""
    decoder: Side
    steps: tuple[Step, ...]
    finish_reason: str
    """eos, stop or length"""
    ended_by: str
    """The token, the stop string or the number of tokens that ended it."""
    completion: str
    """The shown texts put together."""
    prediction: str
    """The completion after postprocessing."""
    reference: str | None
    generated_log_likelihood: float
    """Natural logarithm of the generated tokens' probability under the model, given the prompt."""
    reference_log_likelihood: float | None
    influences: tuple[LogLikelihoodGain, ...]
    """One for each demonstration, in the order of the prompt."""


def write_trace(trace: Trace, path: Path) -> None:
    """Write a trace as JSON."""
    write_json({"schema_version": SCHEMA_VERSION, **asdict(trace)}, path)
