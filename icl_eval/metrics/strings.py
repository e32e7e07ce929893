"""Normalizing strings for comparison: strings that look the same become equal."""

import unicodedata

# Soft hyphen, directional marks, zero-width space, word joiner, byte order mark and variation selectors. The zero-width
# joiner and non-joiner of Persian, Indic scripts and emoji are not included: they change what is displayed.
_INVISIBLE = dict.fromkeys(
    map(
        ord,
        "\xad\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufe0e\ufe0f\ufeff",
    )
)


def compose(text: str) -> str:
    """Return a string in the composed Unicode form (NFC), in which é is one character."""
    return unicodedata.normalize("NFC", text)


def drop_invisible(text: str) -> str:
    """Return a string without invisible characters, in the composed Unicode form."""
    return compose(text.translate(_INVISIBLE))
