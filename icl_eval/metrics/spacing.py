"""Spacing: detecting corpora in scripts without spaces between words, where each character is a token."""

import unicodedata
from collections.abc import Sequence
from functools import cache

# Prefixes of Unicode character names in scripts without spaces between words. Korean is not included: it has spaces.
_HAN = ("CJK", "IDEOGRAPHIC", "KANGXI", "BOPOMOFO")
_OTHERS = ("HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "TAI ",
           "NEW TAI", "JAVANESE", "BALINESE", "YI ")  # fmt: skip


def find_unspaced(references: Sequence[Sequence[str]]) -> list[str]:
    """Return the references with at least as many letters of scripts without spaces as words of other scripts."""
    return [answer for answers in references for answer in answers if _is_unspaced(answer)]


def is_mostly_unspaced(references: Sequence[Sequence[str]]) -> bool:
    """Return whether at least half of the references are in scripts without spaces between words."""
    return 2 * len(find_unspaced(references)) >= sum(map(len, references))


def is_han(texts: Sequence[str]) -> bool:
    """Return whether at least 90 % of the letters of scripts without spaces are Chinese, unlike in Japanese."""
    scripts = [_script(letter) for text in texts for letter in text]
    return 10 * scripts.count("other") <= len(scripts) - scripts.count("")


def _is_unspaced(text: str) -> bool:
    if text.isascii():
        return False
    num_letters = sum(_script(letter) != "" for letter in text)
    words = "".join(" " if _script(letter) else letter for letter in text).split()
    return num_letters > 0 and num_letters >= sum(any(map(str.isalpha, word)) for word in words)


@cache
def _script(character: str) -> str:
    """Return `han` or `other`; an empty string if the character is not a letter of a script without spaces."""
    name = unicodedata.name(character, "") if character.isalpha() else ""
    if name.startswith(_HAN):
        return "han"
    return "other" if name.startswith(_OTHERS) else ""
