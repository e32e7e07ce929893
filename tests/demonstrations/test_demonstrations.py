import hashlib
import logging
import math
from dataclasses import replace

import numpy as np
import pytest

from icl_eval.config.composing import ComposedConfig
from icl_eval.config.evaluations import build_evaluation
from icl_eval.demonstrations import (
    AsSelectedOrder,
    BalancedDemonstrations,
    Bm25Demonstrations,
    Demonstration,
    DiverseDemonstrations,
    DppDemonstrations,
    FirstDemonstrations,
    FixedDemonstrations,
    MostRelevantLastOrder,
    NearestDemonstrations,
    RandomDemonstrations,
    RandomOrder,
    ReversedOrder,
    VotekDemonstrations,
    build_selection,
)
from icl_eval.errors import ConfigError
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task


class LetterCounts:
    """An encoder that needs no network: how often each of a few characters is in a text."""

    def embed(self, examples):
        texts = [" ".join(example.inputs.values()) for example in examples]
        counts = np.array([[text.count(letter) for letter in "Poltse 012345678"] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


POOL = tuple(
    Example(f"pool-{n}", {"question": f"Pool {n}{n % 4}?", "kind": "odd" if n % 2 else "even"}, ("ab"[n % 2],))
    for n in range(9)
)
QUESTIONS = tuple(Example(f"test-{n}", {"question": f"Test {n}?", "kind": "odd"}, ("x",)) for n in range(6))
SELECTORS = {
    "first": FirstDemonstrations(),
    "random": RandomDemonstrations(seed=3),
    "per question": RandomDemonstrations(seed=3, per_question=True),
    "fixed": FixedDemonstrations([f"pool-{n}" for n in (8, 2, 5, 0, 7, 4)]),
    "balanced": BalancedDemonstrations(seed=3),
    "bm25": Bm25Demonstrations(seed=3),
    "nearest": NearestDemonstrations(seed=3, encoder=LetterCounts()),
    "diverse": DiverseDemonstrations(seed=3, encoder=LetterCounts()),
    "dpp": DppDemonstrations(seed=3, encoder=LetterCounts(), candidates=4),
    "votek": VotekDemonstrations(seed=3, encoder=LetterCounts(), neighbors=3),
}
every_strategy = pytest.mark.parametrize("selector", SELECTORS.values(), ids=SELECTORS)


def task_of(pool):
    return Task("numbers", "", {}, tuple(pool), QUESTIONS, "")


def ids(demonstrations):
    return [demonstration.example.id for demonstration in demonstrations]


def selected(selector, num_fewshot, questions=QUESTIONS, pool=POOL, **options):
    """The ids of each question's demonstrations, all drawn by one selection, in the order of the questions."""
    select = build_selection(task_of(pool), selector, num_fewshot, **options)
    return {question.id: ids(select(question)) for question in questions}


@every_strategy
def test_demonstrations_depend_on_neither_the_order_of_evaluation_nor_the_limit(selector):
    everything = selected(selector, 4)
    assert selected(selector, 4, questions=QUESTIONS[::-1]) == everything
    assert selected(selector, 4, questions=QUESTIONS + QUESTIONS) == everything
    for question in QUESTIONS:
        assert selected(selector, 4, questions=[question]) == {question.id: everything[question.id]}


@pytest.mark.parametrize("name", sorted(set(SELECTORS) - {"first"}))
def test_demonstrations_do_not_depend_on_the_order_of_the_pool(name):
    assert selected(SELECTORS[name], 4, pool=POOL[::-1]) == selected(SELECTORS[name], 4)


@every_strategy
def test_the_sets_of_fewer_demonstrations_are_the_beginnings_of_larger_ones(selector):
    largest = selected(selector, 6)
    for num_fewshot in range(6):
        assert selected(selector, num_fewshot) == {question: shown[:num_fewshot] for question, shown in largest.items()}


@pytest.mark.parametrize("name", ["random", "per question", "nearest"])
def test_a_ranking_keeps_its_order_when_a_candidate_leaves_the_pool(name):
    for question, shown in selected(SELECTORS[name], 9).items():
        without = selected(SELECTORS[name], 8, pool=[candidate for candidate in POOL if candidate.id != "pool-4"])
        assert without[question] == [demonstration for demonstration in shown if demonstration != "pool-4"]


def test_each_strategy_ranks_as_it_says():
    assert selected(SELECTORS["first"], 3)["test-0"] == ["pool-0", "pool-1", "pool-2"]
    assert selected(SELECTORS["fixed"], 3)["test-0"] == ["pool-8", "pool-2", "pool-5"]
    # Written down, so that a change of the draw, and with it of every published number, cannot go unnoticed.
    assert selected(RandomDemonstrations(0), 4)["test-0"] == ["pool-5", "pool-3", "pool-0", "pool-4"]
    assert selected(RandomDemonstrations(0, per_question=True), 4)["test-0"] == ["pool-1", "pool-2", "pool-7", "pool-3"]


def test_a_draw_of_its_own_orders_the_candidates_by_scrambled_hashes_of_seed_question_and_candidate():
    def number(*parts):
        return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:8], "big")

    def scramble(key):  # the finalizer of MurmurHash3, whose last step cannot change an order
        for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            key = (key ^ key >> 33) * factor % 2**64
        return key

    pool = examples([f"number {n}" for n in range(300)])
    keys = {each.id: scramble(number("5", "test-1", "") ^ number("5", "", each.id)) for each in pool}
    [shown] = selected(RandomDemonstrations(5, per_question=True), 300, QUESTIONS[1:2], pool).values()
    assert shown == sorted(keys, key=keys.__getitem__)


def test_seeds_differ_and_only_per_question_draws_differ_between_questions():
    draws = [selected(RandomDemonstrations(seed), 4)["test-0"] for seed in range(20)]
    assert len({tuple(draw) for draw in draws}) == 20
    shared = selected(RandomDemonstrations(0), 4).values()
    own = selected(RandomDemonstrations(0, per_question=True), 4).values()
    assert len({tuple(draw) for draw in shared}) == 1
    assert len({tuple(draw) for draw in own}) == len(QUESTIONS)


def test_every_candidate_is_drawn_about_equally_often():
    first = [selected(RandomDemonstrations(seed), 1)["test-0"][0] for seed in range(900)]
    assert all(70 < first.count(candidate.id) < 130 for candidate in POOL)


@pytest.mark.parametrize(
    "copy",
    [
        "Où est le café ?",
        "Ou\u0300 est le cafe\u0301 ?",  # the same characters in pieces
        "OÙ EST LE CAFÉ ?",
        "  Où\test\nle  café\u00a0? ",
        "Ｏù est le café ?",  # full-width O
    ],
)
@every_strategy
def test_law_6_a_question_never_sees_a_copy_of_itself(selector, copy):
    question = Example("test-0", {"question": "Où est le café ?", "kind": "odd"}, ("x",))
    pool = [
        Example(candidate.id, {"question": copy, "kind": "odd"}, candidate.references) if n == 2 else candidate
        for n, candidate in enumerate(POOL)
    ]
    shown = selected(selector, 5, questions=[question], pool=pool)["test-0"]
    assert len(shown) == 5
    assert "pool-2" not in shown


@every_strategy
def test_law_6_a_question_never_sees_itself(selector):
    for question, shown in selected(selector, 5, questions=POOL).items():
        assert question not in shown


def test_an_id_that_pool_and_test_share_makes_no_copy():
    stranger = Example("pool-0", {"question": "Reworded?", "kind": "odd"}, ("a",))
    assert selected(FirstDemonstrations(), 2, questions=[stranger]) == {"pool-0": ["pool-0", "pool-1"]}


@pytest.mark.parametrize("name", sorted(set(SELECTORS) - {"fixed"}))
def test_duplicates_in_a_pool_are_shown_once_and_change_nothing_else(name):
    third = POOL[2]
    copies = [replace(third, id=f"pool-2-{n}", inputs=third.inputs | {"question": "  POOL 22?\n"}) for n in range(3)]
    with_copies = (copies[0], *POOL[:5], copies[1], *POOL[5:], copies[2])
    for num_fewshot in (4, 6):
        expected = selected(SELECTORS[name], num_fewshot)
        shown = selected(SELECTORS[name], num_fewshot, pool=with_copies)
        if name != "first":  # there, the copy at the top stands for the row
            assert shown == expected
    assert selected(SELECTORS["first"], 3, pool=with_copies)["test-0"] == ["pool-2", "pool-0", "pool-1"]


def test_the_same_question_with_another_answer_or_kind_is_no_duplicate():
    pool = [replace(POOL[0], id=f"same-{n}", references=(target,)) for n, target in enumerate(("a", "A ", "b"))]
    assert selected(FirstDemonstrations(), 2, pool=pool)["test-0"] == ["same-0", "same-2"]
    kinds = [replace(POOL[0], id=kind, inputs=POOL[0].inputs | {"kind": kind}) for kind in ("odd", "ODD")]
    assert selected(FirstDemonstrations(), 1, pool=kinds, match_field="kind")["test-0"] == ["odd"]


def test_duplicates_that_are_named_are_shown():
    pool = [replace(POOL[0], id=f"same-{n}") for n in range(2)]
    assert selected(FixedDemonstrations(["same-1", "same-0"]), 2, pool=pool)["test-0"] == ["same-1", "same-0"]


def test_a_pool_of_duplicates_is_called_that():
    pool = [replace(POOL[0], id=f"same-{n}") for n in range(3)]
    with pytest.raises(ConfigError) as error:
        selected(FirstDemonstrations(), 2, pool=pool)
    assert str(error.value) == (
        "num_fewshot=2: task 'numbers' has only 1 demonstrations for question 'test-0' "
        "(demonstrations=first, a pool of 3, 2 of them duplicates)"
    )


def test_an_example_that_differs_in_one_field_is_not_a_copy():
    question = Example("test-0", {"question": "Pool 00?", "kind": "odd"}, ("x",))
    assert selected(FirstDemonstrations(), 1, questions=[question]) == {"test-0": ["pool-0"]}


def test_a_match_field_keeps_demonstrations_of_the_questions_kind():
    assert selected(FirstDemonstrations(), 3, match_field="kind")["test-0"] == ["pool-1", "pool-3", "pool-5"]
    assert selected(SELECTORS["fixed"], 2, match_field="kind")["test-0"] == ["pool-5", "pool-7"]


# Each strategy on cases that can be worked out by hand


def examples(texts, references=None):
    return [
        Example(f"pool-{n}", {"question": text}, ((references or "x" * len(texts))[n], "another right answer"))
        for n, text in enumerate(texts)
    ]


def ranked(selector, question, pool, num_fewshot=None):
    """The ids and the similarities of a question's demonstrations."""
    select = build_selection(task_of(pool), selector, len(pool) if num_fewshot is None else num_fewshot)
    shown = select(Example("test-0", {"question": question}, ("x",)))
    return ids(shown), [demonstration.similarity for demonstration in shown]


@pytest.mark.parametrize("seed", range(8))
def test_balanced_takes_one_of_each_label_in_turn_and_stops_when_it_cannot_go_on(seed):
    labels = "xxxxyyyyzz"
    shown, _ = ranked(BalancedDemonstrations(seed), "?", examples([f"p{n}" for n in range(10)], labels), 6)
    turns = [labels[int(name[-1])] for name in shown]
    assert sorted(turns[:3]) == sorted(turns[3:]) == ["x", "y", "z"]
    assert turns[:3] == turns[3:]
    with pytest.raises(ConfigError, match=r"has only [678] demonstrations"):
        ranked(BalancedDemonstrations(seed), "?", examples([f"p{n}" for n in range(10)], labels), 9)


def test_balanced_draws_labels_and_examples_by_seed():
    pool = examples([f"p{n}" for n in range(12)], "xxxxyyyyzzzz")
    draws = {tuple(ranked(BalancedDemonstrations(seed), "?", pool, 3)[0]) for seed in range(150)}
    assert len(draws) > 100
    assert {draw[0] for draw in draws} == {candidate.id for candidate in pool}


def test_balanced_keeps_its_balance_when_a_question_may_not_see_a_candidate():
    pool = examples(["a", "b", "c", "d"], "xyxy")
    for question in "abcd":
        shown, _ = ranked(BalancedDemonstrations(0), question, pool, 2)
        assert sorted("xyxy"[int(name[-1])] for name in shown) == ["x", "y"]
    shown, _ = ranked(BalancedDemonstrations(0), "f", examples("abcdef", "xyxyxz"), 4)  # the only z is the question
    assert sorted("xyxyxz"[int(name[-1])] for name in shown) == ["x", "x", "y", "y"]


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ("xxxx", "has 1 distinct answers in 4 rows; at least 2 labels are needed"),
        ("xyz?", "has 4 distinct answers in 4 rows; a set of labels needs at least 2 rows per label"),
    ],
)
def test_balanced_refuses_answers_that_are_no_labels(references, message):
    with pytest.raises(ConfigError) as error:
        ranked(BalancedDemonstrations(0), "?", examples("abcd", references))
    assert str(error.value) == f"demonstrations=balanced: the pool of task 'numbers' {message}"


def test_bm25_ranks_by_its_formula_and_counts_every_word():
    texts = ["The cat sat", "the  A cat, a CAT!", "a dog", "Straße"]
    documents = [["the", "cat", "sat"], ["the", "a", "cat", "a", "cat"], ["a", "dog"], ["strasse"]]
    mean_length = sum(map(len, documents)) / 4

    def score(document):
        total = 0.0
        for word in ("a", "cat", "strasse"):
            containing = sum(word in other for other in documents)
            rarity = math.log(1 + (4 - containing + 0.5) / (containing + 0.5))
            count = document.count(word)
            total += rarity * count / (count + 1.5 * (1 - 0.75 + 0.75 * len(document) / mean_length))
        return total

    scores = {f"pool-{n}": score(document) for n, document in enumerate(documents)}
    shown, similarities = ranked(Bm25Demonstrations(0), "A cat, strasse? unheard", examples(texts))
    assert shown == sorted(scores, key=scores.__getitem__, reverse=True)
    assert similarities == pytest.approx([scores[name] for name in shown], abs=2e-6)


def test_the_library_of_bm25_may_warn_and_says_nothing_else(caplog):
    import bm25s  # which sets the level of its messages when it is imported

    library = logging.getLogger(bm25s.__name__)
    library.setLevel(logging.DEBUG)
    ranked(Bm25Demonstrations(0), "A cat", examples("ab"))
    library.warning("this")
    assert caplog.messages == ["this"]


@pytest.mark.parametrize(
    "strategy", [Bm25Demonstrations, NearestDemonstrations, DiverseDemonstrations, DppDemonstrations]
)
def test_ties_are_broken_as_random_draws(strategy):
    pool = examples([f"o{'.' * n}" for n in range(8)])  # nothing that any of the strategies looks at tells them apart
    encoder = {} if strategy is Bm25Demonstrations else {"encoder": LetterCounts()}
    for seed in (0, 1):
        drawn, _ = ranked(RandomDemonstrations(seed), "o?", pool)
        assert ranked(strategy(seed, **encoder), "o?", pool)[0] == drawn


@pytest.mark.parametrize("question", ["?!", "unheard"])
def test_bm25_ranks_at_random_where_no_word_is_shared(question):
    pool = examples(["one", "two", "...", "four"])[: 4 if question == "unheard" else 2]
    assert ranked(Bm25Demonstrations(5), question, pool) == (
        ranked(RandomDemonstrations(5), question, pool)[0],
        [0.0] * len(pool),
    )


class Angles:
    """An encoder whose texts are angles, in degrees."""

    def embed(self, examples):
        angles = np.radians([float(example.inputs["question"]) for example in examples])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_nearest_ranks_by_cosine():
    shown, similarities = ranked(NearestDemonstrations(0, Angles()), "0", examples(["60", "180", "10", "-20", "90"]))
    assert shown == ["pool-2", "pool-3", "pool-0", "pool-4", "pool-1"]
    assert similarities == [0.984808, 0.939693, 0.5, -0.0 + 0.0, -1.0]


@pytest.mark.parametrize(
    ("relevance", "order"),
    [
        (1.0, [0, 1, 2, 3]),  # cosines to the question: 0.996, 0.993, 0.866, 0.766
        # Twice the marginal relevance. Second: 7° 0.993 − 0.999, −30° 0.866 − 0.819, 40° 0.766 − 0.819.
        # Third: 7° 0.993 − 0.999 (the first is as near as ever), 40° 0.766 − 0.819.
        (0.5, [0, 2, 1, 3]),
    ],
)
def test_diverse_is_maximal_marginal_relevance(relevance, order):
    pool = examples(["5", "7", "-30", "40"])
    shown, similarities = ranked(DiverseDemonstrations(0, Angles(), relevance), "0", pool)
    assert shown == [f"pool-{n}" for n in order]
    assert similarities == [[0.996195, 0.992546, 0.866025, 0.766044][n] for n in order]


class Blobs:
    """An encoder whose texts are places in space, in degrees of two angles."""

    def embed(self, examples):
        angles = [np.radians([float(part) for part in example.inputs["question"].split()]) for example in examples]
        return np.array([[np.cos(a) * np.cos(b), np.sin(a) * np.cos(b), np.sin(b)] for a, b in angles], np.float32)


@pytest.mark.parametrize("scale", [0.05, 0.1, 1.0])
def test_dpp_adds_what_raises_the_determinant_of_its_kernel_most(scale):
    places = ["5 0", "7 2", "-30 10", "40 -20", "90 80", "6 1", "-60 -60"]
    shown, similarities = ranked(DppDemonstrations(0, Blobs(), scale), "0 0", examples(places))
    vectors = Blobs().embed(examples(places)).astype(float)
    cosines = vectors @ Blobs().embed(examples(["0 0"]))[0]
    quality = np.exp((1 + cosines) / 2 / (2 * scale))
    kernel = quality[:, None] * (1 + vectors @ vectors.T) / 2 * quality
    chosen = []
    for name in shown[:4]:  # then the determinants are too small to be told apart
        others = [row for row in range(len(places)) if row not in chosen]
        determinants = {row: np.linalg.slogdet(kernel[np.ix_([*chosen, row], [*chosen, row])])[1] for row in others}
        chosen.append(max(determinants, key=determinants.get))
        assert name == f"pool-{chosen[-1]}"
    assert similarities == pytest.approx([cosines[int(name.removeprefix("pool-"))] for name in shown], abs=1e-6)


class Directions:
    """An encoder whose texts are seeds of directions in space; texts that are equal but for a dot share one."""

    def embed(self, examples):
        seeds = [int(example.inputs["question"].rstrip(".")) for example in examples]
        vectors = np.array([np.random.default_rng(seed).normal(0.3, 1, 24) for seed in seeds])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def gain_of_nearest(cosines, vectors, chosen):
    return cosines


def gain_of_diverse(cosines, vectors, chosen):
    return 0.5 * cosines - (0.5 * np.round(vectors @ vectors[chosen].T, 6).max(1) if chosen else 0)


def gain_of_dpp(cosines, vectors, chosen):
    """The gain in log det, by the matrix determinant lemma: what is left of a candidate is 1 - b' K^+ b."""
    similar = (1 + vectors @ vectors[chosen].T) / 2  # [pool, chosen]
    left_over = 1 - (similar @ np.linalg.pinv(similar[chosen], 1e-9) * similar).sum(1) if chosen else 1.0
    return (1 + cosines) / 2 / 0.1 + np.log(np.maximum(left_over, 1e-6))


@pytest.mark.parametrize("candidates", [8, 1000, 3000])
@pytest.mark.parametrize("question", ["4000", "7..."])  # the second has the vector of two candidates
@pytest.mark.parametrize(
    ("name", "gain"), {"nearest": gain_of_nearest, "diverse": gain_of_diverse, "dpp": gain_of_dpp}.items()
)
def test_a_large_pool_is_searched_as_if_all_candidates_were_compared(name, gain, question, candidates):
    pool = examples([f"{n % 1500}{'.' * (n // 1500)}" for n in range(3000)])
    asked = [Example("test-9", {"question": question}, ("x",))]
    options = {} if name == "nearest" else {"candidates": candidates}
    [shown] = selected(replace(SELECTORS[name], encoder=Directions(), **options), 12, asked, pool).values()
    [drawn] = selected(RandomDemonstrations(3), 3000, asked, pool).values()
    ties = {int(each.removeprefix("pool-")): place for place, each in enumerate(drawn)}
    vectors = Directions().embed(pool).astype(float)
    cosines = np.round(vectors @ Directions().embed(asked)[0].astype(float), 6)
    by_similarity = sorted(range(3000), key=lambda n: (-cosines[n], ties[n]))
    chosen = []
    for each in shown:
        gains = np.round(gain(cosines, vectors, chosen), 6)
        others = [n for n in by_similarity[:candidates] if n not in chosen] or [by_similarity[len(chosen)]]
        chosen.append(max(others, key=lambda n: (gains[n], -ties[n])))
        assert each == f"pool-{chosen[-1]}"


@pytest.mark.parametrize("strategy", [DiverseDemonstrations, DppDemonstrations])
def test_no_candidates_to_choose_from_are_refused(strategy):
    with pytest.raises(ConfigError) as error:
        strategy(0, Angles(), candidates=0)
    assert str(error.value) == "candidates=0: must be 1 or more"


@pytest.mark.parametrize("strategy", [DiverseDemonstrations, DppDemonstrations])
def test_more_candidates_than_the_pool_has_are_all_of_them(strategy):
    pool = examples(["5", "7", "-30", "40"])
    everything = ranked(strategy(0, Angles(), candidates=4), "0", pool)
    assert ranked(strategy(0, Angles(), candidates=10**20), "0", pool) == everything


def test_a_second_copy_of_a_demonstration_changes_nothing_for_dpp():
    strategy = DppDemonstrations(0, Directions(), 0.01)  # similarity counts so much that copies are shown, too
    once = examples([str(n) for n in range(60)])
    twice = [
        *once,
        *(replace(each, id=f"copy of {each.id}", inputs={"question": f"{n}."}) for n, each in enumerate(once)),
    ]
    shown, _ = ranked(strategy, "100", twice, 40)
    firsts = list(dict.fromkeys(name.removeprefix("copy of ") for name in shown))
    assert len(firsts) < 40
    assert firsts == ranked(strategy, "100", once, len(firsts))[0]


def test_dpp_shows_no_region_twice_unless_similarity_is_all_that_counts():
    places = ["0 0", "1 0", "2 0", "40 0", "0 40"]
    wide, _ = ranked(DppDemonstrations(0, Blobs(), 10.0), "0 0.1", examples(places), 3)
    near, _ = ranked(DppDemonstrations(0, Blobs(), 0.00005), "0 0.1", examples(places), 3)
    assert (wide[0], set(wide[1:])) == ("pool-0", {"pool-3", "pool-4"})
    assert near == ["pool-0", "pool-1", "pool-2"]
    with pytest.raises(ConfigError) as error:
        DppDemonstrations(0, Blobs(), 0.0)
    assert str(error.value) == "scale=0.0: must be above 0"


def test_votek_represents_each_region_of_the_pool_once_before_any_twice_the_largest_first():
    regions = {0: (-2, -1, 0, 1, 2), 100: (-1, 0, 1), 200: (-1, 0, 1)}
    places = [f"{centre + offset}" for centre, offsets in regions.items() for offset in offsets]
    strategy = VotekDemonstrations(0, Angles(), 2)
    shown, similarities = ranked(strategy, "50", examples(places))
    chosen = [int(places[int(name.removeprefix("pool-"))]) for name in shown]
    assert chosen[0] == 0  # its four neighbours vote for it
    assert {round(place, -2) for place in chosen[1:3]} == {100, 200}
    assert similarities == [None] * len(places)
    without, _ = ranked(strategy, "0", examples(places), 10)
    assert without == shown[1:]  # a question that is in the pool changes nothing for the others


@pytest.mark.parametrize("places", [(0.0, 1.0, 2.5, 60.0, 61.0, 62.5, 63.5), (10, 66, 77, 98, 103, 107, 122, 124, 130)])
def test_votes_are_counted_as_in_the_paper(places):
    rows = range(len(places))
    shown, _ = ranked(VotekDemonstrations(1, Angles(), 2), "170", examples([str(place) for place in places]))
    nearest = {
        row: set(sorted((other for other in rows if other != row), key=lambda o: abs(places[o] - places[row]))[:2])
        for row in rows
    }
    chosen = []
    for name in shown:
        votes = {
            row: sum(
                10.0 ** -len(nearest[voter] & set(chosen))
                for voter in rows
                if voter not in chosen and row in nearest[voter]
            )
            for row in rows
            if row not in chosen
        }
        row = int(name.removeprefix("pool-"))
        assert votes[row] == pytest.approx(max(votes.values()))
        chosen.append(row)
    assert sorted(chosen) == list(rows)
    with pytest.raises(ConfigError) as error:
        VotekDemonstrations(0, Angles(), 0)
    assert str(error.value) == "neighbors=0: must be 1 or more"


@pytest.mark.parametrize("seed", range(4))
def test_without_relevance_the_first_is_drawn_and_the_second_far_from_it(seed):
    pool = examples(["0", "10", "80", "90"])
    shown, _ = ranked(DiverseDemonstrations(seed, Angles(), 0.0), "45", pool)
    assert shown[0] == ranked(RandomDemonstrations(seed), "45", pool)[0][0]
    assert shown[1] == ("pool-0" if shown[0] in ("pool-2", "pool-3") else "pool-3")


def test_a_copy_of_the_question_does_not_steer_a_diverse_choice():
    pool = examples(["5", "0", "-20", "30"])
    selector = DiverseDemonstrations(0, Angles())
    without = [candidate for candidate in pool if candidate.id != "pool-1"]
    assert ranked(selector, "0", pool, 3) == ranked(selector, "0", without, 3)


def test_a_relevance_out_of_range_is_refused():
    with pytest.raises(ConfigError) as error:
        DiverseDemonstrations(0, Angles(), 1.5)
    assert str(error.value) == "relevance=1.5: must be between 0 and 1"


# Order


SELECTED = [Demonstration(example, similarity) for example, similarity in zip(POOL, (3, 5, 1, 5), strict=False)]


def test_each_order_arranges_as_it_says():
    assert ids(AsSelectedOrder().arrange(SELECTED)) == ["pool-0", "pool-1", "pool-2", "pool-3"]
    assert ids(ReversedOrder().arrange(SELECTED)) == ["pool-3", "pool-2", "pool-1", "pool-0"]
    assert ids(MostRelevantLastOrder().arrange(SELECTED)) == ["pool-2", "pool-0", "pool-3", "pool-1"]
    assert ids(RandomOrder(1).arrange(SELECTED)) == ["pool-3", "pool-1", "pool-0", "pool-2"]


def test_a_random_order_draws_every_order_of_any_selection_about_equally_often():
    orders = [tuple(ids(RandomOrder(seed).arrange(SELECTED[:3]))) for seed in range(600)]
    assert all(60 < orders.count(order) < 140 for order in set(orders))
    assert len(set(orders)) == 6
    selected_alike = [build_selection(task_of(POOL), RandomDemonstrations(seed), 3)(QUESTIONS[0]) for seed in range(60)]
    unchanged = [RandomOrder(seed).arrange(shown) == shown for seed, shown in enumerate(selected_alike)]
    assert 0 < sum(unchanged) < 30  # the order is no second copy of the draw that selected


def test_the_most_relevant_is_last_only_where_relevance_is_measured():
    order = MostRelevantLastOrder()
    for name in ("bm25", "nearest", "diverse", "dpp"):
        order.require_sense(SELECTORS[name])
    with pytest.raises(ConfigError) as error:
        order.require_sense(SELECTORS["balanced"])
    assert str(error.value) == (
        "order=most_relevant_last: demonstrations=balanced measures no similarity; use bm25, nearest, diverse "
        "or dpp (order=reversed puts the highest rank last)"
    )


@pytest.mark.parametrize(
    ("selector", "num_fewshot", "match_field", "message"),
    [
        (
            FirstDemonstrations(),
            10,
            None,
            "num_fewshot=10: task 'numbers' has only 9 demonstrations for question 'test-0' "
            "(demonstrations=first, a pool of 9)",
        ),
        (
            RandomDemonstrations(0),
            5,
            "kind",
            "num_fewshot=5: task 'numbers' has only 4 demonstrations for question 'test-0' "
            "(demonstrations=random, a pool of 9)",
        ),
        (
            FixedDemonstrations(["pool-1"]),
            2,
            None,
            "num_fewshot=2: task 'numbers' has only 1 demonstrations for question 'test-0' "
            "(demonstrations=fixed, a pool of 9)",
        ),
        (
            FixedDemonstrations(["pool-1", "pool-99"]),
            1,
            None,
            "demonstrations.ids: 'pool-99' is not in the pool of task 'numbers' (it holds 9, such as 'pool-0')",
        ),
        (
            BalancedDemonstrations(3),
            9,
            None,
            "num_fewshot=9: task 'numbers' has only 8 demonstrations for question 'test-0' "
            "(demonstrations=balanced, a pool of 9)",
        ),
        (FixedDemonstrations(["pool-1", "pool-1"]), 1, None, "demonstrations.ids: an id is given twice"),
        (
            FirstDemonstrations(),
            0,
            "topic",
            "task.numbers.match_field: 'topic' is not an input field (known: kind, question)",
        ),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_sentence(selector, num_fewshot, match_field, message):
    with pytest.raises(ConfigError) as error:
        selected(selector, num_fewshot, match_field=match_field)
    assert str(error.value) == message


def test_a_pool_of_copies_is_called_that():
    copies = [replace(QUESTIONS[0], id=f"pool-{n}") for n in range(3)]
    with pytest.raises(ConfigError) as error:
        selected(FirstDemonstrations(), 1, questions=QUESTIONS[:1], pool=copies)
    assert str(error.value) == (
        "num_fewshot=1: task 'numbers' has only 0 demonstrations for question 'test-0' "
        "(demonstrations=first, a pool of 3, 3 of them copies of the question)"
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["demonstrations=first"], ["qa-pool-001", "qa-pool-002"]),
        (["demonstrations=fixed", "demonstrations.ids=[qa-pool-040,qa-pool-007]"], ["qa-pool-040", "qa-pool-007"]),
        (["demonstrations=random", "seed=1"], ["qa-pool-012", "qa-pool-028"]),
        (["demonstrations=random", "demonstrations.seed=1"], ["qa-pool-012", "qa-pool-028"]),
        (["demonstrations=bm25"], ["qa-pool-017", "qa-pool-022"]),
        (["demonstrations=random", "seed=1", "demonstrations.per_question=true"], ["qa-pool-029", "qa-pool-038"]),
    ],
)
def test_shipped_strategies_draw_what_they_always_drew(options, expected, compose):
    cfg = compose("task=[qa]", "num_fewshot=2", *options)
    [plan] = build_evaluation(ComposedConfig(cfg)).plans
    assert ids(plan.select(plan.examples[0])) == expected
