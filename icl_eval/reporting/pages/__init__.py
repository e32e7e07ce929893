"""Self-contained HTML pages of runs, sweeps, comparisons and traces.

A page is a Jinja template in `templates/` that extends `base.html.j2`, rendered by `render_page`. Styles, scripts and
data are embedded, so the page opens from disk without fetching anything.

The pages:

    run_page         `report.html`
    sweep_page       `sweep.html`
    comparison_page  `compare.html`

Their parts:

    rendering        from a template to one file
    pivots           the scores of a sweep as tables of two options
    charts           the geometry of figures
    scales           the axes of figures
    answers          the answers of two runs side by side
    packing          many records in few bytes
"""

from icl_eval.reporting.pages.rendering import render_page, write_page

__all__ = ["render_page", "write_page"]
