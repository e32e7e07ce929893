"""Comparing: the command `icl-eval compare`, from the folders that a user names to a table, a JSON file and a page."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from icl_eval.analysis.comparison import compare_runs
from icl_eval.config.options import MAX_SEED, require_at_most
from icl_eval.config.schema import CompareConfig
from icl_eval.errors import ConfigError
from icl_eval.reporting.output import finished
from icl_eval.reporting.pages.comparison_page import write_comparison_page
from icl_eval.reporting.tables import print_comparison
from icl_eval.reporting.terminal import open_console, print_path
from icl_eval.runs.cells import gather_cells
from icl_eval.runs.folders import REPORT_FILE, Run, read_run
from icl_eval.runs.reports import write_json

_MIN_RESAMPLES = 100
_MAX_RESAMPLES = 1_000_000


def compare_folders(config: CompareConfig) -> None:
    """Compare runs, print the table and write `compare.json` and `compare.html`.

    Raises:
        ConfigError: When there are fewer than two runs, an option is out of range, or the result cannot go where asked.
        DataError: When a folder holds no finished run, or runs cannot be compared.
    """
    check_resampling(config.seed, config.num_resamples)
    folders = [Path(folder) for folder in config.runs]
    _require_distinct(folders)
    runs = read_runs(folders)
    if len(runs) < 2:
        raise ConfigError(f"compare: two or more runs are needed, found {len(runs)} (icl-eval compare RUN_A RUN_B)")
    path = _require_json_file(config.output) if config.output else runs[0].folder.parent / "compare.json"
    _require_own(path)
    page = path.with_suffix(".html")
    comparison = compare_runs(runs, config.seed, config.num_resamples)
    write_json(asdict(comparison), path)
    write_comparison_page(comparison, runs, page)
    with finished():
        print_comparison(comparison)
        print_path(open_console(), "comparison", path)
        print_path(open_console(), "page", page)


def check_resampling(seed: int, num_resamples: int) -> None:
    """Check what a comparison draws by; raises ConfigError."""
    if num_resamples < _MIN_RESAMPLES:
        raise ConfigError(f"num_resamples={num_resamples}: must be {_MIN_RESAMPLES} or more")
    if seed < 0:
        raise ConfigError(f"seed={seed}: must be 0 or more")
    require_at_most("num_resamples", num_resamples, _MAX_RESAMPLES)
    require_at_most("seed", seed, MAX_SEED)


def _require_distinct(folders: Sequence[Path]) -> None:
    named: dict[Path, Path] = {}
    for folder in folders:
        first = named.setdefault(folder.resolve(), folder)
        if first is not folder:
            raise ConfigError(f"compare: {first} and {folder} are the same folder; a run is compared with other runs")


def _require_json_file(output: str) -> Path:
    path = Path(output)
    if path.suffix != ".json":
        raise ConfigError(f"output={output}: must end in .json (the page goes beside it, with .html in place of that)")
    if not path.parent.is_dir():
        raise ConfigError(f"output={output}: there is no folder {path.parent}")
    return path


def _require_own(path: Path) -> None:
    """Check that nothing but an earlier comparison is written over."""
    there = [taken for taken in (path, path.with_suffix(".html")) if taken.exists()]
    if there and not _is_comparison(path):
        raise ConfigError(f"output={path}: {there[0]} is there and no comparison; choose a name that is not taken")


def _is_comparison(path: Path) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"baseline", "differences"} <= found.keys()


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read the runs, each once, a sweep's folder standing for its finished cells."""
    found: dict[Path, Path] = {}
    for folder in folders:
        is_sweep = folder.is_dir() and not (folder / REPORT_FILE).exists()
        cells = [folder / cell.cell for cell in gather_cells(folder) if cell.results] if is_sweep else []
        for path in cells or [folder]:
            found.setdefault(path.resolve(), path)
    return [read_run(path) for path in found.values()]
