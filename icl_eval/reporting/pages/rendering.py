"""Render a template to a single HTML file in which data is displayed and never executed.

Three measures ensure this. Values in a template are escaped. Data for scripts is JSON whose characters cannot close its
element, and scripts insert it into the page as text. The Content-Security-Policy of the page allows only the scripts of
this package:

    {% extends "base.html.j2" %}
    {% block main %}<h1>{{ model }}</h1><div id="questions"></div>{% endblock %}
    {% block scripts %}{{ data("questions", rows) }}{{ script("rows.js") }}{% endblock %}

A page is rendered and written piece by piece, so that values which are iterators are never held whole.
"""

import base64
import functools
import gzip
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from icl_eval.formatting import count_noun, format_difference, format_p_value, format_score, typeset
from icl_eval.runs.writing import write_whole

# Escaping these does not change the meaning of JSON, but keeps HTML and old JavaScript parsers from interpreting them.
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}

_COMPACT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def render_page(template: str, **values: Any) -> Iterator[str]:
    """Yield the pieces of a page.

    Args:
        template: A file in `templates/` that extends `base.html.j2`.
        values: Values for the template. Strings are escaped; a missing name is an error.
    """
    return _environment().get_template(template).generate(values)


def write_page(pieces: Iterable[str], path: Path) -> None:
    """Write the pieces of a page atomically."""
    write_whole(pieces, path)


def to_json(value: Any) -> str:
    """Return a value as compact JSON, with null in place of each number that JSON does not have."""
    try:
        return _COMPACT.encode(value)
    except ValueError:  # a metric may be NaN or infinite
        return _COMPACT.encode(_replace_not_finite(value))


def embed_json(identifier: str, text: str, compress: bool = False) -> Markup:
    """Return an element that contains JSON, which scripts read with `readData(identifier)`.

    Args:
        identifier: The id of the element.
        text: The JSON.
        compress: Whether it is compressed with gzip and written in base64, for scripts that read it with `readBlock`.
    """
    kind = "application/gzip" if compress else "application/json"
    packed = gzip.compress(text.encode(), compresslevel=6, mtime=0) if compress else b""
    content = base64.b64encode(packed).decode() if compress else text.translate(_ESCAPES)
    return Markup('<script type="{}" id="{}">').format(kind, identifier) + Markup(content) + Markup("</script>\n")


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("icl_eval.reporting.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = {name: _read_source(environment, name) for name in environment.list_templates(extensions=["js"])}
    environment.filters |= {
        "breakable": _add_breaks,
        "counted": count_noun,
        "number": lambda number: "–" if number is None else f"{number:,}",
        "pretty": _format_json,
        "probability": lambda p_value: typeset(format_p_value(p_value)),
        "score": lambda score: typeset(format_score(score)),
        "signed": lambda difference: typeset(format_difference(difference)),
        "typeset": typeset,
    }
    environment.globals |= {
        "data": lambda identifier, value: embed_json(identifier, to_json(value)),
        "policy": _build_policy(scripts.values()),
        "script": lambda name: Markup(f"<script>{scripts[name]}</script>\n"),
        "style": lambda name: Markup(f"<style>\n{_read_source(environment, name)}</style>\n"),
    }
    return environment


def _add_breaks(name: str) -> Markup:
    """Return a name that a browser may break after underscores."""
    return Markup("_<wbr>").join(name.split("_"))


def _format_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _read_source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _build_policy(scripts: Any) -> str:
    """Return a Content-Security-Policy that allows these scripts and forbids loading anything."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def _replace_not_finite(value: Any) -> Any:
    """Return the value with null in place of each number that JSON does not support."""
    if isinstance(value, Mapping):
        return {key: _replace_not_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_not_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
