"""Parse pages as a browser does, and provide strings that try to be more than text."""

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser

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

    def text(self, tag):
        """Return the text of the first element with a tag, without the text of its children."""
        return next(text for (name, _), text in zip(self.elements, self.texts, strict=True) if name == tag)

    def rows(self, section):
        """Return the cells of the first table after the heading with an id, row by row."""
        names = [(tag, attributes.get("id")) for tag, attributes in self.elements]
        start = names.index(("h2", section))
        rows = []
        for (tag, _), text in list(zip(names, self.texts, strict=True))[start + 1 :]:
            if rows and tag in ("h2", "p"):
                break
            if tag == "tr":
                rows.append([])
            elif tag in ("th", "td"):
                rows[-1].append(text)
            elif rows:
                rows[-1][-1] += text
        return [[" ".join(cell.split()) for cell in row] for row in rows]

    def data(self, identifier):
        """Return the content of the data element with an id."""
        found = [
            text
            for (_, attributes), text in zip(self.elements, self.texts, strict=True)
            if attributes.get("id") == identifier
        ]
        assert len(found) == 1
        return json.loads(found[0])

    def packed(self, blocks):
        """Return the rows of some elements, each with the texts that its numbers stand for."""
        rows = []
        for identifier, count in blocks:
            ((_, attributes), text), *others = (
                (element, text)
                for element, text in zip(self.elements, self.texts, strict=True)
                if element[1].get("id") == identifier
            )
            assert not others
            is_packed = attributes["type"] == "application/gzip"
            block = json.loads(gzip.decompress(base64.b64decode(text, validate=True)) if is_packed else text)
            assert len(block["rows"]) == count
            rows += [(row, block["texts"]) for row in block["rows"]]
        return rows


def assert_self_contained(html):
    """Check that a page loads nothing, and runs only the scripts that its policy names."""
    page = Parsed(html)
    policies = [
        attributes["content"]
        for tag, attributes in page.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; script-src 'sha256-")
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for (tag, attributes), text in zip(page.elements, page.texts, strict=True):
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "audio", "video", "source")
        assert not {"src", "srcset", "action", "background", "xlink:href"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
        assert tag == "a" or "href" not in attributes
        assert ":" not in (attributes.get("href") or "")
        if tag == "script" and attributes.get("type") not in ("application/json", "application/gzip"):
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policies[0]
        if tag in ("style", "script") and "id" not in attributes:
            assert not re.search(r"url\(|@import|fetch\(|import\(|://", text)
    return page
