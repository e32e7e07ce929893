"""Rows of any length with copies of their prefix, for networks that cannot attend to a prefix in place."""

import pytest
import torch
from architectures import VOCABULARY, build
from reference_decoding import assert_as_generate

from icl_eval.decoding import StreamDecoder
from icl_eval.decoding import stream as stream_module
from icl_eval.decoding.networks import encode
from icl_eval.decoding.opening import extend
from icl_eval.decoding.padded_sessions import PaddedSession
from icl_eval.decoding.sessions import NewRow, SplitSession, UniformSession
from icl_eval.prompts.building import EncodedPrompt, Prompt

PREFIX = tuple(range(30, 50))
OWN = [(60, 61, 62, 63, 64, 65, 66, 67, 68), (70,), (80, 81, 82), (80, 81, 82), (90, 91)]
NETWORKS = ["bloom", "mpt", "gptj", "gemma2", "mistral_sliding", "t5", "t5gemma"]


def begin(model, prefix_ids):
    """Return the cache of a prefix, and the states of an encoder's input."""
    encoded = None
    if model.architecture == "encoder-decoder":
        encoded = encode(model.network, [tuple(range(20, 29))])[0]
    return (extend(model.network, None, prefix_ids, encoded) if prefix_ids else None), encoded


def assert_as_alone(session, alone, rows, ids):
    """Append tokens to rows of a session, and to the same rows, each in a session of its own."""
    logits = session.step(ids)
    for row, other, token_id in zip(logits, rows, ids, strict=True):
        assert torch.allclose(row, alone[other].step([token_id])[0], atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("prefix_ids", [PREFIX, PREFIX[:1]])
def test_rows_of_any_length_get_the_logits_that_they_get_alone(name, prefix_ids):
    model = build(name)
    prefix, encoded = begin(model, prefix_ids)
    alone = [UniformSession(model.network, prefix, encoded) for _ in OWN]
    session = PaddedSession(model.network, prefix, encoded)
    joined = session.join([NewRow((), own) for own in OWN])
    for row, other, own in zip(joined, alone, OWN, strict=True):
        assert torch.allclose(row, other.join([NewRow((), own)])[0], atol=1e-6)
    assert_as_alone(session, alone, range(5), [100, 101, 102, 103, 104])
    session.keep([3, 1, 4])
    assert_as_alone(session, alone, [3, 1, 4], [110, 111, 112])
    session.keep([1])
    assert_as_alone(session, alone, [1], [120])


@pytest.mark.parametrize("own", [[(60, 61, 62), (70,)], [(60,), (70,)]])
def test_rows_share_no_prefix(own):
    model = build("bloom")
    joined = PaddedSession(model.network, None, None).join([NewRow((), ids) for ids in own])
    for row, ids in zip(joined, own, strict=True):
        assert torch.allclose(row, model.network(torch.tensor([ids])).logits[0, -1], atol=1e-6)


@pytest.mark.parametrize("name", [*NETWORKS, "bart", "llama"])
def test_rows_of_different_lengths_are_decoded_in_one_session_where_they_can_be(name, monkeypatch):
    model, sessions = build(name), []
    open_session = stream_module.open_session
    monkeypatch.setattr(
        stream_module, "open_session", lambda *given: sessions.append(open_session(*given)) or sessions[-1]
    )
    encoder_ids = (20, 21, 22) if model.architecture == "encoder-decoder" else ()
    prompts = [
        EncodedPrompt(Prompt(str(length), None, None), encoder_ids, PREFIX + tuple(range(60, 60 + length)))
        for length in (1, 4, 19)
    ]
    assert_as_generate(model, prompts)
    kinds = [type(opened.session) for opened in sessions]
    # The longest one of BART has 17 tokens more than any other.
    expected = {"bart": [UniformSession] * 2, "llama": [SplitSession]}
    assert kinds == expected.get(name, [PaddedSession])


def test_rows_of_one_length_are_not_padded_and_rows_of_half_the_longest_length_wait(monkeypatch):
    model, kinds, joins = build("bloom"), [], []
    open_session = stream_module.open_session

    def listen(*given):
        opened = open_session(*given)
        kinds.append(type(opened.session))
        join = opened.session.join
        opened.session.join = lambda rows: joins.append([len(row.own_ids) for row in rows]) or join(rows)
        return opened

    monkeypatch.setattr(stream_module, "open_session", listen)
    prompts = [
        EncodedPrompt(Prompt(f"{first}", None, None), (), tuple(range(first, first + length)))
        for first, length in ((50, 12), (70, 6), (80, 5), (90, 5))
    ]
    list(StreamDecoder(model, 3).stream(prompts))
    assert (kinds, joins) == ([PaddedSession, UniformSession], [[12, 6], [5, 5]])


def test_equal_rows_are_computed_once():
    model, widths = build("bloom"), []
    model.network.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    rows = [NewRow((), (60, 61, 62)), NewRow((), (70,)), NewRow((), (60, 61, 62))]
    joined = PaddedSession(model.network, None, None).join(rows)
    assert widths == [(1, 2), (2, 1)]
    assert joined.shape == (3, VOCABULARY)
    assert torch.equal(joined[0], joined[2])
