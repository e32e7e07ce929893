"""icl_eval as a model of lm-evaluation-harness, request by request beside the harness's own model `hf`."""

import logging
from itertools import combinations

import lm_eval
import pytest
from adapters import save_lora
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval_tasks import write_tasks
from tiny_models import CHAT_TEMPLATE, save_gpt2, save_llama, train_unigram

from icl_eval.errors import ConfigError, DataError
from icl_eval.harnesses.lm_eval.likelihoods import fit_request, score_requests
from icl_eval.harnesses.lm_eval.model import IclEvalLM

CLOSE = 2e-4
"""How far two log-likelihoods may be apart, in float32."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="module")
def chatty(tmp_path_factory):
    return save_gpt2(tmp_path_factory.mktemp("models") / "chatty-gpt2", chat_template=CHAT_TEMPLATE)


@pytest.fixture(scope="module")
def manager():
    return TaskManager(include_defaults=False)


def answers(model, tasks, manager, **options):
    """Run tasks in the harness and return what the model answered to each request, by task and document."""
    named = [{"task": name, **config} for name, config in tasks.items()]
    results = lm_eval.simple_evaluate(model=model, tasks=named, task_manager=manager, bootstrap_iters=0, **options)
    return {
        (name, sample["doc_id"]): [answer for answers in sample["resps"] for answer in answers]
        for name, samples in results["samples"].items()
        for sample in samples
    }


def hf(folder, **arguments):
    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1, **arguments)


def assert_the_same(ours, theirs, close=CLOSE):
    """Texts and greedy flags are equal, log-likelihoods close."""
    assert ours.keys() == theirs.keys()
    for key, expected in theirs.items():
        for got, wanted in zip(ours[key], expected, strict=True):
            if isinstance(wanted, tuple):
                assert got == (pytest.approx(wanted[0], abs=close, rel=1e-6), wanted[1]), key
            else:  # the rounding of all tokens of a whole text adds up
                assert got == (wanted if isinstance(wanted, str) else pytest.approx(wanted, abs=close, rel=1e-5)), key


@pytest.mark.parametrize(
    ("model", "arguments", "windows"),
    [
        pytest.param("gpt2", {}, 1, marks=pytest.mark.slow),
        ("gpt2", {"max_length": 40}, 2),  # every prompt is cut on the left, and whole texts take several windows
        pytest.param("llama", {"add_bos_token": True, "prefix_token_id": 5}, 1, marks=pytest.mark.slow),
        ("t5", {"max_length": 30}, 2),
    ],
    ids=["gpt2", "gpt2, cut", "llama, opened", "t5, cut"],
)
def test_every_kind_of_request_is_answered_as_hf_answers_it(model, arguments, windows, request, manager, tmp_path):
    folder = request.getfixturevalue(model)
    tasks = write_tasks(tmp_path)
    ours = IclEvalLM(str(folder), **arguments)
    assert (
        len(ours.tok_encode("What is 12 + 30? 42" + " and then three more words" * 6)) // ours.max_length >= windows - 1
    )
    assert_the_same(answers(ours, tasks, manager), answers(hf(folder, **arguments), tasks, manager))


@pytest.mark.slow
def test_a_chat_shows_its_demonstrations_as_turns_and_is_answered_as_hf_answers_it(chatty, manager, tmp_path):
    tasks = write_tasks(tmp_path, num_fewshot=2)
    del tasks["whole"]  # has no prompt
    chat = {"apply_chat_template": True, "fewshot_as_multiturn": True, "system_instruction": "Be short."}
    ours = answers(IclEvalLM(str(chatty)), tasks, manager, **chat)
    assert_the_same(ours, answers(hf(chatty), tasks, manager, **chat))


def test_a_continuation_is_greedy_exactly_if_hf_says_so(gpt2):
    prompts = ["Q: What is 7 + 8?\nA:", "English: The house is small.\nGerman:", "the answer", ""]
    texts = [" 15", " Das Haus", " is", "<|eos|>Q", "ß", "Input: one two"]
    ours, theirs = IclEvalLM(str(gpt2)), hf(gpt2)
    likely = [
        theirs.tokenizer.decode(int(theirs.model(theirs.tok_batch_encode([prompt])[0]).logits[0, -1].argmax()))
        for prompt in prompts[:3]
    ]
    pairs = [(prompt, text) for prompt in prompts for text in texts + likely]
    requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    got, wanted = (model.loglikelihood(requests, disable_tqdm=True) for model in (ours, theirs))
    assert [greedy for _, greedy in got] == [greedy for _, greedy in wanted]
    assert 3 <= sum(greedy for _, greedy in wanted) < len(wanted) / 2
    assert [value for value, _ in got] == pytest.approx([value for value, _ in wanted], abs=CLOSE)


@pytest.mark.slow
def test_the_harness_keeps_answers_and_asks_for_the_others_alone(gpt2, manager, tmp_path, decoded):
    tasks = {"texts": write_tasks(tmp_path)["texts"]}
    cache = {"use_cache": str(tmp_path / "answers")}
    few = answers(IclEvalLM(str(gpt2)), tasks, manager, limit=2, **cache)
    assert (len(few), len(decoded)) == (2, 2)
    all_of_them = answers(IclEvalLM(str(gpt2)), tasks, manager, **cache)
    assert (len(all_of_them), len(decoded)) == (6, 6)
    assert few.items() <= all_of_them.items()


@pytest.mark.slow
def test_beams_are_decoded_as_hf_decodes_them(gpt2):
    options = {"until": ["\n"], "max_gen_toks": 8, "num_beams": 3, "top_p": 0.5, "do_sample": False}
    requests = [Instance("generate_until", {}, ("Q: What is 7 + 8?\nA:", options), 0)]
    ours, theirs = IclEvalLM(str(gpt2)), hf(gpt2)
    assert ours.generate_until(requests, disable_tqdm=True) == theirs.generate_until(requests, disable_tqdm=True)


def test_prompts_that_are_cut_are_counted_in_one_warning(gpt2, caplog):
    requests = [
        Instance("generate_until", {}, ("one two three " * number, {"max_gen_toks": 4}), 0) for number in (1, 9)
    ]
    with caplog.at_level(logging.WARNING, "icl_eval"):
        IclEvalLM(str(gpt2), max_length=30).generate_until(requests, disable_tqdm=True)
    assert caplog.messages == ["1 of 2 prompts were cut on the left: the model holds 30 tokens"]


def test_requests_with_one_context_are_one_prompt():
    class Scorer:
        asked = ()

        def score(self, asked):
            self.asked = [(each.context.decoder_ids, each.texts) for each in asked]
            return iter(())

    pairs = [((1, 2), (3,)), ((1, 2), (4, 5)), ((9,), (3,)), ((1, 2), (3,)), ((1, 2), (7,) * 600)]
    scorer = Scorer()
    list(score_requests(scorer, [fit_request(*pair, 1000, has_encoder=False) for pair in pairs]))
    assert scorer.asked == [((1, 2), ((3,), (4, 5))), ((9,), ((3,),)), ((1, 2), ((7,) * 600,))]


@pytest.mark.parametrize("length", [0, 6])
def test_a_continuation_that_cannot_be_scored_is_refused(length):
    with pytest.raises(DataError, match=f"likelihood of {length} tokens: must be from 1 to 5"):
        fit_request((1, 2), (3,) * length, 5, has_encoder=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parallelize": True}, r"model_args: unknown key 'parallelize' \(known: adapter, add_bos_token, allow_"),
        ({"max_lenght": 9}, "model_args: unknown key 'max_lenght'; did you mean 'max_length'"),
        ({"quantization": "4bit"}, "model_args: quantization: Input should be a valid dictionary"),
        ({"pretrained": None}, "pretrained=None: must be"),
        ({"dtype": "int8"}, "dtype='int8': must be one of float32"),
        ({"batch_size": "many"}, "batch_size='many': must be a whole number of 1 or more"),
        ({"max_length": 257}, "max_length=257: .* has 256 positions"),
        ({"add_bos_token": "yes"}, "add_bos_token='yes': must be True or False"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_argument_that_cannot_be_followed_is_refused(arguments, message, gpt2):
    with pytest.raises(ConfigError, match=message):
        IclEvalLM(**{"pretrained": str(gpt2), **arguments})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"do_sample": True, "temperature": 0.5}, "do_sample=True or a temperature above 0 asks for samples"),
        ({"temperature": 0.5}, "do_sample=True or a temperature above 0 asks for samples"),
        ({"until": [""]}, "until: an empty string"),
        ({"max_gen_toks": 256}, "max_gen_toks=256: must be less than .* 256"),
        ({"repetition": 1.1}, "options.repetition: not an option of generate"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_generation_option_that_cannot_be_followed_is_refused(options, message, gpt2):
    request = Instance("generate_until", {}, ("Q:", {"max_gen_toks": 4, **options}), 0)
    with pytest.raises(ConfigError, match=message):
        IclEvalLM(str(gpt2)).generate_until([request], disable_tqdm=True)


@pytest.mark.slow  # PEFT takes seconds to import
def test_an_adapter_or_another_tokenizer_changes_the_answers_as_in_hf(gpt2, tmp_path):
    pytest.importorskip("peft", reason="peft is not installed (pip install 'icl-eval[adapters]')")
    lora = save_lora(tmp_path / "lora", gpt2, ["c_attn", "c_proj"])
    train_unigram().save_pretrained(tmp_path / "tokenizer")
    requests = [Instance("loglikelihood", {}, ("Q: 3", " 4 5 6"), 0)]
    found = []
    for name, of_hf, folder in (("adapter", "peft", lora), ("tokenizer", "tokenizer", tmp_path / "tokenizer")):
        ours = IclEvalLM(str(gpt2), **{name: str(folder)}).loglikelihood(requests, disable_tqdm=True)
        theirs = hf(gpt2, **{of_hf: str(folder)}).loglikelihood(requests, disable_tqdm=True)
        assert ours[0][0] == pytest.approx(theirs[0][0], abs=CLOSE)
        found.append(ours[0][0])
    found.append(IclEvalLM(str(gpt2)).loglikelihood(requests, disable_tqdm=True)[0][0])
    assert min(abs(one - other) for one, other in combinations(found, 2)) > 0.1


def test_the_results_can_have_another_name_than_the_folder(gpt2):
    model = IclEvalLM("tiny/gpt2", source=str(gpt2))
    assert model.model.name == "tiny/gpt2"
    assert model.get_model_info()["model_identity"] == IclEvalLM(str(gpt2)).get_model_info()["model_identity"]


def test_the_command_needs_the_harness(icl_eval_command, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    outcome = icl_eval_command("lm-eval", "run", "--model", "icl_eval")
    assert outcome.exit_code == 2
    assert outcome.err == (
        "icl-eval: icl-eval lm-eval: needs lm-evaluation-harness; install it with pip install 'icl-eval[lm-eval]'\n"
    )


@pytest.mark.slow  # the harness reads all its task files
def test_the_command_runs_a_task_and_names_the_model_as_asked(icl_eval_command, gpt2, tmp_path):
    import json

    import yaml

    config = write_tasks(tmp_path)["choices"] | {"task": "choices"}
    (tmp_path / "choices.yaml").write_text(yaml.safe_dump(config))
    words = ["--model", "icl_eval", "--model_args", f"pretrained=tiny/gpt2,source={gpt2}", "--device", "cpu"]
    outcome = icl_eval_command("lm-eval", "run", *words, "--tasks", "choices.yaml", "--output_path", "out")
    assert (outcome.exit_code, "|choices|" in outcome.out.replace(" ", "")) == (0, True)
    (path,) = (tmp_path / "out" / "tiny__gpt2").glob("results_*.json")
    results = json.loads(path.read_text())["config"]
    assert (results["model"], results["batch_size"]) == ("icl_eval", "auto")
    refused = icl_eval_command("lm-eval", "run", *words[:2], "--model_args", "peft=x", "--tasks", "choices.yaml")
    assert (refused.exit_code, "model_args: unknown key 'peft'" in refused.err.splitlines()[-1]) == (2, True)


@pytest.mark.slow
def test_the_default_model_answers_as_it_does_in_hf(compose, manager, tmp_path):
    from icl_eval.models.specs import ModelSpec
    from icl_eval.models.weights import resolve_weights

    source = compose("model=smollm2_135m").model.source
    folder = resolve_weights(ModelSpec(source)).folder
    tasks = write_tasks(tmp_path, num_rows=8, max_gen_toks=24)
    ours = answers(IclEvalLM(source), tasks, manager)
    assert_the_same(ours, answers(hf(folder), tasks, manager))
