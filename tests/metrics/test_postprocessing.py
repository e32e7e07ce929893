import pytest

from icl_eval.config.composing import ComposedConfig
from icl_eval.config.evaluations import build_evaluation
from icl_eval.errors import ConfigError
from icl_eval.metrics.postprocessing import BoundedRegex, Extract, FirstLine, Strip


@pytest.mark.parametrize(
    ("postprocess", "text", "prediction"),
    [
        (Strip(), " Paris \n", "Paris"),
        (Strip(), " Paris,\n France ", "Paris,\n France"),
        (Strip(), " \n", ""),
        (FirstLine(), "\n\n  Paris \nFrance", "Paris"),
        (FirstLine(), "Paris", "Paris"),
        (FirstLine(), "Paris\r\nFrance", "Paris"),
        (FirstLine(), " \n ", ""),
        (Extract("answer is (.*)"), "so the answer is  42 \nyes", "42"),
        (Extract("[0-9]+"), "first 12, then 13", "12"),  # the first match, whole where there is no group
        (Extract("(a)|b"), "b", ""),  # a group that took no part
        (Extract("(?:answer|result) is ([0-9]+)"), "the result is 7", "7"),
        (Extract("^b$"), "a\nb", "a\nb"),  # ^ and $ are the text's, not a line's
        (Extract("(?m)^b$"), "a\nb", "b"),
        (Extract("answer is (.*)"), " no idea ", "no idea"),
        (Extract("x*"), "axx", ""),  # it matches, nothing
        (Extract("[0-9]+", select="last"), "first 12, then 13", "13"),
        (Extract("(-?[$0-9.,]{2,})|(-?[0-9]+)", select="last"), "12 - 3 = 9", "9"),  # the group that has text
        (Extract("#### ([0-9]+)", no_match="empty"), "so 12", ""),
    ],
)
def test_a_completion_becomes_a_prediction(postprocess, text, prediction):
    assert postprocess(text) == prediction


def test_a_pattern_that_is_none_is_one_sentence():
    with pytest.raises(ConfigError) as error:
        Extract("(")
    assert str(error.value) == "pattern: '(': missing ), unterminated subpattern at position 0"


@pytest.mark.parametrize("pattern", ["(" * 5000, "a{" + "9" * 20 + "}"])
def test_a_pattern_that_is_too_much_for_the_library_is_one_sentence(pattern):
    with pytest.raises(ConfigError, match=r"^pattern: '.*': \w[^\n]*$"):
        Extract(pattern)


@pytest.mark.parametrize(
    ("options", "prediction"),
    [
        ([], "so\nthe answer is 42."),
        (["postprocessing=strip"], "so\nthe answer is 42."),
        (["postprocessing=first_line"], "so"),
        (["postprocessing=extract", r"postprocessing.pattern='answer is (\d+)'"], "42"),
    ],
)
def test_shipped_postprocessing_is_applied_by_the_plan(options, prediction, compose):
    [plan] = build_evaluation(ComposedConfig(compose("task=[math]", *options))).plans
    assert plan.postprocess(" so\nthe answer is 42. ") == prediction


def test_a_regular_expression_that_takes_exponential_time_is_stopped(monkeypatch):
    monkeypatch.setattr("icl_eval.metrics.postprocessing._MAX_SECONDS", 0.05)
    sentence = r"the regular expression '\(a\|aa\)\+\$' takes more than 0.05 s on a text of 41 characters"
    with pytest.raises(ConfigError, match=sentence):
        Extract(pattern="(a|aa)+$")("a" * 40 + "b")
    with pytest.raises(ConfigError, match=sentence):
        BoundedRegex("(a|aa)+$").remove_from("a" * 40 + "b")
