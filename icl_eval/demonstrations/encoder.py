"""Embedding: examples as unit vectors, whose dot product is their cosine similarity.

The vector of a string is the mean of the network's last hidden states over the string's tokens. Strings are embedded in
batches whose shape depends on nothing but a string's own number of tokens, so that its vector depends on no other
string, and runs can share it.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from icl_eval.demonstrations.vectors import Float32Array, Vectors, open_vectors
from icl_eval.errors import ConfigError, ModelUnavailableError, UserError
from icl_eval.formatting import describe_error
from icl_eval.models.cards import needs_own_code, read_max_length
from icl_eval.models.devices import choose_device
from icl_eval.models.loading import LanguageModel, ModelSource, load_model
from icl_eval.models.quiet import quiet_transformers
from icl_eval.models.specs import ModelSpec
from icl_eval.models.weights import identify, resolve_weights
from icl_eval.models.weights.fitting import check_layers, check_numbers, check_room
from icl_eval.models.weights.folders import read_json_list
from icl_eval.tasks.examples import Example

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

_NO_LIMIT = 1_000_000
"""Maximum length in tokens with relative positions; an unlimited tokenizer has 1e30, which its backend rejects."""

_LENGTH_STEP = 16
"""The length of a batch in tokens is a multiple of this."""

_SHOWN = 60
"""The number of characters of a string that a message shows."""

_BATCH_TOKENS = 1024
_BATCH_STRINGS = 16

EmbedTexts = Callable[[Sequence[str]], Iterator[tuple[list[str], Float32Array]]]
"""Yields some of the given strings with their vectors, [strings, size], until all have been yielded."""


@dataclass(frozen=True)
class Encoder:
    """Embeds examples in float32, regardless of the dtype of the run; a model in memory embeds in its own dtype."""

    model: ModelSource
    """The evaluated model, which is used for embedding unless `source` names another model."""
    device: str
    source: str | None = None
    """An encoder or decoder, specified like `model.source`. A sentence-transformers folder (with a modules.json) is
    loaded with that package."""
    revision: str | None = None

    def identify(self) -> str:
        """Return an identifier of the weights; see `Weights.identify`."""
        if isinstance(self.model, LanguageModel) and self.source is None:
            return self.model.identify()
        return self._run_step(lambda: identify(self._spec))

    def embed(self, examples: Sequence[Example]) -> Float32Array:
        """Return a unit vector for each example, computed from all its input fields, [examples, size].

        Strings that are too long for the network are truncated at the end. Vectors are kept in the user's cache
        folder, or for a model that a caller has in memory, in this process.

        Raises:
            UserError: If the weights cannot be loaded.
        """
        texts = ["\n".join(example.inputs.values()) for example in examples]
        device = choose_device(self.device)
        known = open_vectors(self.identify(), device, kept=self.source is not None or isinstance(self.model, ModelSpec))
        while (found := self._embed_missing(known, texts, device)) is None:
            pass  # vectors that were known cannot be read any more
        return found

    def _embed_missing(self, known: Vectors, texts: Sequence[str], device: str) -> Float32Array | None:
        """Compute the vectors of strings that have none, and return those of all strings; None if some are lost."""
        if missing := known.find_missing(texts):
            embed_texts = self._run_step(lambda: self._load(device))
            logger.info("embedding %d strings of questions and pool", len(missing))
            with _progress(len(missing)) as advance:
                for embedded, vectors in embed_texts(missing):
                    known.add(embedded, self._scale(embedded, vectors))
                    advance(len(embedded))
        return known.read(texts)

    def _scale(self, texts: Sequence[str], vectors: Float32Array) -> Float32Array:
        """Return vectors of length 1; raises ConfigError for one that has no direction."""
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        for text, length in zip(texts, lengths[:, 0], strict=True):
            if not 0 < length < np.inf:  # also for NaN
                raise ConfigError(
                    f"demonstrations.encoder: the vector of {text[:_SHOWN]!r} has length {length}, and no direction; "
                    "choose another encoder"
                )
        scaled: Float32Array = vectors / lengths
        return scaled

    @property
    def _spec(self) -> ModelSpec:
        """Where the weights are stored."""
        if self.source is not None:
            return ModelSpec(self.source, self.revision)
        assert isinstance(self.model, ModelSpec)
        return self.model

    def _load(self, device: str) -> EmbedTexts:
        if self.source is None:
            model = load_model(_allow_float32(self.model), "float32", self.device)
            return partial(_average_states, model.network, model.tokenizer)
        return _load_encoder(self._spec, self.identify(), device)

    def _run_step(self, step: Callable[[], Result]) -> Result:
        """Run a step that needs the weights; prefix its errors with the key that specifies the source."""
        try:
            return step()
        except UserError as error:
            if self.source is None:
                raise
            raise type(error)(f"demonstrations.encoder: {error}") from error


def _allow_float32(model: ModelSource) -> ModelSource:
    """Return a model without an attention implementation that computes in half precision only."""
    if isinstance(model, ModelSpec) and (model.attn_implementation or "").startswith("flash_"):
        return replace(model, attn_implementation=None)
    return model


@lru_cache(maxsize=1)
def _load_encoder(spec: ModelSpec, _identity: str, device: str) -> EmbedTexts:
    """Load an encoder, again if its files have another identity."""
    weights = resolve_weights(spec)
    folder = weights.folder
    if needs_own_code(weights):
        raise ModelUnavailableError(
            f"{spec.source} runs its own Python code, which is not allowed for an encoder; use another one"
        )
    if (folder / "modules.json").is_file():
        return _load_sentence_transformer(folder, device)
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    try:
        with quiet_transformers():
            # Without trust_remote_code=False, transformers would ask on the terminal whether to run the model's code.
            options = {"local_files_only": True, "trust_remote_code": False}
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            config = AutoConfig.from_pretrained(folder, **options)
            check_layers(folder, spec.allow_pickle, config, spec.source)
            with torch.device("meta"):
                check_room(folder, spec.allow_pickle, AutoModel.from_config(config).num_parameters(), spec.source)
            network, loading_info = AutoModel.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
            )
            check_numbers(folder, spec.source, network, "float32")
    except UserError:
        raise
    except Exception as error:  # transformers can raise anything
        raise ConfigError(f"{spec.source} cannot be loaded ({describe_error(error)})") from error
    # The pooler does not affect the hidden states, and many checkpoints lack one.
    missing = sorted(key for key in loading_info["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ConfigError(f"{spec.source} lacks {len(missing)} of its weights, such as {missing[0]}")
    network = network.to(device).eval().requires_grad_(False)
    return partial(_average_states, network, tokenizer)


def _load_sentence_transformer(folder: Path, device: str) -> EmbedTexts:
    _refuse_own_modules(folder)
    # The package handles truncation, pooling and normalization as its modules.json specifies.
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ConfigError(
            f"{folder} is a sentence-transformers model (it has a modules.json): pip install 'icl-eval[retrieval]'"
        ) from None
    try:
        encoder = SentenceTransformer(str(folder), device=device, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # its modules are arbitrary classes and can raise anything
        raise ConfigError(f"{folder} cannot be loaded ({describe_error(error)})") from error

    def embed_texts(texts: Sequence[str]) -> Iterator[tuple[list[str], Float32Array]]:
        for text in texts:  # its batches have the shape of their longest string
            yield [text], np.asarray(encoder.encode([text], show_progress_bar=False), np.float32)

    return embed_texts


def _refuse_own_modules(folder: Path) -> None:
    """Refuse modules from outside the package: from a local folder it runs them even without trust_remote_code."""
    modules = read_json_list(folder / "modules.json")
    kinds = [module.get("type") if isinstance(module, dict) else module for module in modules]
    for kind in kinds:
        if not isinstance(kind, str) or not kind.startswith("sentence_transformers."):
            raise ModelUnavailableError(
                f"{folder} runs its own Python code, which is not allowed for an encoder: its modules.json names "
                f"{kind!r}, which is not part of sentence_transformers"
            )


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Give a function that moves a progress bar on, which is shown if stderr is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("embedding", total=total)
        yield lambda count: bar.advance(task, count)


def _average_states(network: Any, tokenizer: Any, texts: Sequence[str]) -> Iterator[tuple[list[str], Float32Array]]:
    """Yield strings with the means of their last hidden states over their tokens, [strings, size], the shortest first.

    A batch is filled up to its shape, so that the order in which a processor adds numbers is always the same.
    """
    import torch

    from icl_eval.models.switching import evaluating

    body = network.get_encoder() if network.config.is_encoder_decoder else network.base_model
    limit = min(read_max_length(network.config) or _NO_LIMIT, tokenizer.model_max_length)
    for batch, ids in _make_batches(texts, tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]):
        length = min(_round_up(len(ids[0])), limit)
        tokens = torch.zeros((_count_rows(length), length), dtype=torch.long)  # the mask hides the padding
        mask = torch.zeros_like(tokens)
        for row in range(len(tokens)):
            own = ids[min(row, len(ids) - 1)]
            tokens[row, : len(own)] = torch.tensor(own)
            mask[row, : len(own)] = 1
        tokens, mask = tokens.to(network.device), mask.to(network.device)
        with torch.inference_mode(), evaluating(network):
            states = body(input_ids=tokens, attention_mask=mask).last_hidden_state.float()  # [rows, length, size]
        means = [states[row, : len(own)].mean(0) for row, own in enumerate(ids)]
        yield batch, torch.stack(means).cpu().numpy()


def _make_batches(texts: Sequence[str], ids: Sequence[list[int]]) -> Iterator[tuple[list[str], list[list[int]]]]:
    """Yield strings and their tokens in batches of one length."""
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for place, own in enumerate(ids):
        by_length[_round_up(len(own))].append(place)
    for length, places in sorted(by_length.items()):
        for start in range(0, len(places), _count_rows(length)):
            batch = places[start : start + _count_rows(length)]
            yield [texts[place] for place in batch], [ids[place] for place in batch]


def _round_up(length: int) -> int:
    return max(1, -(-length // _LENGTH_STEP)) * _LENGTH_STEP


def _count_rows(length: int) -> int:
    """Return the number of strings in a batch of a length."""
    return max(1, min(_BATCH_STRINGS, _BATCH_TOKENS // length))
