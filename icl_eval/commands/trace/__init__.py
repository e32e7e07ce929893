"""Tracing: everything that happens to one prompt between text in and text out.

    subjects      what is followed: a prompt that the user wrote, or one question of a task
    tracer        runs the network and looks at every number on the way
    caches        what a key/value cache holds
    influence     how much each demonstration mattered
    traces        the result, as `trace.json` holds it
    terminal_view the result as a page for the terminal; `icl_eval.reporting.pages` has the one for a browser

The tokens are those of `icl_eval.decoding`, whose parts are used here one at a time.
"""

from icl_eval.commands.trace.traces import Trace

__all__ = ["Trace"]
