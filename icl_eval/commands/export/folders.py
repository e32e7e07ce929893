"""Export the folder of a run or of a sweep."""

from collections.abc import Sequence
from pathlib import Path

from icl_eval.analysis.sweeps import SWEEP_FILE, read_sweep
from icl_eval.analysis.tables import PlainTable
from icl_eval.commands.export.contents import run_tables, sweep_tables
from icl_eval.commands.export.figures import write_figures
from icl_eval.commands.export.result_formats import PAPER, check_format, export_runs
from icl_eval.commands.export.tables import FORMATS
from icl_eval.config.schema import ExportConfig
from icl_eval.errors import ConfigError, DataError
from icl_eval.reporting.output import ignore_closed_output
from icl_eval.reporting.terminal import from_here, open_console
from icl_eval.runs.folders import REPORT_FILE, no_folder, read_run
from icl_eval.runs.writing import write_whole


def export_folders(config: ExportConfig) -> None:
    """Export folders and print the paths of the files.

    Raises:
        ConfigError: When no folder is given, the format is unknown, or an option is missing or has no effect.
        DataError: When a folder holds neither a run nor a sweep.
    """
    folders = [Path(folder) for folder in config.folders]
    if not folders:
        raise ConfigError("export: needs the folder of a run or a sweep (icl-eval export FOLDER)")
    check_format(config)
    if config.format == PAPER:
        written = [path for folder in folders for path in export_folder(folder)]
    else:
        written = [path for folder in folders for path in export_runs(folder, config)]
    with ignore_closed_output():
        console = open_console()
        for path in written:
            console.print(str(from_here(path)), soft_wrap=True)


def export_folder(folder: Path) -> list[Path]:
    """Write `tables/` and, for a sweep, `figures/` into a folder and return the paths of the files.

    Raises:
        DataError: When the folder holds neither a run nor a sweep.
    """
    if (folder / SWEEP_FILE).exists():
        sweep = read_sweep(folder)
        (folder / "figures").mkdir(exist_ok=True)
        return [*_write_tables(sweep_tables(sweep), folder / "tables"), *write_figures(sweep, folder / "figures")]
    if (folder / REPORT_FILE).exists():
        return _write_tables(run_tables(read_run(folder).report), folder / "tables")
    missing = (
        f"holds neither a run ({REPORT_FILE}) nor a sweep ({SWEEP_FILE})" if folder.is_dir() else no_folder(folder)
    )
    raise DataError(f"{folder}: {missing}")


def _write_tables(tables: Sequence[PlainTable], folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    written = []
    for table in tables:
        for extension, convert in FORMATS.items():
            path = folder / f"{table.name}.{extension}"
            write_whole(convert(table), path)
            written.append(path)
    return written
