"""Folders: what is exported from a run's or a sweep's folder, and where it goes."""

from collections.abc import Sequence
from pathlib import Path

from icl_eval.analysis.sweeps import SWEEP_FILE, read_sweep
from icl_eval.analysis.tables import PlainTable
from icl_eval.commands.export.contents import run_tables, sweep_tables
from icl_eval.commands.export.figures import write_figures
from icl_eval.commands.export.tables import FORMATS
from icl_eval.errors import ConfigError, DataError
from icl_eval.reporting.output import finished
from icl_eval.reporting.terminal import from_here, open_console
from icl_eval.runs.folders import REPORT_FILE, read_run
from icl_eval.runs.writing import write_whole


def export_folders(folders: Sequence[Path]) -> None:
    """Export folders and print the files.

    Raises:
        ConfigError: When there is none.
        DataError: When one of them is neither a run's nor a sweep's.
    """
    if not folders:
        raise ConfigError("export: a run or a sweep is needed (icl-eval export FOLDER)")
    written = [path for folder in folders for path in export_folder(folder)]
    with finished():
        console = open_console()
        for path in written:
            console.print(str(from_here(path)), soft_wrap=True)


def export_folder(folder: Path) -> list[Path]:
    """Write `tables/` into a run's folder, `tables/` and `figures/` into a sweep's; return the files.

    Raises:
        DataError: When the folder is neither.
    """
    if (folder / SWEEP_FILE).exists():
        sweep = read_sweep(folder)
        (folder / "figures").mkdir(exist_ok=True)
        return [*_write_tables(sweep_tables(sweep), folder / "tables"), *write_figures(sweep, folder / "figures")]
    if (folder / REPORT_FILE).exists():
        return _write_tables(run_tables(read_run(folder).report), folder / "tables")
    found = f"neither a run ({REPORT_FILE}) nor a sweep ({SWEEP_FILE}) in it" if folder.is_dir() else "no such folder"
    raise DataError(f"{folder}: {found}")


def _write_tables(tables: Sequence[PlainTable], folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    written = []
    for table in tables:
        for extension, convert in FORMATS.items():
            path = folder / f"{table.name}.{extension}"
            write_whole(convert(table), path)
            written.append(path)
    return written
