"""Evaluate, compare and analyse from Python, with the options of the command line.

Options are keys of the configuration, given as keyword arguments (`num_fewshot=4`) or as command-line overrides
(`"decoding=sample"`, `"decoding.temperature=0.7"`). `icl-eval --help` lists them all. The examples below use the model
that comes with the package:

>>> import icl_eval
>>> run = icl_eval.evaluate(model="icl_t5", task="induction_numbers", num_fewshot=8, limit=16)
>>> run.scores.loc[0, "score"].item()
1.0
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

from icl_eval.analysis.comparison import Comparison, compare_runs
from icl_eval.analysis.studies import StudyPlan
from icl_eval.analysis.sweeps import SweepAnalysis, analyse_runs
from icl_eval.config.composing import ComposedConfig, InMemory, as_words, compose_words
from icl_eval.config.schema import PlanConfig, RunConfig, StreamConfig, typed_config
from icl_eval.errors import ConfigError, DataError
from icl_eval.metrics.scoring import Score
from icl_eval.models.loading import LanguageModel
from icl_eval.prompts.building import Prompt
from icl_eval.runs.folders import Run
from icl_eval.tasks.loading import Task

ModelArgument = str | LanguageModel | None
TaskArgument = str | Task | Sequence[str | Task] | None


def evaluate(
    *overrides: str,
    model: ModelArgument = None,
    task: TaskArgument = None,
    folder: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Evaluate a model on few-shot tasks and return the run.

    >>> run = icl_eval.evaluate("decoding=sample", model="icl_t5", task="induction_numbers", num_fewshot=8, limit=4)
    >>> run.records("induction_numbers")[0].shots_effective
    8

    Results are written into a folder, as by `icl-eval`. Repeating a call reuses the existing results and computes only
    what is missing. A model in memory is identified by a digest of its weights, so its results go into a new folder
    whenever the weights change.

    Args:
        overrides: Command-line overrides, such as `"order=reversed"`.
        model: The name of a packaged model, a source such as `"./mine"` or `"gpt2"`, or a model in memory
            (`LanguageModel.of(network, tokenizer)`); None for the default model.
        task: The name of a task, a task in memory (`Task.of_rows`), or a list of these; None for the default tasks.
        folder: The folder for the results; None for a folder in `outputs` that is named after the options.
        progress: Whether to show a progress bar.
        options: Keys of the configuration, such as `num_fewshot=4`.

    Raises:
        ConfigError: If an option is unknown or invalid.
        DataError: If a task's data do not have the expected format.
        UserError: If the model is unavailable, or a prompt is too long.
    """
    from icl_eval.commands.evaluate import evaluate_into
    from icl_eval.config.evaluations import build_evaluation

    if folder is not None and not (isinstance(folder, str | Path) and str(folder)):
        raise ConfigError(f"folder={folder!r}: must be the path of a folder, or None")
    composed = _compose_run(overrides, model, task, options)
    evaluation = build_evaluation(composed)
    run = evaluate_into(evaluation, composed.folder if folder is None else Path(folder), progress)
    return replace(run, folder=run.folder.absolute())  # the caller may change the working directory


def preview(*overrides: str, model: ModelArgument = None, task: TaskArgument = None, **options: Any) -> list[Prompt]:
    """Return the prompts that `evaluate` would pass to the model, without loading weights.

    >>> [prompt] = icl_eval.preview(model="icl_t5", task="induction_numbers", num_fewshot=1, limit=1)
    >>> len(prompt.demonstrations)
    1

    Args:
        overrides: As for `evaluate`.
        model: As for `evaluate`.
        task: As for `evaluate`.
        options: As for `evaluate`.

    Raises:
        UserError: If `evaluate` would raise one before loading the weights.
    """
    from icl_eval.config.evaluations import build_evaluation
    from icl_eval.evaluation.preparation import prepare

    prepared = prepare(build_evaluation(_compose_run(overrides, model, task, options)))
    return [encoded.prompt for task_ in prepared.tasks for encoded in task_.prompts]


def stream(model: str | LanguageModel, prompt: str, *overrides: str, **options: Any) -> Iterator[str]:
    """Return an iterator over the pieces of a completion, as they are generated.

    >>> pieces = icl_eval.stream("icl_t5", "66", max_new_tokens=4)
    >>> isinstance("".join(pieces), str)
    True

    Args:
        model: The name of a packaged model, a source such as `"./mine"` or `"gpt2"`, or a model in memory.
        prompt: The encoder input, or the text that a decoder-only model continues.
        overrides: Command-line overrides, such as `"decoding=sample"`.
        options: Keys of the configuration of `icl-eval stream`, such as `max_new_tokens=20` and `decoder_prompt`.

    Raises:
        ConfigError: If an option is unknown or invalid.
        UserError: If the model is unavailable, or the prompt is too long.
    """
    from icl_eval.commands.stream import stream_pieces
    from icl_eval.config.ranges import check_model_options

    in_memory = _collect_in_memory(model, options)
    words = [*_choose_model(in_memory, model), *as_words({"prompt": prompt, **options}), *overrides]
    config = typed_config(compose_words(words, "stream", StreamConfig, in_memory).cfg, StreamConfig)
    check_model_options(config)
    return stream_pieces(config, in_memory.model)


def load_model(model: str, *overrides: str, **options: Any) -> LanguageModel:
    """Load a model that the caller may modify and pass to `evaluate` and `stream` as their `model`.

    >>> icl_eval.load_model("icl_t5").architecture
    'encoder-decoder'

    The network is in evaluation mode and its parameters do not require gradients; `network.requires_grad_(True)` makes
    it trainable.

    Args:
        model: The name of a packaged model, or a source such as `"./mine"` or `"gpt2"`.
        overrides: Command-line overrides, such as `"model.revision=main"`.
        options: `device` and `dtype`.

    Raises:
        ConfigError: If an option is unknown or invalid.
        ModelUnavailableError: If the weights cannot be downloaded, read or trusted.
    """
    from icl_eval.config.ranges import check_model_options
    from icl_eval.config.sources import build_model_spec
    from icl_eval.models.devices import choose_device
    from icl_eval.models.loading import load_own

    if not isinstance(model, str):
        raise ConfigError(f"model: a {type(model).__name__}, but must be the name of a model or its source")
    if unknown := sorted(options.keys() - {"device", "dtype"}):
        raise ConfigError(f"load_model: unknown option {unknown[0]!r}; must be device or dtype")
    words = [*as_words({"model": model, "prompt": "", **options}), *overrides]
    config = typed_config(compose_words(words, "stream", StreamConfig).cfg, StreamConfig)
    check_model_options(config)
    return load_own(build_model_spec(config.model), config.dtype, choose_device(config.device))


def compare(*runs: Run | str | Path, seed: int = 0, num_resamples: int = 10_000) -> Comparison:
    """Compare finished runs with the first one, question by question.

    >>> few = icl_eval.evaluate(model="icl_t5", task="induction_numbers", num_fewshot=8, limit=16)
    >>> none = icl_eval.evaluate(model="icl_t5", task="induction_numbers", num_fewshot=0, limit=16)
    >>> icl_eval.compare(none, few).differences[0].difference
    1.0

    A notebook shows the result as a table of differences; `.table` is the table as a data frame.

    Args:
        runs: Two or more runs, or their folders. The folder of a sweep stands for its finished cells.
        seed: The seed of the bootstrap and of the randomization test.
        num_resamples: The number of bootstrap resamples for an interval, and of permutations for a test.

    Raises:
        ConfigError: If there are fewer than two runs, or an option is out of range.
        DataError: If a folder contains no finished run, or the runs cannot be compared.
    """
    from icl_eval.commands.compare import check_resampling

    _require_whole_numbers({"seed": seed, "num_resamples": num_resamples})
    check_resampling(seed, num_resamples)
    compared = _read_all("compare", runs)
    folders = [run.folder.resolve() for run in compared]
    if repeated := [folder for folder in folders if folders.count(folder) > 1]:
        raise ConfigError(f"compare: {repeated[0]} is given twice; runs must be distinct")
    return compare_runs(compared, seed, num_resamples)


def analyse(runs: Sequence[Run | str | Path]) -> SweepAnalysis:
    """Analyse finished runs together: shot curves, shares of variance, and the influence of each demonstration.

    The options in which the runs differ determine which analyses apply: `num_fewshot` gives shot curves; seeds, orders
    and wordings give shares of variance and, if they have ten combinations, the distribution of a score over these;
    seeds that draw enough sets of demonstrations give influence; `leave_out` gives what each demonstration adds beside
    all the others; orders with likelihoods of choices give order probing.

    >>> runs = [icl_eval.evaluate(model="icl_t5", task="induction_numbers", num_fewshot=k, limit=16) for k in (0, 1, 8)]
    >>> [(point.num_fewshot, point.mean) for point in icl_eval.analyse(runs).shot_curves[0].points]
    [(0, 0.0), (1, 0.875), (8, 1.0)]

    A notebook shows the result as tables. `.tables` maps the names `draws`, `shot_curves`, `variance`, `spread`,
    `prompts`, `influence`, `leave_one_out` and `order_probing` to data frames.

    Args:
        runs: Two or more runs, or their folders. The folder of a sweep stands for its finished cells.

    Raises:
        ConfigError: If there are fewer than two runs.
        DataError: If a folder contains no finished run, or its records do not match its report.
    """
    return analyse_runs(_read_all("analyse", runs))


def plan(*pilot: Run | str | Path, **options: Any) -> StudyPlan:
    """Plan a study: what each number of draws and questions would find and cost, from the records of a pilot.

    >>> icl_eval.plan(flips=0.2, difference=0.05).cheapest.questions  # a guess without a pilot
    626

    A notebook shows the studies as a table; `.table` is the table as a data frame.

    Args:
        pilot: Two or more runs, or their folders, that are draws of one condition or of two conditions to compare. The
            folder of a sweep stands for its finished cells.
        options: Keys of the configuration of `icl-eval plan`, such as `score="qa/token_f1"` and `draws=[5, 10]`.

    Raises:
        ConfigError: If an option is unknown or invalid, or there is neither a pilot nor `flips`.
        DataError: If the runs are not draws of one or two conditions.
    """
    from icl_eval.commands.plan import plan_study

    for key in ("pilot", "output"):
        if key in options:
            raise ConfigError(
                f"plan: unknown option {key!r}; the pilot is given as arguments, and the plan is returned"
            )
    config = typed_config(compose_words(as_words(options), "plan", PlanConfig).cfg, PlanConfig)
    return plan_study(config, _read_runs("plan", pilot))


def score(
    metric: str,
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    seed: int = 0,
    clusters: Sequence[str] | None = None,
    **options: Any,
) -> Score:
    """Score predictions with a metric; return the score with its standard error and 95 % interval over examples.

    >>> icl_eval.score("exact_match", ["Paris", "Rome"], [["Paris"], ["Milan", "Turin"]]).value
    0.5

    Args:
        metric: The name of a metric in `conf/metrics/`, such as `bleu`, `exact_match` or `token_f1`.
        predictions: One string for each example.
        references: One string or a list of strings for each example.
        seed: The seed of the bootstrap.
        clusters: The cluster of each example, such as the text that it asks about, over which the error is estimated;
            None if examples are independent.
        options: Options of the metric, such as `lowercase=True`.

    Raises:
        ConfigError: If the metric or an option is unknown, or the seed is out of range.
        DataError: If there are no examples, or an example lacks its prediction, its references or its cluster.
    """
    from icl_eval.config.metrics import find_metric
    from icl_eval.config.ranges import MAX_SEED, require_at_least, require_at_most
    from icl_eval.metrics.scoring import score as score_corpus

    _require_whole_numbers({"seed": seed})
    require_at_least("seed", seed, 0)
    require_at_most("seed", seed, MAX_SEED)
    answers = [[each] if isinstance(each, str) else each for each in _read_list("references", references)]
    outputs = _read_list("predictions", predictions)
    own = None if clusters is None else _read_list("clusters", clusters)
    return score_corpus(find_metric(metric, options), outputs, answers, int(seed), clusters=own)


def _compose_run(
    overrides: Sequence[str], model: ModelArgument, task: TaskArgument, options: Mapping[str, Any]
) -> ComposedConfig:
    tasks = _list_tasks(task)
    in_memory = _collect_in_memory(model, options, tasks)
    words = _choose_model(in_memory, model)
    if task is not None:
        names = [each.name if isinstance(each, Task) else each for each in tasks]
        words += as_words({"task": names if len(names) != 1 else names[0]})
    return compose_words([*words, *as_words(options), *overrides], "evaluate", RunConfig, in_memory)


def _require_whole_numbers(options: Mapping[str, object]) -> None:
    for key, value in options.items():
        if not isinstance(value, Integral):
            raise ConfigError(f"{key}={value!r}: must be a whole number")


def _read_list(name: str, values: Iterable[Any]) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise DataError(f"{name}: a {type(values).__name__}, but must be a list with one entry for each example")
    return list(values)


def _list_tasks(task: TaskArgument) -> list[str | Task]:
    if task is None or isinstance(task, str | Task):
        return [] if task is None else [task]
    if isinstance(task, list | tuple) and all(isinstance(each, str | Task) for each in task):
        return list(task)
    raise ConfigError(f"task={task!r}: must be the name of a task, a Task, or a list of these")


def _collect_in_memory(model: ModelArgument, options: Mapping[str, Any], tasks: Sequence[str | Task] = ()) -> InMemory:
    if not isinstance(model, str | LanguageModel | None):
        raise ConfigError(
            f"model: a {type(model).__name__}, but must be the name of a model, its source or a LanguageModel, such as "
            "LanguageModel.of(network, tokenizer)"
        )
    own = model.pin() if isinstance(model, LanguageModel) else None
    if own:
        for key in ("device", "dtype"):
            if key in options:
                raise ConfigError(f"{key}={options[key]}: the model is in memory, on {own.device} in {own.dtype}")
    return InMemory(own, {each.name: each for each in tasks if isinstance(each, Task)})


def _choose_model(in_memory: InMemory, model: ModelArgument) -> list[str]:
    """Return the overrides that choose the model. A model in memory is named with the first digits of its digest."""
    if in_memory.model:
        digest = in_memory.model.identify().rpartition("=")[2]
        return as_words({"model.source": f"memory:{in_memory.model.name}@{digest[:8]}"})
    return [] if model is None else as_words({"model": model})


def _read_all(function: str, runs: Sequence[Run | str | Path]) -> list[Run]:
    read = _read_runs(function, runs)
    if len(read) < 2:
        raise ConfigError(f"{function}: two or more runs are needed, found {len(read)}")
    return read


def _read_runs(function: str, runs: Sequence[Run | str | Path]) -> list[Run]:
    from icl_eval.commands.compare import read_runs

    given = [runs] if isinstance(runs, Run | str | Path) or not isinstance(runs, Iterable) else runs
    read: list[Run] = []
    for run in given:
        if not isinstance(run, Run | str | Path):
            raise ConfigError(f"{function}: a {type(run).__name__} is not a run; each must be a Run or a folder")
        if not isinstance(run, Run) and not str(run):
            raise ConfigError(f"{function}: '' is not a run; each must be a Run or a folder")
        read += [run] if isinstance(run, Run) else read_runs([Path(run)])
    return read
