"""Preparing: a network for one call of ours, and what is kept of it until the next.

A model is tried once, the weights of its linear layers are laid out once, and the caches of shared prefixes are kept,
for as long as the network is in the state that they were made in (see `states`). Where that cannot be told, as with a
hook of the caller's, everything is made anew in each call.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from transformers import PreTrainedModel

from icl_eval.decoding.capabilities import Capabilities, try_out
from icl_eval.decoding.linears import Layouts, product_switches
from icl_eval.decoding.prefixes import PrefixStore
from icl_eval.decoding.split_attention import attention_switches
from icl_eval.models.loading import LanguageModel
from icl_eval.models.quiet import quiet_transformers
from icl_eval.models.states import State, read_state
from icl_eval.models.switching import Switch, evaluation_switches, switched


@dataclass
class _Kept:
    """What is kept of a network."""

    state: State | None = None
    """The state in which the rest was made."""
    capabilities: Capabilities | None = None
    prefixes: PrefixStore = field(default_factory=PrefixStore)
    layouts: Layouts = field(default_factory=Layouts)


_KEPT: "WeakKeyDictionary[PreTrainedModel, _Kept]" = WeakKeyDictionary()


@dataclass(frozen=True)
class PreparedModel:
    """A model, ready to be run; its network is touched inside `accelerated` alone."""

    model: LanguageModel
    capabilities: Capabilities
    prefixes: PrefixStore
    """Caches that were computed in the network's present state."""
    _switches: tuple[Switch, ...]
    _is_plain: bool

    def accelerated(self) -> AbstractContextManager[None]:
        """Let the network run as fast as it can for the time of a block, in evaluation mode."""
        return switched(self.model.network, self._switches)

    def renew(self) -> "PreparedModel":
        """Return the model prepared for what may have become of it; for code of the caller's, that is no question."""
        return prepare(self.model) if self._is_plain else self


def prepare(model: LanguageModel) -> PreparedModel:
    """Prepare a model for a call, in which its network is not changed.

    Raises:
        ConfigError: When the network fails, or gives other logits with a key/value cache than without one.
        IclEvalError: When its logits are not numbers.
    """
    network, kept = model.network, _KEPT.setdefault(model.network, _Kept())
    state = read_state(network)
    _forget_what_changed(kept, state)
    switches = evaluation_switches(network)
    switches += product_switches(network, kept.layouts, state.contents if state else None)
    with quiet_transformers(reports=False):
        split = attention_switches(network)
        if kept.capabilities is None:
            with switched(network, switches):
                kept.capabilities = try_out(model, split)
    if kept.capabilities.split:
        switches += split
    return PreparedModel(model, kept.capabilities, kept.prefixes, tuple(switches), state is not None)


def capabilities_of(model: LanguageModel) -> Capabilities:
    """Return what a model can do; the first call for a network in its present form tries it.

    Raises:
        ConfigError: When the network fails, or gives other logits with a key/value cache than without one.
        IclEvalError: When its logits are not numbers.
    """
    return prepare(model).capabilities


def _forget_what_changed(kept: _Kept, state: State | None) -> None:
    if state is None or state != kept.state:
        kept.prefixes = PrefixStore()
    if state is None or kept.state is None or state.structure != kept.state.structure:
        kept.capabilities = None
    kept.state = state
