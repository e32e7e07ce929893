"""Compute the geometry of a figure with one cell for each attention head: layers downwards, heads to the right.

Coordinates are in pixels, with y pointing down. The colour of a cell is the stronger, the more of its head's attention
goes to the target, on a scale from 0 to 1 in every figure.
"""

from dataclasses import dataclass

from icl_eval.commands.trace.traces import HeadMap

_MARGIN = 26
"""Room for the numbers of layers on the left, and for those of heads at the bottom."""
_MOST_TICKS = 12


@dataclass(frozen=True)
class HeatCell:
    """The cell of one head."""

    x: int
    y: int
    score: float
    title: str


@dataclass(frozen=True)
class HeatMap:
    """The figure of all heads for one kind of attention and one target."""

    shown: HeadMap
    width: int
    height: int
    size: int
    """Width and height of a cell."""
    cells: tuple[HeatCell, ...]
    layer_ticks: tuple[tuple[int, int], ...]
    """Vertical centre and number of labelled layers."""
    head_ticks: tuple[tuple[int, int], ...]
    """Horizontal centre and number of labelled heads."""


def draw_heat_map(shown: HeadMap) -> HeatMap:
    """Return the figure of a map."""
    num_layers, num_heads = len(shown.scores), max(map(len, shown.scores))
    pitch = 22 if max(num_layers, num_heads) <= _MOST_TICKS else 14
    return HeatMap(
        shown=shown,
        width=_MARGIN + num_heads * pitch,
        height=num_layers * pitch + _MARGIN,
        size=pitch - 1,
        cells=tuple(
            HeatCell(_MARGIN + head * pitch, layer * pitch, score, f"layer {layer}, head {head}: {score:.3f}")
            for layer, scores in enumerate(shown.scores)
            for head, score in enumerate(scores)
        ),
        layer_ticks=_ticks(num_layers, pitch, 0),
        head_ticks=_ticks(num_heads, pitch, _MARGIN),
    )


def _ticks(count: int, pitch: int, begin: int) -> tuple[tuple[int, int], ...]:
    step = next(2**power for power in range(count) if count <= _MOST_TICKS * 2**power)
    return tuple((begin + number * pitch + pitch // 2, number) for number in range(0, count, step))
