"""How many tokens likelihoods feed to a network, in numbers that are worked out by hand in each test."""

import random
from dataclasses import replace

import pytest
from architectures import build

from icl_eval.decoding import LikelihoodScorer, capabilities, parts
from icl_eval.decoding.networks import PASS_TOKENS, divide, divide_closely
from icl_eval.decoding.tree_branches import TreeBranches
from icl_eval.prompts.building import EncodedPrompt, Prompt
from icl_eval.prompts.tokenization import Continuations

SHOWN = tuple(range(20, 40))
LETTERS = ((3,), (4,), (5,), (6,))


def ask(decoder_ids, texts=LETTERS, encoder_ids=()):
    return Continuations(EncodedPrompt(Prompt("", None, None), tuple(encoder_ids), tuple(decoder_ids)), tuple(texts))


def passes_of(model, asked, **options):
    """Return the rows and columns of each forward pass of the encoder and of the decoder, without the trial runs."""
    network, fed = model.network, []
    bodies = [network.base_model]
    if network.config.is_encoder_decoder:
        bodies = [network.get_encoder(), network.get_decoder()]
    for body in bodies:
        body.register_forward_pre_hook(
            lambda _, arguments, named: fed.append(tuple(named.get("input_ids", *arguments).shape)), with_kwargs=True
        )
    list(LikelihoodScorer(model).score([]))
    num_trials = len(fed)
    list(LikelihoodScorer(model, **options).score(asked))
    return fed[2 * num_trials :]  # a network with hooks is tried anew by each call


def test_letters_take_one_pass_over_the_shared_tokens_and_one_over_all_questions():
    asked = [ask([*SHOWN, 50, 51]), ask([*SHOWN, 60, 61, 62]), ask([*SHOWN, 70, 71, 72, 73, 74])]
    assert passes_of(build("llama"), asked) == [(1, 20), (1, 2 + 3 + 5)]


def test_choices_share_their_beginnings_and_their_last_tokens_are_not_fed():
    texts = [(5, 6, 7), (5, 6, 8), (9,), (5, 6, 7, 1), (5, 9, 9, 9)]  # run: 5, 6, 7, and 9, 9 after the first 5
    assert passes_of(build("llama"), [ask([50, 51, 52], texts)]) == [(1, 3 + 5)]


def test_what_questions_have_in_common_beyond_the_demonstrations_is_fed_once():
    asked = [
        ask([*SHOWN, 50, 51, 52]),
        ask([*SHOWN, 50, 51, 53, 54]),  # 53, 54
        ask([*SHOWN, 50, 51, 52]),  # nothing: asked before
        ask([*SHOWN, 50, 51, 52], [(3,), (7, 8, 9)]),  # 7, 8
        ask([*SHOWN, 60]),
    ]
    assert passes_of(build("llama"), asked) == [(1, 20), (1, 3 + 2 + 0 + 2 + 1)]


def test_passages_of_several_questions_start_from_the_demonstrations_that_they_share():
    model = build("llama")
    passages = [tuple(range(first, first + 60)) * 5 for first in (50, 120)]  # 300 tokens, 4 times of which are saved
    asked = [ask([*SHOWN, *passage, 190 + number]) for passage in passages for number in range(5)]
    assert passes_of(model, asked) == [(1, 20), (1, 300), (1, 5), (1, 300), (1, 5)]


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_a_question_that_stays_behind_starts_from_the_demonstrations_too(name):
    passage = tuple(range(50, 110)) * 6  # 360 tokens, 3 times of which are saved
    asked = [ask([*SHOWN, *passage, 190 + number]) for number in range(4)] + [ask([*SHOWN, 60, 61])]
    assert passes_of(build(name), asked) == [(1, 20), (1, 2), (1, 360), (1, 4) if name == "llama" else (4, 1)]


def test_a_passage_whose_questions_do_not_fit_into_a_pass_has_a_group_of_its_own_if_much_would_run_twice():
    passages = [tuple(range(first, first + 60)) * 5 for first in (50, 120)]  # 300 tokens, 3 times of which are saved
    asked = [ask([*SHOWN, *passage, 180 + number, *[7] * 149]) for passage in passages for number in range(4)]
    # As one tree: (1, 300 + 3 * 150) and (1, 300 + 150) for each passage.
    assert passes_of(build("llama"), asked) == [(1, 20), *[(1, 300), (1, 3 * 150), (1, 150)] * 2]


def test_groups_that_cost_more_passes_than_they_save_are_not_made(monkeypatch):
    draw = random.Random(0)
    begun = [SHOWN * 5]
    for _ in range(300):  # each question branches off another one, so that they share beginnings of all lengths
        longer = draw.choice(begun[-40:]) + tuple(draw.randrange(100, 200) for _ in range(draw.choice([5, 20, 60])))
        begun.append(longer if len(longer) < 900 else begun[0] + (len(begun) % 100, 3, 4))
    asked = [ask(ids) for ids in begun[1:]]
    model, costs = build("llama"), []
    for savings in (parts._MIN_SAVINGS, {TreeBranches: (1024,)}):
        monkeypatch.setattr(parts, "_MIN_SAVINGS", savings)
        passes = passes_of(model, asked)
        costs.append(sum(width for _, width in passes) + PASS_TOKENS * len(passes))
    assert costs[0] <= costs[1]


def test_a_passage_is_not_cut_at_the_end_of_a_full_pass():
    passage = tuple(range(50, 150)) * 2
    before, after = ask([10, *[7] * 300]), ask([199] * 300)
    asked = [ask([*passage, 160 + number, *range(20)]) for number in range(4)]
    # 301 + 200 + 21 are more than 512, and so are the 200 + 4 * 21 of the passage with the 300 after it
    assert passes_of(build("llama"), [before, *asked, after]) == [(1, 301), (1, 284), (1, 300)]
    # with 276 before it, all but the first question exceed 512: a new pass would run the passage again
    before = ask([10, *[7] * 275])
    assert passes_of(build("llama"), [before, *asked]) == [(1, 276 + 284)]


def test_encoder_inputs_and_start_tokens_are_fed_once_and_no_choice_has_a_pass():
    first, second, third = (ask((), encoder_ids=[number, *range(20, 29)]) for number in (50, 51, 52))
    assert passes_of(build("t5"), [first, second, third, first]) == [(3, 10), (3, 1)]
    assert passes_of(build("t5"), [first, second, first], batch_size=1) == [(1, 10), (1, 1)] * 2


def test_choices_after_an_encoder_share_their_beginnings_too(monkeypatch):
    texts = [(5, 6, 7, 1), (5, 6, 8, 1), (9,)]  # run: 5, 6, 7, and then 8
    asked = [ask((), texts, encoder_ids=[number, *range(20, 29)]) for number in (50, 51)]
    for name in ("t5", "bart"):
        assert passes_of(build(name), asked) == [(2, 10), (2, 1), (2, 3), (2, 1)]
    monkeypatch.setattr(capabilities, "_try_pools", lambda *_: (False, False))
    assert passes_of(build("t5"), asked) == [(2, 10), (2, 1), (4, 3)]  # copies, also of what choices have in common


def test_copied_prompts_run_once_for_all_choices_that_differ_in_their_last_token():
    texts = [(5, 6, 7), (5, 6, 8), (5, 6, 9), (5,)]
    asked = [ask([*SHOWN, 50, 51], texts), ask([*SHOWN, 60, 61], texts)]
    assert passes_of(build("bloom"), asked) == [(1, 20), (2, 2), (2, 2)]


def test_prompts_of_nearly_the_same_length_share_a_pass_and_are_padded_by_a_twentieth_at_most():
    ends = [tuple(range(50, 50 + length)) for length in (41, 101)]
    asked = [ask([*SHOWN, first, *end[1:length]]) for length in (40, 39) for end in ends for first in [end[0] + length]]
    assert passes_of(build("bloom"), asked[:1] + asked[2:3]) == [(1, 20), (2, 40)]  # one of 79 + 1
    short = [ask([*SHOWN, 50, 51, 52]), ask([*SHOWN, 60, 61])]  # one of five is too much
    assert passes_of(build("bloom"), short) == [(1, 20), (1, 3), (1, 2)]


def test_choices_of_different_prompts_share_a_pass():
    asked = [
        ask([*SHOWN, first, *[9] * number], [(first, 5, 6), (7, first, 8)]) for number, first in enumerate((50, 60))
    ]
    assert passes_of(build("bloom"), asked) == [(1, 20), (1, 2), (1, 1), (4, 2)]


def test_an_encoder_and_a_decoder_share_the_room_for_padding():
    assert divide_closely([10, 9, 9, 1], [10, 9, 9, 1], 2) == [slice(0, 3), slice(3, 4)]
    assert divide_closely([10, 9, 9, 1], [10, 9, 9, 1], 1) == [slice(0, 1), slice(1, 3), slice(3, 4)]
    assert divide_closely([10, 9, 9, 1], [10, 9, 9, 1], 11) == [slice(0, 4)]


def test_questions_about_one_text_run_after_it_in_a_decoder_whose_encoder_has_the_demonstrations(monkeypatch):
    passages = [tuple(range(first, first + 60)) for first in (50, 120)]
    asked = [ask([*passage, 190 + number], encoder_ids=SHOWN) for passage in passages for number in range(4)]
    # After the start token, which begins both, a row runs with the first question about its passage.
    for name in ("t5", "bart"):
        assert passes_of(build(name), asked) == [(1, 20), (1, 1), (2, 60 + 1), (6, 1)]
    # As copies of prompts of equal length, each passage runs by itself, with the start token.
    monkeypatch.setattr(capabilities, "_try_pools", lambda *_: (False, False))
    assert passes_of(build("bart"), asked) == [(1, 20), (1, 1 + 60), (4, 1), (1, 1 + 60), (4, 1)]


def test_rows_of_a_pass_come_after_equally_many_tokens_where_a_decoder_counts_positions():
    asked = [ask([first, *[9] * number], [(5, 6, 7)], encoder_ids=SHOWN) for first, number in ((50, 20), (60, 19))]
    assert passes_of(build("t5"), asked) == [(1, 20), (1, 1), (2, 21), (2, 2)]
    assert passes_of(build("bart"), asked) == [(1, 20), (1, 1), (2, 21), (1, 2), (1, 2)]


def test_padding_that_costs_more_than_a_pass_is_left_out():
    assert list(divide([100, 100, 20, 20])) == [slice(0, 2), slice(2, 4)]  # 240 tokens and two passes
    assert list(divide([50, 50, 20, 20])) == [slice(0, 4)]  # 200 tokens and a pass: 140 and two would cost more
    assert list(divide([300, 300, 300])) == [slice(0, 1), slice(1, 2), slice(2, 3)]  # no two have room
    assert list(divide([600, 2], [600, 2])) == [slice(0, 1), slice(1, 2)]
    assert list(divide([2, 2, 2], [200, 200, 200])) in ([slice(0, 2), slice(2, 3)], [slice(0, 1), slice(1, 3)])
    assert list(divide([])) == []


def test_a_question_scores_the_same_whatever_it_is_asked_with():
    model = build("llama")
    texts = [(5, 6, 7), (5, 6, 8), (9,)]
    first = ask([*SHOWN, 50, 51, 52], texts)
    company = [ask([*SHOWN, 50, 51, *range(60, 60 + number)], texts[:number]) for number in (1, 2, 3)]
    ((_, alone),) = LikelihoodScorer(model).score([first])
    together = dict(LikelihoodScorer(model).score([*company, first, replace(first, texts=first.texts[::-1])]))
    for place, scored in enumerate(alone):
        assert together[3][place].logprobs == pytest.approx(scored.logprobs, abs=1e-9)
        assert together[4][2 - place].logprobs == together[3][place].logprobs
