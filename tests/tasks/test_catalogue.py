"""The data sets of the hub that have a task: made-up rows in their layout, and what the tasks make of them."""

import logging
import re
from pathlib import Path

import pytest
import yaml
from hub_layout import NAMES, overrides_of, read_expected, write_folder

from icl_eval.config.catalogue import find_tasks
from icl_eval.config.composing import compose_words
from icl_eval.config.evaluations import build_evaluation
from icl_eval.config.schema import RunConfig
from icl_eval.config.setup import data_dir
from icl_eval.runs.reports import read_report

KINDS = {
    *("translation", "choices", "math", "question answering", "dialogue", "classification", "summarisation"),
    *("stories", "induction", "mixed", "other harnesses"),
}
UNPINNED = {"flores"}
"""Tasks whose data set has no commit that is known to load."""
LM_EVAL = {
    "arc_challenge": "arc/arc_challenge",
    "arc_easy": "arc/arc_easy",
    "boolq": "super_glue/boolq/default",
    "commonsense_qa": "commonsense_qa/default",
    "gsm8k_cot": "gsm8k/gsm8k",
    "hellaswag": "hellaswag/hellaswag",
    "mmlu": "mmlu/default/mmlu_elementary_mathematics",
    "nq_open": "nq_open/nq_open",
    "piqa": "piqa/piqa",
    "rte": "super_glue/rte/default",
    "sst2": "glue/sst2/default",
    "trivia_qa": "triviaqa/default",
}
"""Tasks with the prompts of lm-evaluation-harness, and the files of its own."""


@pytest.fixture(scope="module")
def tasks():
    """Return the configuration of every task."""
    return find_tasks([])


@pytest.fixture(scope="module")
def folders(tasks, tmp_path_factory):
    """Return the folder of each task's data set."""
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        datasets.disable_progress_bars()
        yield {name: write_folder(tmp_path_factory.mktemp(name), name, tasks[name].test.name) for name in NAMES}


@pytest.fixture(scope="module")
def plans(folders):
    """Return the plan of each task, with the first row of the pool that fits as the only demonstration."""
    words = [f"task=[{','.join(NAMES)}]", "num_fewshot=1", "demonstrations=first"]
    words += [word for name in NAMES for word in overrides_of(name, folders[name])]
    evaluation = build_evaluation(compose_words(words, "evaluate", RunConfig))
    return {plan.task.name: plan for plan in evaluation.plans}


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_the_hub_become_the_customary_prompt_with_its_answers(name, plans):
    plan, expected = plans[name], read_expected(name)
    [question] = plan.examples
    shown = [demonstration.example for demonstration in plan.select(question)]
    assert plan.template.render(plan.task, shown, question).everything() == expected["prompt"]
    assert plan.template.continuation(plan.task, question, question.references[0]) == expected["continuation"]
    assert list(question.references) == expected["references"]
    assert list(question.choices) == expected.get("choices", [])
    assert (plan.likelihood is None) == (plan.max_new_tokens > 0) == (not question.choices)
    assert [metric.name for metric in plan.build_metrics()] == expected.get("metrics", [])
    for metric in plan.build_metrics():
        metric.check_references([question.references])
        best = {"bleu": 100, "chrf": 100, "ter": 0}.get(metric.name, 1)
        assert metric.per_example([question.references[-1]], [question.references]).value == pytest.approx(best)


@pytest.mark.parametrize("name", LM_EVAL)
def test_the_prompts_are_those_of_lm_evaluation_harness(name, tasks, tmp_path, caplog):
    import lm_eval.tasks

    caplog.set_level(logging.ERROR)
    folder, config = tmp_path / name, tasks[name]
    subjects = {row.get("subject") for row in read_expected(name)["rows"].get("test", ())}
    write_folder(folder, name, config.test.name, lambda row: row.get("subject") in {None, *subjects})
    theirs = {
        "include": str(Path(lm_eval.tasks.__path__[0]) / f"{LM_EVAL[name]}.yaml"),
        "task": f"{name}_on_rows_of_ours",
        "dataset_path": str(folder),
        "dataset_name": config.test.name,
        "fewshot_split": config.pool.split,
        "fewshot_config": {"sampler": "first_n"},
    }
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump(theirs), encoding="utf-8")
    [task] = lm_eval.tasks.TaskManager(include_defaults=False).load([str(path)])["tasks"].values()
    [question] = task.eval_docs
    assert task.fewshot_context(question, num_fewshot=1) == read_expected(name)["prompt"]


def test_every_task_says_what_it_is_and_those_of_the_hub_are_pinned_to_a_commit(tasks):
    assert {task.card.kind for task in tasks.values()} == KINDS
    own = {name: task for name, task in tasks.items() if name != "lm_eval"}
    for name, task in own.items():
        if Path(task.test.path).is_relative_to(data_dir()):
            rows = [len(Path(source.path).read_bytes().splitlines()) for source in (task.pool, task.test)]
            assert [task.card.pool_size, task.card.test_size, task.card.licence] == [*rows, "Apache-2.0"], name
        else:
            assert min(task.card.pool_size, task.card.test_size) > 0
            assert (task.pool.path, task.pool.name) == (task.test.path, task.test.name)
            assert task.pool.revision == task.test.revision
            assert (task.test.revision is None) == (name in UNPINNED)
            assert task.test.revision is None or re.fullmatch("[0-9a-f]{40}", task.test.revision)
    assert {name for name, task in own.items() if not Path(task.test.path).is_absolute()} == set(NAMES)


def test_tasks_of_the_catalogue_are_evaluated_together_each_by_its_own_scores(folders, evaluate_tiny):
    names = ("boolq", "nq_open", "samsum", "wmt14_en_fr", "winogrande")
    words = [word for name in names for word in overrides_of(name, folders[name])]
    short = [f"task.{name}.max_new_tokens=4" for name in ("nq_open", "samsum", "wmt14_en_fr")]
    folder = evaluate_tiny("run", f"task=[{','.join(names)}]", "num_fewshot=1", *words, *short)
    results = read_report(folder / "report.json").results
    by_likelihood = [
        *("reference_logprob", "reference_perplexity", "reference_rank"),
        *("choice_accuracy", "choice_accuracy_per_token", "choice_accuracy_per_byte"),
    ]
    assert {name: list(result.metrics) for name, result in results.items()} == {
        "boolq": by_likelihood,
        "nq_open": ["exact_match"],
        "samsum": ["rouge_1", "rouge_2", "rouge_l"],
        "wmt14_en_fr": ["bleu", "chrf", "ter"],
        "winogrande": by_likelihood,
    }
    assert {result.num_fewshot for result in results.values()} == {1}


def test_the_table_in_the_documentation_is_that_of_the_files(tasks):
    text = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \| `(\S+)`[^|]*\| (\d+) \|.*\| (\S+) \|$", text, re.M) == [
        (name, tasks[name].test.path, str(tasks[name].num_fewshot or 4), (tasks[name].test.revision or "none")[:7])
        for name in NAMES
    ]
