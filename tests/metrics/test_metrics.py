import ast
import inspect
import random
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from dataclasses import replace
from itertools import permutations, zip_longest
from pathlib import Path

import hydra
import pytest
import sacrebleu.metrics
from omegaconf import OmegaConf

import icl_eval.metrics
from icl_eval import errors
from icl_eval.errors import ConfigError, DataError
from icl_eval.metrics import (
    BLEU,
    CHRF,
    METRICS,
    TER,
    ExactMatch,
    HubMetric,
    NumericMatch,
    Rouge,
    TokenF1,
    exact_match,
    score,
)
from icl_eval.metrics.building import build_metrics
from icl_eval.metrics.means import mean_statistics
from icl_eval.metrics.ranges import RANGES
from icl_eval.metrics.strings import Parts

CONF = Path(__file__).parents[2] / "conf" / "metrics"

# Imperfect output, an empty prediction, and one, two, three references.
PREDICTIONS = ["The cat sat on a mat, I think.", "", "wholly different words here", "rain in the north"]
REFERENCES = [
    ["The cat sat on the mat, I think.", "A cat was sitting on the mat."],
    ["Nobody came."],
    ["It was late."],
    ["It rains in the north.", "rain in the north", "There is rain up north."],
]
MADE = {
    "numeric_strict": {"extraction": "strict"},
    "numeric_flexible": {"extraction": "flexible"},
    **{f"rouge_{unit}": {"unit": unit} for unit in ("1", "2", "l")},
}
"""Options of metrics whose name says which."""
PADDED = [
    ["The cat sat on the mat, I think.", "Nobody came.", "It was late.", "It rains in the north."],
    ["A cat was sitting on the mat.", None, None, "rain in the north"],
    [None, None, None, "There is rain up north."],
]


def test_importing_the_package_does_not_import_evaluate():
    code = "import sys, icl_eval.metrics; print([*{'evaluate', 'datasets', 'sacrebleu'} & {*sys.modules}])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(run.stdout) == []


@pytest.mark.slow
def test_configured_metrics_score_without_evaluate_and_torch():
    options = {name: {"name": name, **MADE.get(name, {})} for name in METRICS.classes if name != "hub"}
    code = f"""
import sys
from icl_eval.metrics.building import build_own_metrics
from icl_eval.metrics.scoring import score
metrics = build_own_metrics({options!r}, "metrics")
print([score(each, ["12"], [["12"]], seed=0).metric for each in metrics])
print([*{{"evaluate", "datasets", "torch", "transformers"}} & {{*sys.modules}}])"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [ast.literal_eval(line) for line in run.stdout.splitlines()] == [list(options), []]


def test_public_metrics_are_those_of_evaluate():
    import evaluate

    assert all(isinstance(metric, evaluate.Metric) for metric in ALL)
    assert ExactMatch is icl_eval.metrics.ExactMatch
    assert (ExactMatch.__name__, ExactMatch.__doc__) == ("ExactMatch", exact_match.ExactMatch.__doc__)
    assert inspect.signature(ExactMatch) == inspect.signature(exact_match.ExactMatch)


def test_every_public_name_can_be_imported():
    assert all(getattr(icl_eval.metrics, name) for name in icl_eval.metrics.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Meteor'"):
        _ = icl_eval.metrics.Meteor


SACREBLEU_OPTIONS = [
    (BLEU, {}),
    (BLEU, {"tokenize": "char", "lowercase": True}),
    (BLEU, {"smooth_method": "add-k", "smooth_value": 0.5}),
    (BLEU, {"smooth_method": "floor", "effective_order": True}),
    (BLEU, {"smooth_method": "none", "max_ngram_order": 2}),
    (CHRF, {}),
    (CHRF, {"word_order": 2, "char_order": 4, "beta": 3}),
    (TER, {}),
    (TER, {"normalized": True, "no_punct": True, "asian_support": True, "case_sensitive": True}),
]


@pytest.mark.parametrize(("metric", "options"), SACREBLEU_OPTIONS)
def test_law_8_translation_scores_are_those_of_sacrebleu(metric, options):
    scorer = getattr(sacrebleu.metrics, metric.__name__)(**options)
    by_hand = scorer.corpus_score(PREDICTIONS, PADDED)
    found = score(metric(**options), PREDICTIONS, REFERENCES, seed=0)
    assert found.value == by_hand.score
    assert found.signature.startswith(str(scorer.get_signature()))
    assert found.signature.startswith("nrefs:var|case:")


def draw_texts(count):
    """Return texts of few characters, so that n-grams repeat and agree, with odd characters and white space."""
    generator = random.Random(0)
    alphabet = [*"ab!(七百🦉éİ", "ab", "e\u0301", " ", " ", "\t", "\n", "\xa0", "\u3000", "\u200b"]
    return ["".join(generator.choices(alphabet, k=generator.randrange(12))) for _ in range(count)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"word_order": 2},
        {"word_order": 3, "char_order": 1, "beta": 1},
        {"word_order": 1, "char_order": 20, "beta": 0},
    ],
)
def test_law_8_the_counts_of_chrf_are_those_of_sacrebleu(options):
    texts = ["", " ", "a", "a" * 30, "b" * 9, "(a) b! a", "aa", *draw_texts(200)]
    references = [tuple(texts[place + step] for step in range(place % 4 + 1)) for place in range(len(texts) - 4)]
    for predictions in ([answers[-1] for answers in references], texts[:3:-1], ["a" * 30] * len(references)):
        found = CHRF(**options).per_example(predictions, references)
        scorer = sacrebleu.metrics.CHRF(**options)
        composed = [[unicodedata.normalize("NFC", answer) for answer in answers] for answers in references]
        rows = scorer._extract_corpus_statistics(
            [unicodedata.normalize("NFC", each) for each in predictions], [*zip_longest(*composed)]
        )
        assert found.rows.tolist() == rows
        assert found.per_example == tuple(scorer._compute_score_from_stats(row).score for row in rows)
        assert found.value == scorer._aggregate_and_compute(rows).score
        assert found.signature.startswith(f"{scorer.get_signature()}|")


@pytest.mark.parametrize(("metric", "options"), SACREBLEU_OPTIONS)
def test_summed_statistics_give_the_score_of_the_corpus(metric, options):
    statistics = metric(**options).per_example(PREDICTIONS, REFERENCES)
    total = statistics.rows.sum(axis=0)
    assert statistics.score_sums(total) == pytest.approx(statistics.value, abs=1e-12)
    assert statistics.score_sums(statistics.rows).shape == (4,)


@pytest.mark.parametrize(
    ("metric", "by_hand"),
    [
        (BLEU(), sacrebleu.metrics.BLEU(effective_order=True)),
        (CHRF(), sacrebleu.metrics.CHRF()),
        (TER(), sacrebleu.metrics.TER()),
    ],
)
def test_the_value_beside_an_example_is_the_sentence_score(metric, by_hand):
    expected = tuple(by_hand.sentence_score(*pair).score for pair in zip(PREDICTIONS, REFERENCES, strict=True))
    assert score(metric, PREDICTIONS, REFERENCES, seed=0).per_example == expected


@pytest.mark.parametrize(
    ("metric", "ending"),
    [
        (BLEU(), "tok:13a|smooth:exp|version:2.6.0|unicode:nfc"),
        (BLEU(max_ngram_order=2), "tok:13a|smooth:exp|version:2.6.0|unicode:nfc|ngram:2"),
        (CHRF(), "nc:6|nw:0|space:no|version:2.6.0|unicode:nfc"),
        (CHRF(beta=3), "nc:6|nw:0|space:no|version:2.6.0|unicode:nfc|beta:3"),
    ],
)
def test_a_signature_also_names_the_options_sacrebleu_leaves_out(metric, ending):
    ending = ending.replace("2.6.0", sacrebleu.__version__)
    signature = score(metric, ["a b"], [["a b"]], seed=0).signature
    assert signature.startswith("nrefs:1|")
    assert signature.endswith(ending)


def test_right_answers_of_three_tokens_need_effective_order_for_bleu():
    corpus = (["in the north", "by the sea"], [["in the north"], ["by the sea"]])
    assert score(BLEU(), *corpus, seed=0).value == 0.0
    assert score(BLEU(), *corpus, seed=0).per_example == pytest.approx((100.0, 100.0))
    assert score(BLEU(effective_order=True), *corpus, seed=0).value == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("unit", "prediction", "references", "expected"),
    [
        ("1", "The cat lay on a mat.", ["the cat sat on the mat"], 4 / 6),  # the, cat, on, mat
        ("2", "The cat lay on a mat.", ["the cat sat on the mat"], 1 / 5),  # the cat
        ("l", "On a mat lay the cat.", ["the cat sat on the mat"], 2 / 6),  # the cat, or: on mat
        ("1", "a dog", ["the cat sat on the mat", "a dog barks"], 4 / 5),
        ("1", "", ["a dog barks"], 0.0),
        ("2", "dog", ["dog"], 0.0),
        ("1", "cats", ["cat"], 0.0),
    ],
)
def test_rouge_compares_with_the_best_reference(unit, prediction, references, expected):
    found = score(Rouge(unit), [prediction, "a b"], [references, ["a b"]], seed=0)
    assert found.per_example == pytest.approx((expected, 1.0))
    assert found.value == pytest.approx((expected + 1) / 2)
    assert (found.metric, found.higher_is_better) == (f"rouge_{unit}", True)


def test_rouge_says_by_its_signature_whether_it_stems():
    stemmed = score(Rouge("1", stemmer=True), ["cats"], [["cat"]], seed=0)
    assert (stemmed.value, stemmed.signature) == (1.0, "rouge_1|stems:yes|refs:best|version:0.1.2")


def test_rouge_warns_of_references_that_it_cannot_read(caplog):
    errors.warn_once.cache_clear()
    Rouge().check_references([["a"], ["b", "红苹果。"]])
    assert caplog.messages == [
        "rouge_l: 1 of 3 references have neither a letter from a to z nor a digit, and ROUGE counts nothing else: chrf "
        "compares all characters"
    ]
    with pytest.raises(ConfigError, match="unit=3: must be one of 1, 2, l"):
        Rouge("3")


CHINESE = (["我喜欢红苹果。", "他去了北京。"], [["我喜欢绿苹果。"], ["他去了北京。"]])
JAPANESE = (
    ["私はりんごが好きです。", "昨日、東京に行きました。"],
    [["私はりんごが好きです。"], ["昨日、東京に着きました。"]],
)
THAI = (["ฉันชอบแอปเปิล", "เขาไปกรุงเทพ"], [["ฉันชอบแอปเปิล"], ["เขามากรุงเทพ"]])
KOREAN = (["나는 사과를 정말 좋아해요."], [["나는 사과를 정말 좋아해요."]])


@pytest.mark.parametrize(
    ("corpus", "tokenizer"), [(CHINESE, "zh"), (JAPANESE, "char"), (THAI, "char"), (KOREAN, "13a")]
)
def test_bleu_cuts_into_tokens_by_what_the_references_are_written_in(corpus, tokenizer):
    predictions, references = corpus
    found = score(BLEU(), predictions, references, seed=0)
    assert f"|tok:{tokenizer}|" in found.signature
    assert found.value == score(BLEU(tokenize=tokenizer), predictions, references, seed=0).value > 40
    everything = [answers[0] for answers in references]
    assert score(BLEU(), everything, references, seed=0).value == pytest.approx(100)
    other = score(BLEU(), ["in English"] * len(references), references, seed=0)  # what is predicted changes nothing
    assert other.signature == found.signature


@pytest.mark.parametrize(
    ("metric", "corpus", "num_edits", "num_words", "ending"),
    [
        (TER(), CHINESE, 1, 13, "norm:yes|punct:yes|asian:yes|version:2.6.0|unicode:nfc"),
        (TER(), JAPANESE, 1, 23, "norm:no|punct:yes|asian:no|version:2.6.0|unicode:nfc|split:char"),
        (TER(), THAI, 2, 25, "norm:no|punct:yes|asian:no|version:2.6.0|unicode:nfc|split:char"),
        (TER(), KOREAN, 0, 4, "norm:no|punct:yes|asian:no|version:2.6.0|unicode:nfc"),
        # a sentence is one word, without Chinese full stops and commas
        (TER(False, no_punct=True), CHINESE, 1, 2, "norm:no|punct:no|asian:yes|version:2.6.0|unicode:nfc"),
    ],
)
def test_ter_counts_characters_where_no_spaces_separate_words(metric, corpus, num_edits, num_words, ending):
    found = score(metric, *corpus, seed=0)
    assert found.value == pytest.approx(100 * num_edits / num_words)
    assert found.signature.endswith(ending.replace("2.6.0", sacrebleu.__version__))


def test_a_few_chinese_characters_make_no_chinese_corpus():
    references = [["Beijing (北京) lies in the north of China."], ["It was late."], ["东京"]]
    assert "|tok:13a|" in score(BLEU(), ["a", "b", "c"], references, seed=0).signature
    assert "|tok:zh|" in score(BLEU(), ["a", "b"], [["我用 GitHub Copilot"], ["OK"]], seed=0).signature


@pytest.mark.parametrize(
    ("metric", "corpus", "advice"),
    [
        (BLEU(), CHINESE, None),
        (BLEU(tokenize="char"), CHINESE, None),
        (BLEU(tokenize="13a"), CHINESE, "bleu: 2 of 2 references … set tokenize to zh"),
        (BLEU(tokenize="zh"), JAPANESE, "bleu: 2 of 2 references … set tokenize to char"),
        (BLEU(), (None, [["东京"], ["It is."], ["No."]]), "bleu: 1 of 3 references … set tokenize to zh"),
        (BLEU(tokenize="13a"), KOREAN, None),
        (TER(), THAI, None),
        (TER(normalized=True), CHINESE, None),
        (TER(normalized=False), CHINESE, "ter: 2 of 2 references … set normalized and asian_support to true"),
        (TER(normalized=True), THAI, "ter: 2 of 2 references … leave normalized at null"),
        (TER(), (None, [["ไทย"], ["It is."], ["No."]]), "ter: 1 of 3 references … chrf compares characters"),
        (CHRF(), CHINESE, None),
        (CHRF(word_order=2), THAI, "chrf: 2 of 2 references … set word_order to 0"),
        (TokenF1(), JAPANESE, "token_f1: 2 of 2 references … chrf compares characters"),
        (TokenF1(), KOREAN, None),
    ],
)
def test_a_metric_of_words_warns_of_references_without_spaces(metric, corpus, advice, caplog):
    errors.warn_once.cache_clear()
    metric.check_references(corpus[1])
    metric.check_references(corpus[1])
    middle = " are written without spaces between words, and each counts as one word:"
    assert caplog.messages == ([] if advice is None else [advice.replace(" …", middle)])


@pytest.mark.parametrize(
    ("metric", "references", "longest"),
    [
        (BLEU(), [["Paris"], ["New York", "It is."]], 3),
        (BLEU(), [["Paris"], ["It is one."]], None),
        (BLEU(), [["东京"]], 2),
        (BLEU(effective_order=True), [["Paris"]], None),
        (BLEU(max_ngram_order=1), [["Paris"]], None),
    ],
)
def test_bleu_warns_of_references_that_are_all_too_short(metric, references, longest, caplog):
    errors.warn_once.cache_clear()
    metric.check_references(references)
    sentence = (
        f"bleu: no reference has 4 tokens (the longest has {longest}), so even correct answers score 0: "
        "set effective_order to true, or use chrf"
    )
    assert caplog.messages == ([sentence] if longest else [])


@pytest.mark.parametrize("metric", [BLEU(effective_order=True), CHRF(), CHRF(word_order=2), TER(normalized=True)])
def test_composed_and_decomposed_strings_are_one_for_translations(metric):
    composed, decomposed = "Crème brûlée à côté", "Cre\u0300me bru\u0302le\u0301e a\u0300 co\u0302te\u0301"
    right = score(metric, [composed], [[composed]], seed=0).value
    assert score(metric, [composed], [[decomposed]], seed=0).value == right
    assert score(metric, [decomposed], [[composed]], seed=0).value == right


@pytest.mark.parametrize(
    ("options", "prediction", "references", "expected"),
    [
        ({}, "Paris", ["Paris"], 1.0),
        ({}, "Paris", ["Lyon", "Paris"], 1.0),
        ({}, "  New \n York ", ["New York"], 1.0),
        ({}, "Paris, France", ["Paris"], 0.0),
        ({}, "Par", ["Paris"], 0.0),
        ({}, "", ["Paris"], 0.0),
        ({}, "paris", ["Paris"], 0.0),
        ({"ignore_case": True}, "paris", ["PARIS"], 1.0),
        ({}, "Paris.", ["Paris"], 0.0),
        ({"ignore_punctuation": True}, "Paris.", ["Paris"], 1.0),
        ({"ignore_punctuation": True}, "¿«Qué» … es?¡", ["Qué es"], 1.0),
        ({"ignore_punctuation": True}, "$5", ["5"], 1.0),
        ({"ignore_punctuation": True}, "5€", ["5"], 0.0),
        ({"ignore_numbers": True}, "room 12", ["room 7"], 1.0),
        # What would leave nothing is not applied.
        ({"ignore_punctuation": True}, "", ["] )"], 0.0),
        ({"ignore_punctuation": True}, "( (", ["] )"], 0.0),
        ({"ignore_punctuation": True}, " ]  )\n", ["] )"], 1.0),
        ({"ignore_punctuation": True}, "-", ["+"], 0.0),
        ({"ignore_punctuation": True}, "？", ["！"], 0.0),
        ({"ignore_punctuation": True}, "?", ["?", "question mark"], 1.0),
        ({"ignore_punctuation": True}, "\u200b", ["?"], 0.0),
        ({"ignore_punctuation": True}, "", [""], 1.0),
        ({"ignore_punctuation": True}, "?", [""], 0.0),
        ({"ignore_numbers": True}, "12", ["7"], 0.0),
        ({"ignore_numbers": True, "ignore_punctuation": True}, "(12)", ["12."], 1.0),
        ({"ignore_numbers": True, "ignore_punctuation": True}, "(12)", ["(7)"], 0.0),
        ({"regexes_to_ignore": ["^(a|the)"]}, "the", ["a"], 0.0),
        # Unicode
        ({}, "cafe\u0301", ["café"], 1.0),
        ({"regexes_to_ignore": ["cafe\u0301 "]}, "café noir", ["noir"], 1.0),
        ({}, "한국", ["\u1112\u1161\u11ab\u1100\u116e\u11a8"], 1.0),
        ({}, "Par\u00adis\u200b", ["\ufeffParis"], 1.0),
        ({}, "❤\ufe0f", ["❤"], 1.0),
        ({}, "👨\u200d👩\u200d👧", ["👨👩👧"], 0.0),
        ({}, "👍", ["👎"], 0.0),
        ({}, "room 12", ["room 7"], 0.0),
        ({"regexes_to_ignore": [r"\(.*?\)", "^the "]}, "the king (1801)", ["king"], 1.0),
        # Regexes see the text before its case is lost; evaluate's own exact_match has the same order.
        ({"regexes_to_ignore": ["A"], "ignore_case": True}, "Axa", ["xa"], 1.0),
        ({"regexes_to_ignore": ["a"], "ignore_case": True}, "Ax", ["x"], 0.0),
    ],
)
def test_exact_match(options, prediction, references, expected):
    assert score(ExactMatch(**options), [prediction], [references], seed=0).value == expected


# The filters of lm-evaluation-harness for GSM8K, and its regexes for both sides.
STRICT = {"variant": "strict", "extract": r"#### (\-?[0-9\.\,]+)"}
FLEXIBLE = {"variant": "flexible", "extract": r"(-?[$0-9.,]{2,})|(-?[0-9]+)", "select": "last"}
IGNORED = {"ignore_case": True, "regexes_to_ignore": [",", r"\$", r"(?s).*#### ", r"\.$"]}


def test_what_is_extracted_does_not_depend_on_invisible_characters_and_composition():
    metric = ExactMatch(extract="r\u00e9ponse est (.*)")
    for prediction in ("r\u00e9ponse est 4", "re\u0301ponse est 4", "r\u00e9ponse\u200b est 4"):
        found = score(metric, [prediction], [["4"]], 0)
        assert (found.value, found.unparsed) == (1.0, 0)


def test_one_completion_is_scored_strictly_and_flexibly():
    completions = [
        "3 * 400 = 1,200 eggs.\n#### 1,200",
        "It is $18.",
        "#### 12\nNo: #### 18",
        "eighteen",
        "#### .",
    ]
    references = [["so\n#### 1200"], ["18"], ["#### 18"], ["18"], ["18"]]
    strict, flexible = (
        score(ExactMatch(**options, **IGNORED), completions, references, 0) for options in (STRICT, FLEXIBLE)
    )
    assert (strict.metric, strict.per_example, strict.unparsed) == ("exact_match_strict", (1, 0, 0, 0, 0), 2)
    assert (flexible.metric, flexible.per_example, flexible.unparsed) == ("exact_match_flexible", (1, 1, 1, 0, 0), 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"extract": "("},
            "extract: '(' is not a regular expression: missing ), unterminated subpattern at position 0",
        ),
        ({"select": "last"}, "select=last: has no effect without extract"),
        ({"select": "best", "extract": "a"}, "select=best: must be one of first, last"),
        ({"variant": "a b"}, "variant='a b': must consist of letters, digits, '_' and '-'"),
    ],
)
def test_an_extraction_that_makes_no_sense_is_one_sentence(options, message):
    with pytest.raises(ConfigError) as error:
        ExactMatch(**options)
    assert str(error.value) == message


def test_the_signature_of_exact_match_names_its_options():
    corpus = (["a"], [["a"]])
    found = score(ExactMatch(ignore_case=True, ignore_punctuation=True), *corpus, seed=0)
    assert found.signature == (
        f"exact_match|case:ignored|punct:ignored|numbers:kept|regexes:0|version:{icl_eval.__version__}"
    )
    one, other = (score(ExactMatch(regexes_to_ignore=[r]), *corpus, seed=0).signature for r in ("b", "c"))
    assert "|regexes:1#" in one
    assert one != other
    first, last = (ExactMatch(extract="a", select=select) for select in ("first", "last"))
    assert "|extract:first#" in score(first, *corpus, seed=0).signature
    assert (
        score(first, *corpus, seed=0).signature.replace(":first#", ":last#") == score(last, *corpus, seed=0).signature
    )


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("the cat", ["Cat!"], 1.0),
        ("a black cat", ["the white cat"], 0.5),
        ("a black cat", ["the white cat", "a small black cat"], 0.8),
        ("cat cat cat", ["cat dog"], 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)),
        ("cat cat", ["cat cat dog"], 0.8),
        ("dog", ["cat"], 0.0),
        ("", ["cat"], 0.0),
        ("", [""], 1.0),
        ("", ["", "cat"], 0.0),  # an empty reference counts where there is no other
        ("cat", [""], 0.0),
        # answers of which normalization leaves nothing
        ("", ["?"], 0.0),
        ("?", ["?"], 1.0),
        ("? \n", [" ?"], 1.0),
        ("!", ["?"], 0.0),
        ("] )", ["] ]"], 0.5),
        ("( (", ["] )"], 0.0),
        ("the", ["A"], 0.0),
        ("a.", ["A"], 1.0),
        ("(A)", ["A"], 1.0),
        ("A cat", ["A"], 0.0),
        ("the", ["the", "cat"], 1.0),
        ("", ["The!", "cat"], 0.0),
        ("\u200b\ufeff", ["the", "?"], 0.0),
        ("cat", ["the", "?"], 0.0),
        # Unicode
        ("cafe\u0301", ["café"], 1.0),
        ("J\u030c", ["\u01f0"], 1.0),  # only the small letter has a composed form
        ("❤\ufe0f", ["❤"], 1.0),
        ("cat", ["the", "cat"], 1.0),
        ("anthem", ["them"], 0.0),
    ],
)
def test_token_f1(prediction, references, expected):
    assert score(TokenF1(), [prediction], [references], seed=0).value == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("42", "42"),
        (" 42. ", "42"),
        ("1,000", "1000.0"),
        ("1,234,567.50", "1234567.5"),
        ("$1,000", "1000"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("−5", "-5"),
        ("+5", "5"),
        ("€ 3.50", "3.5"),
        ("25%", "25"),
        ("3/4", "0.75"),
        ("-3/4", "-.75"),
        ("007", "7"),
        ("-0", "0"),
        ("0.1", "1/10"),
        ("1,000/3", "1000/3"),
    ],
)
@pytest.mark.parametrize("extraction", ["strict", "flexible"])
def test_equal_numbers_match_however_they_are_written(extraction, prediction, reference):
    found = score(NumericMatch(extraction), [prediction], [["9", reference]], seed=0)
    assert (found.value, found.unparsed) == (1.0, 0)


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("Six and six make 12.\n#### 12", "12", "12"),
        ("#### 12\n\nQuestion: what is 3 + 4?\n#### 7", "12", "7"),
        ("The answer is 5 a box.\n#### 20", "20", "20"),
        ("So the Answer is: $1,200.", "1200", "1200"),
        ("the answer is -7 because 3 < 10", "-7", "10"),
        ("the answer is 42 km", "42", "42"),
        ("the answer is 1,00", None, None),
        ("the answer is 42nd", None, "42"),
        ("the answer is 4.5km", None, "4.5"),
        ("the answer is not 42", None, "42"),
        ("42 apples", None, "42"),
        ("about 3 or 4", None, "4"),
        ("x=-3", None, "-3"),
        ("10-3", None, None),
        ("covid-19", None, "19"),
        ("1,2345", None, None),
        ("1234,567", None, None),
        ("12/05/2021", None, None),
        ("3/0", None, None),
        ("1e5", "100000", "100000"),
        ("--5", None, "-5"),
        ("", None, None),
        ("-", None, None),
        ("no idea", None, None),
        ("٤٢", "42", "42"),
        ("４２", "42", "42"),
        ("²", None, None),
        ("NaN", None, None),
        ("9" * 5000, None, None),
    ],
)
def test_what_counts_as_the_number_of_a_text(text, strict, flexible):
    for extraction, expected in (("strict", strict), ("flexible", flexible)):
        found = score(NumericMatch(extraction), [text], [[expected or "0"]], seed=0)
        assert (found.value, found.unparsed) == ((0.0, 1) if expected is None else (1.0, 0)), extraction


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        # as in GSM8K
        ("#### 72", "72", "72"),
        ("#### $1,234.50", "1234.5", "1234.5"),
        ("72.", "72", "72"),
        ("18%", "18", "18"),
        ("**18**", None, "18"),
        ("#### 18\n\n3 apples", "18", "3"),
        ("16 - 3 - 4 = <<16-3-4=9>>9 eggs, 9 * 2 = $<<9*2=18>>18 in all\n#### 18", "18", "18"),
        ("from 3 to 5", None, "5"),
        ("It costs 5 a day, 3-5 days", None, None),
        ("the answer is 5, as 2 + 3 is", "5", None),
        ("the answer is 5 (2 + 3)", "5", None),
        # digits in groups
        ("The answer is 1 000.", "1000", "1000"),
        ("#### 12 345", "12345", "12345"),
        ("1\u2009234\u202f567\u00a0890.5", "1234567890.5", "1234567890.5"),
        ("#### 12 34", None, "34"),
        ("1 0000", None, "0"),
        ("2020 100", None, "100"),
        ("the answer is 1 000 5", None, "5"),
        ("3,14", None, None),
        ("1.000.000", "1000000", "1000000"),
        ("€1.234,50", "1234.5", "1234.5"),
        ("1 000,5", "1000.5", "1000.5"),
        ("1'000", "1000", "1000"),
        ("1_000", None, None),
        ("1{,}000", "1000", "1000"),
        (r"10,\!000", "10000", "10000"),
        # exponents
        ("1.5e3", "1500", "1500"),
        ("the answer is -2E-3 m", "-0.002", "-0.002"),
        ("1e+2", "100", "100"),
        ("1e1000", None, None),
        ("1e999999999", None, None),
        ("1e5.5", None, None),
        ("the answer is 2 × 10^3", "2000", "2000"),
        ("the answer is 6.02 x 10**23", "602" + "0" * 21, "602" + "0" * 21),
        (r"the answer is 2 \times 10^{-3}", "0.002", "0.002"),
        ("10³", None, None),
        ("25 cm²", None, "25"),
        # signs
        ("–5", "-5", "-5"),
        ("the answer is –5", "-5", "-5"),
        ("3–5", None, None),
        ("(5)-3", None, None),
        ("20%-3", None, None),
        # fractions
        ("answer is 3 1/2", "3.5", "3.5"),
        ("-3 1/2", "-3.5", "-3.5"),
        ("12 000 1/2", "12000.5", "12000.5"),
        ("1,000 3/4", "1000.75", "1000.75"),
        ("1 000/8", "125", "125"),
        ("3 5/2", None, None),
        ("3 1/0", None, None),
        ("3 ½", "3.5", "3.5"),
        ("the answer is 3 ½", "3.5", "3.5"),
        (r"\frac{1}{2}", "0.5", "0.5"),
        (r"the answer is 3\frac{1}{2}", "3.5", "3.5"),
        ("on 3 1/2/2021", None, None),
        # what is more than one number
        ("answer is 5 - 3", None, None),
        ("answer is 5 * (2 + 1)", None, None),
        ("#### 5 ** 3", None, None),
        ("#### 6 / $2", None, None),
        ("answer is 3:00", None, None),
        ("answer is 1/0, so 7", None, "7"),
        ("version 1.5.2", None, None),
        ("5, then 3,14", None, None),
    ],
)
def test_no_piece_of_a_number_is_read_as_one(text, strict, flexible):
    for extraction, expected in (("strict", strict), ("flexible", flexible)):
        found = score(NumericMatch(extraction), [text], [[expected or "0"]], seed=0)
        assert (found.value, found.unparsed) == ((0.0, 1) if expected is None else (1.0, 0)), extraction


@pytest.mark.parametrize(
    "text",
    [
        "1 111" * 20_000,
        "1 " * 50_000,
        "1 111 " * 20_000 + "x",
        "#### 1 1/1/" * 10_000,
        "answer is 1" + " -" * 50_000,
        "1e" * 50_000,
        "1^" * 50_000,
        "9" * 100_000,
        "1," + "111," * 25_000 + "1111",
        "1." * 50_000,
        "1/" * 50_000,
        "-" * 100_000,
        "$ " * 50_000,
        "#" * 100_000,
        "answer is" + " " * 100_000,
        "1" + " " * 100_000 + "x",
        "1" + ")" * 100_000,
        "(1" * 50_000,
        "1 x " * 25_000,
        "5 km + " * 15_000,
        "a_{" * 30_000,
        "\\boxed{1" * 15_000,
        "\\sqrt{" * 20_000,
        "\\frac{{{1}" * 10_000,
    ],
    ids=lambda text: text[:12],
)
@pytest.mark.parametrize("extraction", ["strict", "flexible"])
def test_hostile_texts_take_linear_time(extraction, text):
    start = time.perf_counter()
    score(NumericMatch(extraction), [text], [["42"]], seed=0)
    assert time.perf_counter() - start < 10  # a quadratic pattern takes minutes


def test_predictions_without_a_number_score_zero_and_are_counted():
    found = score(NumericMatch("strict"), ["4", "four", "", "5"], [["4"], ["4"], ["0"], ["4"]], seed=0)
    assert found.value == 0.25
    assert found.unparsed == 2
    assert found.per_example == (1.0, 0.0, 0.0, 0.0)
    assert found.signature == f"numeric_strict|extraction:strict|version:{icl_eval.__version__}"


@pytest.mark.parametrize("reference", ["four", "", "3/0", "4 apples", "the answer is 4"])
def test_a_reference_that_is_no_number_is_named(reference):
    with pytest.raises(DataError, match=f"reference {reference!r} of example 2 is not a number") as error:
        score(NumericMatch(), ["4", "4"], [["4"], ["4", reference]], seed=0)
    assert "\n" not in str(error.value)


ALL = [BLEU(), CHRF(), TER(), ExactMatch(), TokenF1(), NumericMatch("strict"), NumericMatch("flexible")]
ALL += [Rouge("1"), Rouge("2"), Rouge("l")]
NAMES = ["bleu", "chrf", "ter", "exact_match", "token_f1", "numeric_strict", "numeric_flexible"]
NAMES += ["rouge_1", "rouge_2", "rouge_l"]
NUMBERS = (["4", "5 or 6", "", "a 7", "8", "9"], [["4"], ["6", "5"], ["1"], ["7"], ["1"], ["9"]])


def test_metrics_know_their_names_and_their_direction():
    assert [metric.name for metric in ALL] == NAMES
    assert [metric.name for metric in ALL if not metric.higher_is_better] == ["ter"]


@pytest.mark.parametrize("metric", ALL, ids=NAMES)
def test_a_score_holds_plain_floats_around_its_value(metric):
    found = score(metric, *NUMBERS, seed=1)
    assert (found.metric, found.higher_is_better) == (metric.name, metric.higher_is_better)
    is_zero = metric.name in ("bleu", "rouge_2")  # short answers, so that nothing matches
    numbers = (found.value, *(found.ci95 or ()), *found.per_example, *([] if is_zero else [found.stderr]))
    assert {type(number) for number in numbers} == {float}
    assert (found.stderr is None, found.ci95 is None) == (is_zero, metric.name == "bleu")
    assert found.stderr is None or found.stderr > 0
    low, high = found.ci95 or (0.0, 0.0)
    assert low <= found.value <= high
    assert len(found.per_example) == 6
    assert (found.unparsed is not None) == metric.name.startswith("numeric")


@pytest.mark.parametrize("metric", ALL, ids=NAMES)
def test_the_order_of_examples_changes_nothing(metric):
    forwards = score(metric, *NUMBERS, seed=1)
    backwards = score(metric, *(list(reversed(column)) for column in NUMBERS), seed=1)
    assert replace(backwards, per_example=backwards.per_example[::-1]) == forwards


def test_the_order_of_examples_does_not_change_the_rounding_of_a_mean():
    assert {mean_statistics(values, "").value for values in permutations([0.1, 0.2, 0.3, 0.7])} == {0.325}


@pytest.mark.parametrize("metric", ALL, ids=NAMES)
def test_metrics_work_as_plain_evaluate_metrics(metric):
    result = metric.compute(predictions=NUMBERS[0], references=NUMBERS[1])
    assert result == {metric.name: score(metric, *NUMBERS, seed=0).value}
    metric.add_batch(predictions=["4"], references=[["4"]])
    assert metric.compute().keys() == {metric.name}


def test_metrics_leave_nothing_on_disk(tmp_path, monkeypatch):
    import evaluate

    cache, temporary = tmp_path / "cache", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", cache)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    ExactMatch().compute(predictions=["a"], references=[["a"]])
    assert not cache.exists()
    assert list(temporary.iterdir()) == []


def test_a_single_example_has_no_interval():
    found = score(ExactMatch(), ["a"], [["a"]], seed=0)
    assert (found.value, found.stderr, found.ci95) == (1.0, None, None)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([], [], "nothing to score"),
        (["a"], [["a"], ["b"]], "1 predictions but 2 lists of references"),
        (["a", "b"], [["a"], []], r"example 2 of 2 has the references \[\]; must be a list of one or more strings"),
        (["a"], ["abc"], "example 1 of 1 has the references 'abc'; must be a list"),
    ],
)
def test_a_corpus_with_gaps_is_refused(predictions, references, message):
    with pytest.raises(DataError, match=message):
        score(BLEU(), predictions, references, seed=0)


def test_evaluate_refuses_an_empty_corpus_too():
    with pytest.raises(DataError, match="nothing to score"):
        ExactMatch().compute(predictions=[], references=[])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BLEU(tokenize="13b"), "tokenize=13b: must be one of auto, 13a, char,"),
        (
            lambda: BLEU(smooth_method="x"),
            "smooth_method=x: must be one of add-k, exp,",
        ),
        (lambda: BLEU(smooth_value=0.1), "smooth_value=0.1: has no effect with smooth_method=exp"),
        (lambda: BLEU(smooth_method="floor", smooth_value=-1), "must be greater than 0"),
        (
            lambda: BLEU(smooth_method="floor", smooth_value=float("nan")),
            "^smooth_value=nan: must be greater than 0 and at",
        ),
        (lambda: BLEU(smooth_method="add-k", smooth_value=1e300), "at most 100$"),
        (lambda: BLEU(max_ngram_order=0), "^max_ngram_order=0: must be a whole number from 1 to 20$"),
        (lambda: BLEU(max_ngram_order=10**9), "^max_ngram_order=1000000000: must be a whole number from 1 to 20$"),
        (lambda: BLEU(max_ngram_order=True), "^max_ngram_order=True: must be a whole number from 1 to 20$"),
        (lambda: CHRF(char_order=0), "^char_order=0: must be a whole number from 1 to 20$"),
        (lambda: CHRF(char_order=10**9), "^char_order=1000000000: must be a whole number from 1 to 20$"),
        (lambda: CHRF(word_order=-1), "^word_order=-1: must be a whole number from 0 to 20$"),
        (lambda: CHRF(beta=10**400), "must be a whole number from 0 to 100$"),
        (lambda: CHRF(beta=2.5), "^beta=2.5: must be a whole number from 0 to 100$"),
        (lambda: TER(asian_support=True), "no effect without normalized=true or no_punct=true"),
        (lambda: ExactMatch(regexes_to_ignore=["a", "("]), r"regexes_to_ignore: '\(' is not a regular"),
        (lambda: ExactMatch(regexes_to_ignore=[5]), "5 is not a regular expression"),
        (lambda: ExactMatch(regexes_to_ignore=["a{" + "9" * 20 + "}"]), "is not a regular expression: the repetition"),
        (lambda: ExactMatch(regexes_to_ignore=["(" * 9999]), "is not a regular expression: "),
        (lambda: ExactMatch(regexes_to_ignore="abc"), "regexes_to_ignore='abc': must be a list"),
        (lambda: NumericMatch("last"), "extraction=last: must be one of flexible, strict"),
    ],
)
def test_a_bad_option_is_one_sentence(build, message):
    with pytest.raises(ConfigError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (5, "^metrics.own=5: must be a mapping whose _target_ is a class of icl_eval.metrics: "),
        ([1], "^metrics.own=.*: must be a mapping whose _target_ is a class of icl_eval.metrics: "),
        (
            {"_target_": "icl_eval.metrics.postprocessing.Strip"},
            "^metrics.own._target_=icl_eval.metrics.postprocessing.Strip: must be a class",
        ),
        (
            {"_target_": "icl_eval.metrics.bleu.BLEU", "tokenize": "a\nb"},
            r"^metrics.own.tokenize='a\\nb': must be one of",
        ),
        (
            {"_target_": "icl_eval.metrics.hub.HubMetric", "name": "a" * 300, "trust_remote_code": True},
            "^metrics.own.name='a*': neither the name of a metric",
        ),
        (
            {"_target_": "icl_eval.metrics.hub.HubMetric", "name": "a\nb", "trust_remote_code": True},
            r"^metrics.own.name='a\\nb': neither the name of a metric",
        ),
    ],
)
def test_what_is_no_metric_is_one_sentence(options, message):
    with pytest.raises(ConfigError, match=message) as error:
        build_metrics({"own": options}, "metrics")
    assert "\n" not in str(error.value)


def test_a_metric_script_gives_a_value_without_an_interval(script):
    found = score(HubMetric(script("shorter"), trust_remote_code=True), ["a", "b"], [["a"], ["c", "d"]], seed=0)
    assert (found.metric, found.value, found.stderr, found.ci95) == ("hub/shorter", 0.5, None, None)
    assert found.per_example == (None, None)
    assert found.signature.startswith("hub/shorter|key:share|script:")


def test_the_key_chooses_one_number_of_the_result(script):
    path = script("two", result='{"a": __import__("numpy").float32(0.5), "b": 2}')
    assert (
        score(HubMetric(path, trust_remote_code=True, key="b", higher_is_better=False), ["x"], [["x"]], seed=0).value
        == 2.0
    )
    assert type(score(HubMetric(path, trust_remote_code=True, key="a"), ["x"], [["x"]], seed=0).value) is float
    for key in (None, "c"):
        with pytest.raises(ConfigError, match=f"key={key} does not select a number in the result \\(it has: a, b"):
            score(HubMetric(path, trust_remote_code=True, key=key), ["x"], [["x"]], seed=0)


def test_a_script_with_one_reference_an_example_never_loses_the_others(script):
    metric = HubMetric(
        script("single", references="text", result='{"n": int(references == ["a", "b"])}'), trust_remote_code=True
    )
    assert score(metric, ["x", "y"], [["a"], ["b"]], seed=0).value == 1.0
    metric.check_references([["a"], ["b"]])
    for ask in (metric.check_references, lambda references: score(metric, ["x", "y"], references, seed=0)):
        with pytest.raises(DataError, match="accepts one reference per example, but example 2 has 2"):
            ask([["a"], ["b", "c"]])


def test_a_script_that_breaks_down_says_so(script):
    metric = HubMetric(script("mean", result='{"mean": 1 / len("".join(predictions))}'), trust_remote_code=True)
    assert score(metric, ["ab"], [["x"]], seed=0).value == 0.5
    with pytest.raises(ConfigError) as refused:
        score(metric, [""], [["x"]], seed=0)
    assert str(refused.value) == "hub/mean: cannot score these strings: division by zero"


def test_a_script_that_wants_no_text_says_so(script):
    path = script("labels", references='datasets.Value("int32")')
    with pytest.raises(ConfigError, match="hub/labels: cannot score these strings"):
        score(HubMetric(path, trust_remote_code=True), ["x"], [["y"]], seed=0)


def test_what_a_metric_cannot_compare_with_is_said_before_anything_is_decoded(
    script, icl_eval_command, gpt2, monkeypatch, tmp_path
):
    monkeypatch.setattr("icl_eval.decoding.engines.in_process.load_model", None)
    metric = [
        f"metrics.hub.name={script('single', references='text')}",
        "metrics=[hub]",
        "metrics.hub.trust_remote_code=true",
    ]
    outcome = icl_eval_command(
        f"model.source={gpt2}", "task=[qa]", "limit=2", "num_fewshot=0", *metric, "hydra.run.dir=run"
    )
    assert outcome.err == "icl-eval: hub/single: accepts one reference per example, but example 1 has 4\n"
    assert not (tmp_path / "run" / "samples_qa.jsonl").read_bytes()


def test_a_metric_that_cannot_be_loaded_fails_at_once_and_names_the_local_ones(script):
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=r"^name=no_such_metric: cannot be loaded") as error:
        HubMetric("no_such_metric", trust_remote_code=True)
    assert time.perf_counter() - start < 20
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(", ".join(sorted(NAMES)))


def test_a_folder_never_stands_in_for_a_metric_of_the_hub(script, tmp_path, monkeypatch):
    (tmp_path / "rouge").mkdir()
    script("rouge/rouge")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^name=rouge: ambiguous, a metric on the hub and a local folder"):
        HubMetric("rouge", trust_remote_code=True)


def test_there_is_one_file_for_each_metric():
    assert {path.stem for path in CONF.glob("*.yaml")} == {*NAMES, "hub"}


@pytest.mark.parametrize("name", NAMES)
def test_each_file_builds_the_metric_it_is_named_after(name):
    config = OmegaConf.load(CONF / f"{name}.yaml")
    assert list(config) == [name]
    assert hydra.utils.instantiate(config[name]).name == name


def test_the_hub_file_builds_a_script(script):
    config = OmegaConf.load(CONF / "hub.yaml")
    config.hub.name = script("built")
    config.hub.trust_remote_code = True
    assert hydra.utils.instantiate(config.hub).name == "hub/built"


def test_short_answers_are_compared_without_case_and_punctuation_by_default():
    metric = hydra.utils.instantiate(OmegaConf.load(CONF / "exact_match.yaml").exact_match)
    found = score(metric, ["paris."], [["Paris"]], seed=0)
    assert found.value == 1.0
    assert "|case:ignored|punct:ignored|numbers:kept|regexes:0|" in found.signature


def test_the_range_of_every_metric_is_known():
    assert set(METRICS.classes) - {"hub"} <= set(RANGES)


def test_references_that_have_the_same_in_common_with_a_prediction_are_scored_once(monkeypatch):
    metric, counts = CHRF(), []
    scored = metric._scorer._compute_f_score
    monkeypatch.setattr(metric._scorer, "_compute_f_score", lambda each: counts.append(each) or scored(each))
    metric._count_best("abc", ["abd", "xyz", "abe", "uvw", "abcd"])
    assert [each[2] for each in counts] == [2, 0, 3]


@pytest.mark.parametrize("num_repeated", [0, 1, 4, 5, 9])
def test_shared_parts_count_as_often_as_both_texts_have_them(num_repeated):
    first = [str(number) for number in range(12)] + [str(number) for number in range(num_repeated)] * 2
    other = [str(number) for number in range(2, 14)] * 2
    expected = sum((Counter(first) & Counter(other)).values())
    assert Parts(first).count_shared(other) == expected
