"""Define the subcommands of `icl-eval`.

Each function imports what it needs when it needs it, so that `icl-eval --help` stays fast and a mistake is
named at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from icl_eval.config.ranges import check_model_options, read_options, require_at_least, require_at_most
from icl_eval.config.schema import (
    CompareConfig,
    ExportConfig,
    ImportConfig,
    ListConfig,
    ListTasksConfig,
    ModelOptions,
    PlanConfig,
    PreviewConfig,
    RunConfig,
    StreamConfig,
    TourConfig,
    TraceConfig,
    typed_config,
)

if TYPE_CHECKING:
    from icl_eval.evaluation.preparation import Evaluation


_MAX_RUNNERS_UP = 1000
"""Limit on the runners-up of a step, because the page shows all of them."""


@dataclass(frozen=True)
class Command:
    """A subcommand, chosen by the first word of the command line."""

    config_name: str
    schema: type
    run: Callable[[DictConfig], None]
    folders_key: str | None = None
    """The key that takes the folders given as arguments; None if all arguments are options."""


def evaluate(cfg: DictConfig) -> None:
    """Evaluate a model and print a table."""
    evaluation = _build_evaluation(cfg)

    from icl_eval.commands.evaluate import evaluate_into
    from icl_eval.reporting.output import ignore_closed_output
    from icl_eval.reporting.terminal import print_report

    folder = Path(HydraConfig.get().runtime.output_dir)
    is_cell = HydraConfig.get().mode == RunMode.MULTIRUN
    cells = folder.parent.glob("*/") if is_cell else ()
    run = evaluate_into(evaluation, folder, cells=cells)
    with ignore_closed_output():
        print_report(run)


def preview(cfg: DictConfig) -> None:
    """Print prompts without loading weights."""
    evaluation = _build_evaluation(cfg, PreviewConfig)

    from icl_eval.commands.preview import print_preview

    logged = typed_config(cfg, PreviewConfig).logged
    print_preview(evaluation, None if logged is None else Path(logged))


def doctor(cfg: DictConfig) -> None:
    """Check whether batching and caching change the tokens that the model generates."""
    evaluation = _build_evaluation(cfg)

    from icl_eval.commands.doctor import print_diagnosis

    print_diagnosis(evaluation)


def stream(cfg: DictConfig) -> None:
    """Print a completion while it is generated."""
    config = typed_config(cfg, StreamConfig)
    _check_model(config)

    from icl_eval.commands.stream import print_completions

    print_completions(config)


def trace(cfg: DictConfig) -> None:
    """Show every step from one prompt to its completion."""
    config = typed_config(cfg, TraceConfig)
    require_at_least("runners_up", config.runners_up, 0)
    require_at_most("runners_up", config.runners_up, _MAX_RUNNERS_UP)
    if config.prompt is None:
        evaluation = _build_evaluation(cfg, TraceConfig)

        from icl_eval.commands.trace.subjects import question_subject

        subject = question_subject(evaluation, config.example)
    else:
        _check_model(config)

        from icl_eval.commands.trace.subjects import free_subject

        subject = free_subject(config, config.prompt, _list_overridden_keys())

    from icl_eval.commands.trace.command import run_trace

    run_trace(subject, config.runners_up, config.heads, Path(HydraConfig.get().runtime.output_dir))


def tour(cfg: DictConfig) -> None:
    """Complete one prompt with each decoding method, side by side."""
    config = typed_config(cfg, TourConfig)
    _check_model(config)

    from icl_eval.commands.tour.terminal_view import print_tour
    from icl_eval.commands.tour.tours import take_tour
    from icl_eval.reporting.output import ignore_closed_output

    folder = Path(HydraConfig.get().runtime.output_dir)
    taken = take_tour(config, folder)
    with ignore_closed_output():
        print_tour(taken, folder)


def compare(cfg: DictConfig) -> None:
    """Compare finished runs with the first one."""
    from icl_eval.commands.compare import compare_folders

    compare_folders(typed_config(cfg, CompareConfig))


def plan(cfg: DictConfig) -> None:
    """Print how many draws and questions a study needs."""
    from icl_eval.commands.plan import print_plan

    print_plan(typed_config(cfg, PlanConfig))


def list_runs(cfg: DictConfig) -> None:
    """Print the runs in folders."""
    from icl_eval.commands.list_runs import print_runs

    print_runs([Path(folder) for folder in typed_config(cfg, ListConfig).folders])


def list_tasks(cfg: DictConfig) -> None:
    """Print the tasks that can be chosen."""
    from icl_eval.commands.list_tasks import print_tasks
    from icl_eval.config.composing import describe_job

    typed_config(cfg, ListTasksConfig)
    print_tasks(describe_job(cfg).search_path[1:])


def export(cfg: DictConfig) -> None:
    """Write the results of runs and sweeps for a paper or for other programs."""
    from icl_eval.commands.export import export_folders

    export_folders(typed_config(cfg, ExportConfig))


def import_results(cfg: DictConfig) -> None:
    """Turn the result files of another harness into runs."""
    from icl_eval.commands.import_results import import_results

    import_results(typed_config(cfg, ImportConfig))


def lm_eval(arguments: Sequence[str]) -> None:
    """Run lm-evaluation-harness with this package as one of its models."""
    from icl_eval.commands.lm_eval import run_lm_eval

    run_lm_eval(arguments)


COMMANDS = {
    "evaluate": Command("evaluate", RunConfig, evaluate),
    "preview": Command("preview", PreviewConfig, preview),
    "doctor": Command("doctor", RunConfig, doctor),
    "stream": Command("stream", StreamConfig, stream),
    "trace": Command("trace", TraceConfig, trace),
    "tour": Command("tour", TourConfig, tour),
    "compare": Command("compare", CompareConfig, compare, folders_key="runs"),
    "plan": Command("plan", PlanConfig, plan, folders_key="pilot"),
    "list": Command("list", ListConfig, list_runs, folders_key="folders"),
    "list tasks": Command("list_tasks", ListTasksConfig, list_tasks),
    "import": Command("import", ImportConfig, import_results, folders_key="paths"),
    "export": Command("export", ExportConfig, export, folders_key="folders"),
}
OTHERS = {"lm-eval": lm_eval}
"""First words that hand all arguments behind them over to another program, which has a grammar of its own."""


def _build_evaluation(cfg: DictConfig, schema: type[RunConfig] = RunConfig) -> "Evaluation":
    from icl_eval.config.composing import describe_job
    from icl_eval.config.sources import require_files

    composed = describe_job(cfg)
    config = read_options(cfg, schema)
    require_files(config, composed.search_path)

    # what finds most mistakes comes first: the imports below take as long as everything up to here
    from icl_eval.decoding.searches import build_search

    build_search(config.decoding)

    from icl_eval.config.evaluations import build_evaluation

    return build_evaluation(composed, config)


def _check_model(config: ModelOptions) -> None:
    """Check the options of a model that completes free prompts, before slow imports; raises UserError."""
    from icl_eval.config.sources import build_model_spec

    check_model_options(config)
    build_model_spec(config.model).find_paths()


def _list_overridden_keys() -> list[str]:
    """Return the top-level part of every key that the user has set."""
    from icl_eval.config.given import find_root

    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [find_root(str(override)) for override in overrides or ()]
