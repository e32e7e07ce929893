import random
import sys

import pytest
import torch
from architectures import build
from transformers import DynamicCache, MistralConfig

from icl_eval.decoding import sharing
from icl_eval.decoding.kernels import attend, attend_plainly
from icl_eval.decoding.prefixes import Key, PrefixStack, PrefixStore, count_bytes
from icl_eval.decoding.sharing import (
    MIN_PREFIX,
    PromptGroup,
    common_length,
    count_reused,
    plan_groups,
    plan_pieces,
)
from icl_eval.prompts.building import EncodedPrompt, Prompt

LONG = tuple(range(1000, 1400))
SHORT = tuple(range(50, 50 + MIN_PREFIX))


def prompt(name, decoder_ids, encoder_ids=()):
    return EncodedPrompt(Prompt(name, None, None), tuple(encoder_ids), tuple(decoder_ids))


def plan(*prompts):
    groups = plan_groups(prompts)
    return [(len(group.prefix), sorted(p.prompt.example_id for p in group.prompts)) for group in groups]


def test_the_common_beginning_is_shared_and_leaves_every_prompt_a_token():
    assert plan(prompt("a", [*LONG, 1]), prompt("b", [*LONG, 2])) == [(400, ["a", "b"])]
    assert plan(prompt("a", LONG), prompt("b", [*LONG, 2])) == [(399, ["a", "b"])]
    assert plan(prompt("a", LONG), prompt("b", LONG)) == [(399, ["a", "b"])]


def test_short_beginnings_and_single_prompts_share_nothing():
    assert plan(prompt("a", [*SHORT[1:], 1]), prompt("b", [*SHORT[1:], 2])) == [(0, ["a", "b"])]
    assert plan(prompt("a", LONG)) == [(0, ["a"])]
    assert plan(prompt("a", [1]), prompt("b", [2])) == [(0, ["a", "b"])]


def test_prompts_leave_for_a_group_of_their_own_when_that_saves_enough():
    family = [prompt(f"x{n}", [*SHORT, *LONG, n]) for n in range(4)]
    others = [prompt(f"y{n}", [*SHORT, n, n]) for n in range(2)]
    assert plan(*family, *others) == [(416, ["x0", "x1", "x2", "x3"]), (16, ["y0", "y1"])]
    assert plan(*family, others[0]) == [(416, ["x0", "x1", "x2", "x3"]), (16, ["y0"])]  # one begins as they do, too
    assert plan(*family[:3], *others) == [(16, ["x0", "x1", "x2", "y0", "y1"])]  # two of them would save 800 tokens


def test_passages_that_begin_with_the_same_words_have_groups_of_their_own():
    passages = [[*SHORT, 7, 8, *(100 * number + place for place in range(90))] for number in range(1, 4)]
    asked = [prompt(f"{number}{n:02}", [*passage, n, n]) for number, passage in enumerate(passages) for n in range(20)]
    asked += [prompt("other", [*SHORT, 9, 9]), prompt("short", [*SHORT, 7, 8, 5])]
    found = plan(*asked)
    assert sorted((length, len(names)) for length, names in found) == [(16, 2), (108, 20), (108, 20), (108, 20)]
    assert found[-1] == (16, ["other", "short"])


def test_a_prompt_that_is_a_beginning_of_the_others_does_not_end_their_sharing():
    family = [prompt(f"x{n}", [*SHORT, *LONG, n, n]) for n in range(4)]
    for length in (1, 10):
        assert plan(*family, prompt("y", [*SHORT, *LONG][:length])) == [(416, ["x0", "x1", "x2", "x3"]), (0, ["y"])]
    for length in (300, 416):  # what they would save by leaving it is less than a group of their own costs
        beginning = prompt("y", [*SHORT, *LONG][:length])
        assert plan(*family, beginning) == [(length - 1, ["x0", "x1", "x2", "x3", "y"])]


@pytest.mark.slow
def test_sharing_can_be_nested_deeper_than_python_calls():
    family = [prompt(f"x{n:04}", [*[1] * n, *SHORT]) for n in range(2500)]
    groups = plan_groups(family)
    assert len(groups) > sys.getrecursionlimit()
    assert sum(len(group.prompts) for group in groups) == 2500


def test_the_plan_does_not_depend_on_the_order_of_the_prompts():
    prompts = [prompt(f"x{n}", [*SHORT, *LONG[: 100 * (n % 3)], n]) for n in range(30)]
    assert plan_groups(prompts) == plan_groups(prompts[::-1])


def test_encoders_share_only_with_equal_inputs():
    groups = plan_groups([prompt("a", [5, 6], [1, 2]), prompt("b", [5, 7], [1, 2]), prompt("c", [5, 6], [1, 3])])
    assert [(g.prefix, g.shares_encoder, len(g.prompts)) for g in groups] == [((5,), True, 2), ((), False, 1)]


def test_what_prompts_begin_with_leaves_each_of_them_a_token():
    group = PromptGroup((prompt("a", (5, 6, 7)), prompt("b", (5, 6, 8))), (5, 6), shares_encoder=False)
    assert group.begin((0,)) == (0, 5, 6)
    assert group.encoder_ids == ()
    encoded = PromptGroup((prompt("a", (5,), (9,)), prompt("b", (), (9,))), (), shares_encoder=True)
    assert encoded.begin((0,)) == ()  # the start token is all that the second one has
    assert encoded.begin((0,), forced_ids=(4,)) == (0,)
    assert encoded.encoder_ids == (9,)
    assert PromptGroup((prompt("a", (5,)),), (), shares_encoder=False).begin((0,)) == ()


def test_reused_tokens_are_what_does_not_have_to_be_computed():
    prompts = [prompt("a", [*SHORT, *LONG, 1]), *(prompt(f"b{n}", [*SHORT, *LONG, 2, n]) for n in range(3))]
    prompts += [prompt("c", [*SHORT, 7, 8]), prompt("d", [*SHORT, 9])]
    reused = {"a": 0, "b0": 416, "b1": 416, "b2": 416, "c": 16, "d": 16}
    assert count_reused(plan_groups(prompts), longest_whole=None) == reused
    assert count_reused(plan_groups(prompts), longest_whole=416) == reused
    assert count_reused(plan_groups(prompts), longest_whole=None, keeps=False) == reused | {"c": 0}
    windowed = count_reused(plan_groups(prompts), longest_whole=415)
    assert windowed == reused | {"c": 0}, "the window no longer holds the beginning of a longer prefix"


def test_reused_tokens_of_random_groups_are_those_of_the_longest_beginning_that_a_cache_gives():
    draw = random.Random(1)
    for _ in range(100):
        prefixes = [tuple(draw.choices((1, 2), k=draw.randrange(9))) for _ in range(12)]
        groups = [
            PromptGroup((prompt(str(number), [*prefix, 5]),), prefix, False) for number, prefix in enumerate(prefixes)
        ]
        for limit in (None, 0, 3, 6):
            expected = {}
            for number, prefix in enumerate(prefixes):
                common = [common_length(prefix, other) for other in prefixes[:number]]
                usable = [
                    length
                    for length, other in zip(common, prefixes, strict=False)
                    if length == len(other) or limit is None or len(other) <= limit
                ]
                expected[str(number)] = max(usable, default=0)
            assert count_reused(groups, limit) == expected


def test_a_prefix_is_compared_with_two_others_however_many_there_are(monkeypatch):
    compared = []
    monkeypatch.setattr(sharing, "common_length", lambda *pair: compared.append(1) or common_length(*pair))
    groups = [PromptGroup((prompt(str(number), [number, 1]),), (number,), False) for number in range(100)]
    assert set(count_reused(groups, None).values()) == {0}
    assert len(compared) == 100 - 1  # sorted prefixes come after all others


def test_a_shared_encoder_input_counts_as_reused():
    prompts = [prompt("a", [5, 6], [1, 2, 3]), prompt("b", [5, 7], [1, 2, 3]), prompt("c", [5], [9])]
    assert count_reused(plan_groups(prompts), longest_whole=0) == {"a": 0, "b": 4, "c": 0}


def test_between_groups_with_an_encoder_only_whole_prefixes_count_as_reused():
    family = [prompt(f"x{n}", [*SHORT, *LONG, n], [1, 2, 3]) for n in range(4)]
    other = [prompt(f"y{n}", [*SHORT, 9 + n], [1, 2, 3]) for n in range(2)]
    groups = plan_groups([*family, *other])
    assert [len(group.prefix) for group in groups] == [416, 16]
    assert count_reused(groups, longest_whole=0) == {"x0": 0, "x1": 419, "x2": 419, "x3": 419, "y0": 0, "y1": 19}
    assert count_reused(groups[::-1], longest_whole=0) == {"y0": 0, "y1": 19, "x0": 16, "x1": 419, "x2": 419, "x3": 419}


@pytest.mark.parametrize(
    ("window", "fed"),
    [
        (None, [(1, 2, 3, 4), (5,), (9,), (7,), ()]),  # a longer one holds its own beginning
        (5, [(1, 2, 3, 4), (5,), (9,), (7,), ()]),
        (4, [(1, 2, 3, 4), (5,), (1, 2, 9), (7,), (3,)]),  # the window has lost the first of four
    ],
)
def test_a_prefix_is_completed_from_the_longest_one_that_is_kept(window, fed):
    store, computed = PrefixStore(), []

    def extend(start, ids):
        computed.append(ids)
        cache = start or DynamicCache(config=window and MistralConfig(num_hidden_layers=1, sliding_window=window))
        states = torch.tensor(ids, dtype=torch.float32)[None, None, :, None]
        cache.update(states, states, 0)
        return cache

    for ids in ((1, 2, 3, 4), (1, 2, 3, 4, 5), (1, 2, 9), (1, 2, 3, 4), (7,), (1, 2, 3)):
        cache = store.get(Key((), ids), extend)
        assert cache.layers[0].keys.flatten().tolist() == list(ids)[1 - window if window else None :]
        assert cache.get_seq_length() == len(ids)
    assert computed == fed
    store.get(Key((8,), (1, 2, 3, 4)), extend)  # with an encoder's input, all states differ
    assert computed[len(fed) :] == [(1, 2, 3, 4)]


def test_the_least_recently_used_prefixes_are_let_go():
    store, computed = PrefixStore(), []

    def extend(start, ids):
        computed.append(ids)
        cache = DynamicCache()
        cache.update(torch.zeros(1, 1, 100, 1), torch.zeros(1, 1, 100, 1), 0)
        assert count_bytes(cache) == 800
        return cache

    for first in (1, 2, 1, 3, 1, 2):
        store.evict(store.get(Key((), (first,)), extend), 1600, lambda: 0)
    assert computed == [(1,), (2,), (3,), (2,)]

    store, computed = PrefixStore(), []
    for ids in ((1,), (2,), (1, 5), (1,), (2,)):  # what another one begins from is used, too
        store.evict(store.get(Key((), ids), extend), 1600, lambda: 0)
    assert computed == [(1,), (2,), (5,), (2,)]


def test_a_window_counts_as_the_whole_that_it_keeps_in_memory():
    cache = DynamicCache()
    cache.update(torch.zeros(1, 1, 100, 1), torch.zeros(1, 1, 100, 1), 0)
    cache.layers[0].keys = cache.layers[0].keys[:, :, -10:]
    assert count_bytes(cache) == 800


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
def test_the_kernel_agrees_with_its_formula(dtype, masked):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, length, 16, dtype=dtype) for length in (5, 7, 7))
    mask = None
    if masked:
        hidden = torch.rand(2, 1, 5, 7) < 0.5
        hidden[..., 0] = False
        mask = torch.zeros(2, 1, 5, 7, dtype=dtype).masked_fill(hidden, float("-inf"))
    for found, expected in zip(
        attend(query, key, value, mask, 0.3), attend_plainly(query, key, value, mask, 0.3), strict=True
    ):
        torch.testing.assert_close(found, expected.to(found.dtype), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2), (torch.float64, 1e-12)]
)
def test_the_formula_neither_overflows_nor_rounds_before_it_is_done(dtype, tolerance):
    torch.manual_seed(0)
    query, key = (40 + torch.randn(1, 1, length, 64).to(dtype) for length in (2, 5))
    value = torch.randn(1, 1, 5, 64).to(dtype)
    expected, log_denominator = attend_plainly(query.double(), key.double(), value.double(), None, None)
    torch.testing.assert_close(expected, (query.double() @ key.double().mT / 8).softmax(-1) @ value.double())
    found, found_denominator = attend_plainly(query, key, value, None, None)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(found_denominator.double(), log_denominator, rtol=1e-5, atol=0)


def test_later_prompts_begin_with_what_earlier_ones_left(monkeypatch):
    from icl_eval.decoding import Completion, StreamDecoder, opening

    model, computed = build("llama"), []
    run = opening.run
    monkeypatch.setattr(opening, "run", lambda n, ids, *rest: computed.append(len(ids[0])) or run(n, ids, *rest))
    shots = [tuple(range(10 + n, 40 + n)) for n in range(4)]
    results = []
    for k in (1, 2, 4, 2):
        prefix = sum(shots[:k], ())
        prompts = [prompt(f"p{n}", [*prefix, 100 + n]) for n in range(5)]
        events = StreamDecoder(model, 3).stream(prompts)
        results.append({e.example_id: e for e in events if isinstance(e, Completion)})
    assert computed == [30, 30, 60]
    assert results[1] == results[3], "what is left over changes no completion"


def test_prefixes_are_computed_in_pieces_that_others_can_continue_from():
    prefixes = sorted(
        [(*LONG[:100], 1), (*LONG[:100], 2), (*LONG[:300], 3), LONG[:300], (*LONG[:30], 4), (7,) * 20, ()]
    )
    pieces = dict(zip(prefixes, plan_pieces(prefixes), strict=True))
    assert pieces == {
        (): (0,),
        (7,) * 20: (20,),
        (*LONG[:30], 4): (30, 31),
        (*LONG[:100], 1): (30, 100, 101),
        (*LONG[:100], 2): (30, 100, 101),
        LONG[:300]: (30, 100, 300),
        (*LONG[:300], 3): (30, 100, 300, 301),
    }
    close = [LONG[:100], (*LONG[:31], 2000), (*LONG[: MIN_PREFIX - 1], 2000)]  # the last has too little in common
    assert plan_pieces(close) == [(31, 100), (31, 32), (MIN_PREFIX,)]


def test_a_stack_of_prefixes_computes_only_what_the_last_prefix_did_not_have():
    network = build("llama").network
    computed = []

    def extend(start, ids):
        cache = DynamicCache(config=network.config) if start is None else start
        network(input_ids=torch.tensor([ids]), past_key_values=cache)
        computed.append(ids)
        return cache

    stack, begun = PrefixStack(), tuple(range(10, 40))
    first = stack.get(Key((), (*begun, 50)), (30, 31), extend)
    second = stack.get(Key((), (*begun, 51, 52)), (30, 32), extend)
    assert computed == [begun, (50,), (51, 52)]
    assert (first.get_seq_length(), second.get_seq_length()) == (31, 32)
    alone = PrefixStack().get(Key((), (*begun, 51, 52)), (30, 32), extend)
    for layer, other in zip(second.layers, alone.layers, strict=True):
        assert torch.equal(layer.keys, other.keys)
    computed.clear()
    stack.get(Key((9,), (*begun, 51, 52)), (30, 32), extend)  # another encoder input
    assert computed == [begun, (51, 52)]
    nested = tuple(range(1, 9))
    computed.clear()
    for end in (8, 1):  # more beginnings than are kept: the shortest ones are computed again, in the same pieces
        stack.get(Key((), nested[:end]), tuple(range(1, end + 1)), extend)
    assert computed == [*((each,) for each in nested), (1,)]
