"""Strings as metrics compare them: what looks the same is the same, however Unicode writes it."""

import unicodedata

# Soft hyphen, directional marks, zero-width space, word joiners, byte order mark, and the selectors of how a character
# is drawn. The joiners of Persian, of Indic scripts and of emoji are none of them: they change what is written.
_UNSEEN = dict.fromkeys(
    map(
        ord,
        "\xad\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufe0e\ufe0f\ufeff",
    )
)


def compose(text: str) -> str:
    """Return the string in Unicode's composed form (NFC): é is one character, not a letter and an accent."""
    return unicodedata.normalize("NFC", text)


def visible(text: str) -> str:
    """Return the composed string without characters that show nothing."""
    return compose(text.translate(_UNSEEN))
