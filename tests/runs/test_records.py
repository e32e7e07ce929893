import dataclasses
import json
import re

import pytest
from sample_runs import FIRST, PARIS, SECOND

from icl_eval.errors import DataError
from icl_eval.runs.counts import count_records
from icl_eval.runs.records import (
    AnswerLikelihood,
    QuestionLikelihood,
    RecordLog,
    SampledCompletion,
    clusters_of,
    stream_records,
)
from icl_eval.runs.writing import write_whole

LINE = (
    '{"example_id": "qa-test-001", "doc": {"question": "Où ?"}, "targets": ["Paris", "à Paris"], "encoder": null, '
    '"decoder": "Q: Où ?\\nA:", "demonstration_ids": ["qa-pool-007"], "shots_requested": 2, "shots_effective": 1, '
    '"completion": " Paris\u2028\\r\\n\u0085😀", "prediction": "Paris", '
    '"metrics": {"exact_match": 1.0, "numeric_strict": null}, "prompt_tokens": 9, "completion_tokens": 3, '
    '"finish_reason": "eos", "prompt_hash": "0123456789abcdef", '
    '"demonstrations": [{"id": "qa-pool-007", "target": "Rom", "similarity": 0.25}], "likelihood": null, '
    '"stop_string": null, "samples": [], "cluster": null}\n'
)


def read_records(path):
    return list(stream_records(path))


def write(path, *records):
    log = RecordLog(path)
    for record in records:
        log.append(record)
    log.close()
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "samples_qa.jsonl"


@pytest.mark.parametrize("field", ['"likelihood": null', '"samples": []'])
def test_a_record_from_before_there_was_a_field_reads(path, field):
    path.write_text(LINE.replace(f", {field}", ""), encoding="utf-8")
    assert read_records(path) == [FIRST]


def test_records_without_prompts_are_the_others_but_for_these(path):
    write(path, FIRST, SECOND)
    left_out = {"encoder": None, "decoder": None, "demonstration_ids": (), "demonstrations": ()}
    expected = [dataclasses.asdict(dataclasses.replace(record, **left_out)) for record in (FIRST, SECOND)]
    assert FIRST.decoder
    assert FIRST.demonstrations
    assert [dataclasses.asdict(record) for record in stream_records(path, prompts=False)] == expected
    path.write_text(LINE.replace('"completion"', '"x"'), encoding="utf-8")
    with pytest.raises(DataError, match=r":1: not a record \(completion: Field required\)"):
        list(stream_records(path, prompts=False))


def test_a_record_of_several_samples_reads_back_and_lists_them_all(path):
    samples = tuple(SampledCompletion(f" {n}", f"{n}", 2, "stop", "\n") for n in range(3))
    record = dataclasses.replace(FIRST, samples=samples)
    assert read_records(write(path, record)) == [record]
    assert record.completions == samples
    assert FIRST.completions == (SampledCompletion(FIRST.completion, "Paris", 3, "eos", None),)


def test_a_record_is_one_line_that_reads_back(path):
    write(path, FIRST)
    assert path.read_bytes() == LINE.encode()
    assert read_records(path) == [FIRST]


def test_a_record_of_a_version_without_clusters_reads_back(path):
    path.write_text(LINE.replace(', "cluster": null', ""), encoding="utf-8")
    assert ', "cluster"' not in path.read_text(encoding="utf-8")
    assert read_records(path) == [FIRST]


def test_clusters_are_those_of_all_records_or_none():
    clustered = [dataclasses.replace(FIRST, cluster=name) for name in ("a", "b", "a")]
    assert clusters_of(clustered) == ("a", "b", "a")
    assert clusters_of([*clustered, FIRST]) is None


def test_a_record_with_a_number_that_json_has_no_word_for_is_not_written(path):
    broken = dataclasses.replace(PARIS, logprob=float("nan"))
    record = dataclasses.replace(SECOND, likelihood=QuestionLikelihood((PARIS, broken), (), None))
    place = "likelihood.references[1].logprob"
    message = f"qa-test-002: the record cannot be written ({place} is nan, which is not a finite number)"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        write(path, record)
    assert path.read_bytes() == b""


def test_a_record_is_on_disk_as_soon_as_it_is_appended(path):
    log = RecordLog(path)
    log.append(FIRST)
    assert read_records(path) == [FIRST]
    log.append(SECOND)
    assert read_records(path) == [FIRST, SECOND]
    log.close()


def test_law_3_a_log_goes_on_after_any_byte_that_it_was_cut_at(path):
    content = write(path, FIRST, SECOND).read_bytes()
    end_of_first = len(LINE.encode())
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        log = RecordLog(path)
        assert (
            list(log.records) == ["qa-test-001", "qa-test-002"][: (length >= end_of_first) + (length == len(content))]
        )
        for record in (FIRST, SECOND):
            if record.example_id not in log.records:
                log.append(record)
        log.close()
        assert path.read_bytes() == content


def test_the_later_of_two_records_of_one_example_counts(path):
    again = dataclasses.replace(FIRST, completion="London")
    assert RecordLog(write(path, FIRST, again)).records == {"qa-test-001": again}


def test_a_finished_log_holds_exactly_the_records_given_in_their_order(path):
    log = RecordLog(path)
    log.append(SECOND)
    log.append(FIRST)
    log.append(dataclasses.replace(FIRST, example_id="qa-test-099"))  # of a run without `limit`
    log.finish([FIRST, SECOND])
    log.close()
    assert read_records(path) == [FIRST, SECOND]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_log_is_replaced_at_once_or_not_at_all(path):
    def records():
        yield SECOND
        raise RuntimeError("a metric failed")

    log = RecordLog(write(path, FIRST))
    with pytest.raises(RuntimeError):
        log.finish(records())
    log.close()
    assert read_records(path) == [FIRST]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "the line: Invalid JSON: EOF while parsing a value at line 1 column 0"),
        ("[]", "the line: Input should be an object"),
        (LINE.replace('"prompt_tokens": 9, ', ""), "prompt_tokens: Field required"),
        (
            LINE.replace('"prompt_tokens": 9', '"prompt_tokens": "many"'),
            "prompt_tokens: Input should be a valid integer, unable to parse string as an integer",
        ),
        (LINE.replace('["Paris", "à Paris"]', "[1]"), "targets.0: Input should be a valid string"),
    ],
)
@pytest.mark.parametrize("read", [RecordLog, read_records])
def test_a_line_that_is_no_record_is_named(read, line, reason, path):
    path.write_text(LINE + line.rstrip("\n") + "\n" + LINE, encoding="utf-8")
    with pytest.raises(DataError) as error:
        read(path)
    assert str(error.value) == f"{path}:2: not a record ({reason})"
    assert path.stat().st_size > 2 * len(LINE)  # and nothing is cut off


def test_reading_does_not_mend(path):
    path.write_text(LINE + LINE[:30], encoding="utf-8")
    with pytest.raises(DataError, match=":2: not a record"):
        read_records(path)
    assert path.read_text(encoding="utf-8") == LINE + LINE[:30]


def test_a_record_of_before_demonstrations_were_shown_in_full_still_reads(tmp_path):
    path = tmp_path / "samples_qa.jsonl"
    path.write_text(LINE.replace(LINE[LINE.index(', "demonstrations"') : -2], ""), encoding="utf-8")
    assert read_records(path) == [dataclasses.replace(FIRST, demonstrations=())]


def test_a_line_is_the_json_of_all_fields_at_every_depth(path):
    answer = AnswerLikelihood("Paris", -0.1, 2, 5, None, True)
    record = dataclasses.replace(
        FIRST,
        samples=(SampledCompletion(" 1", "1", 2, "stop", "\n"),),
        likelihood=QuestionLikelihood((answer,), (answer, answer), ("N/A", "")),
    )
    write(path, record)
    assert path.read_text(encoding="utf-8") == json.dumps(dataclasses.asdict(record), ensure_ascii=False) + "\n"


def test_a_number_that_is_not_finite_is_named_by_its_place(path):
    answer = AnswerLikelihood("Paris", float("-inf"), 2, 5, None)
    record = dataclasses.replace(FIRST, likelihood=QuestionLikelihood((answer,), (), None))
    with pytest.raises(DataError, match=r"likelihood\.references\[0\]\.logprob is -inf, which is not a finite number"):
        write(path, record)


def test_a_failed_write_of_parts_leaves_the_file_and_nothing_else(path):
    def parts():
        yield "new"
        raise DataError("no more")

    path.write_text("old")
    with pytest.raises(DataError, match="no more"):
        write_whole(parts(), path)
    assert [each.read_text() for each in path.parent.iterdir()] == ["old"]
    write_whole(["a", "b"], path)
    assert path.read_text() == "ab"


def test_completions_that_say_nothing_are_counted_where_a_reference_says_something():
    nothing = {"completion": " \n", "prediction": "<think>", "finish_reason": "stop", "stop_string": "\n"}
    records = [
        FIRST,
        dataclasses.replace(FIRST, **nothing, shots_effective=0),
        dataclasses.replace(FIRST, **nothing, targets=("Paris", " ")),  # nothing is a right answer
        dataclasses.replace(FIRST, completion="", prediction="", finish_reason="undecoded", completion_tokens=0),
    ]
    found = count_records(records, prefix_tokens_reused=5, unparsed={"f1": 1})
    assert (found.empty, found.stopped_empty) == (1, {"\n": 1})
    assert found.finish_reasons == {"eos": 1, "stop": 2, "undecoded": 1}
    assert (found.shots_effective, found.unparsed) == ({"0": 1, "1": 3}, {"f1": 1})
    assert (found.prompt_tokens, found.completion_tokens, found.prefix_tokens_reused) == (36, 9, 5)
    unknown = dataclasses.replace(FIRST, prompt_tokens=None)
    assert count_records([FIRST, unknown], None, {}).prompt_tokens is None
