"""Trace a subject, print the trace and write it into the run's folder."""

from pathlib import Path

from icl_eval.commands.trace.following import follow
from icl_eval.commands.trace.subjects import TraceSubject
from icl_eval.commands.trace.terminal_view import print_trace
from icl_eval.commands.trace.trace_page import render_trace
from icl_eval.commands.trace.traces import write_trace
from icl_eval.reporting.output import ignore_closed_output
from icl_eval.reporting.pages import write_page
from icl_eval.reporting.terminal import open_console, print_path


def run_trace(subject: TraceSubject, num_runners_up: int, heads: bool, folder: Path) -> None:
    """Trace a subject, print the trace, and write `trace.json` and `trace.html` into a folder; see `follow`.

    Raises:
        ConfigError: When the model cannot be decoded token by token, or gives no attention weights for its heads.
    """
    trace = follow(subject, num_runners_up, heads)
    write_trace(trace, folder / "trace.json")
    write_page(render_trace(trace), folder / "trace.html")
    with ignore_closed_output():
        console = open_console()
        print_trace(trace, console)
        for name in ("trace.json", "trace.html"):
            print_path(console, "trace", folder / name)
