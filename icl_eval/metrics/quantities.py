r"""Quantities: reading numbers in strings as exact fractions.

A number is read as a whole or not at all. A string is split into tokens (numerals, signs, operators, currencies, units
and words), and adjacent tokens form quantities. A quantity that is a single number has its value. A sum, product,
power, root, date, time, range or numeral in a format that is not in the left column is a quantity without a value, and
its parts are not read as numbers either.

    read                                                       not a number
    numerals    42  007  3.14  .5  72.  is...42  ４２  ٤٢       0x1F  1_000  1.5.2  12:30  more than 1,000 characters
    grouped     1,000  1,00,000  1 000 000  1'000  1{,}000      3,14  1,2345  0,500
                1.000.000  1.234,56  1 000,5  1'000.50          (1.234 is a decimal, 1,234 a thousand and more)
    signs       -5  −5 (minus)  –5 (en dash)  +5  x = - 5       5-3  5 - 3  x - 3  ±5  10-12  10–12  2021-05-03
    fractions   3/4  1,000/3  ½  \frac{1}{2}  \frac12           3/0  6 / 2  1/2/2021  \frac{x}{2}
    mixed       3 1/2  3½  3 ½  3\frac{1}{2}                    3 5/2
    scientific  1e5  1.5E-3  3.2 x 10^4  3×10⁴  3 \times 10^4   10^3  10³  2^{10}  1e1000 (at most 999)
    money       $1,000  -$5  $-5  US$5  Rs.500  500 €  \$5      $5 - $3
    units       25%  50\%  90°  90^\circ  42km  25 cm^2  1st    9π  2√3  \sqrt{2}  sqrt(2)  5 km + 3 km
    in LaTeX    $42$  \(42\)  \boxed{42}  42\text{ cm}^2

An equals sign begins a new quantity: the last one in 3 + 4 = 7 is 7. The dash in covid-19 is not a sign, and digits
after a letter belong to the word (CO2, v1.5), except in scripts without spaces between words. Spaces group digits only
in threes, so 12 34 are two numbers. Currencies, percent signs, degree signs and units are dropped without conversion,
and words are ignored: 5 million is 5, and the last quantity in `from 3 to 5` is 5.

All patterns run in linear time: repetitions are possessive (`++`, `*+`), which rules out backtracking.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from icl_eval.metrics.strings import drop_invisible

# Longer numerals come from models that repeat themselves, and int() needs quadratic time for them.
_MAX_LENGTH = 1000


def read_alone(text: str) -> Fraction | None:
    """Return the value of a string that is one number, with an optional currency, percent or degree sign, else None."""
    tokens = _cut(text)
    return _value(tokens, _ALONE.fullmatch(tokens.kinds))


def read_stated(text: str) -> Fraction | None:
    r"""Return the value of a string that is one number, or of the number that it states.

    A number is stated by the first `#### 42`, else the first `answer is 42`, else the last `\boxed{42}`. The result is
    None if there is no such number, or if it touches a letter (`42km`) or precedes another number (`12 34`).
    """
    tokens = _cut(text)
    match = _ALONE.fullmatch(tokens.kinds) or _AFTER_HASHES.search(tokens.kinds) or _AFTER_ANSWER.search(tokens.kinds)
    return _value(tokens, match or _BOXED.match(tokens.kinds, max(0, tokens.kinds.rfind("b"))))


def read_last(text: str) -> Fraction | None:
    """Return the value of the last quantity in a string; None if there is no quantity or it is not a number."""
    tokens = _cut(text)
    last = None
    for match in _ANYWHERE.finditer(tokens.kinds):
        last = match if match["core"].strip("cs") else last  # a lone constant (π) does not replace a quantity
    return _value(tokens, last)


# 1. Normalization: one character for each meaning, and LaTeX without layout commands.

_SAME = {
    **dict.fromkeys("\u00a0\u2007\u2009\u202f\u3000", " "),
    **dict.fromkeys("−–‐‑﹣", "-"),
    **dict.fromkeys("’ʼ", "'"),
    **dict.fromkeys("⁄∕", "/"),
    "٫": ".",
    "٬": ",",
    "，": "，",  # kept for now: between Chinese clauses it does not group digits
}

_LATEX = [
    (r"\\!", ""),
    (r"\{,\}", ","),
    (r"(?<=\d)，(?=\d{3}(?!\d))", ","),
    (r"\\[,;: ]|\\q?quad(?![A-Za-z])|\\[()\[\]]", " "),
    (r"\\([%$#&])", r"\1"),
    (r"\\(?:left|right)(?![A-Za-z])", ""),
    (r"\\(?:text[a-z]*|math[a-z]+|mbox|operatorname) ?\{([^{}]*)\}", r"\1"),
    (r"<sup>([^<>]*)</sup>", r"^{\1}"),
    (r"\^ ?(?:\\circ|\{ ?\\circ ?\})(?![A-Za-z])|\\degree(?![A-Za-z])", "°"),
    *((rf"\\{name}(?![A-Za-z])", sign) for name, sign in (
        ("times", "×"), ("cdot", "·"), ("div", "÷"), ("pm", "±"), ("mp", "∓"), ("pi", "π"), ("approx", "≈"),
        ("over", "÷"), ("b?mod", "÷"),
    )),
]  # fmt: skip
_PLAINER = [(re.compile(pattern), plain) for pattern, plain in _LATEX]


@cache
def _same(character: str) -> str:
    """Return an ASCII digit for a decimal digit of any script, and the ASCII character for a full-width one."""
    if character in _SAME:
        return _SAME[character]
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return chr(ord(character) - 0xFEE0) if "！" <= character <= "～" else character


def _plain(text: str) -> str:
    text = drop_invisible(text)
    if not text.isascii():
        text = "".join(map(_same, text))
    for pattern, plain in _PLAINER:
        text = pattern.sub(plain, text)
    return text


# 2. Tokens.

_GROUP = r"\{(?:[^{}]++|\{(?:[^{}]++|\{[^{}]*+\})*+\})*+\}"  # braces, with two more pairs inside one another
_ARGUMENT = rf" ?(?:{_GROUP}|\d)"
_FRAC = r"\\(?:[dtcsx]?frac|nicefrac)"
_LETTER = r"[A-Za-zÀ-ÖØ-öø-ɏͰ-ϿЀ-ӿ]"  # of scripts that have spaces between words
_ISO = "USD|EUR|GBP|JPY|CNY|RMB|INR|CHF|CAD|AUD|KRW"
_CODE = rf"(?:[Rr]s\.?|{_ISO}|(?:US|CA|AU|NZ|HK|NT|[ACRS])(?=\$))"
_CURRENCY = r"[$¢-¥֏؋৲৳৻૱௹฿៛₠-⃀﷼]"

_TOKENS = [
    # each kind has a one-letter name, which the grammar below uses; the first pattern that matches counts
    ("n", r"(?:[1-9]\d{0,2}(?: \d{3}(?!\d))++|(?<![\w.)\]}%])\.\d++|\d++)(?:[.,:'_]++\d++|[eE][-+]?\d++)*+"),
    ("v", r"[¼-¾⅐-⅞]"),
    ("f", rf"{_FRAC}{_ARGUMENT}{_ARGUMENT}"),
    ("r", rf"\\sqrt(?:\[[^][]*+\])?(?:{_GROUP})?|{_FRAC}|[√∛∜]|sqrt(?![A-Za-z])"),
    ("c", r"π|pi(?!\w)"),
    ("p", r"\^ ?(?:\{[^{}]*+\}|\([^()]*+\)|[-+]?[\w.]++)?|[²³¹⁰⁴-⁹⁺⁻]++|(?<=[\d)}])\*\*(?:[-+]?\d++|(?=[({]))"),
    ("x", r"×|(?<=[\d)}]) ?[xX] ?(?=[\d($-])|(?<=[\d)}])[*·⋅∙](?=[\d({$-])|(?<=[\d)}] )[*·⋅∙](?= [\d({$-])"),
    ("o", r"[÷±∓]|(?<=[\d)}] )\*\*(?= [\d({$-])"),
    ("d", r"(?<=\d)(?:[—―~〜…]|[年月日时時点點分년월일시분] ?)(?=\d)"),  # ranges and dates, only where they touch
    ("h", r"####+"),
    ("a", r"(?i:answer is):?"),
    ("b", r"\\(?:boxed|fbox)"),
    ("$", rf"(?:{_CODE}(?= ?[-+]?[.\d$])|(?:(?<=\d)|(?<=\d ))(?:{_ISO})(?!\w)"
          rf"|{_CURRENCY})++"),
    ("%", r"[%‰]|[°º˚](?:[CF](?!\w))?"),
    ("z", rf"{_LETTER}++(?:_\{{[^{{}}]*+\}}|[\d_]\w*+(?:[.,]\d++)*+)"),
    ("X", rf"[xX](?!{_LETTER})"),
    ("k", rf"[yzn](?!{_LETTER})"),
    ("w", rf"\\?{_LETTER}++"),
    ("(", r"[({\[]"),
    (")", r"[)}\]]"),
    ("s", r"[ \t]++"),
    ("l", r"\s"),
    ("q", r"[=≈≡]"),
    ("/", r"/"),
    ("+", r"\+"),
    ("-", r"-"),
    (".", r"\."),
    ("_", r"[\s\S]"),
]  # fmt: skip
_KINDS = {f"token{number}": kind for number, (kind, _) in enumerate(_TOKENS)}
_LEXER = re.compile("|".join(f"(?P<token{number}>{pattern})" for number, (_, pattern) in enumerate(_TOKENS)))


@dataclass(frozen=True)
class _Tokens:
    """A tokenized string; `kinds` and `texts` have the same indices."""

    kinds: str
    texts: Sequence[str]


def _cut(text: str) -> _Tokens:
    matches = list(_LEXER.finditer(_plain(text)))
    return _Tokens("".join(_KINDS[str(match.lastgroup)] for match in matches), [match[0] for match in matches])


# 3. The grammar: patterns over token kinds.

_OPERAND = r"[nvfrc](?:\)*+s?p++)?"
_BEFORE = r"\(*+[-+]?(?:\$s?)?[-+]?\(*+"
_LINK = "|".join([
    rf"(?:s?[%$]|[wkX]p*+)?\)*+s?[-+x/o]s?{_BEFORE}",  # 5 - 3, 5% - 3%, 5km - 3km, (5)-3
    rf"swp*+(?:s[x/o+X]s|[x/o+]){_BEFORE}",  # 5 km + 3 km; in `5 rooms - 3 with bath` the dash is a dash
    r"d",  # 10~12
    r"\)?\((?=[nvfr])",  # 2(3)
    r"s?(?=[vfrc])|s(?=n/n)|(?<=r)s?(?=n)|(?<=[vf])(?=n)|%(?=n)",  # 3 ½, 2√3, 9π; 3 1/2; √2; \frac123; 40°30′
])  # fmt: skip
_SIGN = r"(?:(?<![nvfrcpwzkX)%])[-+]|(?:(?<=[q(])|(?<=[q(]s))[-+]s)"
# Context that makes a number part of a larger expression, before it: x + 3, (a + b) / 2, ±5, -(5); after it: 1080p60,
# 3x^2, 3 - x.
_PIECE = r"(?:[kX]p*+(?:s[-+x/o]s|[-+x/o])|\)(?:[-+x/o]|s[+x/o]s)|[xo]s?|[-+]b?\()\(*+"
_MORE = r"z|[kX]p|\)*s?[-+x/o]s?\(*[kX](?!w)"
_QUANTITY = (
    rf"(?P<piece>{_PIECE})?+(?P<sign>{_SIGN})?(?:\$s?)?(?P<inner>(?:(?<=\$)|(?<=\$s))[-+])?"
    rf"(?P<core>{_OPERAND}(?:(?:{_LINK}){_OPERAND})*+)(?P<more>{_MORE})?"
)
_ANYWHERE = re.compile(_QUANTITY)
_STATED = rf"[sl]*+(?:\$?b\()?(?:\$s?)?{_QUANTITY}(?![wzkX]|%?s?\$?[nvf])"
_AFTER_HASHES = re.compile(rf"h{_STATED}")
_AFTER_ANSWER = re.compile(rf"a{_STATED}")
_BOXED = re.compile(rf"(?<![-+x/o])(?<![+x/o]s)b\(s?(?:[kXw]p*+s?qs?)?{_QUANTITY}[s%$wkXp]*+\)")
_ALONE = re.compile(rf"[sl]*+(?:\$s?)?(?P<box>b\(s?)?{_QUANTITY}(?:s?[%$])*+(?(box)s?\)(?:s?[%$])*+)\.?[sl]*+")


# 4. Values.


def _value(tokens: _Tokens, match: re.Match[str] | None) -> Fraction | None:
    """Return the value of a quantity; None if there is no quantity or it is part of a larger expression."""
    if match is None or match["piece"] or match["more"]:
        return None
    size = _size(match["core"], tokens.texts[slice(*match.span("core"))])
    negative = "-" in (match["sign"] or match["inner"] or "")
    return -size if negative and size is not None else size


def _size(kinds: str, texts: Sequence[str]) -> Fraction | None:
    if kinds not in _SHAPES:
        return None
    numbers = [_READERS[kind](text) for kind, text in zip(kinds, texts, strict=True) if kind in _READERS]
    known = [number for number in numbers if number is not None]
    return _SHAPES[kinds](known, texts) if len(known) == len(numbers) else None


def _one(numbers: Sequence[Fraction], _: Sequence[str]) -> Fraction:
    return numbers[0]


def _ratio(numbers: Sequence[Fraction], _: Sequence[str]) -> Fraction | None:
    return numbers[0] / numbers[1] if numbers[1] else None


def _mixed(numbers: Sequence[Fraction], _: Sequence[str]) -> Fraction | None:
    whole, part = numbers
    return whole + part if whole.denominator == 1 and 0 < part < 1 else None


def _mixed_ratio(numbers: Sequence[Fraction], texts: Sequence[str]) -> Fraction | None:
    _, part, parts = numbers
    return _mixed((numbers[0], part / parts), texts) if parts and part.denominator == parts.denominator == 1 else None


def _scientific(numbers: Sequence[Fraction], texts: Sequence[str]) -> Fraction | None:
    exponent = _POWER.fullmatch("".join(map(_lower_superscript, texts[-1])))
    if numbers[1] != 10 or exponent is None:
        return None
    return numbers[0] * Fraction(10) ** int(exponent["exponent"])


_SHAPES = {
    **dict.fromkeys(["n", "v", "f"], _one),
    "n/n": _ratio,
    **dict.fromkeys(["nv", "nsv", "nf", "nsf"], _mixed),
    "nsn/n": _mixed_ratio,
    **dict.fromkeys(["nxnp", "nsxsnp", "nsxnp", "nxsnp"], _scientific),
}
_POWER = re.compile(r"(?:\^|\*\*)? ?[({]?(?P<exponent>[-+]?\d{1,3})[)}]?")


def _lower_superscript(character: str) -> str:
    """Return the plain character of a superscript."""
    return unicodedata.normalize("NFKC", character).replace("−", "-")


# Allowed formats of a numeral, without its exponent: pattern, group separator, decimal points.
_NUMERALS = [
    (re.compile(r"\d+|\d*\.\d+"), "", "."),
    (re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?|[1-9]\d?(?:,\d{2})+,\d{3}(?:\.\d+)?"), ",", "."),
    (re.compile(r"[1-9]\d{0,2}(?:\.\d{3})+,\d+|[1-9]\d{0,2}(?:\.\d{3}){2,}"), ".", ","),
    (re.compile(r"[1-9]\d{0,2}(?: \d{3})+(?:[.,]\d+)?"), " ", ".,"),
    (re.compile(r"[1-9]\d{0,2}(?:'\d{3})+(?:[.,]\d+)?"), "'", ".,"),
]
_EXPONENT = re.compile(r"(?P<numeral>[^eE]+)(?:[eE](?P<exponent>[-+]?\d{1,3}))?")


def _numeral(text: str) -> Fraction | None:
    match = _EXPONENT.fullmatch(text)
    if match is None or len(text) > _MAX_LENGTH:
        return None
    for pattern, group, points in _NUMERALS:
        if pattern.fullmatch(match["numeral"]):
            plain = re.sub(f"[{points}]", ".", match["numeral"].replace(group, ""))
            return Fraction(plain) * Fraction(10) ** int(match["exponent"] or 0)
    return None


def _vulgar(text: str) -> Fraction:
    return Fraction(unicodedata.normalize("NFKC", text).replace("⁄", "/"))


_FRACTION = re.compile(rf"{_FRAC}(?P<over>{_ARGUMENT})(?P<under>{_ARGUMENT})")


def _latex_fraction(text: str) -> Fraction | None:
    match = _FRACTION.fullmatch(text)
    assert match is not None
    over, under = (read_alone(re.sub(r"^ ?\{|\}$", "", match[name])) for name in ("over", "under"))
    return over / under if over is not None and under else None


_READERS = {"n": _numeral, "v": _vulgar, "f": _latex_fraction}
