"""Show a progress bar for each task, on a terminal or in a notebook."""

import sys
from types import TracebackType
from typing import Any, Self

from icl_eval.formatting import escape_controls


class ProgressBars:
    """Progress bars, one per task: on stderr if it is a terminal, or as a widget or text in a notebook."""

    def __init__(self, hidden: bool = False) -> None:
        """Prepare the progress bars; `hidden` suppresses them."""
        self._hidden = hidden
        self._bars: dict[str, Any] = {}

    def begin(self, task: str, total: int, done: int) -> None:
        """Show the bar of a task."""
        bar_class = _bar_class()
        if self._hidden or bar_class is None:
            return
        self._bars[task] = bar_class(
            desc=escape_controls(task), total=total, initial=done, unit="question", dynamic_ncols=True
        )

    def advance(self, task: str) -> None:
        """Advance the bar of a task by one question."""
        if task in self._bars:
            self._bars[task].update()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for bar in self._bars.values():
            bar.close()


def _bar_class() -> Any:
    """Return the class of progress bar for the current output; None if the output is not interactive."""
    from tqdm.std import tqdm

    if _in_notebook():
        try:
            import ipywidgets  # noqa: F401
            from tqdm.notebook import tqdm as notebook_bar
        except ImportError:
            return tqdm
        return notebook_bar
    return tqdm if sys.stderr.isatty() else None


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    return shell is not None and hasattr(shell, "kernel")
