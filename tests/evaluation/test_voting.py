import json
import random
from dataclasses import replace
from math import comb

import pytest
from parsed_pages import Parsed
from sample_runs import FIRST

from icl_eval.evaluation.voting import elect, settle
from icl_eval.metrics.postprocessing import Extract
from icl_eval.runs.records import SampledCompletion

SAMPLING = ("task=qa", "limit=5", "num_fewshot=1", "max_new_tokens=6", "decoding=sample", "decoding.top_k=3")


@pytest.mark.parametrize(
    ("predictions", "elected"),
    [
        (["a"], 0),
        (["a", "b", "b"], 1),
        (["a", "b", "b", "a"], 0),  # a tie: the one that came first
        (["c", "b", "a", "a", "b"], 1),
        (["Oslo", "Paris", "oslo ", "Paris", "OSLO"], 0),
        (["", "", "", "a"], 3),  # nothing said is no vote
        (["", " "], 0),
        (["x", "y", "z"], 0),
    ],
)
def test_the_first_of_the_most_frequent_predictions_is_elected(predictions, elected):
    assert elect(predictions) == elected


@pytest.mark.parametrize("num_samples", [1, 3, 9])
def test_a_majority_of_samples_is_right_as_often_as_the_binomial_says(num_samples):
    draw, q, trials = random.Random(1), 0.6, 4000
    asked = [["yes" if draw.random() < q else "no" for _ in range(num_samples)] for _ in range(trials)]
    right = sum(said[elect(said)] == "yes" for said in asked)
    expected = sum(
        comb(num_samples, c) * q**c * (1 - q) ** (num_samples - c) for c in range(num_samples // 2 + 1, num_samples + 1)
    )
    assert right / trials == pytest.approx(expected, abs=0.02)


def test_a_record_shows_the_first_completion_with_the_elected_prediction():
    texts = ("so 1", "hm", "thus 2", "it is 2")
    samples = tuple(
        SampledCompletion(text, "", number, "stop" if number % 2 else "eos", "\n" if number % 2 else None)
        for number, text in enumerate(texts)
    )
    record = settle(replace(FIRST, samples=samples, finish_reason="length"), Extract("[0-9]", no_match="empty"))
    assert [sample.prediction for sample in record.samples] == ["1", "", "2", "2"]
    assert (record.completion, record.prediction, record.finish_reason, record.stop_string) == (
        "thus 2",
        "2",
        "eos",
        None,
    )
    assert settle(record, Extract("[0-9]", no_match="empty")) == record
    assert settle(record, Extract("so|hm|thus|it")).prediction == "so"  # scored again without the model


def lines(folder):
    return [json.loads(line) for line in (folder / "samples_qa.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_a_run_of_samples_is_counted_continued_and_compared(evaluate_tiny, icl_eval_command):
    one, four = (evaluate_tiny(f"of{n}", *SAMPLING, f"decoding.num_samples={n}") for n in (1, 4))
    single, records = lines(one), lines(four)
    assert [record["samples"] for record in single] == [[]] * 5
    for alone, record in zip(single, records, strict=True):
        assert len(record["samples"]) == 4
        assert record["samples"][0]["completion"] == alone["completion"]
        elected = record["samples"][elect([sample["prediction"] for sample in record["samples"]])]
        assert (record["completion"], record["prediction"]) == (elected["completion"], elected["prediction"])
        assert record["completion_tokens"] == sum(sample["tokens"] for sample in record["samples"])
        assert set(record["metrics"]) == {
            *("exact_match", "exact_match_mean_of_samples", "exact_match_any_of_2", "exact_match_any_of_4"),
            *("token_f1", "token_f1_mean_of_samples"),
        }
    report = json.loads((four / "report.json").read_text(encoding="utf-8"))
    counts = report["results"]["qa"]["counts"]
    assert sum(counts["finish_reasons"].values()) == 20
    assert counts["completion_tokens"] == sum(record["completion_tokens"] for record in records)
    assert counts["prompt_tokens"] == sum(record["prompt_tokens"] for record in single)
    assert report["run"]["decoding"]["options"]["num_samples"] == 4
    assert "num_samples" not in json.loads((one / "report.json").read_text())["run"]["decoding"]["options"]

    # A question is written when all of its samples are there, and what is missing is sampled again as it was.
    before = (four / "samples_qa.jsonl").read_bytes()
    (four / "samples_qa.jsonl").write_bytes(b"".join(before.splitlines(keepends=True)[:2]) + b'{"example_id": "qa')
    (four / "report.json").unlink()
    assert evaluate_tiny("of4", *SAMPLING, "decoding.num_samples=4") == four
    assert (four / "samples_qa.jsonl").read_bytes() == before

    assert icl_eval_command("compare", str(one), str(four), "output=compare.json").exit_code == 0
    compared = json.loads((four.parent / "compare.json").read_text(encoding="utf-8"))
    assert [each["metric"] for each in compared["differences"]] == ["exact_match", "token_f1"]
    assert "qa: exact_match_any_of_4" in compared["left_out"]

    page = Parsed((four / "report.html").read_text(encoding="utf-8"))
    rows = page.packed(page.data("tasks")[0]["blocks"])
    shown = [[texts[sample[0]] for sample in record["samples"]] for record, texts in rows]
    assert shown == [[sample["completion"] for sample in record["samples"]] for record in records]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("stream", "prompt=a", "decoding=sample"), "must be 1, except in an evaluation, which counts the votes of"),
        (("trace", "task=qa", "decoding=sample"), "must be 1, except in an evaluation, which counts the votes of"),
        (("tour", "prompt=a", "decoding=sample"), "must be 1, except in an evaluation, which counts the votes of"),
        (
            ("task=qa", "decoding=sample", "max_new_tokens=0", "likelihood=references"),
            "has no effect with max_new_tokens=0, which decodes nothing (task.qa)",
        ),
    ],
)
def test_several_samples_are_refused_where_only_one_is_shown(arguments, sentence, icl_eval_command, gpt2):
    outcome = icl_eval_command(*arguments, f"model.source={gpt2}", "decoding.num_samples=2", "device=cpu")
    assert outcome.exit_code == 2
    assert outcome.err.startswith("icl-eval: decoding.num_samples")
    assert sentence in outcome.err
    assert outcome.err.count("\n") == 1
