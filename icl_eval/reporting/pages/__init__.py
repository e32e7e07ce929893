"""Self-contained HTML pages of runs, sweeps, comparisons and traces.

A page is a Jinja template in `templates/` that extends `base.html.j2`, rendered by `render_page`. Styles, scripts and
data are embedded, so the page opens from disk without fetching anything.
"""

from icl_eval.reporting.pages.rendering import render_page, write_page

__all__ = ["render_page", "write_page"]
