"""Run an evaluation in a folder, with its page and progress bars."""

from collections.abc import Iterable
from pathlib import Path

from icl_eval.errors import ConfigError
from icl_eval.evaluation.pipeline import run_evaluation
from icl_eval.evaluation.preparation import Evaluation
from icl_eval.formatting import describe_error
from icl_eval.reporting.pages.run_page import write_run_page
from icl_eval.reporting.progress import ProgressBars
from icl_eval.runs.folders import Run


def evaluate_into(evaluation: Evaluation, folder: Path, progress: bool = True, cells: Iterable[Path] = ()) -> Run:
    """Run an evaluation, and write its results and its page into a folder.

    Args:
        evaluation: The evaluation to run.
        folder: The folder for its results, created if necessary.
        progress: Whether to show progress bars, on stderr or in the notebook.
        cells: The folders of the sweep that the run belongs to, whose records it may take over.

    Raises:
        ConfigError: When the folder cannot be created.
        FingerprintMismatchError: When the folder holds records of another run, or is in use.
        UserError: When an option or the data are invalid.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: the path contains a NUL
        reason = error.strerror if isinstance(error, OSError) else describe_error(error)
        raise ConfigError(f"{folder}: cannot be created as the folder of a run ({reason})") from None
    with ProgressBars(hidden=not progress) as bars:
        return run_evaluation(evaluation, folder, bars, write_run_page, cells)
