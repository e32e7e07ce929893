from dataclasses import replace

import pytest
import torch
from architectures import EVERY_NETWORK, VOCABULARY, build
from reference_decoding import make_questions, plain_scores

from icl_eval.decoding import LikelihoodScorer, StreamDecoder, branches, capabilities, opening
from icl_eval.decoding.pooled_branches import PooledBranches
from icl_eval.decoding.preparing import prepare
from icl_eval.decoding.prompt_branches import PromptBranches
from icl_eval.decoding.split_attention import split_attention_forward
from icl_eval.decoding.split_caches import SplitKeys
from icl_eval.decoding.tree_branches import TreeBranches, pack
from icl_eval.decoding.trees import ROOT, build_tree, count_inner
from icl_eval.errors import ConfigError, IclEvalError
from icl_eval.prompts.building import EncodedPrompt, Prompt
from icl_eval.prompts.tokenization import Continuations


def assert_as_plain(model, asked, tolerance, forced=(), **options):
    expected = [plain_scores(model, each, forced) for each in asked]
    found = dict(LikelihoodScorer(model, **options).score(asked))
    assert sorted(found) == list(range(len(asked)))
    for number, texts in enumerate(expected):
        for text, values in enumerate(texts):
            ours, place = found[number][text], (number, text)
            assert ours.logprobs == pytest.approx(values.logprobs, abs=tolerance, rel=tolerance / 10), place
            assert ours.is_greedy is values.is_greedy, place


IN_FLOAT32 = ("bloom", "gemma2", "gemma2_capped", "gptj", "llama4", "mpt", "nllb_moe", "switch_transformers", "t5gemma")
"""Networks whose attention or router the library computes in float32, whatever their dtype."""


@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_likelihoods_are_those_of_a_plain_forward_pass_on_every_architecture(name):
    model = build(name)
    asked = make_questions(model)
    for batch_size in (None, 3):
        assert_as_plain(model, asked, 1e-6 if name in IN_FLOAT32 else 1e-9, batch_size=batch_size)


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral_sliding", "bloom", "t5", "bart"])
def test_likelihoods_in_float32_are_as_exact_as_float32(name):
    model = build(name, seed=1, dtype=torch.float32)
    assert_as_plain(model, make_questions(model, seed=2), 2e-4)


@pytest.mark.parametrize(
    "name", ["llama", "mistral_sliding", "t5", "bart"]
)  # trees, pools with a window, trees after each prompt
def test_a_continuation_is_greedy_if_every_token_is_the_most_probable(name):
    model = build(name)
    [asked, *_] = make_questions(model)
    greedy = ()
    for _ in range(3):  # of all continuations by one more token, one is greedy
        longer = tuple((*greedy, token_id) for token_id in range(VOCABULARY))
        ((_, scores),) = LikelihoodScorer(model).score([replace(asked, texts=longer)])
        [greedy] = [text for text, scored in zip(longer, scores, strict=True) if scored.is_greedy]
        best = max(range(VOCABULARY), key=lambda token_id: scores[token_id].logprobs[-1])
        assert greedy[-1] == best
    ((_, (last_differs, first_differs)),) = LikelihoodScorer(model).score(
        [replace(asked, texts=((*greedy[:-1], greedy[-1] ^ 1), (greedy[0] ^ 1, *greedy[1:])))]
    )
    assert not last_differs.is_greedy
    assert not first_differs.is_greedy


@pytest.mark.parametrize("name", ["bloom", "mistral_sliding", "bart", "t5"])
def test_rows_that_cannot_be_padded_after_each_other_copy_their_prompts(name, monkeypatch):
    monkeypatch.setattr(capabilities, "_try_pools", lambda *_: (False, False))
    for batch_size in (None, 3):
        assert_as_plain(build(name), make_questions(build(name)), 1e-6, batch_size=batch_size)


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_what_does_not_fit_in_one_pass_is_cut(name, monkeypatch):
    model = build(name)
    passes = []
    for kind in (TreeBranches, PromptBranches):
        run = kind.run
        monkeypatch.setattr(kind, "run", lambda self, rows, run=run: passes.append(len(rows)) or run(self, rows))
    monkeypatch.setattr(branches, "_LOGITS_BYTES", 8 * VOCABULARY * 8)  # the logits of eight tokens
    assert_as_plain(model, make_questions(model), 1e-9)
    assert 1 <= max(passes) < 5


@pytest.mark.parametrize("name", ["t5", "t5gemma"])  # the second one with a window of eight tokens
@pytest.mark.parametrize("length", [0, 5, 20])
def test_prompts_of_one_length_with_different_inputs_of_an_encoder_run_together(name, length):
    asked = [
        Continuations(
            EncodedPrompt(Prompt("", None, None), tuple(range(20, 23 + number)), tuple(range(30, 30 + length))),
            ((50 + number, 61, 62), (50 + number, 61, 63, 64), (70,)),
        )
        for number in range(4)
    ]
    assert_as_plain(build(name), asked, 1e-6)


@pytest.mark.parametrize("name", ["llama", "t5", "bart"])
def test_when_memory_runs_out_a_batch_is_run_in_halves(name, monkeypatch):
    model = build(name)
    kinds = (TreeBranches, PooledBranches, PromptBranches)
    for kind in kinds:
        monkeypatch.setattr(kind, "run", out_of_memory_above(2, kind.run))
    assert_as_plain(model, make_questions(model), 1e-9)

    for kind in kinds:
        monkeypatch.setattr(kind, "run", out_of_memory_above(0, kind.run))
    with pytest.raises(IclEvalError, match=r"^not enough memory for one prompt on cpu$"):
        list(LikelihoodScorer(model).score(make_questions(model)))


@pytest.mark.parametrize(("name", "place"), [("llama", "run"), ("llama", "extend"), ("t5", "run"), ("t5", "encode")])
def test_prefixes_of_earlier_calls_make_room_for_likelihoods(name, place, monkeypatch):
    model = build(name)
    asked = make_questions(model)[:7]  # those that begin alike
    expected = dict(LikelihoodScorer(model).score(asked))
    prompts = [
        EncodedPrompt(Prompt(str(number), None, None), each.context.encoder, (*range(60, 90), number))
        for number, each in enumerate(asked)
    ]
    store = prepare(model).prefixes

    def run_out_beside_prefixes(run):
        def run_where_there_is_room(*given):
            if store.num_bytes:
                raise torch.OutOfMemoryError
            return run(*given)

        return run_where_there_is_room

    list(StreamDecoder(model, 2).stream(prompts))
    assert store.num_bytes
    owners = (TreeBranches, PooledBranches, PromptBranches) if place == "run" else (opening,)
    for owner in owners:
        monkeypatch.setattr(owner, place, run_out_beside_prefixes(getattr(owner, place)))
    assert dict(LikelihoodScorer(model).score(asked)) == expected
    assert not store.num_bytes


def test_a_prefix_that_does_not_fit_is_said_in_one_line(monkeypatch):
    def run_out(*arguments):
        raise torch.OutOfMemoryError

    model = build("llama")
    monkeypatch.setattr(opening, "extend", run_out)
    with pytest.raises(IclEvalError, match=r"^not enough memory for one prompt on cpu$"):
        list(LikelihoodScorer(model).score(make_questions(model)[:7]))  # those that begin alike


def out_of_memory_above(most, run):
    def run_out(self, rows):
        if len(rows) > most:
            raise torch.OutOfMemoryError
        return run(self, rows)

    return run_out


def test_texts_that_cross_a_change_of_positions_are_refused():
    context = EncodedPrompt(Prompt("", None, None), (), tuple(range(50, 90)))
    scorer = LikelihoodScorer(build("phi3_longrope"))
    fits, longer = (Continuations(context, (tuple(range(100, end)),)) for end in (106, 107))
    assert len(list(scorer.score([fits]))) == 1
    with pytest.raises(ConfigError, match=r"^phi3_longrope switches to other rotary frequencies beyond 45 tokens"):
        next(scorer.score([fits, longer]))


def test_a_forced_first_token_precedes_an_answer_in_a_decoder_of_its_own():
    model = build("bart")
    model.network.generation_config.forced_bos_token_id = 7
    asked = make_questions(model)
    assert any(not each.context.decoder_ids for each in asked)
    assert_as_plain(model, asked, 1e-9, forced=(7,))
    assert_as_plain(model, asked, 1e-9, forced=(8,), settings={"forced_bos_token_id": 8})


@pytest.mark.parametrize("name", ["llama", "mistral_sliding", "bloom", "t5"])
def test_law_3_what_is_computed_again_comes_out_the_same_to_the_last_bit(name):
    model = build(name, dtype=torch.float32)
    asked = make_questions(model, count=12)
    whole = dict(LikelihoodScorer(model, batch_size=4).score(asked))
    again = dict(LikelihoodScorer(model, batch_size=4).score(asked, wanted={3, 10}))
    assert {3, 10} <= set(again) < set(whole)
    assert again == {number: whole[number] for number in again}
    assert list(LikelihoodScorer(model).score(asked, wanted=())) == []


def test_a_tree_holds_each_token_once_and_no_last_ones():
    texts = [(5, 6, 7), (5, 6, 8), (9,), (5,), (9, 5, 6), (5, 6, 7)]
    tree = build_tree([((1, 2), texts), ((1, 3), [(9, 9)]), ((1, 2), [(7,), (9, 9)])])
    assert tree.ids == (1, 2, 5, 6, 9, 5, 3, 9)
    assert tree.parents == (ROOT, 0, 1, 2, 1, 4, 0, 6)
    assert tree.depths == [0, 1, 2, 3, 2, 3, 1, 2]
    first, second, third = tree.rows
    assert first.paths == ((1, 2, 3), (1, 2, 3), (1,), (1,), (1, 4, 5), (1, 2, 3))
    assert (first.begin, first.end, first.keys) == (0, 6, (0, 1, 2, 3, 4, 5))
    assert (second.begin, second.end, second.keys, second.paths) == (6, 8, (0, 6, 7), ((6, 7),))
    assert (third.begin, third.end, third.keys, third.paths) == (8, 8, (0, 1, 4), ((1,), (1, 4)))
    assert tree.seen(first).astype(int).tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 1, 1],
    ]
    assert tree.seen(second).astype(int).tolist() == [[1, 1, 0], [1, 1, 1]]
    assert tree.seen(third).tolist() == []
    assert count_inner(texts) == 4


@pytest.mark.parametrize("seed", range(3))
def test_packed_rows_of_any_sizes_attend_as_a_row_of_their_own_does(seed):
    draw = torch.Generator().manual_seed(seed)

    def ids(most):
        count = int(torch.randint(1, most, (), generator=draw))
        return tuple(torch.randint(0, 4, (count,), generator=draw).tolist())  # four tokens: many rows begin alike

    prompts = [(ids(most), [ids(6) for _ in range(3)]) for most in (40, 3, 20, 5, 2, 60)]
    tree = build_tree(prompts)
    packing = pack(tree, torch.float64, torch.device("cpu"))
    assert len(packing.parts) > 1
    query = torch.rand(1, 4, len(tree.ids), 8, dtype=torch.float64, generator=draw)
    key, value = torch.rand(2, 1, 2, len(tree.ids), 8, dtype=torch.float64, generator=draw)
    module = torch.nn.Module()
    keys = SplitKeys(None, key, value, None, packing.longest, packing)
    found, _ = split_attention_forward(module, query, keys, value, None)
    for token in range(len(tree.ids)):
        seen, before = [], token
        while before != ROOT:
            seen.append(before)
            before = tree.parents[before]
        for head in range(4):
            scores = key[0, head // 2, seen] @ query[0, head, token] / 8**0.5
            expected = scores.softmax(0) @ value[0, head // 2, seen]
            assert torch.allclose(found[0, token, head], expected, atol=1e-12)
