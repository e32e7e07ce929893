import pytest

from icl_eval.building import build_evaluation
from icl_eval.demonstrations import FirstDemonstrations, FixedDemonstrations, RandomDemonstrations, build_selection
from icl_eval.errors import ConfigError
from icl_eval.tasks import Example, Task

POOL = tuple(
    Example(f"pool-{n}", {"question": f"Pool {n}?", "kind": "odd" if n % 2 else "even"}, ("x",)) for n in range(9)
)
QUESTIONS = tuple(Example(f"test-{n}", {"question": f"Test {n}?", "kind": "odd"}, ("x",)) for n in range(6))
SELECTORS = {
    "first": FirstDemonstrations(),
    "random": RandomDemonstrations(seed=3),
    "per question": RandomDemonstrations(seed=3, per_question=True),
    "fixed": FixedDemonstrations([f"pool-{n}" for n in (8, 2, 5, 0, 7, 4)]),
}
every_strategy = pytest.mark.parametrize("selector", SELECTORS.values(), ids=SELECTORS)


def task_of(pool):
    return Task("numbers", "", {}, tuple(pool), QUESTIONS, "")


def ids(demonstrations):
    return [demonstration.id for demonstration in demonstrations]


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


@pytest.mark.parametrize("name", ["random", "per question", "fixed"])
def test_demonstrations_do_not_depend_on_the_order_of_the_pool(name):
    assert selected(SELECTORS[name], 4, pool=POOL[::-1]) == selected(SELECTORS[name], 4)


@every_strategy
def test_the_sets_of_fewer_demonstrations_are_the_beginnings_of_larger_ones(selector):
    largest = selected(selector, 6)
    for num_fewshot in range(6):
        assert selected(selector, num_fewshot) == {question: shown[:num_fewshot] for question, shown in largest.items()}


@pytest.mark.parametrize("name", ["random", "per question"])
def test_a_draw_keeps_its_order_when_a_candidate_leaves_the_pool(name):
    for question, shown in selected(SELECTORS[name], 9).items():
        without = selected(SELECTORS[name], 8, pool=[candidate for candidate in POOL if candidate.id != "pool-4"])
        assert without[question] == [demonstration for demonstration in shown if demonstration != "pool-4"]


def test_each_strategy_ranks_as_it_says():
    assert selected(SELECTORS["first"], 3)["test-0"] == ["pool-0", "pool-1", "pool-2"]
    assert selected(SELECTORS["fixed"], 3)["test-0"] == ["pool-8", "pool-2", "pool-5"]
    # Written down, so that a change of the draw, and with it of every published number, cannot go unnoticed.
    assert selected(RandomDemonstrations(0), 4)["test-0"] == ["pool-5", "pool-3", "pool-0", "pool-4"]
    assert selected(RandomDemonstrations(0, per_question=True), 4)["test-0"] == ["pool-1", "pool-2", "pool-5", "pool-6"]


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
        Example(candidate.id, {"question": copy, "kind": "odd"}, ("x",)) if n == 2 else candidate
        for n, candidate in enumerate(POOL)
    ]
    num_fewshot = 5
    shown = selected(selector, num_fewshot, questions=[question], pool=pool)["test-0"]
    expected = selected(selector, num_fewshot + 1, questions=[question])["test-0"]
    assert shown == [demonstration for demonstration in expected if demonstration != "pool-2"][:num_fewshot]


@every_strategy
def test_law_6_a_question_never_sees_itself(selector):
    reworded = [Example(candidate.id, {"question": "Reworded?", "kind": "odd"}, ("x",)) for candidate in POOL]
    for questions in (POOL, reworded):
        for question, shown in selected(selector, 5, questions=questions).items():
            assert question not in shown


def test_an_example_that_differs_in_one_field_is_not_a_copy():
    question = Example("test-0", {"question": "Pool 0?", "kind": "odd"}, ("x",))
    assert selected(FirstDemonstrations(), 1, questions=[question]) == {"test-0": ["pool-0"]}


def test_a_match_field_keeps_demonstrations_of_the_questions_kind():
    assert selected(FirstDemonstrations(), 3, match_field="kind")["test-0"] == ["pool-1", "pool-3", "pool-5"]
    assert selected(SELECTORS["fixed"], 2, match_field="kind")["test-0"] == ["pool-5", "pool-7"]


@pytest.mark.parametrize(
    ("selector", "num_fewshot", "match_field", "message"),
    [
        (
            FirstDemonstrations(),
            10,
            None,
            "num_fewshot=10: task 'numbers' has only 9 demonstrations for question 'test-0' (a pool of 9)",
        ),
        (
            RandomDemonstrations(0),
            5,
            "kind",
            "num_fewshot=5: task 'numbers' has only 4 demonstrations for question 'test-0' (a pool of 9)",
        ),
        (
            FixedDemonstrations(["pool-1"]),
            2,
            None,
            "num_fewshot=2: task 'numbers' has only 1 demonstrations for question 'test-0' (a pool of 9)",
        ),
        (
            FixedDemonstrations(["pool-1", "pool-99"]),
            1,
            None,
            "demonstrations.ids: 'pool-99' is not in the pool of task 'numbers' (it holds 9, such as 'pool-0')",
        ),
        (FixedDemonstrations(["pool-1", "pool-1"]), 1, None, "demonstrations.ids: an id is given twice"),
        (
            FirstDemonstrations(),
            0,
            "topic",
            "task.numbers.match_field: 'topic' is not a field that templates see (known: kind, question)",
        ),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_sentence(selector, num_fewshot, match_field, message):
    with pytest.raises(ConfigError) as error:
        selected(selector, num_fewshot, match_field=match_field)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["demonstrations=first"], ["qa-pool-001", "qa-pool-002"]),
        (["demonstrations=fixed", "demonstrations.ids=[qa-pool-040,qa-pool-007]"], ["qa-pool-040", "qa-pool-007"]),
        (["demonstrations=random", "seed=1"], ["qa-pool-012", "qa-pool-028"]),
        (["demonstrations=random", "seed=1", "demonstrations.per_question=true"], ["qa-pool-037", "qa-pool-021"]),
    ],
)
def test_shipped_strategies_draw_what_they_always_drew(options, expected, compose):
    cfg = compose("task=[qa]", "num_fewshot=2", *options)
    [plan] = build_evaluation(cfg, {}, []).plans
    assert ids(plan.select(plan.examples[0])) == expected
