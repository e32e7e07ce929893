"""The Python interface: the same runs as from the command line, also with objects in memory."""

import doctest
import importlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

import icl_eval
from icl_eval import LanguageModel, Task
from icl_eval.config.composing import as_words
from icl_eval.errors import ConfigError, DataError, ModelUnavailableError, UserError

ROWS = [
    {"country": country, "capital": capital}
    for country, capital in (("France", "Paris"), ("Italy", "Rome"), ("Peru", "Lima"), ("Japan", "Tokyo"))
]
FIELDS = {"question": "country", "references": "capital"}
QUICK = {"num_fewshot": 1, "max_new_tokens": 4, "progress": False}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ICL_EVAL_COMMAND_NAME", "")  # composing sets it; so it is set back


@pytest.fixture
def capitals():
    return Task.of_rows("capitals", pool=ROWS[:2], test=ROWS[2:], fields=FIELDS, instruction="Name the capital.")


def in_memory(folder, seq2seq=False):
    auto_class = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    return auto_class.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def completions(run, task):
    return [record.completion for record in run.records(task)]


def generated(network, tokenizer, run, task):
    """Return the completions of the library's own `generate` for a run's prompts, cut as in the run."""
    texts = []
    for record in run.records(task):
        inputs = tokenizer(record.encoder or record.decoder, return_tensors="pt")
        with torch.inference_mode():
            ids = network.generate(**inputs, do_sample=False, max_new_tokens=4)[0]
        new = ids[1:] if record.encoder else ids[inputs.input_ids.shape[1] :]
        texts.append(tokenizer.decode(new, skip_special_tokens=True).split("\n")[0])
    return texts


def test_the_public_names_are_sorted_and_can_be_imported():
    assert icl_eval.__all__ == sorted(icl_eval.__all__)
    assert dir(icl_eval) == icl_eval.__all__
    for name in icl_eval.__all__:
        assert getattr(icl_eval, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        icl_eval.evalute  # noqa: B018


@pytest.mark.parametrize("name", [name for name in icl_eval.__all__ if name != "__version__"])
def test_every_public_name_has_a_docstring_with_an_example_that_holds(name):
    public = getattr(icl_eval, name)
    module = importlib.import_module(public.__module__)
    tests = doctest.DocTestFinder().find(public, name, module=module, globs={"icl_eval": icl_eval})
    examples = [test for test in tests if test.examples]
    assert examples, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in examples:
        runner.run(test, out=lambda text: pytest.fail(text) if "Failed example" in text else None)
    assert runner.tries == sum(len(test.examples) for test in examples)


def test_a_call_and_a_command_with_the_same_options_share_one_folder(gpt2, icl_eval_command):
    run = icl_eval.evaluate("limit=2", model=str(gpt2), task="qa", **QUICK)
    before = (run.folder / "report.json").read_bytes()
    outcome = icl_eval_command(f"model.source='{gpt2}'", "task=qa", "num_fewshot=1", "max_new_tokens=4", "limit=2")
    assert outcome.exit_code == 0
    assert "nothing was decoded" in outcome.out
    after = json.loads((run.folder / "report.json").read_bytes())
    for part in ("run", "results"):
        assert after[part] == json.loads(before)[part]
    assert after["run"]["template"] == "labelled"
    assert after["provenance"]["overrides"][1:3] == ["task=qa", "num_fewshot=1"]


def test_a_run_gives_its_scores_and_its_records(gpt2):
    run = icl_eval.evaluate(model=str(gpt2), task=["qa", "math"], limit=2, **QUICK)
    assert list(run.scores.columns[:4]) == ["task", "n", "metric", "score"]
    assert list(run.scores["task"]) == ["qa", "qa", "math", "math"]
    assert run.scores["score"].to_list() == [
        found.score for result in run.report.results.values() for found in result.metrics.values()
    ]
    assert len(run.records("qa")) == 2
    assert "exact_match" in run._repr_html_()
    assert repr(run).startswith(f"<Run {run.folder}: qa exact_match ")


def test_rows_in_memory_are_a_task_of_their_own(gpt2, capitals):
    run = icl_eval.evaluate(model=str(gpt2), task=capitals, num_fewshot=2, max_new_tokens=2, progress=False)
    [first, second] = run.records("capitals")
    assert (first.doc, first.targets) == ({"question": "Peru"}, ("Lima",))
    assert {shown.target for shown in second.demonstrations} == {"Paris", "Rome"}
    assert first.decoder.startswith("Name the capital.\n\n")
    assert run.report.results["capitals"].n == 2
    assert run.report.provenance.config["task"]["capitals"]["pool"]["path"] == "(in memory)"
    both = icl_eval.evaluate(
        "task.capitals.max_new_tokens=1", model=str(gpt2), task=[capitals, "qa"], limit=1, num_fewshot=1
    )
    assert list(both.report.results) == ["capitals", "qa"]
    assert both.report.run.decoding["tasks"]["capitals"]["max_new_tokens"] == 1


def test_prompts_can_be_seen_without_weights(t5, gpt2, capitals, monkeypatch):
    monkeypatch.setattr("icl_eval.models.loading.load_network", None)
    [first, _] = icl_eval.preview(model=str(gpt2), task=capitals, num_fewshot=1, template="plain")
    assert str(first) == first.decoder
    assert str(first).endswith("Peru\n")
    [first, _] = icl_eval.preview(model=str(t5), task=capitals, num_fewshot=1, placement="split")
    assert str(first) == f"[encoder]\n{first.encoder}\n[decoder]\n{first.decoder}"


@pytest.mark.parametrize("seq2seq", [False, True])
def test_a_network_that_is_trained_between_two_calls_is_evaluated_as_it_is(seq2seq, gpt2, t5, capitals):
    network, tokenizer = in_memory(t5 if seq2seq else gpt2, seq2seq)
    network.train()
    model = LanguageModel.of(network, tokenizer, name="mine")
    before = icl_eval.evaluate(model=model, task=capitals, **QUICK)
    network.eval()
    assert completions(before, "capitals") == generated(network, tokenizer, before, "capitals")
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    ids = tokenizer("Peru Lima Japan Tokyo", return_tensors="pt").input_ids
    network(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    after = icl_eval.evaluate(model=model, task=capitals, **QUICK)
    assert all(module.training for module in network.modules())
    network.eval()
    assert completions(after, "capitals") == generated(network, tokenizer, after, "capitals")
    assert after.folder != before.folder
    assert after.report.run.model == before.report.run.model == "mine"
    weights = [run.report.provenance.weights for run in (before, after)]
    assert weights[0] != weights[1]
    assert all(identity.startswith("memory:sha256=") for identity in weights)


def test_a_network_with_a_hook_is_never_taken_for_the_one_without(gpt2, capitals):
    network, tokenizer = in_memory(gpt2)
    model = LanguageModel.of(network, tokenizer)
    plain = icl_eval.evaluate(model=model, task=capitals, **QUICK)
    again = icl_eval.evaluate(model=model, task=capitals, **QUICK)
    assert again.folder == plain.folder
    steer = network.transformer.h[0].register_forward_hook(lambda module, args, out: out.flip(-1))
    steered = icl_eval.evaluate(model=model, task=capitals, **QUICK)
    assert steered.folder != plain.folder
    assert completions(steered, "capitals") == generated(network, tokenizer, steered, "capitals")
    assert completions(steered, "capitals") != completions(plain, "capitals")
    steer.remove()
    assert icl_eval.evaluate(model=model, task=capitals, **QUICK).folder == plain.folder


def test_how_a_tokenizer_was_last_called_is_no_part_of_a_models_identity(gpt2):
    network, tokenizer = in_memory(gpt2)
    tokenizer.pad_token = tokenizer.eos_token
    model = LanguageModel.of(network, tokenizer)
    identity = model.identify()
    tokenizer(["one", "two words"], padding=True, truncation=True, max_length=2)
    assert model.identify() == identity
    tokenizer.add_tokens("two")
    assert model.identify() != identity


def test_a_loaded_model_is_the_callers_own(gpt2, capitals):
    plain = icl_eval.evaluate(model=str(gpt2), task=capitals, **QUICK)
    model = icl_eval.load_model(str(gpt2))
    model.network.lm_head.weight.data.zero_()
    ablated = icl_eval.evaluate(model=model, task=capitals, **QUICK)
    assert completions(ablated, "capitals") == generated(model.network, model.tokenizer, ablated, "capitals")
    assert completions(ablated, "capitals") != completions(plain, "capitals")
    fresh = icl_eval.evaluate(model=str(gpt2), task=capitals, folder="fresh", **QUICK)
    assert completions(fresh, "capitals") == completions(plain, "capitals")


@pytest.mark.slow
def test_runs_of_a_loop_are_as_good_as_the_cells_of_a_sweep(gpt2, icl_eval_command):
    runs = [
        icl_eval.evaluate(
            model=str(gpt2), task="qa", num_fewshot=k, seed=seed, limit=3, max_new_tokens=2, progress=False
        )
        for k in (0, 2)
        for seed in (0, 1)
    ]
    analysis = icl_eval.analyse(runs)
    options = [f"model.source={gpt2}", "task=qa", "limit=3", "max_new_tokens=2", "hydra.sweep.dir=sweep"]
    assert icl_eval_command("-m", *options, "num_fewshot=0,2", "seed=0,1").exit_code == 0
    assert icl_eval.analyse(["sweep"]) == analysis
    assert [point.num_fewshot for point in analysis.shot_curves[0].points] == [0, 2]


def test_runs_are_compared_as_the_command_compares_their_folders(gpt2, icl_eval_command):
    none, some = (
        icl_eval.evaluate(model=str(gpt2), task="qa", num_fewshot=k, limit=4, max_new_tokens=2, progress=False)
        for k in (0, 2)
    )
    comparison = icl_eval.compare(none, some.folder)
    outcome = icl_eval_command("compare", str(none.folder), str(some.folder), "output=compare.json")
    assert outcome.exit_code == 0
    stored = json.loads(Path("compare.json").read_bytes())
    assert [found.difference for found in comparison.differences] == [
        found["difference"] for found in stored["differences"]
    ]


def test_a_stream_takes_options_and_models_in_memory(gpt2):
    network, tokenizer = in_memory(gpt2)
    model = LanguageModel.of(network, tokenizer)
    of_source = "".join(icl_eval.stream(str(gpt2), "Once upon", max_new_tokens=5))
    assert "".join(icl_eval.stream(model, "Once upon", max_new_tokens=5)) == of_source
    drawn = [
        "".join(icl_eval.stream(model, "Once upon", "decoding=sample", f"decoding.seed={seed}")) for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_score_is_that_of_the_metric_with_its_options():
    found = icl_eval.score("exact_match", ["Paris", "rome"], ["paris", ["Rome", "Roma"]], ignore_case=False)
    assert (found.value, found.per_example) == (0.0, (0.0, 0.0))
    assert icl_eval.score("exact_match", ["Paris", "rome"], ["paris", ["Rome", "Roma"]]).value == 1.0
    with pytest.raises(ConfigError, match="metrics=blue: there is no such metric"):
        icl_eval.score("blue", ["a"], ["a"])
    with pytest.raises(ConfigError, match=r"unknown key 'metrics\.bleu\.case'"):
        icl_eval.score("bleu", ["a"], ["a"], case=True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_fewshoot": 1}, "unknown key 'num_fewshoot'; did you mean 'num_fewshot'"),
        ({"task": "qaa"}, "task=qaa: there is no such task"),
        ({"num_fewshot": "many"}, "num_fewshot=many: must be a whole number"),
        ({"task": "qa", "experiment": "shot_curve"}, "experiment: this preset is a sweep"),
        ({"task": 3}, "task=3: must be the name of a task, a Task, or a list of these"),
        ({"template": 3}, "template=3: must be the name of a config in conf/template"),
        ({"limit": object()}, "an option must be a string, a number"),
    ],
)
def test_a_mistake_is_a_config_error_that_names_the_key(options, sentence):
    with pytest.raises(ConfigError) as refused:
        icl_eval.preview(model="icl_t5", **options)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("num_fewshot=0,1", "num_fewshot=0,1: must be a single value; to sweep, call the function once for each value"),
        ("preview", "'preview': options must be written as key=value, such as 'decoding=sample'"),
        ("-m", "'-m': options must be written as key=value"),
    ],
)
def test_words_that_only_a_command_line_takes_are_refused(word, sentence):
    with pytest.raises(ConfigError) as refused:
        icl_eval.preview(word, model="icl_t5", task="qa")
    assert sentence in str(refused.value)


def test_objects_in_memory_refuse_what_they_cannot_obey(gpt2, capitals):
    model = LanguageModel.of(*in_memory(gpt2))
    with pytest.raises(ConfigError, match="dtype=bfloat16: the model is in memory, on cpu in float32"):
        icl_eval.evaluate(model=model, task=capitals, dtype="bfloat16")
    with pytest.raises(ConfigError, match=r"task\.capitals\.fields: the rows of this task are in memory"):
        icl_eval.preview("task.capitals.fields.question=capital", model=model, task=capitals)
    with pytest.raises(ConfigError, match="task=qa: a packaged task has this name"):
        icl_eval.preview(model=model, task=Task.of_rows("qa", ROWS, ROWS, fields=FIELDS))
    with pytest.raises(DataError, match=r"capitals: row 0 of pool: field 'question' \(country\) is empty"):
        Task.of_rows("capitals", [{"country": "", "capital": "x"}], ROWS, fields=FIELDS)
    with pytest.raises(DataError, match="row 0 of test: a str, but every row must be a mapping"):
        Task.of_rows("capitals", ROWS, ["country"], fields=FIELDS)


def test_an_encoder_alone_is_refused(tmp_path):
    import tiny_models

    folder = tiny_models.save_bert(tmp_path / "bert")
    with pytest.raises(ModelUnavailableError, match="bert"):
        LanguageModel.of(*in_memory(folder))


def test_hydra_is_left_as_it_was_found(gpt2):
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    before = (GlobalHydra.instance().hydra, HydraConfig.instance().cfg)
    capitals = Task.of_rows("capitals", ROWS, ROWS, fields=FIELDS)
    icl_eval.preview(model=str(gpt2), task=capitals, num_fewshot=0)
    assert (GlobalHydra.instance().hydra, HydraConfig.instance().cfg) == before
    assert "capitals.yaml" not in ConfigStore.instance().repo.get("task", {})


def test_a_hydra_application_can_call_it_and_is_left_as_it_was(capitals):
    from hydra import initialize
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.utils import JobRuntime

    with initialize(config_path=None, version_base=None, job_name="app"):
        app = GlobalHydra.instance().hydra
        assert len(icl_eval.preview(model="icl_t5", task=capitals, num_fewshot=1)) == 2
        assert GlobalHydra.instance().hydra is app
        assert JobRuntime.instance().get("name") == "app"


def test_the_configurations_of_a_caller_are_left_as_they_were(capitals):
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    before = dict(store.repo.get("task", {}))
    store.store(group="task", name="capitals", node={"own": 1})
    own = dict(store.repo["task"])
    try:
        assert len(icl_eval.preview(model="icl_t5", task=capitals, num_fewshot=1)) == 2
        assert store.repo["task"] == own
        with pytest.raises(ConfigError, match="task=qa: a packaged task has this name"):
            icl_eval.preview(model="icl_t5", task=[capitals, Task.of_rows("qa", ROWS, ROWS, fields=FIELDS)])
        assert store.repo["task"] == own
    finally:
        store.repo["task"] = before


@pytest.mark.slow
def test_threads_can_call_it_at_the_same_time(capitals):
    def count(number):
        return [
            len(each.demonstrations) for each in icl_eval.preview(model="icl_t5", task=capitals, num_fewshot=number)
        ]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(count, [0, 1, 2, 1, 0, 2])) == [[k] * 2 for k in (0, 1, 2, 1, 0, 2)]


def test_calls_that_overlap_leave_what_transformers_prints_as_it_was():
    from transformers.utils import logging

    from icl_eval.models.quiet import quiet_transformers

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    first, second = quiet_transformers(reports=False), quiet_transformers(reports=False)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.ERROR, False)
    second.__exit__(None, None, None)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_a_run_is_read_from_another_working_directory(gpt2, capitals, tmp_path, monkeypatch):
    run = icl_eval.evaluate(model=str(gpt2), task=capitals, folder="run", **QUICK)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run.folder == tmp_path / "run"
    assert len(run.records("capitals")) == 2


def test_a_task_in_memory_shows_its_words_as_they_are():
    rows = [{"question": "a", "references": "b"}]
    labels = {"question": "${x}", "answer": "\\${y}"}
    task = Task.of_rows("words", rows, rows, instruction="Use ${seed}.", labels=labels)
    [prompt] = icl_eval.preview(model="icl_t5", task=task, template="labelled", num_fewshot=0)
    assert prompt.encoder == "Use ${seed}.\n\n${x}: a\n\\${y}:"


@pytest.mark.parametrize("name", ["", ".", "a.b", "größe", "a b", "3", "null", "True", None])
def test_a_name_that_cannot_be_an_option_is_refused(name):
    with pytest.raises(ConfigError, match=r"^name=.*: the name of a task must consist of English letters, digits"):
        Task.of_rows(name, ROWS, ROWS, fields=FIELDS)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda network, tokenizer: LanguageModel.of("gpt2", tokenizer), "network: a str, but must be a network"),
        (lambda network, tokenizer: LanguageModel.of(network, None), "tokenizer: a NoneType, but must be a tokenizer"),
        (lambda network, tokenizer: LanguageModel.of(network, tokenizer, 3), "name=3: must be a string"),
        (lambda network, tokenizer: LanguageModel.of(network.transformer, tokenizer), "GPT2Model without a generation"),
        (lambda network, tokenizer: LanguageModel.of(network.to("meta"), tokenizer), "on the device 'meta', without"),
        (lambda network, _: icl_eval.preview(model=network), "model: a GPT2LMHeadModel, but must be the name"),
        (lambda network, _: icl_eval.stream(network, "a"), "model: a GPT2LMHeadModel, but must be the name"),
        (
            lambda network, _: icl_eval.compare(["a", "b"]),
            "compare: a list is not a run; each must be a Run or a folder",
        ),
        (lambda network, _: icl_eval.analyse(None), "analyse: a NoneType is not a run; each must be a Run or a folder"),
        (lambda network, _: icl_eval.plan(output="plan.json"), "plan: unknown option 'output'; "),
        (lambda network, _: icl_eval.plan(flips="much"), "flips"),
        (lambda network, _: icl_eval.plan(), "plan: needs a pilot over seeds"),
        (lambda network, _: icl_eval.compare("a", "b", seed="1"), "seed='1': must be a whole number"),
        (
            lambda network, _: icl_eval.score("bleu", [1], ["a"]),
            "example 1 of 1 has the prediction 1; must be a string",
        ),
        (lambda network, _: icl_eval.score("bleu", ["a"], [1]), "has the references 1; must be a list of one or more"),
        (lambda network, _: icl_eval.load_model(network), "model: a GPT2LMHeadModel, but must be the name"),
        (lambda network, _: icl_eval.load_model("icl_t5", limit=3), "unknown option 'limit'; must be device or dtype"),
        (lambda network, _: icl_eval.load_runs(["outputs"]), "a list is not a folder; each must be the path of a"),
        (lambda network, _: icl_eval.load_runs(""), "'' is not a folder; each must be the path of a folder with runs"),
        (lambda network, _: icl_eval.compare("", ""), "compare: '' is not a run; each must be a Run or a folder"),
        (lambda network, _: icl_eval.evaluate(folder=""), "folder='': must be the path of a folder, or None"),
        (lambda network, _: icl_eval.evaluate(folder=3), "folder=3: must be the path of a folder, or None"),
        (
            lambda network, _: icl_eval.evaluate(model="icl_t5", task="qa", folder="a\0b"),
            "a\0b: cannot be created as the folder of a run (embedded null byte)",
        ),
        (lambda network, _: Task.of_rows("a", None, ROWS), "a: pool is a NoneType, but must be a list of rows"),
        (lambda network, _: Task.of_rows("a", ROWS, ROWS, labels=None), "labels=None: must be a mapping from names"),
    ],
)
def test_an_argument_of_another_kind_is_refused_in_one_line(call, sentence, gpt2):
    with pytest.raises(UserError) as refused:
        call(*in_memory(gpt2))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"seed": -1}, "seed=-1: must be 0 or more"),
        ({"seed": 2**63}, f"seed={2**63}: must be {2**63 - 1} or less"),
        ({"predictions": None}, "predictions: a NoneType, but must be a list with one entry for each example"),
        ({"predictions": "abc"}, "predictions: a str, but must be a list with one entry for each example"),
        ({"references": "abc"}, "references: a str, but must be a list with one entry for each example"),
        ({"references": None}, "references: a NoneType, but must be a list with one entry for each example"),
        ({"clusters": "ppq"}, "clusters: a str, but must be a list with one entry for each example"),
        ({"clusters": ["p", None, "p"]}, "chrf: example 2 of 3 has the cluster None; must be a string"),
        ({"clusters": ["p", "q"]}, "chrf: 2 clusters for 3 examples"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(arguments, sentence):
    with pytest.raises(UserError) as refused:
        icl_eval.score("chrf", **{"predictions": ["ab", "cd", "x"], "references": ["ab", "ce", "y"], **arguments})
    assert str(refused.value) == sentence


@pytest.mark.parametrize("name", ["../metrics/bleu", "a" * 300, "", "bleu.yaml"])
def test_only_a_name_is_the_name_of_a_metric(name):
    with pytest.raises(
        ConfigError, match=rf"^metrics={re.escape(name)}: there is no such metric \(known: bleu, chrf, "
    ):
        icl_eval.score(name, ["a"], ["a"])


def test_clusters_may_be_numbers():
    texts = {"predictions": ["ab", "cd", "x"], "references": ["ab", "ce", "y"]}
    expected = icl_eval.score("chrf", **texts, clusters=["a", "a", "b"])
    assert icl_eval.score("chrf", **texts, clusters=[1, 1, 2]) == expected


@pytest.mark.parametrize(
    "text", ["it's", 'say "hi"', "a\\", "a\\'b", "two\nlines", "\\n", "${seed}", "1", "[x]", "null", ""]
)
def test_a_string_arrives_as_it_was_given(text, gpt2):
    prompts = icl_eval.preview(
        "template.separator='|'", model=str(gpt2), task="qa", num_fewshot=0, limit=1, **{"task.qa.instruction": text}
    )
    assert str(prompts[0]).startswith(text)


def test_options_become_words():
    assert as_words({"num_fewshot": numpy.int64(3), "limit": numpy.float32(0.5)}) == ["num_fewshot=3", "limit=0.5"]
    assert as_words({"limit": 0.5, "metrics": ["bleu", "ter"], "placement": None, "decoding.stop": ["\n"]}) == [
        "limit=0.5",
        "metrics=[bleu,ter]",
        "placement=null",
        "decoding.stop=['\n']",
    ]
