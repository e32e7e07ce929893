"""The command `icl-eval trace`: records everything that happens to one prompt between text in and text out.

    command        the command: traces, prints and writes
    subjects       what to trace: a free prompt, or one question of a task
    tokens         describes the tokens of the prompt
    tracer         decodes the prompt and records the numbers of every step
    caches         describes the content of a key/value cache
    leaving_out    measures the influence of each demonstration
    attention      reads the attention weights of a network
    repetition     random sequences that repeat, and how much heads follow their patterns
    heads          measures what each attention head attends to
    following      traces a subject with all of these
    traces         the result, in the form of `trace.json`
    phrases        wording that the terminal and the page share
    heat_maps      the geometry of a figure of all heads
    terminal_view  prints the result
    trace_page     renders the result as an HTML page

The tracer is built from the parts of `icl_eval.decoding`, so it generates the same tokens.
"""

from icl_eval.commands.trace.traces import Trace

__all__ = ["Trace"]
