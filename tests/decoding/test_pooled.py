"""Rows that come after any tokens of other rows, for networks that cannot attend to a prefix in place."""

import gc
import random
import weakref

import pytest
from architectures import DECODER_ONLY, LONGROPE, build
from reference_decoding import plain_scores

from icl_eval.decoding import LikelihoodScorer, branches, capabilities, chains, pooled_branches
from icl_eval.decoding.chains import Chain, Level, cut, plan_passes
from icl_eval.decoding.pooled_caches import PooledCache
from icl_eval.decoding.preparing import capabilities_of
from icl_eval.decoding.trees import build_tree
from icl_eval.prompts.building import EncodedPrompt, Prompt
from icl_eval.prompts.tokenization import Continuations


def draw_questions(seed=0, count=12, encoder_ids=()):
    """Questions and choices of three tokens, so that many begin alike, of uneven lengths."""
    draw = random.Random(seed)

    def ids(shortest, longest):
        return tuple(draw.randrange(20, 23) for _ in range(draw.randint(shortest, longest)))

    shown = tuple(range(30, 50))
    contexts = [shown + ids(1, 25) for _ in range(count)]
    return [
        Continuations(EncodedPrompt(Prompt("", None, None), encoder_ids, context), tuple(ids(1, 9) for _ in range(4)))
        for context in contexts
    ]


def assert_as_plain(model, asked):
    found = dict(LikelihoodScorer(model).score(asked))
    for number, each in enumerate(asked):
        for ours, plain in zip(found[number], plain_scores(model, each), strict=True):
            assert ours.logprobs == pytest.approx(plain.logprobs, abs=1e-6)
            assert ours.is_greedy is plain.is_greedy


@pytest.mark.parametrize(
    "name",
    [
        *("bloom", "falcon", "falcon_alibi", "mpt", "gptj", "gemma2", "gemma3", "mistral_sliding"),
        *("t5", "mt5", "umt5", "switch_transformers", "t5gemma"),
    ],
)
def test_rows_of_different_lengths_share_a_pass_where_padding_changes_nothing(name):
    assert capabilities_of(build(name)).pools


@pytest.mark.parametrize("name", ["llama4", "bart_decoder", "bart", "m2m_100"])
def test_rows_are_not_padded_where_a_network_counts_the_padding(name):
    assert not capabilities_of(build(name)).pools


@pytest.mark.parametrize("name", ["bart", "mbart", "m2m_100"])
def test_rounding_does_not_hide_that_a_decoder_counts_positions(name, monkeypatch):
    monkeypatch.setattr(capabilities, "agree", lambda *_: True)
    assert not capabilities_of(build(name)).pools
    assert capabilities_of(build("t5")).pools


def test_pooling_is_not_tried_where_all_rows_attend_to_the_prefix_in_place():
    assert not capabilities_of(build("llama")).pools


# Two kinds of ALiBi, a window of eight tokens, relative positions after an encoder, and these with a window.
@pytest.mark.parametrize("name", ["bloom", "mpt", "gemma2", "t5", "t5gemma"])
@pytest.mark.parametrize("worth", chains._WORTH_WAITING)
def test_chains_come_after_what_they_branch_off_whether_it_runs_again_or_not(name, worth, monkeypatch):
    monkeypatch.setattr(chains, "_WORTH_WAITING", (worth, 1))
    monkeypatch.setattr(chains, "MOST_FED", 1.0 if worth == 1 else 10.0)
    monkeypatch.setattr(chains, "PASS_TOKENS", 0 if worth == 1 else chains.PASS_TOKENS)
    model, runs, run = build(name), [], pooled_branches.PooledBranches.run
    monkeypatch.setattr(pooled_branches.PooledBranches, "run", lambda *given: runs.append(given[1]) or run(*given))
    encoded = (40, 41, 42) if model.architecture == "encoder-decoder" else ()
    assert_as_plain(model, draw_questions(encoder_ids=encoded))
    assert len(runs) == 1


# A bias for so many columns, a table of so many positions, and other frequencies for all positions beyond so many.
@pytest.mark.parametrize("name", ["mpt", "gptj", "phi3_longrope"])
def test_no_padding_is_placed_beyond_the_longest_row_that_a_network_can_run(name, monkeypatch):
    config, sizes = DECODER_ONLY[name]
    longest = {
        "mpt": {"max_seq_len": 60},
        "gptj": {"n_positions": 60},
        "phi3_longrope": {
            "sliding_window": 8,
            "original_max_position_embeddings": 60,
            "rope_parameters": LONGROPE | {"original_max_position_embeddings": 60},
        },
    }[name]
    monkeypatch.setitem(DECODER_ONLY, name, (config, sizes | longest))
    long, short = tuple(range(30, 85)), tuple(range(30, 75))
    choices = (
        [tuple(range(first, first + 5)) for first in (20, 90)],
        [tuple(range(first, first + 15)) for first in (20, 90)],
    )
    monkeypatch.setattr(chains, "MOST_FED", 10.0)
    assert_as_plain(
        build(name),
        [
            Continuations(EncodedPrompt(Prompt("", None, None), (), ids), tuple(texts))
            for ids, texts in zip((long, short), choices, strict=True)
        ],
    )


def test_a_pool_is_gone_with_its_last_use(monkeypatch):
    model, pools, init = build("bloom"), [], PooledCache.__init__

    def spy(self, *given, **named):
        init(self, *given, **named)
        pools.append(weakref.ref(self))

    monkeypatch.setattr(PooledCache, "__init__", spy)
    gc.disable()
    try:
        list(LikelihoodScorer(model).score(draw_questions()))
        assert [pool() for pool in pools] == [None, None]  # that of the trial, and that of the questions
    finally:
        gc.enable()


def test_a_small_pool_takes_several_batches(monkeypatch):
    model, asked = build("bloom"), draw_questions()
    runs, run = [], pooled_branches.PooledBranches.run
    monkeypatch.setattr(pooled_branches.PooledBranches, "run", lambda *given: runs.append(given[1]) or run(*given))
    monkeypatch.setattr(pooled_branches, "MAX_PREFILL_TOKENS", 60)
    monkeypatch.setattr(pooled_branches, "COPIES_BYTES", 1)
    assert_as_plain(model, asked)
    assert len(runs) > 3
    assert all(len(rows) == 1 or sum(len(row.own_ids) + row.num_inner for row in rows) <= 60 for rows in runs)


@pytest.mark.parametrize("bound", ["_LOGITS_BYTES", "COPIES_BYTES"])
def test_logits_and_copies_of_a_pass_are_bounded(bound, monkeypatch):
    model, asked = build("bloom"), draw_questions()
    capabilities_of(model)
    rows, prepare = [], PooledCache.prepare

    def spy(self, ids, *rest, **named):
        rows.append(len(ids))
        return prepare(self, ids, *rest, **named)

    monkeypatch.setattr(PooledCache, "prepare", spy)
    assert_as_plain(model, asked)
    assert max(rows) > 1
    rows.clear()
    monkeypatch.setattr(branches, bound, 1)
    assert_as_plain(model, asked)
    assert max(rows) == 1


def test_a_tree_is_cut_where_it_branches_and_where_a_prompt_ends():
    tree = build_tree([((1, 2, 3), [(5, 6, 7), (8, 9, 9)]), ((1, 4), [(7,)])])
    assert tree.ids == (1, 2, 3, 5, 6, 8, 9, 4)
    texts = [Chain(Level(True, 0), (0, 1, 2), [3, 4]), Chain(Level(True, 0), (0, 1, 2), [5, 6])]
    whole = Chain(Level(False, 0), (), [0, 1, 2])
    assert cut(tree, 1) == [[whole], [Chain(Level(False, 1), (0,), [7])], texts]
    assert cut(tree, 2) == [[whole, Chain(Level(False, 0), (), [0, 7])], texts]  # one token is not worth waiting for


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_runs_every_token_after_those_before_it_and_feeds_little_more_than_the_least(seed):
    asked = draw_questions(seed, count=30)
    tree = build_tree([(each.context.decoder_ids[20:], each.texts) for each in asked])
    done, fed = set(), 0
    for passed in plan_passes(tree, lambda chain: len(chain.tokens)):
        assert all(done.issuperset(chain.before) for chain in passed)
        for chain in passed:
            path = (*chain.before, *chain.tokens)
            assert [tree.parents[token] for token in path] == [-1, *path[:-1]]
        done.update(token for chain in passed for token in chain.tokens)
        fed += len(passed) * max(len(chain.tokens) for chain in passed)
    assert done == set(range(len(tree.ids)))
    assert fed <= 1.05 * len(tree.ids)
