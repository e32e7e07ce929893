"""The cells of a sweep read their data once, and compute once what only depends on them."""

import pickle
from types import SimpleNamespace

import pytest

from icl_eval.demonstrations import Bm25Demonstrations, RandomDemonstrations, build_selection
from icl_eval.demonstrations.leaks import drop_duplicates, find_duplicates
from icl_eval.errors import DataError
from icl_eval.tasks import kept_tasks, loading
from icl_eval.tasks.examples import Example, Examples, compute_once
from icl_eval.tasks.kept_tasks import get_or_read, keeping_tasks, start_keeping_tasks
from icl_eval.tasks.loading import Task, load_task
from icl_eval.tasks.rows import DataSource

ROW = '{{"id": "{0}", "question": "Where is {1}?", "references": ["{2}"]}}\n'
FIELDS = {"question": "question", "references": "references"}


@pytest.fixture
def read(monkeypatch):
    """Return the names of the files that are read."""
    names = []
    real = loading.read_rows
    monkeypatch.setattr(
        loading, "read_rows", lambda source: names.append(source.path.rpartition("/")[2]) or real(source)
    )
    return names


def load(folder, instruction=""):
    pool, test = (DataSource(str(folder / f"{name}.jsonl")) for name in ("pool", "test"))
    return load_task("own", instruction=instruction, labels={}, pool=pool, test=test, fields=FIELDS)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "pool.jsonl").write_text(ROW.format("a", "Rome", "Italy") + ROW.format("b", "Lima", "Peru"))
    (tmp_path / "test.jsonl").write_text(ROW.format("c", "Oslo", "Norway"))
    return tmp_path


def test_a_sweep_reads_its_data_once_and_the_next_command_again(icl_eval_command, gpt2, read):
    words = ("task=qa", f"model.source={gpt2}", "limit=1", "max_new_tokens=1", "num_fewshot=1")
    icl_eval_command("-m", *words, "seed=0,1,2")
    assert read == ["pool.jsonl", "test.jsonl"]
    icl_eval_command(*words, "seed=4")
    assert read == ["pool.jsonl", "test.jsonl"] * 2
    assert kept_tasks._kept is None


def test_a_worker_keeps_what_its_cells_read(data, read, monkeypatch):
    monkeypatch.setattr(kept_tasks, "_kept", None)
    start_keeping_tasks()
    task = load(data)
    start_keeping_tasks()
    assert load(data) is task
    assert load(data, instruction="Answer.").instruction == "Answer."
    assert len(read) == 4


def test_nothing_is_kept_outside_of_a_command(data):
    before = load(data).content_hash
    (data / "test.jsonl").write_text(ROW.format("c", "Oslo", "Sweden"))
    assert load(data).content_hash != before


def test_the_tasks_used_least_recently_leave_if_there_are_too_many_examples(monkeypatch):
    monkeypatch.setattr(kept_tasks, "_MOST_EXAMPLES", 10)
    asked = []

    def get(name, size):
        task = SimpleNamespace(num_examples=size)
        return get_or_read(name, lambda: asked.append(name) or task)

    with keeping_tasks():
        for name, size in (
            ("a", 4),
            ("b", 4),
            ("a", 4),
            ("c", 4),
            ("a", 4),
            ("b", 4),
            ("huge", 11),
            ("huge", 11),
            ("b", 4),
        ):
            get(name, size)
    assert asked == ["a", "b", "c", "b", "huge", "huge", "b"]


def test_a_mistake_in_the_data_is_not_kept(data):
    (data / "test.jsonl").write_text('{"id": "c"}\n')
    with keeping_tasks():
        with pytest.raises(DataError):
            load(data)
        (data / "test.jsonl").write_text(ROW.format("c", "Oslo", "Norway"))
        assert load(data).examples[0].references == ("Norway",)


def test_what_depends_on_a_pool_is_computed_once_for_all_seeds(monkeypatch):
    rows = [{"question": f"{text} ", "references": "x"} for text in ("one", "two", "One", "three")]
    task = Task.of_rows("own", pool=rows, test=[{"question": "four", "references": "x"}])
    seen = []
    monkeypatch.setattr("icl_eval.tasks.examples.unicodedata.normalize", lambda form, text: seen.append(text) or text)
    for seed in range(3):
        for strategy in (RandomDemonstrations, Bm25Demonstrations):
            shown = build_selection(task, strategy(seed), 2)(task.examples[0])
            assert "pool-2" not in [each.example.id for each in shown]
        assert find_duplicates(task.pool) == [("pool-2", "pool-0")]
    assert seen.count("three ") == 3  # for its duplicates, the copies of a question, and BM25


def test_one_value_of_a_kind_is_kept_with_the_examples():
    examples = Examples([Example("a", {}, ("x",))])
    computed = []

    def ask(kind, key):
        return compute_once(examples, kind, key, lambda: computed.append((kind, key)) or key)

    assert [ask(*each) for each in (("m", 1), ("n", 1), ("m", 1), ("m", 2), ("m", 1), ("n", 1))] == [1, 1, 1, 2, 1, 1]
    assert computed == [("m", 1), ("n", 1), ("m", 2), ("m", 1)]
    assert [compute_once(tuple(examples), "m", 1, lambda: 7)] == [7]


def test_a_copy_of_a_pool_begins_without_what_was_computed():
    row = {"question": "one", "references": "x"}
    pool = Task.of_rows("own", pool=[row], test=[row]).pool
    assert drop_duplicates(pool) == pool
    compute_once(pool, "function", None, lambda: lambda: None)  # a function cannot be pickled
    copied = pickle.loads(pickle.dumps(pool))
    assert (copied, copied._computed) == (pool, {})
