"""A stand-in for CUDA graphs, so that the code that records and repeats them runs on a machine without a GPU.

While a graph is recorded, every operator is written down with its tensors; to repeat it, the same operators run on the
same tensors, and each result is copied to where it was when it was recorded. As on a GPU, no Python of the network
runs then, and recording fails if an operator waits for the device, or reads a copy of Python's numbers. What a GPU
does, only a GPU can say (`make gpu-check`).
"""

from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from icl_eval.decoding import preparing

WAITING = ("_local_scalar_dense", "item", "nonzero", "equal", "is_nonzero")


class Call(NamedTuple):
    """An operator that was recorded."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any


class Watch(TorchDispatchMode):
    """Stands for torch's debug mode in which operators that wait for the GPU are errors."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if waits(func, args):
            raise RuntimeError("called a synchronizing CUDA operation")
        return func(*args, **(kwargs or {}))

    def switch(self, mode):
        if mode == "error":
            self.__enter__()
        else:
            self.__exit__(None, None, None)


class Graph(TorchDispatchMode):
    """Stands for `torch.cuda.CUDAGraph`; a dispatch mode, so that it sees every operator while it is entered."""

    repeats: ClassVar[list[int]] = []
    """How many operators each repetition of any graph ran."""

    def __init__(self):
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if waits(func, args):
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand some advice")
        out = func(*args, **(kwargs or {}))
        self.calls.append(Call(func, args, kwargs or {}, out))
        return out

    def drop_results(self):
        """Drop what was computed: a GPU computes nothing while it records."""
        for call in self.calls:
            read = storages_of((call.args, call.kwargs))
            for each in tensors_in(call.out):
                if each.untyped_storage()._cdata not in read:
                    each.zero_()

    def replay(self):
        with torch.inference_mode():
            for call in self.calls:
                read = storages_of((call.args, call.kwargs))
                results = tensors_in(call.func(*call.args, **call.kwargs))
                for kept, new in zip(tensors_in(call.out), results, strict=True):
                    if kept.untyped_storage()._cdata not in read:  # else it was changed in place, or is a view
                        kept.copy_(new)
        self.repeats.append(len(self.calls))


def waits(func, args):
    """Whether an operator waits for a GPU, or copies Python's numbers to it without pinned memory."""
    name = func.overloadpacket.__name__
    # An index of the last column is what a processor gets in place of a slice.
    return name in WAITING or (name == "lift_fresh" and args[0].tolist() != [-1])


def tensors_in(values):
    return [each for each in tree_flatten(values)[0] if isinstance(each, torch.Tensor)]


def storages_of(values):
    return {each.untyped_storage()._cdata for each in tensors_in(values)}


@contextmanager
def capture(graph, pool=None, stream=None, capture_error_mode="global"):
    assert pool is not None
    assert stream == ("stream", torch.device("cpu"))  # torch's own may be on another GPU
    with graph:
        yield
    graph.drop_results()


def install(monkeypatch: pytest.MonkeyPatch, graph: type[Graph] = Graph) -> list[int]:
    """Record steps as on a GPU; return the list of the numbers of operators that are repeated from now on."""
    graph.repeats = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: ("stream", device))
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", Watch().switch)
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda place: nullcontext())
    monkeypatch.setattr(preparing, "_can_record", lambda network: True)
    monkeypatch.setattr(preparing, "product_switches", lambda *arguments: [])  # those of a processor
    return graph.repeats
