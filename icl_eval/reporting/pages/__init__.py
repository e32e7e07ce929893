"""Pages: what the records hold, as self-contained HTML files that open from disk.

A page is a Jinja template in `templates/` that extends `base.html.j2`, rendered by `render_page`. It brings its
style, its scripts and its data along; nothing is fetched.
"""

from icl_eval.reporting.pages.rendering import render_page, write_page

__all__ = ["render_page", "write_page"]
