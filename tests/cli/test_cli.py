import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest
import tiny_models
from omegaconf import OmegaConf

from icl_eval import stream
from icl_eval.cli.commands import COMMANDS, OTHERS
from icl_eval.config.schema import ModelConfig, RunConfig, StreamConfig, TaskConfig, TemplateConfig
from icl_eval.config.setup import conf_dir
from icl_eval.decoding import Completion, StreamDecoder
from icl_eval.demonstrations import ORDERS, SELECTORS
from icl_eval.metrics import METRICS
from icl_eval.models.devices import choose_device
from icl_eval.models.loading import load_model
from icl_eval.models.specs import ModelSpec
from icl_eval.prompts.building import Prompt
from icl_eval.prompts.tokenization import encode_prompt
from icl_eval.runs.reports import report_schema

QUICK = ("task=qa", "limit=2", "num_fewshot=1", "max_new_tokens=4")
QUESTION = "qa-test-001"


@pytest.fixture
def icl_eval(icl_eval_command, gpt2):
    """Evaluate two questions with the tiny decoder-only model, unless told otherwise."""
    return lambda *arguments: icl_eval_command(f"model.source={gpt2}", *QUICK, *arguments)


def known(group):
    return ", ".join(sorted(path.stem for path in (conf_dir() / group).glob("*.yaml")))


def keys(schema, prefix=""):
    return ", ".join(sorted(prefix + field.name for field in fields(schema)))


def refuse_to_load(spec, dtype, device):
    choose_device(device)
    pytest.fail("weights were asked for")


def exact_match_keys(prefix):
    names = ("extract", "ignore_case", "ignore_numbers", "ignore_punctuation", "regexes_to_ignore", "select", "variant")
    return ", ".join(f"{prefix}.exact_match.{name}" for name in names)


KNOWN_COMMANDS = ", ".join([*COMMANDS, *OTHERS])
UNKNOWN_COMMAND = f"unknown command (known, as the first word: {KNOWN_COMMANDS}; options are key=value)"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_threads_soon_sleep_while_they_wait_unless_the_environment_says_how(
    icl_eval_command, monkeypatch, settings, expected
):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, text in settings.items():
        monkeypatch.setenv(name, text)
    icl_eval_command("lists")  # whatever the command, here none
    assert os.environ.get("GOMP_SPINCOUNT") == expected


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        # keys
        (["num_fewshott=1"], f"unknown key 'num_fewshott'; did you mean 'num_fewshot'? (known: {keys(RunConfig)})"),
        (["+num_fewshott=1"], f"unknown key 'num_fewshott'; did you mean 'num_fewshot'? (known: {keys(RunConfig)})"),
        (["++xyz.abc=1"], f"unknown key 'xyz' (known: {keys(RunConfig)})"),
        (
            ["model.sourc=x"],
            f"unknown key 'model.sourc'; did you mean 'model.source'? (known: {keys(ModelConfig, 'model.')})",
        ),
        (
            ["+model.sourc=x"],
            f"unknown key 'model.sourc'; did you mean 'model.source'? (known: {keys(ModelConfig, 'model.')})",
        ),
        (
            ["+task.qa.stopp=[]"],
            f"unknown key 'task.qa.stopp'; did you mean 'task.qa.stop'? (known: {keys(TaskConfig, 'task.qa.')})",
        ),
        (["task.math.stop=[]"], "unknown key 'task.math' (known: task.qa)"),
        (
            ["metrics=[exact_match]", "metrics.exact_match.ignor=true"],
            "unknown key 'metrics.exact_match.ignor'; did you mean 'metrics.exact_match.ignore_case'? "
            f"(known: {exact_match_keys('metrics')})",
        ),
        (
            ["+task.qa.metrics.exact_match.ignor=true"],
            "unknown key 'task.qa.metrics.exact_match.ignor'; did you mean 'task.qa.metrics.exact_match.ignore_case'? "
            f"(known: {exact_match_keys('task.qa.metrics')})",
        ),
        (
            ["demonstrations.per_questoin=true"],
            "unknown key 'demonstrations.per_questoin'; did you mean 'demonstrations.per_question'? "
            "(known: demonstrations.per_question, demonstrations.seed)",
        ),
        (
            ["task.qa.labels.hint=Hint"],
            "unknown key 'task.qa.labels.hint' (known: task.qa.labels.answer, task.qa.labels.question); to add a new "
            "key, prefix it with a plus sign: +task.qa.labels.hint=…",
        ),
        (  # of two keys, what both begin with is no likeness
            ["demonstrations.ids=[x]"],
            "unknown key 'demonstrations.ids' (known: demonstrations.per_question, demonstrations.seed)",
        ),
        (["metrics.chrf.beta=3"], "unknown key 'metrics.chrf' (metrics has none)"),
        (["control.seed=3"], "unknown key 'control.seed' (control has none)"),
        # names
        (["task=nope"], f"task=nope: there is no such task (known: {known('task')})"),
        (["task=[qa,nope]"], f"task=nope: there is no such task (known: {known('task')})"),
        (["template=nope"], f"template=nope: there is no such template (known: {known('template')})"),
        (["placement=nope"], f"placement=nope: there is no such placement (known: {known('placement')})"),
        (
            ["demonstrations=nope"],
            f"demonstrations=nope: there is no such demonstrations (known: {known('demonstrations')})",
        ),
        (["metrics=[chrf,nope]"], f"metrics=nope: there is no such metrics (known: {known('metrics')})"),
        (["decoding=beam"], f"decoding=beam: there is no such decoding (known: {known('decoding')})"),
        (
            ["postprocessing=nope"],
            f"postprocessing=nope: there is no such postprocessing (known: {known('postprocessing')})",
        ),
        (["experiment=nope"], f"experiment=nope: there is no such experiment (known: {known('experiment')})"),
        (["likelihood=nope"], f"likelihood=nope: there is no such likelihood (known: {known('likelihood')})"),
        (["dtype=float3"], "dtype=float3: must be one of float32, bfloat16, float16, float64"),
        (["overflow=cut"], "overflow=cut: must be one of stop, drop"),
        (["model.source=/nowhere/tiny"], "model.source=/nowhere/tiny does not exist (working directory: {cwd})"),
        # values
        (["num_fewshot=many"], "num_fewshot=many: must be a whole number or null"),
        (["num_fewshot=1.5"], "num_fewshot=1.5: must be a whole number or null"),
        (["seed=a b"], "seed=a b: must be a whole number"),
        (["task.qa.stop=x"], "task.qa.stop=x: must be a list"),
        (["seed=null"], "seed=null: must be a whole number"),
        (["hydra.mode=x"], "hydra.mode=x: must be RUN or MULTIRUN or null"),
        (["limit=x"], "limit=x: must be a whole number or a number or null"),
        (["model.allow_pickle=maybe"], "model.allow_pickle=maybe: must be true or false"),
        (["template.separator=[1]"], "template.separator=[1]: must be a string"),
        (["task.qa.pool=3"], "task.qa.pool=3: must be a mapping from keys to values"),
        (
            ["task.qa.stop=[1e5]"],
            'task.qa.stop: 100000.0 is not a string; quote strings like it: task.qa.stop=\'["1_000","1.10"]\'',
        ),
        (["metrics=[chrf]", "metrics.chrf.beta=-1"], "metrics.chrf.beta=-1: must be a whole number from 0 to 100"),
        (
            ["metrics=[bleu]", "metrics.bleu.max_ngram_order=0"],
            "metrics.bleu.max_ngram_order=0: must be a whole number from 1 to 20",
        ),
        (
            ["decoding=generate", "decoding.options.num_beams=0"],
            "decoding.options.num_beams=0: must be a whole number from 1 to 1024",
        ),
        (["metrics=[chrf]", "metrics.chrf.beta=x"], "metrics.chrf.beta=x: Input should be a valid integer"),
        (
            ["metrics=[numeric_flexible,numeric_strict]", "metrics.numeric_strict.extraction=flexible"],
            "metrics.numeric_strict: its name in reports is 'numeric_flexible', like that of metrics.numeric_flexible; "
            "the metrics of a task need different names, so leave one of them out",
        ),
        (
            ["+task.qa.metrics.loose={_target_: icl_eval.metrics.exact_match.ExactMatch, ignore_numbers: true}"],
            "task.qa.metrics.loose: its name in reports is 'exact_match', like that of task.qa.metrics.exact_match; "
            "the metrics of a task need different names, so leave one of them out",
        ),
        (
            ["task.qa.metrics.exact_match.ignore_case=3"],
            "task.qa.metrics.exact_match.ignore_case=3: Input should be a valid boolean",
        ),
        (["demonstrations.per_question=3"], "demonstrations.per_question=3: Input should be a valid boolean"),
        (["demonstrations=fixed"], "demonstrations.ids: a value is required (demonstrations.ids=…)"),
        (["demonstrations=fixed", "demonstrations.ids=x"], "demonstrations.ids=x: Input should be a valid list"),
        (["num_fewshot=-1"], "num_fewshot=-1: must be 0 or more"),
        (["seed=-5"], "seed=-5: must be 0 or more"),
        (
            ["num_fewshot=41"],
            f"num_fewshot=41: task 'qa' has only 40 demonstrations for question '{QUESTION}' "
            "(demonstrations=random, a pool of 40)",
        ),
        (
            [f"num_fewshot={10**22}"],
            f"num_fewshot={10**22}: task 'qa' has only 40 demonstrations for question '{QUESTION}' "
            "(demonstrations=random, a pool of 40)",
        ),
        (["limit=0"], "limit=0: must be a number of examples (1 or more) or a fraction between 0 and 1"),
        (["limit=-1"], "limit=-1: must be a number of examples (1 or more) or a fraction between 0 and 1"),
        (["limit=null", "limit_seed=1"], "limit_seed=1: has no effect without limit"),
        (["limit=2", "limit_seed=-1"], "limit_seed=-1: must be 0 or more"),
        (["limit=1.5"], "limit=1.5: must be a number of examples (1 or more) or a fraction between 0 and 1"),
        (["batch_size=0"], "batch_size=0: must be auto, or 1 or more"),
        (["max_new_tokens=0"], "max_new_tokens=0: must be 1 or more"),
        (["likelihood=references", "max_new_tokens=-1"], "max_new_tokens=-1: must be 0 or more"),
        (
            ["likelihood=choices", "likelihood.content_free=3"],
            "likelihood.content_free=3: Input should be a valid string",
        ),
        (["task=[]"], "task: at least one task is needed (task=qa, or task=[qa,math])"),
        (["task={}"], "task={}: has no effect; leave it out"),
        (["metrics=[]"], "metrics=[]: has no effect; leave it out"),
        (["template={}"], "template={}: has no effect; leave it out"),
        (["task.qa.pool.path="], "task.qa.pool.path=: must be a .jsonl, .csv or .parquet file, or a data set"),
        (["task.qa.pool.path=no.csv"], "no.csv: no such file in {cwd}"),
        (['decoding.stop="\\n"'], "decoding.stop='\\n': Input should be a valid list"),
        (["task=null"], f"task=null: must be one of {known('task')}, or a list such as [ag_news]"),
        (["task=[[qa]]"], f"task=[[qa]]: must be one of {known('task')}, or a list such as [ag_news]"),
        (["order=null"], f"order=null: must be one of {known('order')}"),
        (["model=[gpt2,t5_base]"], f"model=[gpt2,t5_base]: must be one of {known('model')}"),
        (["-m", "order=random,null"], f"order=random,null: must be one of {known('order')}"),
        (["task=[qa,qa]"], "task: qa is chosen twice, but there can be only one task.qa"),
        (["+task=qa"], "task: qa is chosen twice, but there can be only one task.qa"),
        (["metrics=[chrf,chrf]"], "metrics: chrf is chosen twice, but there can be only one metrics.chrf"),
        (["hydra.run.dir="], "hydra.run.dir=: must be the name of a folder"),
        (["-m", "hydra.run.dir=x"], "hydra.run.dir: has no effect in a sweep; set hydra.sweep.dir instead"),
        (["placement.x=1"], "placement.x: nothing is chosen for placement, of which this is an option"),
        (
            ["+task.qa.template.separator=a"],
            "task.qa.template.separator: nothing is chosen for task.qa.template, of which this is an option",
        ),
        (["+task.math.fields.cluster=a"], "unknown key 'task.math': the task 'math' is not chosen"),
        (
            ["model=./tiny"],
            f"model=./tiny: there is no such model (known: {known('model')}; a folder, a file or a name on the hub is "
            "given as model.source=./tiny)",
        ),
        (["task=own/qa"], f"task=own/qa: there is no such task (known: {known('task')})"),
        (["task.qa.postprocessing={x: 1}"], "'NoneType' object has no attribute 'get' (arguments: {given})"),
        (
            ["decoding.stop={{ x }}"],
            "decoding.stop={{ x }}: no viable alternative at input '{{ ' "
            "(put a string in two pairs of quotes: decoding.stop='\"…\"')",
        ),
        (
            ["decoding.stop=[é]"],
            "decoding.stop=[é]: contains a character that must be quoted "
            "(put a string in two pairs of quotes: decoding.stop='\"…\"')",
        ),
        (
            ["decoding.stop=['\\n']"],
            r"decoding.stop: \n is a backslash and a letter here, so that it never matches; between double quotes, "
            r'\n is a line break and \t a tab: ["\n"]',
        ),
        (
            [r'decoding.stop=["\r\n"]'],
            r"decoding.stop: \r is a backslash and a letter here, so that it never matches; between double quotes, "
            r'\n is a line break and \t a tab: ["\n"]',
        ),
        (
            ["demonstrations._target_=icl_eval.nope.Nope"],
            f"demonstrations._target_=icl_eval.nope.Nope: must be {SELECTORS.description}",
        ),
        (
            ["demonstrations._target_=os.system"],
            f"demonstrations._target_=os.system: must be {SELECTORS.description}",
        ),
        (
            ["order._target_=elsewhere.RandomOrder"],
            "order._target_=elsewhere.RandomOrder: must be a class of icl_eval.demonstrations: AsSelectedOrder, "
            "MostRelevantLastOrder, RandomOrder, ReversedOrder",
        ),
        (
            ["order._target_=icl_eval.demonstrations.NoControl"],
            f"order._target_=icl_eval.demonstrations.NoControl: must be {ORDERS.description}",
        ),
        (["~order._target_"], f"order: has no _target_; it must be {ORDERS.description}"),
        (
            ["postprocessing=strip", "postprocessing._target_=icl_eval.metrics.hub.HubMetric"],
            "postprocessing._target_=icl_eval.metrics.hub.HubMetric: must be a class of "
            "icl_eval.metrics.postprocessing: Extract, FirstLine, Strip",
        ),
        (
            [
                "postprocessing=strip",
                "postprocessing._target_=icl_eval.reporting.pages.rendering.PackageLoader",
                "+postprocessing.package_name=antigravity",
            ],
            "postprocessing._target_=icl_eval.reporting.pages.rendering.PackageLoader: must be a class of "
            "icl_eval.metrics.postprocessing: Extract, FirstLine, Strip",
        ),
        (
            ["+task.qa.metrics.loose={_target_: icl_eval.demonstrations.RandomOrder, seed: 0}"],
            f"task.qa.metrics.loose._target_=icl_eval.demonstrations.RandomOrder: must be {METRICS.description}",
        ),
        (["+metrics.loose={key: 1}"], f"metrics.loose: has no _target_; it must be {METRICS.description}"),
        (["+metrics.loose=3"], f"metrics.loose=3: must be a mapping whose _target_ is {METRICS.description}"),
        # what does not go together
        (["placement=encoder"], "placement=encoder: must be decoder for tiny-gpt2, which is decoder-only"),
        (["placement=split"], "placement=split: must be decoder for tiny-gpt2, which is decoder-only"),
        (
            ["model.source={t5}", "placement=decoder"],
            "placement=decoder: must be encoder or split for tiny-t5, which is encoder-decoder",
        ),
        (
            ["template=chat"],
            "template=chat: tiny-gpt2 has no chat template in its tokenizer; use another template, or "
            "model.chat_template=./FILE.jinja",
        ),
        (
            ['template.question="{{ choices }}"'],
            "template 'labelled': question: 'choices' is undefined, for example 'qa-pool-010' of task 'qa' "
            "(it can use: instruction, labels, question)",
        ),
        (
            ["num_fewshot=8"],
            f"task 'qa', question '{QUESTION}': a prompt of 550 tokens plus 4 new tokens is 298 too long "
            "for the model's 256 positions; lower num_fewshot or max_new_tokens, or set overflow=drop to leave out "
            "demonstrations",
        ),
        (
            ["likelihood=choices"],
            "likelihood=choices: task 'qa' has no choices; define them in its fields.choices, or use "
            "likelihood=references or other tasks",
        ),
        (
            ["likelihood=references", "max_new_tokens=0", "metrics=[chrf]"],
            "metrics: has no effect with max_new_tokens=0, which decodes nothing (task.qa)",
        ),
        # words
        (["evaluat"], f"'evaluat': {UNKNOWN_COMMAND}"),
        (["stream"], f"'stream': {UNKNOWN_COMMAND}"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_ends_the_command_before_weights_load(
    arguments, sentence, icl_eval, gpt2, t5, monkeypatch
):
    monkeypatch.setattr("icl_eval.decoding.engines.in_process.load_model", refuse_to_load)
    arguments = [argument.replace("{t5}", str(t5)) for argument in arguments]
    places = {"{cwd}": str(Path.cwd()), "{given}": " ".join([f"model.source={gpt2}", *QUICK, *arguments])}
    for place, value in places.items():
        sentence = sentence.replace(place, value)

    outcome = icl_eval(*arguments)

    assert (outcome.exit_code, outcome.out, outcome.err) == (2, "", f"icl-eval: {sentence}\n")


def test_a_device_that_is_not_there_is_one_line_with_those_that_are(icl_eval_command, gpt2, monkeypatch):
    for module in ("evaluation.preparation", "config.free_prompts"):
        monkeypatch.setattr(f"icl_eval.{module}.find_card", lambda source: pytest.fail("a tokenizer was asked for"))
    for words in ([], ["stream", "prompt=x"], ["tour"]):
        outcome = icl_eval_command(*words, f"model.source={gpt2}", "device=cuda:99")
        sentence = "icl-eval: device='cuda:99': not available on this machine; must be one of auto, cpu"
        assert (outcome.exit_code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        assert outcome.err.startswith(sentence)


ROW = b'{"id": "x", "question": "q", "references": ["a"]}\n'


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "{path}: no such file"),
        (b"", "{path}: contains no rows"),
        (ROW + b"not json\n", "{path}:2: not JSON (Expecting value: line 1 column 1 (char 0))"),
        ('{"question": "caf\xe9"}'.encode("latin-1"), "{path}:1: not UTF-8 (byte 0xe9 at column 18)"),
        (
            b'{"id": "x", "question": "q"}\n',
            "{path}:1: field 'references': 'references' is undefined (the row has: id, question)",
        ),
        (ROW + ROW, "{path}:2: id 'x' is already the id of {path}:1"),
    ],
)
def test_a_bad_data_file_is_one_line_with_file_and_line(content, sentence, icl_eval, tmp_path):
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_bytes(content)
    outcome = icl_eval(f"task.qa.test.path={path}")
    sentence = sentence.format(path=path)
    assert (outcome.exit_code, outcome.out, outcome.err) == (2, "", f"icl-eval: {sentence}\n")


@pytest.mark.parametrize(
    ("folder", "reason"), [("file/run", "Not a directory"), ("/proc/run", "No such file or directory")]
)
def test_a_folder_that_cannot_be_written_is_one_line(folder, reason, icl_eval, tmp_path):
    (tmp_path / "file").touch()
    outcome = icl_eval(f"hydra.run.dir={folder}")
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert outcome.err == f"icl-eval: {folder}: cannot be read or written ({reason})\n"


@pytest.mark.parametrize("arguments", [["--help"], ["list", "--cfg=job"]])  # long, and so short that it is held back
def test_an_output_that_takes_nothing_is_one_line(arguments):
    command = [sys.executable, "-m", "icl_eval", *arguments]
    with Path("/dev/full").open("w") as full:
        outcome = subprocess.run(
            command,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": ""},
            check=False,
        )
    assert (outcome.returncode, outcome.stderr) == (
        1, "icl-eval: output cannot be written (No space left on device)\n",
    )  # fmt: skip


def test_an_output_that_is_ascii_only_shows_the_rest_as_escapes():
    outcome = subprocess.run(
        [sys.executable, "-m", "icl_eval", "--help"],
        capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}, check=True,
    )  # fmt: skip
    assert b"icl-eval [key=value \\u2026]" in outcome.stdout


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("1e5", "1e5"),
        ("true", "true"),
        ("1_000", "1_000"),
        (" 1.10", " 1.10"),
        ("007", "007"),
        ("'1e5'", "1e5"),
        ("What's your name?", "What's your name?"),
        ("Hello, world", "Hello, world"),
        ('{"a": "\\n"}', '{"a": "\\n"}'),
        (r"Compute \[1+2\]", r"Compute \[1+2\]"),
        (r"\int f\,dx", r"\int f\,dx"),
        (r"a \\ b\\", r"a \\ b\\"),
        ("The capital is ", "The capital is "),
        (r"\{a: b\}", r"\{a: b\}"),
        ("${oc.env:HOME} costs \\${5}", "${oc.env:HOME} costs \\${5}"),
        ("'${seed}'", "${seed}"),
        ("choice(a,b)", "choice(a,b)"),
        ('He said "hi\\n"', 'He said "hi\\n"'),
        (r"a\n\tb", r"a\n\tb"),
        (r"'a\n'", r"a\n"),
        (r'"a\n\tb\\n"', "a\n\tb\\\\n"),
    ],
)
@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("stream", "prompt"),
        ("trace", "prompt"),
        ("trace", "+task.qa.labels.hint"),
        ("evaluate", "template.separator"),
    ],
)
def test_a_text_is_what_was_typed(command, key, typed, text, icl_eval_command):
    outcome = icl_eval_command(command, *(["task=qa"] if command != "stream" else []), f"{key}={typed}", "--cfg", "job")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert OmegaConf.select(OmegaConf.create(outcome.out), key.lstrip("+")) == text


def test_a_text_of_a_choice_keeps_its_spaces(icl_eval_command):
    words = ("task=qa", "postprocessing=extract", "postprocessing.pattern= is ", "--cfg", "job")
    assert OmegaConf.create(icl_eval_command(*words).out).postprocessing.pattern == " is "


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"evaluate"}))
@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_only_evaluations_can_be_swept(command, flag, icl_eval_command):
    outcome = icl_eval_command(command, "model=gpt2", flag)
    assert (outcome.exit_code, outcome.err) == (2, "icl-eval: -m: only evaluations can be swept\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "prompt: a value is required (prompt=…)"),
        (["prompt=x", "num_fewshot=1"], f"unknown key 'num_fewshot' (known: {keys(StreamConfig)})"),
        (
            ["prompt=[a b,1_000]"],
            'prompt: 1000 is not a string; quote strings like it: prompt=\'["1_000","1.10"]\'',
        ),
        (["prompt=x", "task=qa"], "unknown key 'task': this command has no such option"),
        (["prompt=null"], "prompt=null: must be a string or a list of strings"),
        (["prompt=[]"], "prompt=[]: must be a string or a list of strings"),
        (["prompt=\udcff"], "'prompt=\\udcff': not valid UTF-8"),
        (["prompt=x", "decoder_prompt=y"], "decoder_prompt: tiny-gpt2 has no encoder and only continues the prompt"),
        (["prompt=x", "device=gpu"], "device=gpu: must be auto, cpu, cuda, cuda:N or mps"),
        (["prompt=x", "dtype=float3"], "dtype=float3: must be one of float32, bfloat16, float16, float64"),
        (
            ["prompt=x", "max_new_tokens=256"],
            "a prompt of 1 tokens plus 256 new tokens is 1 too long for the model's 256 positions; "
            "shorten it or lower max_new_tokens",
        ),
    ],
)
def test_a_mistake_in_a_stream_is_one_line(arguments, sentence, icl_eval_command, gpt2):
    outcome = icl_eval_command("stream", f"model.source={gpt2}", *arguments)
    assert (outcome.exit_code, outcome.out, outcome.err) == (2, "", f"icl-eval: {sentence}\n")


def test_a_failure_of_the_run_itself_shows_where_it_happened(icl_eval, monkeypatch):
    def fail(spec, dtype, device):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("icl_eval.decoding.engines.in_process.load_model", fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        icl_eval()


def test_help_names_all_commands_groups_and_keys(icl_eval_command):
    outcome = icl_eval_command("--help")
    assert (outcome.exit_code, outcome.err) == (0, "")
    for line in ("icl-eval preview", "icl-eval stream prompt=", "icl-eval -m key=a,b"):
        assert line in outcome.out
    for group in ("task", "model", "template", "placement", "demonstrations", "decoding", "metrics"):
        assert f"\n{group}: {known(group)}\n" in outcome.out
    for field in fields(RunConfig):
        assert f"\n{field.name}:" in outcome.out


def test_the_configuration_can_be_printed_and_holds_every_key_and_nothing_of_hydra(icl_eval):
    outcome = icl_eval("--cfg", "job")
    assert (outcome.exit_code, outcome.err) == (0, "")
    config = OmegaConf.create(outcome.out)
    assert set(config) == {field.name for field in fields(RunConfig)}
    assert (config.limit, list(config.task)) == (2, ["qa"])


def test_preview_shows_the_prompt_and_what_looks_wrong_and_leaves_nothing_behind(icl_eval_command, gpt2, tmp_path):
    outcome = icl_eval_command("preview", f"model.source={gpt2}", *QUICK)

    assert (outcome.exit_code, outcome.err) == (0, "")
    assert [line.strip("│╭╮╰╯─ ") for line in outcome.out.splitlines()] == [
        "qa · qa-test-001 · decoder · 167 tokens",
        "Answer the question with a fact, in a few words.",
        "",
        "Question: Which astronomer argued in a book of 1543 that the Earth moves around the sun?",
        "Answer: Nicolaus Copernicus",
        "",
        "Question: Which precious stone is a form of pure carbon?",
        "Answer:",
        "qa-pool-010",
        "qa: 2 prompts of 167 to 177 tokens, the model's limit is 256; up to 4 new tokens, stop at ['\\n']",
        "qa: 0.1 MB for keys and values of the longest in float32, beside the weights",
        "qa: qa-test-001, qa-test-002: the first reference is longer than max_new_tokens=4",
        "",
        "in all 2 requests of 344 tokens, and up to 8 new tokens",
    ]
    assert list(tmp_path.iterdir()) == []


def test_preview_of_one_prompt_for_t5_says_what_its_encoder_needs(icl_eval_command, t5):
    outcome = icl_eval_command("preview", f"model.source={t5}", *QUICK, "limit=1")
    [said] = [line for line in outcome.out.splitlines() if "position biases" in line]
    [count] = re.findall(r"qa: 1 prompt of (\d+) tokens", outcome.out)
    heads = json.loads((t5 / "config.json").read_text())["num_heads"]
    assert f" MB for keys and values and {heads * int(count) ** 2 * 4 / 1e6:,.1f} MB for the encoder's position" in said


def test_preview_of_a_very_long_prompt_shows_its_beginning_and_its_end(icl_eval_command, tmp_path):
    rows = [{"question": f"a {n}", "answer": "b"} for n in range(150)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tiny_models.save_llama(tmp_path / "llama", max_position_embeddings=4096)
    own = ["task.qa.pool.path=rows.jsonl", "task.qa.test.path=rows.jsonl", "task.qa.fields.references=answer"]
    options = ["limit=1", "num_fewshot=149", "demonstrations=first", "task.qa.instruction=''"]
    outcome = icl_eval_command("preview", f"model.source={folder}", "task=qa", *own, *options)
    lines = [line.strip("│ ") for line in outcome.out.splitlines()]
    assert (lines[1], lines[100], lines[101], lines[102]) == (
        "Question: a 1",
        "Question: a 34",
        "[… 249 more …]",
        "Answer: b",
    )
    assert lines[200:202] == ["Question: a 0", "Answer:"]


def test_preview_of_an_experiment_that_is_a_sweep_shows_one_run(icl_eval_command, gpt2, tmp_path):
    outcome = icl_eval_command("preview", "experiment=shot_curve", f"model.source={gpt2}", *QUICK)
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert outcome.out.count("qa-test-001 · decoder") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_reader_that_has_enough_ends_the_command_without_a_word(gpt2):
    command = [sys.executable, "-m", "icl_eval", "preview", f"model.source={gpt2}", "task=[qa]", "num_fewshot=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


TEXT = "Question: is the sky blue?"
SIDES = {"gpt2": (None, TEXT), "t5": (TEXT, None), "t5 begun": (TEXT, "The house is")}


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("sides", SIDES)
def test_law_5_the_text_of_a_stream_is_the_completion(stop, sides, icl_eval_command, request, tmp_path):
    folder = request.getfixturevalue(sides.split()[0])
    model = load_model(ModelSpec(str(folder)))
    encoded = encode_prompt(model.tokenizer, Prompt("x", *SIDES[sides]))
    begun = SIDES[sides][1] if "begun" in sides else None
    (whole,) = (event for event in StreamDecoder(model, 12).stream([encoded]) if isinstance(event, Completion))
    middle = whole.text[5:8]

    overrides = [f"decoding.stop={json.dumps([middle], ensure_ascii=False)}"] if stop else []
    overrides += [f"decoder_prompt={begun}"] if begun else []
    outcome = icl_eval_command("stream", f"model.source={folder}", f"prompt={TEXT}", "max_new_tokens=12", *overrides)

    assert outcome.exit_code == 0
    shown = whole.text[: whole.text.find(middle)] if stop else whole.text
    assert outcome.out == f"{shown}\n"
    options = {"decoder_prompt": begun, "max_new_tokens": 12, "decoding.stop": [middle] if stop else []}
    assert "".join(stream(str(folder), TEXT, **options)) == shown
    assert outcome.err.startswith(f"{encoded.num_tokens} prompt tokens, ")
    assert outcome.err.endswith(f"ended by {'stop' if stop else 'length'}\n")
    assert list(tmp_path.iterdir()) == []


def read_run(folder):
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    samples = [json.loads(line) for line in (folder / "samples_qa.jsonl").read_text(encoding="utf-8").splitlines()]
    return report, samples


def test_a_run_folder_holds_what_the_contract_says(icl_eval, tmp_path):
    outcome = icl_eval("hydra.run.dir=run")

    assert outcome.exit_code == 0
    report, samples = read_run(tmp_path / "run")
    jsonschema.Draft202012Validator.check_schema(report_schema())
    jsonschema.validate(report, report_schema())
    assert list(report) == ["schema_version", "run", "results", "timing", "provenance", "groups"]
    assert list(report["timing"]) == ["seconds", "completion_tokens_per_second", "finished"]
    assert list(report["run"]) == [
        "model", "architecture", "template", "placement", "conventions", "num_fewshot", "demonstrations", "order",
        "control", "leave_out", "seed", "decoding", "fingerprint", "loading", "one_draw",
    ]  # fmt: skip
    assert list(report["results"]["qa"]) == [
        "n",
        "num_fewshot",
        "metrics",
        "counts",
        "behaviour",
        "control",
        "num_clusters",
    ]
    assert list(report["results"]["qa"]["metrics"]) == ["exact_match", "token_f1"]
    assert list(report["results"]["qa"]["metrics"]["token_f1"]) == [
        "score", "stderr", "ci95", "signature", "higher_is_better", "stored", "method", "smoothed",
    ]  # fmt: skip
    assert list(report["results"]["qa"]["counts"]) == [
        "prompt_tokens", "prefix_tokens_reused", "completion_tokens", "finish_reasons", "unparsed", "shots_effective",
        "empty", "stopped_empty",
    ]  # fmt: skip
    assert list(report["provenance"]) == [
        "versions", "git_commit", "weights", "datasets", "config", "host", "overrides", "engine", "parts", "network",
    ]  # fmt: skip
    for sample in samples:
        assert list(sample) == [
            "example_id", "doc", "targets", "encoder", "decoder", "demonstration_ids", "shots_requested",
            "shots_effective", "completion", "prediction", "metrics", "prompt_tokens",
            "completion_tokens", "finish_reason", "prompt_hash", "demonstrations", "likelihood", "stop_string",
            "samples", "cluster",
        ]  # fmt: skip
    assert [sample["example_id"] for sample in samples] == ["qa-test-001", "qa-test-002"]
    assert outcome.out.endswith("\nreport: run/report.json\npage: run/report.html\n")


def test_a_report_without_one_of_its_keys_is_not_valid(icl_eval, tmp_path):
    icl_eval("hydra.run.dir=run")
    report, _ = read_run(tmp_path / "run")
    del report["results"]["qa"]["counts"]["unparsed"]
    with pytest.raises(jsonschema.ValidationError, match="'unparsed' is a required property"):
        jsonschema.validate(report, report_schema())


def test_the_same_command_again_reads_its_folder_and_loads_no_model(icl_eval, tmp_path, monkeypatch):
    first = icl_eval()
    (folder,) = (tmp_path / "outputs").iterdir()
    report, _ = read_run(folder)
    samples = (folder / "samples_qa.jsonl").read_bytes()

    monkeypatch.setattr("icl_eval.decoding.engines.in_process.load_model", refuse_to_load)
    second = icl_eval()

    remark = "all completions are from an earlier run: nothing was decoded\n"
    assert (second.exit_code, second.err) == (0, "")
    assert remark in second.out
    assert second.out.replace(remark, "") == first.out
    assert list((tmp_path / "outputs").iterdir()) == [folder]
    assert [read_run(folder)[0][part] for part in ("run", "results")] == [report["run"], report["results"]]
    assert (folder / "samples_qa.jsonl").read_bytes() == samples


def test_metrics_can_be_chosen_and_are_computed_from_the_records_alone(icl_eval, tmp_path, monkeypatch):
    icl_eval("hydra.run.dir=run")
    monkeypatch.setattr("icl_eval.decoding.engines.in_process.load_model", refuse_to_load)
    assert icl_eval("hydra.run.dir=run", "metrics=[chrf]", "metrics.chrf.word_order=2").exit_code == 0
    report, samples = read_run(tmp_path / "run")
    assert list(report["results"]["qa"]["metrics"]) == ["chrf"]
    assert "nw:2" in report["results"]["qa"]["metrics"]["chrf"]["signature"]
    assert [list(sample["metrics"]) for sample in samples] == [["chrf"], ["chrf"]]


def test_law_11_demonstrations_that_do_not_fit_are_dropped_and_the_report_says_so(icl_eval, tmp_path):
    outcome = icl_eval("num_fewshot=8", "overflow=drop", "hydra.run.dir=run")

    report, samples = read_run(tmp_path / "run")
    assert outcome.exit_code == 0
    assert "\nqa: 2 of 2 prompts fit fewer than 8 demonstrations\n" in outcome.out
    assert report["results"]["qa"]["counts"]["shots_effective"] == {"2": 2}
    for sample in samples:
        assert (sample["shots_requested"], sample["shots_effective"], len(sample["demonstration_ids"])) == (8, 2, 2)
        assert sample["decoder"].endswith(f"Question: {sample['doc']['question']}\nAnswer:")
        assert sample["prompt_tokens"] + 4 <= 256


TASK = """
# @package task.capitals
defaults:
  - /metrics@metrics: [exact_match]
  - _self_
instruction: Name the capital.
pool: {path: capitals.csv}
test: {path: capitals.csv}
fields: {question: country, references: capital, continent: continent}
max_new_tokens: 4
"""
TEMPLATE = r"""
question: "{{ question }} ({{ continent }})\n-> "
answer: "{{ answer }}."
separator: "\n--\n"
"""


@pytest.mark.parametrize(
    ("content", "place", "problem"),
    [
        ("a: 1\nb:\t[2]\n\tc: 3\n", "2:3", "found character '\\t' that cannot start any token"),
        ("a: 1\nb: [1,\n", "3:1", "expected the node content, but found '<stream end>'"),
        ("a: 1\na: 2\n", "2:1", "found duplicate key a"),
    ],
)
def test_a_config_file_that_is_no_yaml_is_one_line(icl_eval_command, tmp_path, content, place, problem):
    path = tmp_path / "mine/task/broken.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    outcome = icl_eval_command("task=broken", "--config-dir", "mine", "limit=1")
    assert outcome.exit_code == 2
    assert outcome.err == f"icl-eval: {path}:{place}: not YAML ({problem})\n"


BODY = TASK.replace("# @package task.capitals", "")


@pytest.mark.parametrize(
    ("group", "content", "sentence"),
    [
        (
            "template",
            "questoin: x\n",
            "template/mine.yaml: unknown key 'template.questoin'; did you mean 'template.question'? "
            f"(known: {keys(TemplateConfig, 'template.')})",
        ),
        ("template", "separator: [x]\n", "template/mine.yaml: template.separator=['x']: must be a string"),
        ("task", f"{TASK}stop: x\n", "task/mine.yaml: task.capitals.stop=x: must be a list"),
        ("task", "- x\n", "task/mine.yaml: must be a mapping from keys to values"),
        ("template", "- x\n", "template/mine.yaml: must be a mapping from keys to values"),
        (
            "task",
            BODY,
            "task.metrics.exact_match: a task's file must start with the line '# @package task.NAME'",
        ),
        (
            "task",
            "instruction: x\n",
            "task.instruction: a task's file must start with the line '# @package task.NAME'",
        ),
    ],
)
def test_a_mistake_in_a_config_of_ones_own_is_one_line(group, content, sentence, icl_eval_command, tmp_path):
    path = tmp_path / "my" / group / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    outcome = icl_eval_command("preview", "task=qa", f"{group}=mine", "--config-dir", "my", "limit=1")
    assert (outcome.exit_code, outcome.out, outcome.err) == (2, "", f"icl-eval: {sentence}\n")


def test_two_tasks_of_one_name_are_refused(icl_eval_command, tmp_path):
    (tmp_path / "mine/task").mkdir(parents=True)
    for name in ("one", "two"):
        (tmp_path / f"mine/task/{name}.yaml").write_text(TASK)
    outcome = icl_eval_command("--config-dir", "mine", "preview", "task=[one,two]")
    assert (outcome.exit_code, outcome.err) == (
        2,
        "icl-eval: task: one and two both declare the package task.capitals in the first line of their files; "
        "leave one of them out, or start its file with '# @package task.two'\n",
    )


def test_a_config_of_ones_own_that_is_called_like_a_packaged_one_is_refused(icl_eval_command, tmp_path):
    path = tmp_path / "mine/task/qa.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(TASK)
    message = (
        f"mine/task/qa.yaml: task=qa already names {conf_dir() / 'task/qa.yaml'}, which would be used; rename your file"
    )
    for flags in (["--config-dir", "mine"], ["--config-dir=mine"], ["-cd", "mine"], ["hydra.searchpath=[mine]"]):
        outcome = icl_eval_command("preview", "task=qa", *flags, "limit=1")
        assert (outcome.exit_code, outcome.err) == (2, f"icl-eval: {message}\n")


def test_a_task_and_a_template_are_added_with_one_file_each_from_outside(icl_eval_command, gpt2, tmp_path):
    for path, content in {"task/capitals.yaml": TASK, "template/arrow.yaml": TEMPLATE}.items():
        (tmp_path / "mine" / path).parent.mkdir(parents=True)
        (tmp_path / "mine" / path).write_text(content)
    rows = "country,continent,capital\nFrance,Europe,Paris\nPeru,America,Lima\nKenya,Africa,Nairobi\n"
    (tmp_path / "mine" / "capitals.csv").write_text(rows)
    own = ("--config-dir", "mine", f"model.source={gpt2}")

    outcome = icl_eval_command("task=capitals", *own, "template=arrow", "demonstrations=first", "num_fewshot=2")

    assert outcome.exit_code == 0
    (path,) = tmp_path.glob("outputs/*/samples_capitals.jsonl")
    assert [json.loads(line)["decoder"] for line in path.read_text().splitlines()] == [
        "Peru (America)\n-> Lima.\n--\nKenya (Africa)\n-> Nairobi.\n--\nFrance (Europe)\n->",
        "France (Europe)\n-> Paris.\n--\nKenya (Africa)\n-> Nairobi.\n--\nPeru (America)\n->",
        "France (Europe)\n-> Paris.\n--\nPeru (America)\n-> Lima.\n--\nKenya (Africa)\n->",
    ]
    assert f"(known: {known('task').replace('commonsense,', 'capitals, commonsense,')})" in (
        icl_eval_command(*own, "task=nope").err
    )


NETWORKS = {"torch", "transformers", "tokenizers", "safetensors", "huggingface_hub"}
TABLES = {"datasets", "evaluate", "sacrebleu", "scipy", "pandas", "matplotlib"}
OBJECTS = {"numpy", "pydantic", "jinja2", "rich"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "exit_code", "unwanted"),
    [
        (["--help"], 0, NETWORKS | TABLES | OBJECTS),
        (["--nosuch"], 2, NETWORKS | TABLES | OBJECTS),
        (["nosuch=1"], 2, NETWORKS | TABLES | OBJECTS),
        (["task=nosuch"], 2, NETWORKS | TABLES | OBJECTS),
        (["num_fewshot=x"], 2, NETWORKS | TABLES | OBJECTS),
        (["num_fewshot=-1"], 2, NETWORKS | TABLES | OBJECTS),
        (["doctor", "num_fewshot=-1"], 2, NETWORKS | TABLES | OBJECTS),
        (["decoding=sample", "decoding.temperature=-1"], 2, NETWORKS | TABLES),
        (["model.source=./nosuch"], 2, NETWORKS | TABLES | OBJECTS),
        (["model.adapter=./nosuch"], 2, NETWORKS | TABLES | OBJECTS),
        (["model.tokenizer=./nosuch"], 2, NETWORKS | TABLES | OBJECTS),
        (["task.qa.test.path=nosuch.csv"], 2, NETWORKS | TABLES | OBJECTS),
        (["stream", "prompt=x", "model.source=./nosuch.gguf"], 2, NETWORKS | TABLES | OBJECTS),
        (["trace", "prompt=x", "model.source=./nosuch"], 2, NETWORKS | TABLES | OBJECTS),
        (["tour", "dtype=nosuch"], 2, NETWORKS | TABLES | OBJECTS),
        (["device=gpu"], 2, NETWORKS | TABLES | OBJECTS),
        (["compare", "run", "nosuch"], 2, NETWORKS | TABLES | OBJECTS),
        (["task=qa", "template.question='{{nosuch}}'"], 2, NETWORKS),
        (["task=qa", "template.answer='{{nosuch}}'"], 2, NETWORKS),
        (["likelihood=choices"], 2, NETWORKS),
        (["list", "."], 0, NETWORKS | TABLES | {"numpy"}),
    ],
)
def test_help_lists_and_refusals_import_nothing_that_they_do_not_need(words, exit_code, unwanted, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "fingerprint.json").touch()  # an unfinished run
    code = (
        "import atexit, sys; sys.argv[0] = 'icl-eval'; from icl_eval.cli.main import main\n"
        f"unwanted = {unwanted}\n"
        "atexit.register(lambda: print('imported', *unwanted & {*sys.modules})); main()"
    )
    run = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    assert run.stdout.splitlines()[-1] == "imported"
    assert run.returncode == exit_code


def test_no_object_is_looked_through_when_a_command_ends():
    code = (
        "import atexit, gc; from icl_eval.cli.main import main\n"
        "atexit.register(lambda: print(gc.get_freeze_count() >= len(gc.get_objects()))); main()"
    )
    run = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "True"


def test_configs_may_have_names_that_are_numbers_or_values_in_hydras_grammar(icl_eval_command, tmp_path, gpt2):
    for name in ("2024", "nan"):
        path = tmp_path / f"mine/task/{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TASK.replace("task.capitals", f"task.{name}"))
    (tmp_path / "mine/template").mkdir()
    (tmp_path / "mine/template/1.yaml").write_text('question: "{{ question }}"\nanswer: "{{ answer }}"\n')
    (tmp_path / "mine/capitals.csv").write_text("country,capital,continent\na,b,c\n")
    words = ("--config-dir=mine", f"model.source={gpt2}", "num_fewshot=0")
    outcome = icl_eval_command("preview", *words, "task=[2024, nan]", "template=1")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert "2024: 1 prompt" in outcome.out
    assert "nan: 1 prompt" in outcome.out
    outcome = icl_eval_command("preview", *words, "task=2023")
    assert outcome.err.startswith("icl-eval: task=2023: must be one of 2024, ag_news, ")


def test_the_version_is_that_of_the_command(icl_eval_command):
    assert icl_eval_command("--version").out == f"icl-eval {version('icl-eval')} (Hydra {version('hydra-core')})\n"
