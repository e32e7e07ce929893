"""The table of what is read as a number: each string with what is read where it is the whole string, and at its end."""

from fractions import Fraction

import pytest

from icl_eval.metrics.quantities import read_alone, read_last, read_stated

# A number by itself.
NUMBERS = {
    # numerals of all scripts
    "42": "42", "007": "7", "3.14": "3.14", ".5": "1/2", "72.": "72", "-.75": "-3/4", "４２": "42", "٤٢": "42",
    "٣٫٥": "7/2", "𝟒𝟐": "42", "4\ufe0f2": "42", "4\u200b2": "42",
    # digits in groups
    "1,000": "1000", "1,234,567.50": "1234567.5", "1,00,000": "100000", "12,34,567.5": "1234567.5",
    "१,००,०००": "100000", "1.234": "1.234", "1,234": "1234", "1.000.000": "1000000", "1.234,56": "1234.56",
    "1.234.567,8": "1234567.8", "1 000 000": "1000000", "1\u202f000,5": "1000.5", "1\u2009000.5": "1000.5",
    "1'000.50": "1000.5", "1’000": "1000",
    "１，０００": "1000", "1{,}000": "1000", r"1\,000": "1000", r"10,\!000": "10000",
    # signs
    "-5": "-5", "−5": "-5", "–5": "-5", "\u20115": "-5", "＋5": "5", "-0": "0",
    # fractions and mixed numbers
    "3/4": "3/4", "-3/4": "-3/4", "1⁄2": "1/2", "½": "1/2", "-½": "-1/2", "⅞": "7/8",
    "1,000/3": "1000/3", "1 000/8": "125",
    r"\frac{1}{2}": "1/2", r"\frac12": "1/2", r"\frac 1 2": "1/2", r"\frac{1}2": "1/2", r"\dfrac{22}{7}": "22/7",
    r"\tfrac{1}{-2}": "-1/2", r"-\frac{1,000}{3}": "-1000/3", r"\frac{\frac12}{3}": "1/6",
    "3 1/2": "7/2", "-3 1/2": "-7/2",
    "3½": "7/2", "3 ½": "7/2", r"3\frac{1}{2}": "7/2", r"3 \frac12": "7/2", "2020 1/2": "2020.5",
    # scientific notation
    "1e5": "100000", "1.5E-3": "0.0015", "3.2 x 10^4": "32000", "3×10⁴": "30000", "3 × 10⁻⁴": "0.0003",
    r"3 \times 10^{4}": "30000", r"-3 \cdot 10^{-4}": "-0.0003", "6.02*10**3": "6020", "5x10^3": "5000",
    "1e-999": f"1/1{'0' * 999}",
    # money, percent, degrees
    "$1,200.50": "1200.5", "-$5": "-5", "$-5": "-5", "$ 5": "5", "US$5": "5", "R$ 1.234,56": "1234.56", "€ 3.50": "3.5",
    "500 €": "500", "500€": "500", "Rs.500": "500", "Rs. 500": "500", "rs 500": "500", "₹1,00,000": "100000",
    "USD 500": "500", "500 USD": "500", r"\$5": "5", "25%": "25", r"50\%": "50", "25 %.": "25", "90°": "90",
    r"90^\circ": "90", r"90^{\circ}": "90", "25 °C": "25",
    # LaTeX around it
    "$42$": "42", r"\(42\)": "42", r"\boxed{42}": "42", r"$\boxed{\frac12}$": "1/2",
    r"\boxed{50\%}": "50",
    r"\boxed{-\dfrac{3}{4}}": "-3/4", r"\text{42}": "42",
}  # fmt: skip

# No number, wherever it stands.
NONE = [
    # numerals that are written in no way that is known, or in more than one
    "3,14", "1,00", "1,2345", "1234,567", "0,500", "12,345,67", "1_000", "0x1F", "1.5.2", "1080p60", "5'10",
    "9" * 1001, "1e1000", "1e999999999", "1e5.5",
    # sums, differences and products
    "5 - 3", "5-3", "5 – 3", "5 -3", "(5)-3", "(−5)-3", "3 + 4", "7 × 6", "7x6", "7*6", r"7 \cdot 6", "6 / 2", "6 ÷ 2",
    "5 * (2 + 1)", "(2 + 1) * 5", "2(3)", "$5 - $3", "20%-3%", "5km - 3km", "5 km + 3 km", "3 mm × 4 mm", "2x + 3",
    "3 + x", "x - 3", "±5", "5 ± 1", "-(5)", r"\frac{5-3}{2}", r"{1 \over 2}", r"\binom{5}{2}",
    # ranges, dates, times, addresses
    "10-12", "10–12", "10—12", "10~12", "1...10", "10%-12%", "2021-05-03", "2021/05/03", "12/05/2021", "3.5.2021",
    "2021年5月3日", "12:30", "7:00-8:00", "3:4", "40°30′",
    # powers, roots and multiples of π
    "10^3", "10³", "2^{10}", "2**10", "2 ** 10", r"\sqrt{2}", r"\sqrt[3]{8}", r"2\sqrt{3}", "√2", "2√3", "sqrt(2)",
    "9π", r"9\pi", "9 pi", r"\frac{\pi}{2}", "3x^2", "2 x 11^3", "3 x 10^{1000}",
    # fractions
    "3/0", "1/2/3", "3 5/2", "3 1/0", "3.5 1/2", "3 1/2.5", r"\frac123", r"\frac{x}{2}", r"\frac{1}{0}",
    r"3\frac{3}{2}",
    # nothing of a number
    "", "-", "no idea", "²", "NaN", "CO2", "v1.5", "a_{12}", "∞",
]  # fmt: skip

# What stands at the end of longer strings, and what of it is stated.
TEXTS = [
    ("The total is Rs.500", None, "500"),
    ("So the answer is...42", None, "42"),
    ("The area is 25 cm^2", None, "25"),
    ("25cm²", None, "25"),
    (r"25 \text{ cm}^{2}", None, "25"),
    ("9.8 m/s^2", None, "9.8"),
    ("25 cm<sup>2</sup>", None, "25"),
    ("3 kg of CO2", None, "3"),
    ("It is 5!", None, "5"),
    ("5, -3", None, "-3"),
    ("x = - 5", None, "-5"),
    ("- 5 apples", None, "5"),
    ("* 5 apples", None, "5"),
    ("**18** or *19*", None, "19"),
    ("5 rooms - 3 with bath", None, "3"),
    ("3 + 4 = 7", None, "7"),
    ("<<16-3-4=9>>9 eggs", None, "9"),
    ("2^10 = 1024", None, "1024"),
    ("√2 ≈ 1.414", None, "1.414"),
    ("3.14, which is about π", None, "3.14"),
    ("radius 3, area 9π", None, None),
    ("42, as 2 + 3 is not", None, None),
    ("from 3 to 5", None, "5"),
    ("the 1st", None, "1"),
    ("covid-19", None, "19"),
    ("Call +1 (555) 123-4567", None, None),
    ("7 mod 5", None, "5"),
    (r"7 \bmod 5", None, None),
    ("共42个", None, "42"),
    ("我有3，4个", None, "4"),
    ("气温为-5度", None, "-5"),
    ("5 hombres y 3 mujeres", None, "3"),
    ("#### 42\n\nQuestion 2", "42", "2"),
    ("#### Rs.500", "500", "500"),
    ("the answer is 42 km", "42", "42"),
    ("the answer is 42km", None, "42"),
    ("the answer is 5 + 3", None, None),
    (r"the answer is $\boxed{42}$", "42", "42"),
    (r"First \boxed{1}, then \boxed{\frac12} of 3", "1/2", "3"),
    (r"\boxed{x = 42 \text{ km}^2}", "42", "42"),
    (r"\boxed{1} and \boxed{3, 4}", None, "4"),
    (r"-\boxed{5}", None, None),
    (r"#### 1, or \boxed{2}", "1", "2"),
]  # fmt: skip


def number(written):
    return None if written is None else Fraction(written)


@pytest.mark.parametrize(("text", "value"), NUMBERS.items())
def test_a_number_is_read_alone_stated_and_at_the_end(text, value):
    expected = Fraction(value)
    assert read_alone(f" {text} ") == read_stated(text) == read_last(f"It is {text}") == expected
    assert read_stated(f"7, so the answer is {text}\n") == read_stated(f"8\n####{text}") == expected


@pytest.mark.parametrize("text", NONE, ids=lambda text: text[:20])
def test_no_piece_of_what_is_no_number_is_read(text):
    assert read_alone(text) is read_stated(text) is read_last(text) is None
    assert read_stated(f"#### {text}") is None


@pytest.mark.parametrize(("text", "stated", "last"), TEXTS)
def test_what_stands_in_a_longer_string(text, stated, last):
    assert (read_stated(text), read_last(text)) == (number(stated), number(last))
