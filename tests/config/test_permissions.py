"""A file of configs from elsewhere runs nothing, reads no environment, trusts nothing and writes nowhere else."""

import pytest

TASK = """# @package task.mine
defaults:
  - /metrics@metrics: [exact_match]
  - _self_
instruction: Answer.
pool: {path: "${packaged_data:qa/pool.jsonl}"}
test: {path: "${packaged_data:qa/test.jsonl}"}
max_new_tokens: ${seed}8
"""
TEMPLATE = 'question: "{{ question }}"\nanswer: " {{ answer }}"\n'
EXPERIMENT = """# @package _global_
defaults:
  - override /order: random
num_fewshot: 2
hydra:
  mode: MULTIRUN
  sweeper:
    params: {num_fewshot: "0,1", order.seed: "0,1"}
"""


def write(folder, path, content):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(content, encoding="utf-8")


@pytest.fixture
def see(icl_eval_command, gpt2, tmp_path):
    """Look at a task with `preview`, as one would at a stranger's, beside files that are added to it."""

    def see(files, *arguments):
        for path, content in {"task/mine.yaml": TASK, **files}.items():
            write(tmp_path / "my", path, content)
        return icl_eval_command(
            "preview", "--config-dir", "my", f"model.source={gpt2}", "task=mine", "num_fewshot=1", "limit=1", *arguments
        )

    return see


def test_a_task_a_template_and_a_sweep_of_ones_own_are_what_they_are_for(see, tmp_path):
    files = {"template/mine.yaml": TEMPLATE, "experiment/mine.yaml": EXPERIMENT}
    outcome = see(files, "template=mine", "experiment=mine")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["my"]


HEADER = "# @package _global_\n"
CALLBACK = "hydra: {callbacks: {x: {_target_: builtins.exec, _args_: [\"open('ran', 'w')\"]}}}\n"
ONLY_SWEEPS = "the only settings of Hydra that an experiment may set are hydra.mode and hydra.sweeper.params"
OWN = "Hydra's own settings can only be set on the command line (hydra.…=…)"
TRUSTED = "trust can only be granted on the command line"
SENT = "where prompts are sent can only be set on the command line"
ASKED = "an interpolation may only refer to another key, such as ${seed}"
NOT_A_STRING = "not as a string; put it in quotes"


@pytest.mark.parametrize(
    ("path", "content", "sentence"),
    [
        # packages
        ("task/x", HEADER + CALLBACK, "'@package _global_': a file in task/ must have the package"),
        ("task/x", "# @package hydra.callbacks\nx: 1\n", "'@package hydra.callbacks': a file in"),
        (
            "task/x",
            "# @package task._global_.hydra\nx: 1\n",
            "'@package task._global_.hydra': a file in",
        ),
        ("task/x", "\n\n#@package model\nsource: x\n", "'@package model': a file in task/ must have the package"),
        ("task/sub/x", HEADER + CALLBACK, "'@package _global_': a file in task/ must have the package"),
        ("template/x", HEADER + "model: {source: x}\n", "'@package _global_': a file in"),
        ("template/x", "# @package model\nsource: x\n", "'@package model': a file in"),
        ("experiment/x", "# @package hydra\nmode: x\n", "'@package hydra': a file in"),
        ("task/a_global_.hydra", TASK, "Hydra reserves the names _global_, _group_, _name_"),
        ("task/_global_.hydra/x", "x: 1\n", "Hydra reserves the names _global_, _group_, _name_"),
        # Hydra's own settings
        ("experiment/x", HEADER + CALLBACK, f"hydra.callbacks.x._target_: {ONLY_SWEEPS}"),
        ("experiment/x", HEADER + "hydra: {run: {dir: /tmp/x}}\n", f"hydra.run.dir: {ONLY_SWEEPS}"),
        ("experiment/x", HEADER + "hydra: {sweep: {dir: /tmp/x}}\n", f"hydra.sweep.dir: {ONLY_SWEEPS}"),
        ("experiment/x", HEADER + "hydra: {searchpath: [/tmp]}\n", f"hydra.searchpath.0: {ONLY_SWEEPS}"),
        ("experiment/x", HEADER + "hydra: {launcher: {_target_: x.Y}}\n", f"hydra.launcher._target_: {ONLY_SWEEPS}"),
        ("experiment/x", HEADER + "hydra: {sweeper: {_target_: x.Y}}\n", f"hydra.sweeper._target_: {ONLY_SWEEPS}"),
        (
            "experiment/x",
            HEADER + "hydra: {job_logging: {handlers: {f: {class: logging.FileHandler, filename: x, mode: w}}}}\n",
            f"hydra.job_logging.handlers.f.class: {ONLY_SWEEPS}",
        ),
        (
            "experiment/x",
            HEADER + "a: &a {callbacks: {x: {_target_: os.system}}}\nhydra: *a\n",
            f"hydra.callbacks.x._target_: {ONLY_SWEEPS}",
        ),
        (
            "experiment/x",
            HEADER + "a: &a {run: {dir: /tmp}}\nhydra: {<<: *a, mode: RUN}\n",
            f"hydra.run.dir: {ONLY_SWEEPS}",
        ),
        ("experiment/x", HEADER + "hydra: ${task}\n", f"hydra: {ONLY_SWEEPS}"),
        (
            "experiment/x",
            HEADER + "hydra: {sweeper: {params: {hydra.run.dir: '/tmp/a,/tmp/b'}}}\n",
            f"hydra.sweeper.params.hydra.run.dir: {ONLY_SWEEPS}",
        ),
        (
            "experiment/x",
            HEADER + "hydra: {sweeper: {params: {+hydra.callbacks.x._target_: 'a,b'}}}\n",
            f"hydra.sweeper.params.+hydra.callbacks.x._target_: {ONLY_SWEEPS}",
        ),
        (
            "experiment/x",
            HEADER + "hydra: {sweeper: {params: {hydra/launcher: 'a,b'}}}\n",
            f"hydra.sweeper.params.hydra/launcher: {ONLY_SWEEPS}",
        ),
        ("hydra/launcher/x", "_target_: os.system\n", OWN),
        ("hydra/job_logging/x", "version: 1\n", OWN),
        # defaults
        ("task/x", TASK.replace("_self_", "/hydra/launcher/basic@x"), "defaults: /hydra/launcher/basic@x: must be"),
        (
            "task/x",
            TASK.replace("/metrics@metrics", "/metrics@_global_.hydra.callbacks"),
            "defaults: /metrics@_global_.",
        ),
        ("task/x", TASK.replace("_self_", "../../other/evil"), "defaults: ../../other/evil: must be a config of"),
        ("task/x", TASK.replace("_self_", "/evil"), "defaults: /evil: must be a config of"),
        ("task/x", TASK.replace("_self_", "/evil/x"), "defaults: /evil/x: must be a config of"),
        ("template/x", "defaults: [y@_global_.hydra]\n", "defaults: y@_global_.hydra: must be a"),
        (
            "experiment/x",
            HEADER + "defaults: [override /template: 2]\n",
            "defaults: YAML reads this as 2, not as the name of a config; put it in quotes",
        ),
        ("experiment/x", HEADER + "defaults: [override /task: [qa, 2]]\n", "defaults: YAML reads this as 2, not as"),
        ("experiment/x", HEADER + "defaults: [3]\n", "defaults: YAML reads this as 3, not as"),
        ("experiment/x", HEADER + "defaults: [y@hydra.callbacks]\n", "defaults: y@hydra.callbacks: must be a config"),
        ("experiment/x", HEADER + "defaults: [{/model@hydra.run: y}]\n", "defaults: /model@hydra.run: y: must be a"),
        ("experiment/x", HEADER + "defaults: [{override /order: ../x}]\n", "defaults: override /order: ../x: must be"),
        ("template/x", "defaults: [{/task@hydra: mine}]\n", "defaults: /task@hydra: mine: must be a"),
        (
            "experiment/x",
            HEADER + "defaults:\n  - override /hydra/job_logging: mine\n",
            "defaults: override /hydra/job_logging: mine: must be a config of",
        ),
        (
            "experiment/x",
            HEADER + "defaults:\n  - optional override hydra/launcher: mine\n",
            "defaults: optional override hydra/launcher: mine: must be a config of",
        ),
        # where prompts and keys go
        ("engine/x", "_target_: icl_eval.decoding.engines.OpenAIEngine\nbase_url: http://h/v1\n", f"base_url: {SENT}"),
        ("engine/x", "api_key_env: AWS_SECRET_ACCESS_KEY\n", f"api_key_env: {SENT}"),
        ("experiment/x", HEADER + "engine: {base_url: http://h/v1}\n", f"engine.base_url: {SENT}"),
        (
            "experiment/x",
            HEADER + "hydra: {sweeper: {params: {engine: '{base_url: http://h/v1}'}}}\n",
            f"hydra.sweeper.params.engine: {SENT}",
        ),
        # trust
        ("template/x", "trust_remote_code: true\n", f"trust_remote_code: {TRUSTED}"),
        ("model/x", "source: x\nallow_pickle: true\n", f"allow_pickle: {TRUSTED}"),
        ("experiment/x", HEADER + "model: {trust_remote_code: true}\n", f"model.trust_remote_code: {TRUSTED}"),
        (
            "experiment/x",
            HEADER + "hydra: {sweeper: {params: {model.trust_remote_code: 'true,false'}}}\n",
            f"hydra.sweeper.params.model.trust_remote_code: {TRUSTED}",
        ),
        (
            "experiment/x",
            HEADER + "hydra: {sweeper: {params: {metrics.m: '{name: m.py, trust_remote_code: true}'}}}\n",
            f"hydra.sweeper.params.metrics.m: {TRUSTED}",
        ),
        (
            "task/x",
            TASK + "metrics: {m: {_target_: icl_eval.metrics.hub.HubMetric, name: ./m.py, trust_remote_code: true}}\n",
            f"metrics.m.trust_remote_code: {TRUSTED}",
        ),
        ("experiment/x", HEADER + "output: x.json\n", "output: the output path can only be set on the command line"),
        # interpolations
        ("task/x", TASK + "stop: ['${oc.env:HOME}']\n", f"stop.0: ${{oc.env:HOME}}: {ASKED}"),
        ("task/x", TASK + "match_field: a${oc.env:HOME}b\n", f"match_field: ${{oc.env:HOME}}: {ASKED}"),
        ("template/x", "question: ${oc.decode:x}\n", f"question: ${{oc.decode:x}}: {ASKED}"),
        ("template/x", "question: ${oc.create:x}\n", f"question: ${{oc.create:x}}: {ASKED}"),
        ("template/x", "question: ${hydra:runtime.cwd}\n", f"question: ${{hydra:runtime.cwd}}: {ASKED}"),
        ("template/x", "question: '${${seed}:HOME}'\n", f"question: ${{${{seed}}: {ASKED}"),
        ("template/x", "question: '${packaged_data:${oc.env:HOME}}'\n", "question: ${packaged_data:${oc.env:HOME}"),
        ("template/x", "question: '${ oc.env:HOME}'\n", f"question: ${{ oc.env:HOME}}: {ASKED}"),
        (
            "experiment/x",
            HEADER + "defaults: [{override /order: '${oc.env:X}'}]\n",
            "defaults.0.override /order: ${oc.env",
        ),
        # what YAML takes for something else
        ("task/x", TASK.replace("Answer.", "1.10"), f"instruction: YAML reads this as 1.1, {NOT_A_STRING}"),
        ("task/x", TASK.replace("Answer.", "1_000"), f"instruction: YAML reads this as 1000, {NOT_A_STRING}"),
        ("task/x", TASK.replace("Answer.", "null"), f"instruction: YAML reads this as null, {NOT_A_STRING}"),
        ("task/x", TASK + "labels: {question: yes}\n", f"labels.question: YAML reads this as true, {NOT_A_STRING}"),
        ("task/x", TASK + "stop: [1.0]\n", f"stop.0: YAML reads this as 1.0, {NOT_A_STRING}"),
        ("task/x", TASK + "stop: [~]\n", f"stop.0: YAML reads this as null, {NOT_A_STRING}"),
        ("task/x", TASK + "match_field: 12\n", f"match_field: YAML reads this as 12, {NOT_A_STRING}"),
        ("template/x", "separator: 0x1F\n", f"separator: YAML reads this as 31, {NOT_A_STRING}"),
        ("model/x", "source: x\nrevision: 1e5\n", f"revision: YAML reads this as 100000.0, {NOT_A_STRING}"),
        (
            "experiment/x",
            HEADER + "task: {qa: {stop: [no]}}\n",
            f"task.qa.stop.0: YAML reads this as false, {NOT_A_STRING}",
        ),
        ("task/x", TASK + "labels: {}\n", "labels: an empty mapping has no effect; leave it out"),
        ("task/x", TASK + "fields: {}\n", "fields: an empty mapping has no effect; leave it out"),
    ],
)
def test_a_file_that_says_what_only_the_command_line_may_is_refused_with_the_key(
    path, content, sentence, see, tmp_path
):
    outcome = see({f"{path}.yaml": content}, "hydra.run.dir=run")
    assert (outcome.exit_code, outcome.out) == (2, "")
    place = "my/task/_global_.hydra" if path.startswith("task/_global_") else f"my/{path}.yaml"
    assert outcome.err.startswith(f"icl-eval: {place}: {sentence}")
    assert outcome.err.count("\n") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["my"]


def test_files_behind_links_are_looked_at_too(see, tmp_path):
    write(tmp_path, "elsewhere/deep/x.yaml", HEADER + CALLBACK)
    (tmp_path / "my/task").mkdir(parents=True)
    (tmp_path / "my/task/link").symlink_to(tmp_path / "elsewhere")
    outcome = see({})
    assert outcome.err.startswith("icl-eval: my/task/link/deep/x.yaml: '@package _global_'")


@pytest.mark.slow
def test_the_code_of_a_metric_runs_only_where_the_command_line_trusts_it(icl_eval_command, gpt2, tmp_path, script):
    write(tmp_path, "my/task/mine.yaml", TASK.replace("[exact_match]", "[exact_match, hub]"))
    path = script("code", result='{"share": open("ran", "w").write("x")}')
    words = ("--config-dir", "my", f"model.source={gpt2}", "task=mine", "num_fewshot=1", "limit=1")
    words += (f"task.mine.metrics.hub.name={path}",)
    refused = icl_eval_command(*words)
    assert (refused.exit_code, refused.err) == (
        2,
        f"icl-eval: task.mine.metrics.hub.trust_remote_code=false: the metric {path!r} is code from elsewhere; if you "
        "trust it, set this key to true on the command line\n",
    )
    assert not (tmp_path / "ran").exists()
    trusted = icl_eval_command(*words, "task.mine.metrics.hub.trust_remote_code=true")
    assert (trusted.exit_code, trusted.err) == (0, "")
    assert (tmp_path / "ran").exists()
