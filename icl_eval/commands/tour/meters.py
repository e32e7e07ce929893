"""Measure the cost of generation at the network itself."""

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from transformers import PreTrainedModel

from icl_eval.models.states import Observer


@dataclass(frozen=True)
class Reading:
    """The cost of generation up to one new token."""

    seconds: float
    """Seconds since generation began."""
    fed: int
    """Tokens fed to encoder and decoder so far, counting repetitions."""


class Meter:
    """Context manager that counts the tokens fed to a network."""

    def __init__(self, network: PreTrainedModel):
        self._network = network
        self._hooks: list[Any] = []
        self._begin = 0.0
        self.fed = 0
        self.marks: list[Reading] = []

    def mark(self) -> None:
        """Record that a new token was generated."""
        self.marks.append(Reading(time.perf_counter() - self._begin, self.fed))

    def __enter__(self) -> Self:
        modules = [self._network]
        if self._network.config.is_encoder_decoder:
            modules.append(self._network.get_encoder())
        self._hooks = [module.register_forward_pre_hook(Observer(self._count), with_kwargs=True) for module in modules]
        self._begin = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def _count(self, module: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        """Count the tokens fed to a module. For a network with an encoder, count the decoder's tokens."""
        of_decoder = module is self._network and self._network.config.is_encoder_decoder
        ids = inputs["decoder_input_ids" if of_decoder else "input_ids"]
        self.fed += int(ids.numel())
