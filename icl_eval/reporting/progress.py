"""Progress: a bar for each task, on a terminal or in a notebook."""

import sys
from types import TracebackType
from typing import Any, Self

from icl_eval.formatting import escape_controls


class ProgressBars:
    """A bar for each task: on stderr where that is a terminal, in a notebook as a widget or as text."""

    def __init__(self, hidden: bool = False) -> None:
        """Prepare to show progress; `hidden` shows none."""
        self._hidden = hidden
        self._bars: dict[str, Any] = {}

    def begin(self, task: str, total: int, done: int) -> None:
        """Show a task's bar."""
        bar_class = _bar_class()
        if self._hidden or bar_class is None:
            return
        self._bars[task] = bar_class(
            desc=escape_controls(task), total=total, initial=done, unit="question", dynamic_ncols=True
        )

    def advance(self, task: str) -> None:
        """Move a task's bar by one question."""
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
    """Return the bars for where this process writes: None where nobody would see one move."""
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
