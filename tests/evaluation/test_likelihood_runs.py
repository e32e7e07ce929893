import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from icl_eval.config.setup import data_dir
from icl_eval.evaluation.calibration import draw_texts, log_mean
from icl_eval.runs.records import RecordLog

TASK = """
# @package task.sky
defaults: [{/metrics@metrics: [exact_match]}, _self_]
pool: {path: pool.jsonl}
test: {path: test.jsonl}
fields: {choices: choices}
"""
QUICK = ("--config-dir", ".", "task=sky", "num_fewshot=2", "template=plain", "device=cpu")
CHOICES = (*QUICK, "likelihood=choices", "max_new_tokens=0")


@pytest.fixture
def run(icl_eval_command, tmp_path):
    """Evaluate into a folder of the given name; return its report and its records."""
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "sky.yaml").write_text(TASK)
    for split, count, begin in (("pool", 3, "is the sky blue in"), ("test", 9, "what comes after number")):
        rows = [
            {
                "id": f"{split}{n}",
                "question": f"{begin} {n}{' or less' * (n % 3)}?",
                "references": ["yes" if n % 2 else "no", "it is"],
                "choices": ["yes", "no", "no house", *[f"choice {n}"] * (n % 2)],
            }
            for n in range(count)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(name, *overrides):
        outcome = icl_eval_command(*overrides, f"hydra.run.dir={name}")
        assert (outcome.exit_code, outcome.err) == (0, "")
        lines = (tmp_path / name / "samples_sky.jsonl").read_text(encoding="utf-8").splitlines()
        report = json.loads((tmp_path / name / "report.json").read_text(encoding="utf-8"))
        return {"run": report["run"], "results": report["results"]}, [json.loads(line) for line in lines]

    return run


def log_prob(folder, encoder, decoder, answer):
    """By the library alone: the answer's tokens are those behind the prompt's."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if encoder is None:
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
        ids, prompt = (tokenizer(text, return_tensors="pt")["input_ids"] for text in (decoder + answer, decoder))
        assert ids[0, : prompt.shape[1]].equal(prompt[0])
        logits = network(ids).logits[0, prompt.shape[1] - 1 : -1]
        answer_ids = ids[0, prompt.shape[1] :]
    else:
        network = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float64)
        whole = tokenizer((decoder or "") + answer, add_special_tokens=False)["input_ids"]
        length = len(tokenizer(decoder or "", add_special_tokens=False)["input_ids"])
        encoder_ids = tokenizer(encoder, return_tensors="pt")["input_ids"]
        start = network.config.decoder_start_token_id
        logits = network(input_ids=encoder_ids, decoder_input_ids=torch.tensor([[start, *whole[:-1]]])).logits[
            0, length:
        ]
        answer_ids = torch.tensor(whole[length:])
    return logits.log_softmax(-1).gather(1, answer_ids[:, None]).sum().item(), len(answer_ids)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "placement"), [("gpt2", "decoder"), ("t5", "encoder"), ("t5", "split")], ids=lambda value: value
)
def test_a_record_holds_the_log_probabilities_that_the_library_gives(model, placement, run, request):
    folder = request.getfixturevalue(model)
    report, records = run("run", *CHOICES, f"model.source={folder}", f"placement={placement}", "dtype=float64")

    assert [record["completion"] for record in records] == [""] * 9
    for record in records:
        likelihood = record["likelihood"]
        assert [answer["text"] for answer in likelihood["references"]] == record["targets"]
        assert [answer["text"] for answer in likelihood["choices"]][:3] == ["yes", "no", "no house"]
        question = record["doc"]["question"]
        blank = [text and text.replace(question, "N/A") for text in (record["encoder"], record["decoder"])]
        for answer in (*likelihood["references"], *likelihood["choices"]):
            expected = log_prob(folder, record["encoder"], record["decoder"], answer["text"])
            assert (answer["logprob"], answer["tokens"]) == (pytest.approx(expected[0], rel=1e-6), expected[1])
        for choice in likelihood["choices"]:
            calibrated = choice["logprob"] - log_prob(folder, *blank, choice["text"])[0]
            assert choice["calibrated"] == pytest.approx(calibrated, rel=1e-6, abs=1e-6)
    found = report["results"]["sky"]
    assert found["counts"]["finish_reasons"] == {"undecoded": 9}
    assert list(found["metrics"]) == [
        *("reference_logprob", "reference_perplexity", "reference_rank"),
        *("choice_accuracy", "choice_accuracy_per_token", "choice_accuracy_per_byte", "choice_accuracy_calibrated"),
    ]
    logprobs = [record["likelihood"]["references"][0]["logprob"] for record in records]
    assert found["metrics"]["reference_logprob"]["score"] == pytest.approx(sum(logprobs) / 9)


def test_completions_are_the_same_with_likelihoods_and_without(run, gpt2):
    options = (*QUICK, "max_new_tokens=5", f"model.source={gpt2}")
    plain, records = run("plain", *options)
    both, with_likelihood = run("both", *options, "likelihood=references")

    assert [record | {"likelihood": None, "metrics": {}} for record in with_likelihood] == [
        record | {"metrics": {}} for record in records
    ]
    assert all(record["likelihood"]["choices"] == [] for record in with_likelihood)
    metrics = both["results"]["sky"]["metrics"]
    assert list(metrics) == ["exact_match", "reference_logprob", "reference_perplexity"]
    assert metrics["exact_match"] == plain["results"]["sky"]["metrics"]["exact_match"]


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.slow
@pytest.mark.parametrize("new_tokens", [0, 3])
def test_law_3_a_run_killed_between_likelihoods_and_started_again_gives_the_same(new_tokens, run, gpt2, monkeypatch):
    options = (*QUICK, "likelihood=choices", f"max_new_tokens={new_tokens}", f"model.source={gpt2}", "batch_size=3")
    whole = run("whole", *options)
    append = RecordLog.append
    appended = []

    def append_and_die(log, record):
        append(log, record)
        appended.append(record)
        if len(appended) == 9 + 4:  # all completions, and the likelihoods of four
            raise Killed

    monkeypatch.setattr(RecordLog, "append", append_and_die)
    with pytest.raises(Killed):
        run("killed", *options)
    monkeypatch.setattr(RecordLog, "append", append)
    assert run("killed", *options) == whole


def test_law_4_likelihoods_are_scored_again_without_the_model(run, gpt2, monkeypatch):
    options = (*CHOICES, f"model.source={gpt2}")
    whole = run("run", *options)

    def refuse(*arguments):
        raise AssertionError("no model is needed")

    monkeypatch.setattr("icl_eval.decoding.engines.in_process.load_model", refuse)
    assert run("run", *options) == whole


@pytest.mark.parametrize("batch_size", [1, 4])
def test_law_2_batch_size_and_limit_change_likelihoods_by_rounding_alone(batch_size, run, t5):
    options = (*CHOICES, f"model.source={t5}", "dtype=float64")
    whole = run("whole", *options)[1]
    some = run("some", *options, f"batch_size={batch_size}", "limit=5")[1]
    for record, expected in zip(some, whole, strict=False):
        for answer, other in zip(record["likelihood"]["choices"], expected["likelihood"]["choices"], strict=True):
            assert answer["logprob"] == pytest.approx(other["logprob"], rel=1e-9)
            assert answer["calibrated"] == pytest.approx(other["calibrated"], rel=1e-9, abs=1e-9)


@pytest.mark.slow
def test_the_shipped_model_scores_choices_after_a_bare_premise_and_after_random_words(run):
    # one of 'no', 'yes' and nothing else, so that domain texts are allowed; the model knows neither
    same = ("task.sky.fields.choices=\"['no', 'yes']\"", "model=icl_t5", "likelihood.content_free=null")
    report, records = run("run", *CHOICES, *same, "likelihood.premise='nare vula'", "likelihood.domain_texts=3")
    assert [name for name in report["results"]["sky"]["metrics"] if name.startswith("choice_accuracy_")] == [
        *("choice_accuracy_per_token", "choice_accuracy_per_byte"),
        *("choice_accuracy_domain", "choice_accuracy_pmi", "choice_accuracy_batch"),
    ]
    questions = [record["doc"]["question"] for record in records]
    texts = draw_texts("question", questions, 3, 0)
    first = records[0]
    for choice in first["likelihood"]["choices"]:
        alone = log_prob(data_dir() / "icl_t5", "nare vula", None, choice["text"])[0]
        assert choice["pmi"] == pytest.approx(choice["logprob"] - alone, abs=1e-4)
        after = [
            log_prob(data_dir() / "icl_t5", first["encoder"].replace(questions[0], text), None, choice["text"])[0]
            for text in texts
        ]
        assert choice["domain"] == pytest.approx(choice["logprob"] - log_mean(after), abs=1e-4)
