"""Render a trace as a single HTML file, which shows the numbers of a token on hover."""

from collections.abc import Iterator

from icl_eval.commands.trace import phrases as wording
from icl_eval.commands.trace.heat_maps import draw_heat_map
from icl_eval.commands.trace.traces import Trace
from icl_eval.reporting.pages import render_page


def render_trace(trace: Trace) -> Iterator[str]:
    """Yield the pieces of a trace's HTML page."""
    sides = {"encoder": trace.encoder, "decoder": trace.decoder}
    largest = max(
        (abs(number) for each in trace.influences for number in (each.generated, each.reference or 0)), default=1
    )
    return render_page(
        "trace.html.j2",
        trace=trace,
        sides={name: side for name, side in sides.items() if side},
        given_as_written=[side.text for side in sides.values() if side and side.text] == list(trace.written.values()),
        most_bytes=max(step.cache.bytes for step in trace.steps) or 1,
        largest_influence=largest or 1,
        heat_maps=[draw_heat_map(each) for each in trace.heads.maps] if trace.heads else [],
        say=wording,
    )
