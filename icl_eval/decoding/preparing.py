"""Set up a network for one call, and cache what the next call can reuse.

The model's capabilities, the packed weights of its linear layers and the caches of shared prefixes stay valid as long
as the network is in the same state (see `models.states`). If the state is unknown, for example because the caller has
registered a hook, every call starts from scratch.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from transformers import Cache, EncoderDecoderCache, PreTrainedModel

from icl_eval.decoding.capabilities import Capabilities, try_out
from icl_eval.decoding.cuda_graphs import StepRecorder
from icl_eval.decoding.linears import Layouts, product_switches
from icl_eval.decoding.networks import new_cache
from icl_eval.decoding.prefixes import PrefixStore, longest_whole
from icl_eval.decoding.split_attention import attention_switches
from icl_eval.models.loading import LanguageModel
from icl_eval.models.quiet import quiet_transformers
from icl_eval.models.states import State, is_observed, read_state
from icl_eval.models.switching import Switch, evaluation_switches, locked, switched


@dataclass
class _NetworkCache:
    """What the next call for a network can reuse."""

    state: State | None = None
    """The state of the network for which the rest is valid."""
    capabilities: Capabilities | None = None
    prefixes: PrefixStore = field(default_factory=PrefixStore)
    layouts: Layouts = field(default_factory=Layouts)
    recorder: StepRecorder = field(default_factory=StepRecorder)


_CACHES: "WeakKeyDictionary[PreTrainedModel, _NetworkCache]" = WeakKeyDictionary()


@dataclass(frozen=True)
class PreparedModel:
    """A model that is ready to run; its network is changed only inside `accelerated`."""

    model: LanguageModel
    capabilities: Capabilities
    prefixes: PrefixStore
    """Caches that are valid for the network's current state."""
    recorder: StepRecorder | None
    """Records steps as CUDA graphs; None if no step of the network can be recorded."""
    _switches: tuple[Switch, ...]
    _is_plain: bool

    def accelerated(self) -> AbstractContextManager[None]:
        """Run a block with the network in evaluation mode and all fast paths enabled."""
        return switched(self.model.network, self._switches)

    def can_pool(self, prefix: Cache | None, aligned: bool = False) -> bool:
        """Return whether padded rows can come after a prefix; after an encoder, they need what it holds of its states.

        Args:
            prefix: The cache of the prefix that all rows share; None if there is none.
            aligned: Whether all rows of a pass come after equally many tokens.
        """
        pools = self.capabilities.pools_aligned if aligned else self.capabilities.pools
        return pools and (prefix is not None or self.model.architecture == "decoder-only")

    def can_pool_apart(self, longest: int) -> bool:
        """Return whether padded rows can come after prompts of up to `longest` tokens with different encoder inputs."""
        cache = new_cache(self.model.network.config)
        if not self.capabilities.pools_aligned or not isinstance(cache, EncoderDecoderCache):
            return False
        limit = longest_whole(cache.self_attention_cache)
        return limit is None or longest <= limit

    def renew(self) -> "PreparedModel":
        """Prepare the model again, in case the caller has changed it; with hooks, nothing is reused anyway."""
        return prepare(self.model) if self._is_plain else self


def prepare(model: LanguageModel) -> PreparedModel:
    """Prepare a model for one call, during which the caller does not change its network.

    Raises:
        ConfigError: If the network fails, or its logits with a key/value cache differ from those without.
        IclEvalError: If its logits are not finite.
    """
    with locked(model.network):
        network, cache = model.network, _CACHES.setdefault(model.network, _NetworkCache())
        state = read_state(network)
        _invalidate(cache, state)
        switches = evaluation_switches(network)
        switches += product_switches(network, cache.layouts, state.contents if state else None)
        with quiet_transformers(reports=False):
            split = attention_switches(network)
            if cache.capabilities is None:
                with switched(network, switches):
                    cache.capabilities = try_out(model, split)
        if cache.capabilities.split:
            switches += split
        recorder = cache.recorder if state is not None and _can_record(network) else None
        return PreparedModel(model, cache.capabilities, cache.prefixes, recorder, tuple(switches), state is not None)


def forget(model: LanguageModel) -> None:
    """Drop everything that is kept of a model, so that the next call starts as the first one did."""
    _CACHES.pop(model.network, None)


def capabilities_of(model: LanguageModel) -> Capabilities:
    """Return what a model supports; the first call for a network in its current state runs the trial.

    Raises:
        ConfigError: If the network fails, or its logits with a key/value cache differ from those without.
        IclEvalError: If its logits are not finite.
    """
    return prepare(model).capabilities


def _can_record(network: PreTrainedModel) -> bool:
    """Return whether all of a network is on one GPU of CUDA, and no observer would miss passes that are repeated."""
    devices = {tensor.device for tensor in (*network.parameters(), *network.buffers())}
    return {device.type for device in devices} == {"cuda"} and len(devices) == 1 and not is_observed(network)


def _invalidate(cache: _NetworkCache, state: State | None) -> None:
    if state is None or state != cache.state:
        cache.prefixes = PrefixStore()
        cache.capabilities = None  # with other weights, rounding may no longer explain a difference
    if state is None or cache.state is None or state.structure != cache.state.structure:
        cache.recorder = StepRecorder()
    cache.state = state
