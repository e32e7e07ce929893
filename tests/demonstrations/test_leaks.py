import pytest

from icl_eval.demonstrations.leaks import NearDuplicate, find_near_duplicates
from icl_eval.tasks.examples import Example

SENTENCE = "the committee will meet again on the first monday of march to discuss the budget"


def examples(split, *texts):
    return [Example(f"{split}-{n}", {"question": text}, ("x",)) for n, text in enumerate(texts)]


def shingles(text):
    return {text[i : i + 5] for i in range(len(text) - 4)}


def test_near_duplicates_are_shown_demonstrations_whose_five_grams_overlap_with_the_questions():
    close, far = SENTENCE.replace("monday", "friday"), SENTENCE.replace("monday of march", "sunday in december")
    shared, joined = shingles(SENTENCE) & shingles(close), shingles(SENTENCE) | shingles(close)
    short, question = examples("test", "what is it?", SENTENCE.upper())
    pool = examples("pool", far, close, "what was it?", "")
    assert len(shingles(SENTENCE) & shingles(far)) / len(shingles(SENTENCE) | shingles(far)) < 0.7
    assert find_near_duplicates([(short, pool), (question, pool), (question, [])]) == [
        NearDuplicate("test-1", "pool-1", round(len(shared) / len(joined), 3))
    ]


def test_what_demonstrations_are_matched_by_makes_no_near_duplicates():
    question = Example("test-0", {"question": "27", "rule": SENTENCE}, ("x",))
    demonstration = Example("pool-0", {"question": "31", "rule": SENTENCE}, ("x",))
    assert find_near_duplicates([(question, [demonstration])], "rule") == []
    assert [pair.demonstration_id for pair in find_near_duplicates([(question, [demonstration])])] == ["pool-0"]


@pytest.fixture
def leaking(tmp_path, gpt2):
    """Write a task whose second question is nearly in the pool; return the overrides that ask it."""
    header = "question,references\n"
    (tmp_path / "pool.csv").write_text(f"{header}{SENTENCE.replace('monday', 'friday')},a\nwhat?,b\n")
    (tmp_path / "test.csv").write_text(f"{header}where?,a\n{SENTENCE},b\n")
    files = [f"task.qa.{split}.path=./{split}.csv" for split in ("pool", "test")]
    return [f"model.source={gpt2}", "task=[qa]", *files, "max_new_tokens=2"]


SAID = "qa: test-1 and pool-0 (0.83): question and demonstration are nearly identical and may have the same answer"


def test_near_duplicates_are_said_before_anything_is_decoded_and_in_a_preview(leaking, icl_eval_command, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    preview = icl_eval_command("preview", *leaking, "num_fewshot=2").out
    assert SAID in " ".join(preview.split())  # folded to the terminal's width
    monkeypatch.setattr("icl_eval.decoding.engines.in_process.load_model", stop)
    outcome = icl_eval_command(*leaking, "num_fewshot=2")
    assert f"WARNING: {SAID}\n" in outcome.err


@pytest.mark.slow
def test_duplicates_in_a_pool_are_said_before_anything_is_decoded_and_in_a_preview(
    leaking, icl_eval_command, monkeypatch, tmp_path
):
    def stop(*arguments):
        raise KeyboardInterrupt

    (tmp_path / "pool.csv").write_text("question,references\nwho?,a\nwhat?,b\n WHAT? ,B\nwhat?,c\n")
    said = "qa: 1 of 4 rows of the pool are duplicates (pool-2 repeats pool-1); only one of each is drawn"
    preview = icl_eval_command("preview", *leaking, "num_fewshot=3").out
    assert said in " ".join(preview.split())
    assert "duplicates" not in icl_eval_command("preview", *leaking, "num_fewshot=0").out
    monkeypatch.setattr("icl_eval.decoding.engines.in_process.load_model", stop)
    assert f"WARNING: {said}\n" in icl_eval_command(*leaking, "num_fewshot=3").err


def test_what_no_question_is_shown_is_no_leak(leaking, icl_eval_command):
    assert "nearly the same" not in icl_eval_command("preview", *leaking, "num_fewshot=0").out
    other = [*leaking, "demonstrations=fixed", "demonstrations.ids=[pool-1]", "num_fewshot=1"]
    assert "nearly the same" not in icl_eval_command("preview", *other).out
