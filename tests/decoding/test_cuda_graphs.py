"""Steps that are recorded as CUDA graphs: that they are the steps as they are, and when they are not recorded."""

import gc
import weakref

import cuda_graph_stand_in
import kernel_stand_ins
import pytest
import torch
from architectures import build
from reference_decoding import NEW_TOKENS, assert_as_generate, make_prompts
from torch._subclasses.fake_tensor import FakeTensorMode

from icl_eval.decoding import preparing, sessions
from icl_eval.decoding.cuda_graphs import StepRecorder
from icl_eval.decoding.memory import round_up
from icl_eval.decoding.networks import new_cache, run
from icl_eval.decoding.preparing import prepare
from icl_eval.decoding.sessions import NewRow, SplitSession
from icl_eval.models.states import Observer

F32, BF16 = torch.float32, torch.bfloat16


@pytest.fixture
def repeats(monkeypatch):
    """Record steps as on a GPU, whose kernels attend; the list of repetitions."""
    kernel_stand_ins.install(monkeypatch)
    return cuda_graph_stand_in.install(monkeypatch)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_law_1_holds_for_recorded_steps(name, repeats):
    model = build(name, dtype=F32)
    prompts = make_prompts(model)
    for batch_size in (None, 3):
        repeats.clear()
        assert_as_generate(model, prompts, batch_size=batch_size)
        assert len(repeats) >= NEW_TOKENS - 3


def test_a_recorded_step_runs_no_python_of_the_network(repeats, monkeypatch):
    model = build("llama", dtype=F32)
    session = open_session(model, StepRecorder())
    passes, last_logits = [], sessions.last_logits
    monkeypatch.setattr(
        sessions, "last_logits", lambda *args, **inputs: passes.append(1) or last_logits(*args, **inputs)
    )
    with prepare(model).accelerated():
        session.join(ROWS)
        for step in range(1, 9):
            passes.clear()
            repeats.clear()
            session.step([step] * 5)
            # The third one as it is, so that libraries are ready, to see whether it waits, recorded, and repeated.
            assert (len(passes), len(repeats)) == {1: (1, 0), 2: (1, 0), 3: (4, 1)}.get(step, (0, 1))


ROWS = [NewRow((), tuple(range(20, 20 + length))) for length in (3, 1, 5, 2, 4)]


def open_session(model, recorder):
    prepared = prepare(model)
    prefix = new_cache(model.network.config)
    run(model.network, [tuple(range(30, 50))], prefix, None)
    assert prepared.capabilities.split
    return SplitSession(model.network, prefix, longest_own=5, max_new_tokens=40, recorder=recorder)


@pytest.mark.parametrize(("dtype", "tolerance"), [(F32, 1e-5), (BF16, 0.02)])
def test_recorded_steps_give_the_logits_of_steps_as_they_are_while_rows_come_and_go(
    dtype, tolerance, repeats, monkeypatch
):
    monkeypatch.setattr(sessions, "_ROOM", 6)
    model = build("llama", dtype=dtype)
    both = [open_session(model, recorder) for recorder in (None, StepRecorder())]
    count = 0

    def compare(call):
        nonlocal count
        plain, recorded = (call(session) for session in both)
        assert plain.shape == recorded.shape
        torch.testing.assert_close(recorded, plain, rtol=0, atol=tolerance * float(plain.abs().max()))
        count = len(plain)

    with prepare(model).accelerated():
        compare(lambda session: session.join(ROWS))
        for step in range(40):
            if step in (9, 17, 26):
                kept = {9: [0, 1, 2, 3], 17: [0, 4, 2], 26: [1]}[step]  # at last, only one that joined later
                for session in both:
                    session.keep(kept)
                count = len(kept)
            if step in (13, 30):
                compare(lambda session, step=step: session.join([NewRow((), (60 + step, 7))]))
                count = len(both[0]._firsts)
            tokens = [(7 * step + 3 * row) % 150 + 10 for row in range(count)]
            compare(lambda session, tokens=tokens: session.step(tokens))
    assert both[1]._end < 5 + 40  # columns were moved, too
    assert len(repeats) > 20


class Idle(cuda_graph_stand_in.Graph):
    """Repeats nothing."""

    def replay(self):
        self.repeats.append(0)


class OfAnotherGpu(cuda_graph_stand_in.Graph):
    """Records nothing, while operators run as they are: its stream is not on the GPU that they run on."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class WithoutMemory(cuda_graph_stand_in.Graph):
    """Finds no memory for what it records."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("graph", [Idle, OfAnotherGpu])
def test_a_step_that_is_not_repeated_as_it_is_is_not_used(graph, repeats, monkeypatch, caplog):
    model = build("llama", dtype=F32)
    prompts = make_prompts(model)
    repeats = cuda_graph_stand_in.install(monkeypatch, graph)
    assert_as_generate(model, prompts, batch_size=3)
    assert caplog.messages == [
        "each step on cpu launches its kernels one by one, since no CUDA graph repeats it: it gives other logits"
    ]
    assert repeats == [0]


@pytest.mark.parametrize("wait", [lambda states: states.sum().item(), lambda states: states + torch.tensor([0.0])])
@pytest.mark.parametrize("is_found_before", [True, False])
def test_a_network_that_waits_for_the_gpu_runs_as_it_is(wait, is_found_before, repeats, monkeypatch, caplog):
    if not is_found_before:  # torch does not find all that waits
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    model = build("llama", dtype=F32)
    forward = type(model.network.model.norm).forward
    monkeypatch.setattr(
        type(model.network.model.norm), "forward", lambda self, states: (wait(states), forward(self, states))[1]
    )
    monkeypatch.setattr("icl_eval.models.states._is_library_code", lambda code: True)
    assert_as_generate(model, make_prompts(model), batch_size=3)
    assert not repeats
    assert caplog.messages == [
        "each step on cpu launches its kernels one by one, since no CUDA graph repeats it: "
        + (
            "called a synchronizing CUDA operation"
            if is_found_before
            else "CUDA error: operation not permitted when stream is capturing"
        )
    ]


def test_if_there_is_no_room_to_record_a_step_as_many_rows_go_on_as_they_are(repeats, monkeypatch, caplog):
    model = build("llama", dtype=F32)
    repeats = cuda_graph_stand_in.install(monkeypatch, WithoutMemory)
    sizes, step = [], SplitSession.step
    monkeypatch.setattr(SplitSession, "step", lambda self, ids: sizes.append(len(ids)) or step(self, ids))
    assert_as_generate(model, make_prompts(model), batch_size=4)
    assert sizes.count(4) > 3
    assert not repeats
    assert not caplog.messages
    assert prepare(model).recorder._works  # steps of fewer rows, or of another session, may have room


def test_only_a_network_on_one_gpu_that_nobody_observes_is_recorded(monkeypatch):
    model = build("llama", dtype=F32)
    assert prepare(model).recorder is None  # on a processor
    with FakeTensorMode():
        network = torch.nn.Sequential(*(torch.nn.BatchNorm1d(2, device="cuda") for _ in range(2)))
        assert preparing._can_record(network)
        hook = network[1].register_forward_pre_hook(Observer(lambda *arguments: None))
        assert not preparing._can_record(network)
        hook.remove()
        assert preparing._can_record(network)
        network[1] = torch.nn.BatchNorm1d(2, device="cpu")
        assert not preparing._can_record(network)


def test_a_session_is_gone_with_its_last_use(repeats):
    model = build("llama", dtype=F32)
    session = open_session(model, StepRecorder())
    with prepare(model).accelerated():
        session.join(ROWS)
        for _ in range(4):
            session.step([7] * 5)
    assert len(repeats) == 2
    left = weakref.ref(session)
    gc.disable()
    try:
        del session
        assert left() is None  # its rows and graphs take memory that the next one needs
    finally:
        gc.enable()


def test_a_network_with_hooks_is_not_recorded(repeats):
    model = build("llama", dtype=F32)
    assert prepare(model).recorder is not None
    model.network.model.norm.register_forward_hook(lambda module, args, out: None)
    assert prepare(model).recorder is None


def test_a_number_of_rows_is_rounded_up_by_at_most_a_quarter():
    assert [round_up(count) for count in (*range(1, 10), 15, 16, 17, 33, 41, 64, 65, 113, 129, 256)] == [
        *(1, 2, 3, 4, 5, 6, 7, 8, 10, 16, 16, 20, 40, 48, 64, 80, 128, 160, 256)
    ]
    assert all(count <= round_up(count) <= 1.25 * count for count in range(1, 1000))
