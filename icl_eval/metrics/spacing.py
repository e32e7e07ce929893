"""Spacing: whether a corpus is written in scripts that put no spaces between words, so that a token is a character."""

import unicodedata
from collections.abc import Sequence
from functools import cache

# How Unicode's names of letters begin in scripts without spaces. Korean is not among them: it has spaces.
_HAN = ("CJK", "IDEOGRAPHIC", "KANGXI", "BOPOMOFO")
_OTHERS = ("HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "TAI ",
           "NEW TAI", "JAVANESE", "BALINESE", "YI ")  # fmt: skip


def find_unspaced(references: Sequence[Sequence[str]]) -> list[str]:
    """Return the references that have at least as many letters of scripts without spaces as words of other scripts."""
    return [answer for answers in references for answer in answers if _is_unspaced(answer)]


def mostly_unspaced(references: Sequence[Sequence[str]]) -> bool:
    """Return whether at least half of the references are written without spaces."""
    return 2 * len(find_unspaced(references)) >= sum(map(len, references))


def is_han(texts: Sequence[str]) -> bool:
    """Return whether nine in ten letters of scripts without spaces are Chinese characters; in Japanese they are not."""
    scripts = [_script(letter) for text in texts for letter in text]
    return 10 * scripts.count("other") <= len(scripts) - scripts.count("")


def _is_unspaced(text: str) -> bool:
    num_letters = sum(_script(letter) != "" for letter in text)
    words = "".join(" " if _script(letter) else letter for letter in text).split()
    return num_letters > 0 and num_letters >= sum(any(map(str.isalpha, word)) for word in words)


@cache
def _script(character: str) -> str:
    """Return `han`, `other` or, for what is no letter of a script without spaces, nothing."""
    name = unicodedata.name(character, "") if character.isalpha() else ""
    if name.startswith(_HAN):
        return "han"
    return "other" if name.startswith(_OTHERS) else ""
