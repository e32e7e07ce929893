"""The provider for inspect_ai, asked by inspect_ai itself; these tests need it installed."""

import pytest
import tiny_models

from icl_eval.harnesses.gathering import Gatherer

inspect_ai = pytest.importorskip(
    "inspect_ai", reason="inspect_ai is not installed (pip install 'icl-eval[inspect-ai]')"
)
pytestmark = pytest.mark.slow

NUM_SAMPLES = 30
INTRODUCTION = "Answer with a number. " * 8


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    return tiny_models.save_llama(folder, chat_template=tiny_models.CHAT_TEMPLATE)


@pytest.fixture
def run(tmp_path):
    """Ask for the sums of a task and return inspect_ai's log of it."""

    def call(model, num_samples=NUM_SAMPLES, model_args=None, **options):
        from inspect_ai.dataset import Sample
        from inspect_ai.scorer import match

        samples = [Sample(input=f"{INTRODUCTION}What is {n} + {n}?", target=str(2 * n)) for n in range(num_samples)]
        task = inspect_ai.Task(dataset=samples, scorer=match())
        options = {"display": "none", "log_dir": str(tmp_path), "max_tokens": 12, **options}
        (log,) = inspect_ai.eval(task, model=model, model_args=model_args or {}, **options)
        return log

    return call


def texts_of(log):
    assert log.status == "success", log.error
    return [sample.output.completion for sample in log.samples]


def test_completions_are_those_of_its_own_provider_and_many_are_decoded_together(run, llama, monkeypatch):
    together = []
    complete = Gatherer._complete

    def listen(gatherer, requests, futures):
        together.append(len(requests))
        complete(gatherer, requests, futures)

    monkeypatch.setattr(Gatherer, "_complete", listen)
    log = run(f"icl_eval/{llama}")
    assert sum(together) == NUM_SAMPLES
    assert len(together) < NUM_SAMPLES / 2
    assert texts_of(log) == texts_of(run(f"hf/{llama}", model_args={"do_sample": False, "device": "cpu"}))
    assert len(set(texts_of(log))) > NUM_SAMPLES / 2
    outputs = [sample.output for sample in log.samples]
    assert {output.stop_reason for output in outputs} == {"max_tokens"}
    assert {output.usage.output_tokens for output in outputs} == {12}


def test_a_completion_ends_at_a_stop_string_and_where_the_model_ends(run, llama, gpt2):
    whole = texts_of(run(f"icl_eval/{llama}", 1))[0]
    (sample,) = run(f"icl_eval/{llama}", 1, stop_seqs=[whole[4:6]]).samples
    assert (sample.output.completion, sample.output.stop_reason) == (whole[:4], "stop")
    plain = {"use_chat_template": False}
    (sample,) = run(f"icl_eval/{gpt2}", 1, plain, max_tokens=1000).samples
    assert sample.output.stop_reason == "model_length"
    assert sample.output.usage.total_tokens == 256


REFUSED = {
    "temperature": ({}, {"temperature": 0.7}, "temperature=0.7: icl_eval completes greedily, and without this option"),
    "logprobs": ({}, {"logprobs": True}, "logprobs=true: icl_eval completes greedily, and without this option"),
    "unknown": ({"quantize": 4}, {}, "model_args: unknown key 'quantize'; did you mean 'quantization'? (known: a"),
    "adapter": ({"adapter": "./none"}, {}, "model.adapter=./none does not exist"),
    "batch_size": ({"batch_size": 0}, {}, "model_args: batch_size: Input should be greater than or equal to 1"),
}


@pytest.mark.parametrize(("model_args", "options", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused_by_name(model_args, options, sentence, run, llama):
    try:
        message = run(f"icl_eval/{llama}", 1, model_args, **options).error.message
    except Exception as error:  # an argument of the model is refused before the run begins
        message = str(error)
    assert sentence in message


def test_a_model_without_a_chat_template_is_refused_unless_a_single_message_is_continued(run, gpt2):
    with pytest.raises(Exception, match=r"has no chat template in its tokenizer"):
        run(f"icl_eval/{gpt2}", 1)
    assert texts_of(run(f"icl_eval/{gpt2}", 1, {"use_chat_template": False}))
