import pytest

from icl_eval.errors import DataError
from icl_eval.tasks.examples import FieldMapping
from icl_eval.tasks.rows import Row

ROW = {
    "a": "x",
    "null": None,
    "nan": float("nan"),
    "parts": ["p", None],
    "nested": {"labels": ["A", "B"], "label": None},
    "bytes": b"ab",
    "choices": ["first", "last"],
    "one": 1,
    "yes": True,
    "unlabelled": -1,
    "empty": "",
    "whole": 1.0,
    "half": 1.5,
    "self": "a column that is called like Python's first argument",
}


def question(expression):
    mapping = FieldMapping({"question": expression, "references": "a"})
    return mapping.example(Row("rows.jsonl:7", ROW), "0").inputs["question"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("null or 'none'", "none"),
        ("(null or nan or 'none') ~ a", "nonex"),
        ("null if null else 'none'", "none"),
        ("'none' if not null else null", "none"),
        ("null|default('none')", "none"),
        ("'none' if null is none else null", "none"),
        ("'none' if null == none else null", "none"),
        ("'there' if null is not none and null else 'none'", "none"),
        ("row['null'] or 'none'", "none"),
        ("[a, null]|reject('none')|join(' ')", "x"),
        ("[null, a]|select|join(' ')", "x"),
        ("parts[0]", "p"),
        ("choices[one]", "last"),
        ("choices[yes]", "last"),
        ("choices[whole|int]", "last"),
        ("choices[-1]", "last"),  # as it is written
        ("choices[:-1]|first", "first"),
        ("choices[one:]|first", "last"),
        ("choices[empty|int(0)]", "first"),
        ("'1f'|int(base=16)|string", "31"),
        ("'0b10'|int(base=2)|string", "2"),
        ("nested.labels[nested.labels.index('B')]", "B"),
        ("choices['ax'.index(a)]", "last"),
        ("'n' ~ one", "n1"),
        ("self", ROW["self"]),
    ],
)
def test_an_expression_can_say_what_stands_for_a_missing_value(expression, expected):
    assert question(expression) == expected


NULL = "'null' is null; give a replacement: null or '…'"


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("null ~ a", NULL),
        ("a + null", NULL),
        ("'%s' % null", NULL),
        ("'{!r}'.format(null)", NULL),
        ("null|string", NULL),
        ("null|upper", NULL),
        ("[a, null]|join(' ')", NULL),
        ("'yes' if null else 'no'", NULL),
        ("'yes' if not null else 'no'", NULL),
        ("'yes' if null == 1 else 'no'", NULL),
        ("'yes' if null is true else 'no'", NULL),
        ("'yes' if null in ['y'] else 'no'", NULL),
        ("choices[null]", NULL),
        ("choices[null|int]", NULL),
        ("null or null", NULL),
        ("a ~ nan", "'nan' is NaN; give a replacement: nan or '…'"),
        ("parts ~ ''", "'parts' is null; give a replacement: parts or '…'"),
        ("parts|join", "'parts' is null; give a replacement: parts or '…'"),
        ("nested.labels[nested.labels.index(nested.label)]", "'nested' is null; give a replacement"),
        ("a ~ bytes", "'bytes' is bytes, not a string"),
        ("choices[unlabelled]", "-1 is not a valid index (allowed: 0 to 1)"),
        ("choices[unlabelled|int]", "-1 is not a valid index (allowed: 0 to 1)"),
        ("choices[one + 1]", "2 is not a valid index (allowed: 0 to 1)"),
        ("choices[whole]", "1.0 is not a valid index (allowed: 0 to 1)"),
        ("choices[a]", "'x' is not a valid index (allowed: 0 to 1)"),
        ("choices[5]", "list object has no element 5"),
        ("choices[unlabelled:]|first", "-1 is not a valid slice bound (allowed: 0 or more)"),
        ("choices['ax'.index(empty)]", "the search string is empty, and every string contains it"),
        ("choices['ax'.find(null)]", NULL),
        ("choices['AB'.find(a)]", "-1 is not a valid index (allowed: 0 to 1)"),
        ("choices[empty|int]", "'' is not a whole number"),
        ("choices[half|int]", "1.5 is not a whole number"),
        ("choices['1.7'|int]", "'1.7' is not a whole number"),
        ("'1.7'|int(base=16)", "'1.7' is not a whole number"),
        ("'12'|int(base=2)", "'12' is not a whole number"),
        ("empty|float ~ a", "'' is not a number"),
        ("none_such or 'none'", "'none_such' is undefined"),
    ],
)
def test_a_missing_value_or_label_is_an_error_with_its_place(expression, reason):
    with pytest.raises(DataError) as error:
        question(expression)
    assert str(error.value).startswith(f"rows.jsonl:7: field 'question' ({expression}): {reason}")
    assert str(error.value).endswith(f" (the row has: {', '.join(ROW)})")
