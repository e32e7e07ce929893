"""Embedding: examples as unit vectors, whose dot product is their cosine similarity.

The vector of a string is the mean of the network's last hidden states over the string's tokens. Every string is
embedded in a batch of one, so its vector does not depend on other strings, and runs can share it.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from icl_eval.errors import ConfigError, ModelUnavailableError, UserError
from icl_eval.formatting import describe_error
from icl_eval.models.cards import needs_own_code, read_max_length
from icl_eval.models.devices import choose_device
from icl_eval.models.loading import LanguageModel, ModelSource, load_model
from icl_eval.models.quiet import quiet_transformers
from icl_eval.models.weights import ModelSpec, identify, resolve_weights
from icl_eval.models.weights.fitting import check_layers, check_numbers, check_room
from icl_eval.models.weights.folders import read_json_list
from icl_eval.tasks.examples import Example

FloatArray = npt.NDArray[np.float32]

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

_NO_LIMIT = 1_000_000
"""Maximum length in tokens with relative positions; an unlimited tokenizer has 1e30, which its backend rejects."""

_vectors: dict[tuple[str, str], dict[str, FloatArray]] = {}
"""Vectors that this process has computed, by identity of the weights and device, then by string."""


@dataclass(frozen=True)
class Encoder:
    """Embeds examples in float32, regardless of the dtype of the run."""

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

    def embed(self, examples: Sequence[Example]) -> FloatArray:
        """Return a unit vector for each example, computed from all its input fields, [examples, size].

        Strings that are too long for the network are truncated at the end.

        Raises:
            UserError: If the weights cannot be loaded.
        """
        texts = ["\n".join(example.inputs.values()) for example in examples]
        device = choose_device(self.device)
        known = _vectors.setdefault((self.identify(), device), {})
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            embed_text = self._run_step(lambda: self._load(device))
            if not known:
                logger.info("loaded %s to embed questions and pool", self.source or self.identify())
            for text in _progress(missing):
                vector = embed_text(text)
                known[text] = vector / np.linalg.norm(vector)
        return np.stack([known[text] for text in texts])

    @property
    def _spec(self) -> ModelSpec:
        """Where the weights are stored."""
        if self.source is not None:
            return ModelSpec(self.source, self.revision)
        assert isinstance(self.model, ModelSpec)
        return self.model

    def _load(self, device: str) -> Callable[[str], FloatArray]:
        if self.source is None:
            model = load_model(self.model, "float32", self.device)
            return lambda text: _average_states(model.network, model.tokenizer, text)
        return _load_encoder(self._spec, device)

    def _run_step(self, step: Callable[[], Result]) -> Result:
        """Run a step that needs the weights; prefix its errors with the key that specifies the source."""
        try:
            return step()
        except UserError as error:
            if self.source is None:
                raise
            raise type(error)(f"demonstrations.encoder: {error}") from error


@lru_cache(maxsize=1)
def _load_encoder(spec: ModelSpec, device: str) -> Callable[[str], FloatArray]:
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
    return lambda text: _average_states(network, tokenizer, text)


def _load_sentence_transformer(folder: Path, device: str) -> Callable[[str], FloatArray]:
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
    return lambda text: np.asarray(encoder.encode(text, show_progress_bar=False), np.float32)


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


def _progress(texts: Sequence[str]) -> Iterable[str]:
    """Yield strings, with a progress bar if stderr is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(texts, "embedding", console=console, disable=not console.is_terminal)


def _average_states(network: Any, tokenizer: Any, text: str) -> FloatArray:
    """Return the mean of the last hidden states over the tokens of a string, [size]."""
    import torch

    from icl_eval.models.switching import evaluating

    body = network.get_encoder() if network.config.is_encoder_decoder else network.base_model
    limit = min(read_max_length(network.config) or _NO_LIMIT, tokenizer.model_max_length)
    ids = tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")["input_ids"]  # [1, tokens]
    with torch.inference_mode(), evaluating(network):
        states = body(input_ids=ids.to(network.device)).last_hidden_state  # [1, tokens, size]
    mean: FloatArray = states[0].float().mean(0).cpu().numpy()
    return mean
