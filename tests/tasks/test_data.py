import json
import re
from itertools import combinations
from pathlib import Path

import pytest

from icl_eval.config.composing import ComposedConfig
from icl_eval.config.evaluations import build_evaluation
from icl_eval.metrics.numeric_match import NumericMatch
from icl_eval.metrics.quantities import read_alone, read_last

DATA = Path(__file__).parents[2] / "data"
TASKS = ("commonsense", "dialogue", "math", "qa", "showcase", "story", "translation", "translation_en_fr")
SIZES = {"showcase": (24, 7), "story": (32, 20)}
"""By task, the least numbers of demonstrations and of test questions; of the others there are at least 32 and 60."""
NEAR_COPY = 0.7
SHOWCASE = (
    ("Translate from English to Spanish", "The book is on the table."),
    ("Answer the question using commonsense knowledge", "Why can't a fish live out of water?"),
    (
        "Continue the story with a creative twist",
        "Once upon a time, in a forest far away, there was a small bear named Timmy who loved honey.",
    ),
    ("Solve the mathematical problem", "What is the square root of 144?"),
    ("Answer based on factual knowledge", "Who was the first person to walk on the moon?"),
    ("Continue the conversation naturally", "User: Can you help me with directions? Agent:"),
    (
        "Continue the conversation naturally",
        "User: Can you help me with directions? Agent: Sure, where to and where from? User: I'd like to get from LA "
        "to San Jose today. What's the best road? Agent: ",
    ),
)
every_task = pytest.mark.parametrize("task", TASKS)


def read(task, split):
    lines = (DATA / task / f"{split}.jsonl").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    return [json.loads(line) for line in lines]


def words(row):
    return set(re.findall(r"\w+", row["question"].casefold()))


def overlap(first, second):
    """The share of words that two questions have in common, 0 to 1 (Jaccard)."""
    return len(words(first) & words(second)) / len(words(first) | words(second))


def test_the_folders_are_the_tasks_that_are_tested_here():
    elsewhere = {"induction", "icl_t5"}  # see tests/test_training.py and tests/test_induction.py
    assert {folder.name for folder in DATA.iterdir() if folder.is_dir()} == {*TASKS, *elsewhere}


@every_task
def test_rows_have_their_fields_in_order_numbered_ids_and_clean_text(task):
    for split in ("pool", "test"):
        rows = read(task, split)
        assert [row["id"] for row in rows] == [f"{task}-{split}-{n:03}" for n in range(1, len(rows) + 1)]
        for row in rows:
            choices = ["choices"] * (task == "commonsense" and split == "test")
            assert list(row) == ["id", *["instruction"] * (task == "showcase"), "question", "references", *choices]
            assert row["references"]
            assert len(set(row["references"])) == len(row["references"])
            for text in (row["question"], *row["references"], *row.get("choices", ())):
                assert text.strip()
                assert text == text.strip() or row["id"] == "showcase-test-007"  # a prompt of old that ends in a space
                assert not re.search(r"  |\t|\r|\ufffd", text)
            assert not any("\n" in reference for reference in row["references"])


@every_task
def test_there_are_enough_rows(task):
    pool, test = SIZES.get(task, (32, 60))
    assert len(read(task, "pool")) >= pool
    assert len(read(task, "test")) >= test


@every_task
def test_no_test_question_and_no_near_copy_of_one_is_in_a_pool(task):
    pool = read(task, "pool")
    assert not [
        (question["id"], candidate["id"])
        for question in read(task, "test")
        for candidate in pool
        if overlap(question, candidate) > NEAR_COPY
    ]


@pytest.mark.parametrize("task", [task for task in TASKS if task != "showcase"])
def test_no_question_is_asked_twice(task):
    rows = read(task, "test") + read(task, "pool")
    assert not [
        (first["id"], second["id"]) for first, second in combinations(rows, 2) if overlap(first, second) > NEAR_COPY
    ]


def test_no_first_reference_contains_a_stop_string_of_its_task(compose):
    for plan in build_evaluation(ComposedConfig(compose(f"task=[{','.join(TASKS)}]"))).plans:
        for example in (*plan.task.pool, *plan.examples):
            assert not any(stop in example.references[0] for stop in plan.stop)


def test_of_the_choices_the_first_reference_alone_is_right_and_its_place_tells_nothing():
    places = []
    for row in read("commonsense", "test"):
        references = {reference.casefold() for reference in row["references"]}
        assert [choice for choice in row["choices"] if choice.casefold() in references] == row["references"][:1]
        if len(row["choices"]) == 4:
            places.append(row["choices"].index(row["references"][0]))
        else:
            assert len(row["choices"]) == 2
    assert len(places) == 51
    assert all(8 <= places.count(place) <= 20 for place in range(4))


def test_references_of_math_are_numbers_and_right_by_their_own_metric():
    rows = read("math", "pool") + read("math", "test")
    references = [row["references"] for row in rows]
    scored = NumericMatch("strict").per_example([answers[0] for answers in references], references)
    assert set(scored.per_example) == {1.0}


def test_the_worked_problems_end_in_their_answers_and_are_no_questions_of_the_test():
    rows = read("math", "worked")
    assert [row["id"] for row in rows] == [f"math-worked-{n}" for n in range(1, 9)]
    for row in rows:
        assert list(row) == ["id", "question", "rationale", "references"]
        assert [read_last(row["rationale"])] == [read_alone(reference) for reference in row["references"]]
        assert not re.search(r"  |\n", row["question"] + row["rationale"])
        for equation in re.findall(r"[0-9][0-9 +*/-]*(?: = [0-9][0-9 +*/-]*)+", row["rationale"]):
            assert len({eval(side) for side in equation.split(" = ")}) == 1, equation
    others = read("math", "test") + read("math", "pool")
    assert not [(row["id"], other["id"]) for row in rows for other in others if overlap(row, other) > NEAR_COPY]


def test_the_showcase_asks_its_seven_questions_with_demonstrations_of_each_kind():
    assert tuple((row["instruction"], row["question"]) for row in read("showcase", "test")) == SHOWCASE
    kinds = [row["instruction"] for row in read("showcase", "pool")]
    assert {kind: kinds.count(kind) for kind in kinds} == {kind: 4 for kind, _ in SHOWCASE}


def test_the_numbers_in_the_description_of_the_data_are_those_of_the_files():
    described = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \|", (DATA / "README.md").read_text(encoding="utf-8"), re.M)
    counted = [(task, str(len(read(task, "pool"))), str(len(read(task, "test")))) for task in TASKS]
    assert sorted(described) == counted
