import pytest

from icl_eval.demonstrations.leaks import NearDuplicate, find_near_duplicates
from icl_eval.tasks import Example

SENTENCE = "the committee will meet again on the first monday of march to discuss the budget"


def examples(split, *texts):
    return [Example(f"{split}-{n}", {"question": text}, ("x",)) for n, text in enumerate(texts)]


def shingles(text):
    return {text[i : i + 5] for i in range(len(text) - 4)}


def test_near_duplicates_are_pairs_whose_five_grams_overlap_and_copies_are_none():
    close, far = SENTENCE.replace("monday", "friday"), SENTENCE.replace("monday of march", "sunday in december")
    shared, joined = shingles(SENTENCE) & shingles(close), shingles(SENTENCE) | shingles(close)
    questions = examples("test", "what is it?", SENTENCE.upper())
    pool = examples("pool", far, close, f"  {SENTENCE}", "what was it?", "")
    assert len(shingles(SENTENCE) & shingles(far)) / len(shingles(SENTENCE) | shingles(far)) < 0.7
    assert find_near_duplicates(questions, pool) == [
        NearDuplicate("test-1", "pool-1", round(len(shared) / len(joined), 3))
    ]


def test_a_candidate_that_is_the_question_itself_is_no_near_duplicate():
    question = Example("pool-0", {"question": SENTENCE}, ("x",))
    assert find_near_duplicates([question], examples("pool", f"{SENTENCE}!")) == []


def test_candidates_that_match_no_question_are_no_leak():
    question = Example("test-0", {"question": SENTENCE, "rule": "a"}, ("x",))
    pool = [Example(f"pool-{rule}", {"question": f"{SENTENCE}!", "rule": rule}, ("x",)) for rule in "ab"]
    assert [pair.candidate_id for pair in find_near_duplicates([question], pool, "rule")] == ["pool-a"]
    assert [pair.candidate_id for pair in find_near_duplicates([question], pool)] == ["pool-a", "pool-b"]


def test_what_demonstrations_are_matched_by_makes_no_near_duplicates():
    questions = [Example("test-0", {"question": "27", "rule": SENTENCE}, ("x",))]
    pool = [Example("pool-0", {"question": "31", "rule": SENTENCE}, ("x",))]
    assert find_near_duplicates(questions, pool, "rule") == []


def test_all_pairs_are_compared_whatever_their_number():
    texts = [f"{n:04} {SENTENCE[n % 40 :]} {n * 7919}" for n in range(700)]
    found = find_near_duplicates(examples("test", *texts), examples("pool", *(f"{text}?" for text in texts[::-1])))
    assert {("test-699", "pool-0"), ("test-300", "pool-399"), ("test-0", "pool-699")} <= {
        (pair.question_id, pair.candidate_id) for pair in found
    }
    assert all(pair.similarity >= 0.7 for pair in found)


@pytest.fixture
def leaking(tmp_path, gpt2):
    """Write a task whose second question is nearly in the pool; return the overrides that ask it."""
    header = "question,references\n"
    (tmp_path / "pool.csv").write_text(f"{header}{SENTENCE.replace('monday', 'friday')},a\nwhat?,b\n")
    (tmp_path / "test.csv").write_text(f"{header}where?,a\n{SENTENCE},b\n")
    files = [f"task.qa.{split}.path=./{split}.csv" for split in ("pool", "test")]
    return [f"model.source={gpt2}", "task=[qa]", *files, "max_new_tokens=2"]


SAID = "qa: test-1 and pool-0 (0.83): question and pool read nearly the same, and one may show the other's answer"


def test_near_duplicates_are_said_before_anything_is_decoded_and_in_a_preview(leaking, icl_eval_command, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    preview = icl_eval_command("preview", *leaking, "num_fewshot=1").out
    assert SAID in " ".join(preview.split())  # folded to the terminal's width
    monkeypatch.setattr("icl_eval.evaluation.load_model", stop)
    outcome = icl_eval_command(*leaking, "num_fewshot=1")
    assert f"WARNING: {SAID}\n" in outcome.err


def test_without_demonstrations_nothing_can_leak(leaking, icl_eval_command):
    assert "nearly the same" not in icl_eval_command("preview", *leaking, "num_fewshot=0").out
