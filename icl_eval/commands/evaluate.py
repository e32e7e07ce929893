"""Evaluate: a run with its folder, its page and its progress bars."""

from pathlib import Path

from icl_eval.errors import ConfigError
from icl_eval.evaluation.pipeline import run_evaluation
from icl_eval.evaluation.preparation import Evaluation
from icl_eval.reporting.pages.run_page import write_run_page
from icl_eval.reporting.progress import ProgressBars
from icl_eval.runs.folders import Run


def evaluate_into(evaluation: Evaluation, folder: Path, progress: bool = True) -> Run:
    """Evaluate into a folder, and write the page.

    Args:
        evaluation: What to run.
        folder: Where its results go; it is created if need be.
        progress: Whether to show how far the run is, on stderr or in the notebook.

    Raises:
        ConfigError: When the folder cannot be made.
        FingerprintMismatchError: When the folder holds records of another run, or is in use.
        UserError: When something asked for is impossible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be used as a run's folder ({error.strerror})") from None
    with ProgressBars(hidden=not progress) as bars:
        return Run(folder, run_evaluation(evaluation, folder, bars, write_run_page))
