"""Plot the cost of each way of generating against the number of new tokens, as an SVG file."""

import io
from collections.abc import Sequence
from pathlib import Path

from icl_eval.commands.tour.ways import Way
from icl_eval.runs.writing import write_whole


def plot_costs(ways: Sequence[Way], path: Path) -> None:
    """Plot tokens fed and seconds against the number of new tokens; the same ways give the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "icl_eval", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        fed, seconds = figure.subplots(1, 2)
        for number, way in enumerate(ways):
            lengths = range(1, len(way.marks) + 1)
            style = {"label": way.name, "linestyle": ("-", "--", ":", "-.")[number % 4], "linewidth": 2}
            fed.plot(lengths, [mark.fed for mark in way.marks], **style)
            seconds.plot(lengths, [mark.seconds for mark in way.marks], **style)
        fed.set(xlabel="new tokens", ylabel="tokens fed to the network", ylim=(0, None))
        seconds.set(xlabel="new tokens", ylabel="seconds", ylim=(0, None))
        fed.legend(frameon=False)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    write_whole(drawn.getvalue(), path)
