"""The command `icl-eval import`: turns the result files of lm-evaluation-harness into runs."""

from collections.abc import Sequence
from pathlib import Path

from icl_eval.config.ranges import MAX_SEED, require_at_least, require_at_most
from icl_eval.config.schema import ImportConfig
from icl_eval.errors import ConfigError
from icl_eval.harnesses.lm_eval.importing import ImportOptions, convert_run
from icl_eval.harnesses.lm_eval.logged_runs import LoggedRun, find_logged_runs
from icl_eval.reporting.output import ignore_closed_output
from icl_eval.reporting.pages.run_page import write_run_page
from icl_eval.reporting.terminal import print_report
from icl_eval.runs.folders import read_run

_FOLDER = Path("outputs", "imported")


def import_results(config: ImportConfig) -> None:
    """Import runs of lm-evaluation-harness, write their pages and print their scores.

    Raises:
        ConfigError: When no path is given, or an option is missing or out of range.
        DataError: When a path holds no such run, or a file is damaged.
    """
    require_at_least("num_fewshot", config.num_fewshot, 0)
    require_at_least("seed", config.seed, 0)
    require_at_most("seed", config.seed, MAX_SEED)
    if not config.paths:
        raise ConfigError("import: needs a samples file, a results file or a folder of lm-eval (icl-eval import PATH)")
    found = [run for path in config.paths for run in find_logged_runs(Path(path))]
    folders = _choose_folders(found, config.output)
    options = ImportOptions(config.model_name, config.num_fewshot, config.seed)
    for imported, folder in zip([convert_run(each, options) for each in found], folders, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        imported.write(folder)
        write_run_page(folder)
        with ignore_closed_output():
            print_report(read_run(folder))


def _choose_folders(found: Sequence[LoggedRun], output: str | None) -> list[Path]:
    if output is None:
        return [_FOLDER / "_".join(filter(None, (run.folder.resolve().name, run.date))) for run in found]
    if len(found) > 1:
        names = ", ".join(f"{run.folder.name} {run.date}" for run in found[:5])
        raise ConfigError(f"output={output}: the folder of one run, but there are {len(found)} ({names}); leave it out")
    if not output:
        raise ConfigError("output=: must be the name of a folder")
    return [Path(output)]
