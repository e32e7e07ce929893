"""The command `icl-eval compare`: compares runs in folders and writes a table, a JSON file and a page."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from icl_eval.analysis.comparison import compare_runs
from icl_eval.commands.result_files import require_json_file, require_own
from icl_eval.config.ranges import MAX_SEED, require_at_least, require_at_most
from icl_eval.config.schema import CompareConfig
from icl_eval.errors import ConfigError
from icl_eval.reporting.comparison_table import print_comparison
from icl_eval.reporting.output import ignore_closed_output
from icl_eval.reporting.pages.comparison_page import write_comparison_page
from icl_eval.reporting.terminal import open_console, print_path
from icl_eval.runs.cells import gather_cells
from icl_eval.runs.folders import REPORT_FILE, Run, read_run
from icl_eval.runs.reports import write_json

_MIN_RESAMPLES = 100
_MAX_RESAMPLES = 1_000_000


def compare_folders(config: CompareConfig) -> None:
    """Compare runs, print the table and write `compare.json` and `compare.html`.

    Raises:
        ConfigError: When there are fewer than two runs, an option is out of range, or `output` cannot be written to.
        DataError: When a folder holds no finished run, or the runs cannot be compared.
    """
    check_resampling(config.seed, config.num_resamples)
    folders = [Path(folder) for folder in config.runs]
    _require_distinct(folders)
    runs = read_runs(folders)
    if len(runs) < 2:
        raise ConfigError(f"compare: two or more runs are needed, found {len(runs)} (icl-eval compare RUN_A RUN_B)")
    path = (
        require_json_file(config.output, page=True)
        if config.output is not None
        else runs[0].folder.parent / "compare.json"
    )
    require_own(path, "a comparison", {"baseline", "differences"}, page=True)
    page = path.with_suffix(".html")
    comparison = compare_runs(runs, config.seed, config.num_resamples)
    write_json(asdict(comparison), path)
    write_comparison_page(comparison, runs, page)
    with ignore_closed_output():
        print_comparison(comparison)
        print_path(open_console(), "comparison", path)
        print_path(open_console(), "page", page)


def check_resampling(seed: int, num_resamples: int) -> None:
    """Check the options of resampling.

    Raises:
        ConfigError: When one of them is out of range.
    """
    require_at_least("num_resamples", num_resamples, _MIN_RESAMPLES)
    require_at_least("seed", seed, 0)
    require_at_most("num_resamples", num_resamples, _MAX_RESAMPLES)
    require_at_most("seed", seed, MAX_SEED)


def _require_distinct(folders: Sequence[Path]) -> None:
    by_target: dict[Path, Path] = {}
    for folder in folders:
        first = by_target.setdefault(folder.resolve(), folder)
        if first is not folder:
            raise ConfigError(f"compare: {first} and {folder} are the same folder; give different runs")


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read runs, each only once. The folder of a sweep expands to its finished cells."""
    paths: dict[Path, Path] = {}
    for folder in folders:
        is_sweep = folder.is_dir() and not (folder / REPORT_FILE).exists()
        cells = [folder / cell.cell for cell in gather_cells(folder) if cell.results] if is_sweep else []
        for path in cells or [folder]:
            paths.setdefault(path.resolve(), path)
    return [read_run(path) for path in paths.values()]
