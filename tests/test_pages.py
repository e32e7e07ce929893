import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import pytest
from jinja2 import UndefinedError

from icl_eval.pages import rendering

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    "<img src=x onerror=alert(1)>",
    "\"'`&lt;&#60;",
    "]]>\u2028\u2029",
    "\u202e\u200f\u2066right to left",
    "\x00\x1b[31m\r\n\t\x7f\x85",
    "{{ 7 * 7 }}{% raw %}",
    "x" * 5000,
)


class Parsed(HTMLParser):
    """A page as a browser reads it: each element with its attributes, and the text in it."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements = []
        self.texts = []
        self._open = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(len(self.elements) - 1)
        self.texts.append("")

    def handle_data(self, data):
        if self._open:
            self.texts[self._open[-1]] += data

    def handle_endtag(self, tag):
        while self._open and self.elements[self._open.pop()][0] != tag:
            pass

    def data(self, identifier):
        """Return what the data element of that id holds."""
        found = [
            text
            for (_, attributes), text in zip(self.elements, self.texts, strict=True)
            if attributes.get("id") == identifier
        ]
        assert len(found) == 1
        return json.loads(found[0])


def render(template, **values):
    """Render a page whose template is given as text."""
    return rendering._environment().from_string('{% extends "base.html.j2" %}' + template).render(values)


def assert_self_contained(html):
    """Check that the page loads nothing, and runs only what its policy names."""
    page = Parsed(html)
    policies = [
        attributes["content"]
        for tag, attributes in page.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; script-src 'sha256-")
    for (tag, attributes), text in zip(page.elements, page.texts, strict=True):
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "audio", "video", "source")
        assert not {"src", "srcset", "action", "background", "xlink:href"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "script" and attributes.get("type") != "application/json":
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policies[0]
        if tag in ("style", "script") and "id" not in attributes:
            assert not re.search(r"url\(|@import|fetch\(|import\(|://", text)
    return page


@pytest.mark.parametrize("text", HOSTILE)
def test_data_reads_back_whatever_it_looks_like(text):
    value = {"text": text, text: [None, True, 0.1, {"deep": text}]}
    page = assert_self_contained(render("{% block scripts %}{{ data('d', value) }}{% endblock %}", value=value))
    assert page.data("d") == value
    assert [tag for tag, _ in page.elements] == [
        tag for tag, _ in assert_self_contained(render("{% block scripts %}{{ data('d', 1) }}{% endblock %}")).elements
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_in_a_template_stays_text(text):
    shown = "{% block main %}<p id='p' title='{{ text }}'>{{ text }}</p>{% endblock %}"
    page = assert_self_contained(render(shown, text=text))
    index = next(index for index, (_, attributes) in enumerate(page.elements) if attributes.get("id") == "p")
    assert page.elements[index][1]["title"] == text
    assert page.texts[index] == text
    assert len(page.elements) == len(assert_self_contained(render(shown, text="")).elements)


def test_a_number_that_json_does_not_have_is_null():
    html = render("{% block scripts %}{{ data('d', value) }}{% endblock %}", value={"a": [math.nan, (math.inf, 1.5)]})
    assert Parsed(html).data("d") == {"a": [None, [None, 1.5]]}


def test_a_name_that_a_page_does_not_get_is_an_error():
    with pytest.raises(UndefinedError, match="'missing' is undefined"):
        render("{% block main %}{{ missing }}{% endblock %}")
