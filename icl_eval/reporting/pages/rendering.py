"""Rendering: from a template and values to one HTML file in which foreign text is shown and never executed.

Three things keep it so. Values in a template are escaped. Data for scripts is JSON in which no character can end
its element, and scripts put it on the page as text. And the page's own policy lets a browser run the scripts of
this package and nothing else:

    {% extends "base.html.j2" %}
    {% block main %}<h1>{{ model }}</h1><div id="questions"></div>{% endblock %}
    {% block scripts %}{{ data("questions", rows) }}{{ script("table.js") }}{% endblock %}
"""

import base64
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from icl_eval.formatting import count_noun, format_difference, format_p_value, format_score, typeset
from icl_eval.runs.writing import write_whole

# JSON means the same with these written as escapes, and HTML (or a script of old) finds nothing in it.
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def render_page(template: str, **values: Any) -> str:
    """Render a page.

    Args:
        template: A file in `templates/` that extends `base.html.j2`.
        values: What the template shows. Text is escaped; a name that is missing is an error.
    """
    return _environment().get_template(template).render(values)


def write_page(html: str, path: Path) -> None:
    """Write a page, at once or not at all."""
    write_whole(html, path)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("icl_eval.reporting.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = {name: _source(environment, name) for name in environment.list_templates(extensions=["js"])}
    environment.filters |= {
        "breakable": _breakable,
        "counted": count_noun,
        "pretty": _pretty,
        "probability": lambda p_value: typeset(format_p_value(p_value)),
        "score": lambda score: typeset(format_score(score)),
        "signed": lambda difference: typeset(format_difference(difference)),
        "typeset": typeset,
    }
    environment.globals |= {
        "data": _data,
        "policy": _policy(scripts.values()),
        "script": lambda name: Markup(f"<script>{scripts[name]}</script>\n"),
        "style": lambda name: Markup(f"<style>\n{_source(environment, name)}</style>\n"),
    }
    return environment


def _breakable(name: str) -> Markup:
    """Return a name that may be broken after its underscores."""
    return Markup("_<wbr>").join(name.split("_"))


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _policy(scripts: Any) -> str:
    """Return the Content-Security-Policy under which a page runs these scripts and loads nothing."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def _data(identifier: str, value: Any) -> Markup:
    """Return an element that holds a value as JSON; scripts read it with `readData(identifier)`."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:  # JSON has no NaN and no infinity, but a metric may
        text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    opening = Markup('<script type="application/json" id="{}">').format(identifier)
    return opening + Markup(text.translate(_ESCAPES)) + Markup("</script>\n")


def _finite(value: Any) -> Any:
    """Return the value with null for each number that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
