import csv
import json

import datasets
import pytest

from icl_eval.demonstrations.leaks import build_guard, find_duplicates
from icl_eval.errors import ConfigError, DataError
from icl_eval.tasks.examples import FieldMapping
from icl_eval.tasks.loading import Task, load_task
from icl_eval.tasks.rows import DataSource, Row, read_rows

ROW = '{"question": "q", "references": ["a"]}'


def load(pool, test, **fields):
    return load_task(
        "capitals",
        instruction="Name the capital.",
        labels={},
        pool=DataSource(str(pool)),
        test=DataSource(str(test)),
        fields={"question": "question", "references": "references"} | fields,
    )


def test_a_task_is_read_from_jsonl_and_csv_with_mapped_columns(tmp_path):
    pool = tmp_path / "pool.csv"
    pool.write_text('country,capital\r\nFrance,Paris\r\n"Korea, South",Seoul\r\n')
    test = tmp_path / "test.jsonl"
    test.write_text('\ufeff{"country": "Perú", "capital": "Lima", "id": 7}\n\n', encoding="utf-8")

    task = load(pool, test, question="country", references="capital")

    assert [(e.id, e.inputs, e.references) for e in task.pool] == [
        ("pool-0", {"question": "France"}, ("Paris",)),
        ("pool-1", {"question": "Korea, South"}, ("Seoul",)),
    ]
    assert [(e.id, e.inputs, e.references) for e in task.examples] == [("7", {"question": "Perú"}, ("Lima",))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "{path}: contains no rows"),
        (b"\n \n", "{path}: contains no rows"),
        (f"{ROW}\nnot json\n".encode(), "{path}:2: not JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"[1]\n", "{path}:1: a list, but every line must be a JSON object"),
        ('{"question": "caf\xe9"}'.encode("latin-1"), "{path}:1: not UTF-8 (byte 0xe9 at column 18)"),
        (
            b'{"question": "q"}\n',
            "{path}:1: field 'references': 'references' is undefined (the row has: question)",
        ),
        (b'{"question": 5, "references": ["a"]}', "{path}:1: field 'question' is a number, but must be a string"),
        (b'{"question": null, "references": ["a"]}', "{path}:1: field 'question' is null, but must be a string"),
        (b'{"question": NaN, "references": "a"}', "{path}:1: field 'question' is NaN, but must be a string"),
        (b'{"question": " ", "references": ["a"]}', "{path}:1: field 'question' is empty"),
        (
            rb'{"question": "cut \ud83d", "references": ["a"]}',
            r"{path}:1: field 'question' contains a lone surrogate ('\ud83d')",
        ),
        (b'{"question": "q", "references": []}', "{path}:1: field 'references' is an empty list"),
        (b'{"question": "q", "references": [1]}', "{path}:1: field 'references' is a number"),
        (b'{"question": "q", "references": {"a": 1}}', "{path}:1: field 'references' is an object"),
        (
            b'{"id": "x", "question": "q", "references": "a"}\n{"id": "x", "question": "r", "references": "a"}',
            "{path}:2: id 'x' is already the id of {path}:1",
        ),
        (b'{"id": [], "question": "q", "references": "a"}', "{path}:1: field 'id' is an empty list"),
        (b'{"id": true, "question": "q", "references": "a"}', "{path}:1: field 'id' is a boolean"),
        (
            b'{"question": "q", "references": "a", "x": {"y": 1, "y": 1}}',
            "{path}:1: the key 'y' occurs more than once; each name must have one value",
        ),
        (f"{ROW}\r{ROW}".encode(), "{path}:1: a carriage return (CR) within the line; lines must end in LF or CRLF"),
        (b"[" * 100_000, "{path}:1: JSON that is nested too deeply to be read"),
    ],
)
def test_a_bad_row_is_one_line_with_file_line_and_reason(tmp_path, content, message):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text(ROW)
    bad.write_bytes(content)

    with pytest.raises(DataError) as error:
        load(good, bad)

    assert str(error.value).startswith(message.format(path=bad))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("question,references\nonly one\n", "{path}:2: the number of values differs from the number of columns (2)"),
        ("question,references\na,b,c\n", "{path}:2: the number of values differs from the number of columns (2)"),
        ('question,references\n"a,b\n', "{path}:2: not CSV (unexpected end of data)"),
        ("question,references\n", "{path}: contains no rows"),
        ("a,b,a\n1,2,3\n", "{path}:1: the column 'a' occurs more than once; each name must have one value"),
        (
            "question,references\ra,b\r",
            "{path}:1: a carriage return (CR) within the line; lines must end in LF or CRLF, not in CR as on old Macs",
        ),
    ],
)
def test_a_bad_csv_file_is_one_line_with_file_line_and_reason(tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_text(content, newline="")
    with pytest.raises(DataError) as error:
        read_rows(DataSource(str(path)))
    assert str(error.value) == message.format(path=path)


def test_a_missing_file_and_a_data_set_without_split_are_named(tmp_path):
    with pytest.raises(DataError, match=r"/none\.jsonl: no such file$"):
        read_rows(DataSource(str(tmp_path / "none.jsonl")))
    with pytest.raises(DataError, match="'split' is missing"):
        read_rows(DataSource(str(tmp_path)))
    with pytest.raises(DataError, match="'name', 'split' and 'revision' are only for data sets, not for files"):
        read_rows(DataSource("x.csv", split="train"))


def test_an_expression_that_is_none_is_a_config_error():
    mapping = FieldMapping({"question": "a b", "references": "references"})
    with pytest.raises(ConfigError) as error:
        mapping.example(Row("here:1", {"a": "q", "references": "a"}), "0")
    assert str(error.value).startswith("fields.question: 'a b' is neither a column (the row has: a, references) nor")
    with pytest.raises(ConfigError, match="'references' is missing"):
        FieldMapping({"question": "question"})


def test_a_column_is_found_whatever_it_is_called():
    row = Row("here:1", {"The question?": "q", "a.b": "dotted", "a": {"b": "nested"}, "references": "a"})
    for expression, text in {
        "The question?": "q",
        "a.b": "dotted",
        "a['b']": "nested",
        "row['The question?'] ~ '!'": "q!",
    }.items():
        mapping = FieldMapping({"question": expression, "references": "references"})
        assert mapping.example(row, "0").inputs == {"question": text}


def test_parquet_files_are_read_as_they_are(tmp_path):
    path = tmp_path / "test.parquet"
    rows = [{"question": "q", "answers": ["a", "b"]}, {"question": "r", "answers": []}]
    datasets.Dataset.from_list(rows).to_parquet(str(path))
    assert read_rows(DataSource(str(path))) == [Row(f"{path}[{n}]", row) for n, row in enumerate(rows)]
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"test\.parquet: not Parquet \("):
        read_rows(DataSource(str(path)))
    with pytest.raises(DataError, match=r"none\.parquet: no such file$"):
        read_rows(DataSource(str(tmp_path / "none.parquet")))


CHOOSING = FieldMapping({"question": "question", "references": "references", "choices": "choices"})


def test_choices_are_a_list_and_may_be_the_same_for_every_row():
    row = Row("here:1", {"question": "q", "references": ["a", "x"], "choices": ["b", "a"]})
    assert CHOOSING.example(row, "0").choices == ("b", "a")
    labels = FieldMapping({"question": "question", "references": "references", "choices": "['yes', 'no', 'a']"})
    assert labels.example(row, "0").choices == ("yes", "no", "a")
    assert labels.example(row, "0").inputs == {"question": "q"}


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ("a", "is a str, but must be a list of two or more strings"),
        (["a"], "is a list, but must be a list of two or more strings"),
        (["a", 1], "is a number, but must be a string (references: a string or a list of strings)"),
        (["a", " "], "is empty"),
        (["a", "b", "a"], "contains 'a' twice"),
        (["b", "a", "b\n"], "contains 'b' and 'b\\n', which differ only in leading or trailing whitespace"),
        (["A", "b"], "contains no reference: none of ['a'] is in ['A', 'b']"),
    ],
)
def test_choices_that_are_none_are_one_line_with_the_reason(choices, reason):
    row = Row("here:1", {"question": "q", "references": "a", "choices": choices})
    with pytest.raises(DataError) as error:
        CHOOSING.example(row, "0")
    assert str(error.value) == f"here:1: field 'choices' {reason}"


def test_demonstrations_need_no_choices(tmp_path):
    pool, test = tmp_path / "pool.jsonl", tmp_path / "test.jsonl"
    pool.write_text('{"question": "q", "references": "a"}')
    test.write_text('{"question": "r", "references": "a", "choices": ["a", "b"]}')
    fields = {"question": "question", "references": "references", "choices": "choices"}
    sources = {"pool": DataSource(str(pool)), "test": DataSource(str(test))}
    task = load_task("t", instruction="", labels={}, fields=fields, **sources)
    assert (task.pool[0].choices, task.examples[0].choices) == ((), ("a", "b"))


FIELDS = {"question": "question", "references": "references"}
ROWS = [{"question": "q", "references": "a"}]
WORKED = [{"question": "p", "references": "b", "why": "since"}]


def test_only_rows_of_the_pool_have_the_fields_of_demonstrations():
    task = Task.of_rows("t", WORKED, ROWS, fields=FIELDS, demonstration_fields={"rationale": "why|upper"})
    assert task.demonstration_fields == ("rationale",)
    assert (task.pool[0].inputs, task.pool[0].demonstration_fields) == ({"question": "p"}, {"rationale": "SINCE"})
    assert task.examples[0].demonstration_fields == {}
    with pytest.raises(DataError) as error:
        Task.of_rows("t", ROWS, ROWS, fields=FIELDS, demonstration_fields={"rationale": "why"})
    assert str(error.value) == (
        "t: row 0 of pool: field 'rationale' (why): 'why' is undefined (the row has: question, references)"
    )
    with pytest.raises(
        ConfigError, match=r"^demonstration_fields.rationale: 'a b' is neither a column \(the row has: "
    ):
        Task.of_rows("t", WORKED, ROWS, fields=FIELDS, demonstration_fields={"rationale": "a b"})


@pytest.mark.parametrize(
    "name", ["question", "references", "id", "choices", "answer", "instruction", "labels", "style"]
)
def test_a_field_of_demonstrations_has_a_name_of_its_own(name):
    with pytest.raises(
        ConfigError, match=f"^demonstration_fields.{name}: the name already has a meaning, like answer, "
    ):
        Task.of_rows("t", WORKED, ROWS, fields=FIELDS, demonstration_fields={name: "why"})


def test_the_content_hash_knows_the_fields_of_demonstrations_and_is_as_ever_without_them():
    rows = [{"question": "q", "references": ["a"], "why": "w"}, {"question": "q", "references": ["a"], "why": "v"}]
    fields = {"why": "why"}
    plain = Task.of_rows("t", rows[:1], rows[:1])
    assert plain.content_hash == "2e1218d56e808e96"  # of the version before there were such fields
    shown = [Task.of_rows("t", [row], rows[:1], demonstration_fields=fields).content_hash for row in rows]
    assert len({plain.content_hash, *shown}) == 3


def test_a_cluster_is_a_field_of_the_test_set_that_no_prompt_and_no_hash_knows():
    pool, rows = [{"question": "a", "references": "b"}], [{"question": "c", "references": "d", "page": 7}]
    fields = {"question": "question", "references": "references"}
    plain = Task.of_rows("words", pool=pool, test=rows, fields=fields)
    for expression, cluster in (("page", "7"), ("'page ' ~ page", "page 7")):
        task = Task.of_rows("words", pool=pool, test=rows, fields={**fields, "cluster": expression})
        assert (task.examples[0].cluster, task.pool[0].cluster) == (cluster, None)
        assert task.examples[0].inputs == {"question": "c"}
        assert task.content_hash == plain.content_hash
    with pytest.raises(DataError, match=r"field 'cluster' \(book\)"):
        Task.of_rows("words", pool=pool, test=rows, fields={**fields, "cluster": "book"})


def test_copies_are_told_by_the_question_whatever_the_rationale():
    rows = [{"question": "p", "references": "b", "why": why} for why in ("since", "because")] + WORKED[:1]
    rows.append({"question": "Q", "references": "c", "why": "it is the question of the test"})
    task = Task.of_rows("t", rows, ROWS, fields=FIELDS, demonstration_fields={"why": "why"})
    assert find_duplicates(task.pool) == [("pool-1", "pool-0"), ("pool-2", "pool-0")]
    allowed = build_guard(task, None)(task.examples[0]).tolist()
    assert allowed == [True, True, True, False]


def test_a_column_that_is_missing_is_named_wherever_it_stands():
    for expression in ("none_such", "[question, none_such]"):
        mapping = FieldMapping({"question": "question", "references": expression})
        with pytest.raises(DataError) as error:
            mapping.example(Row("here:1", {"question": "q"}), "0")
        assert str(error.value) == (
            f"here:1: field 'references' ({expression}): 'none_such' is undefined (the row has: question)"
        )


def test_expressions_run_in_a_sandbox():
    mapping = FieldMapping({"question": "question.__class__.__mro__|string", "references": "references"})
    with pytest.raises(DataError, match="access to attribute '__class__' of 'str' object is unsafe"):
        mapping.example(Row("here:1", {"question": "q", "references": "a"}), "0")


def content_hash(folder, pool, test):
    """The hash of a task whose splits ask these questions, read from files in a folder."""
    folder.mkdir()
    for split, questions in (("pool", pool), ("test", test)):
        lines = [json.dumps({"question": question, "references": "a", "unused": str(folder)}) for question in questions]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    sources = {split: DataSource(str(folder / f"{split}.jsonl")) for split in ("pool", "test")}
    fields = {"question": "question", "references": "references"}
    return load_task("t", instruction="", labels={}, fields=fields, **sources).content_hash


def test_the_content_hash_depends_on_examples_and_not_on_the_files(tmp_path):
    first, second, other = (
        content_hash(tmp_path / name, ["p"], [question]) for name, question in (("a", "q"), ("b", "q"), ("c", "other"))
    )
    assert first == second != other


def test_the_content_hash_knows_which_examples_are_demonstrations(tmp_path):
    borders = [("a", "bc"), ("ab", "c")]
    assert len({content_hash(tmp_path / pool, pool, test) for pool, test in borders}) == 2


def test_a_data_set_that_nobody_answers_for_leaves_the_next_one_its_network(monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("the proxy says no")

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    reason = r"it is not in the cache, and the hub cannot be reached \(the proxy says no\); give"
    with pytest.raises(DataError, match=f"data set 'acme/none' cannot be loaded: {reason}"):
        read_rows(DataSource("acme/none", split="test"))
    assert datasets.config.HF_HUB_OFFLINE is False


def test_reading_leaves_the_settings_of_the_libraries_as_they_were(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "test.csv").write_text("question\nwhy?\n", encoding="utf-8")
    datasets.enable_progress_bars()
    before = csv.field_size_limit(2**40)
    try:
        for source in (DataSource(str(tmp_path / "rows"), split="test"), DataSource(f"{tmp_path}/rows/test.csv")):
            assert [dict(row.values) for row in read_rows(source)] == [{"question": "why?"}]
        assert csv.field_size_limit() == 2**40
    finally:
        csv.field_size_limit(before)
    assert not datasets.are_progress_bars_disabled()


def test_a_folder_is_read_as_it_is_and_never_as_another_of_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def write(folder, question):
        folder.mkdir(parents=True, exist_ok=True)
        readme = "---\nconfigs: [{config_name: default, data_files: [{split: test, path: test.jsonl}]}]\n---\n"
        (folder / "README.md").write_text(readme, encoding="utf-8")
        (folder / "test.jsonl").write_text(json.dumps({"question": question}), encoding="utf-8")

    def read(folder):
        return [row.values["question"] for row in read_rows(DataSource(str(folder), split="test"))]

    write(tmp_path / "a" / "data", "first")
    write(tmp_path / "b" / "data", "second")
    assert (read(tmp_path / "a" / "data"), read(tmp_path / "b" / "data")) == (["first"], ["second"])
    write(tmp_path / "a" / "data", "changed")
    assert read(tmp_path / "a" / "data") == ["changed"]


def test_what_is_no_column_or_value_is_named_in_plain_words():
    rows = [{"meta": {"keys": "a"}, "references": "b"}]
    assert Task.of_rows("t", rows, rows, fields={**FIELDS, "question": "meta['keys']"}).examples[0].inputs == {
        "question": "a"
    }
    with pytest.raises(DataError) as error:
        Task.of_rows("t", rows, rows, fields={**FIELDS, "question": "meta.keys"})
    assert str(error.value).startswith(
        "t: row 0 of pool: field 'question' (meta.keys) is the method 'keys', not a key of that name (which is written "
        "['keys'])"
    )
    with pytest.raises(DataError) as error:
        Task.of_rows("t", [{0: "a", 1: "b"}], ROWS, fields=FIELDS)
    assert str(error.value) == "t: row 0 of pool: the name of the column 0 must be a string"
