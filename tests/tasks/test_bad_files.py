"""Files from elsewhere: whatever is in them, a preview ends at once with one line that names the file."""

import gzip
import os

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from icl_eval.config.files import require_readable_files
from icl_eval.config.setup import slug
from icl_eval.errors import ConfigError, DataError
from icl_eval.tasks import files
from icl_eval.tasks.rows import DataSource, read_rows

ROW = b'{"question": "q", "references": "a"}\n'
HEADER = b"question,references\n"
ONE_LINE = "the maximum for a line"


def bytes_of(content):
    return lambda path: path.write_bytes(content)


def table_of(**columns):
    return lambda path: parquet.write_table(pa.table(columns), path)


def repeated(text, count):
    """A column of one text, of which Parquet stores next to nothing."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), [text])


def sparse(size):
    def write(path):
        path.touch()
        os.truncate(path, size)

    return write


def twice(path):
    parquet.write_table(pa.Table.from_arrays([pa.array(["a"])] * 3, names=["question", "question", "references"]), path)


INVALID = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())

DATA = {
    "binary.jsonl": (bytes_of(bytes(range(256))), ":1: a NUL character at column 1 (UTF-16 is not supported)"),
    "utf-16.jsonl": (
        bytes_of(ROW.decode().encode("utf-16")),
        ":1: not UTF-8 (byte 0xff at column 1; UTF-16 is not supported)",
    ),
    "utf-16-le.csv": (
        bytes_of(HEADER.decode().encode("utf-16-le")),
        ":1: a NUL character at column 2 (UTF-16 is not supported)",
    ),
    "latin.csv": (bytes_of(HEADER + b"caf\xe9,a\n"), ":2: not UTF-8 (byte 0xe9 at column 4)"),
    "nul.csv": (bytes_of(HEADER + b"a\0,b\n"), ":2: a NUL character at column 2"),
    "cr.jsonl": (bytes_of(ROW.replace(b"\n", b"\r") * 2), ":1: a carriage return (CR) within the line"),
    "array.jsonl": (bytes_of(b"[" + ROW.strip() + b"]"), ":1: a list, but every line must be a JSON object"),
    "pretty.jsonl": (bytes_of(ROW.replace(b"{", b"{\n")), ":1: not JSON ("),
    "deep.jsonl": (bytes_of(b'{"question": ' + b"[" * 100_000), ":1: JSON that is nested too deeply to be read"),
    "digits.jsonl": (bytes_of(b'{"question": ' + b"9" * 5000 + b"}"), ":1: not JSON (Exceeds the limit"),
    "twice.jsonl": (
        bytes_of(ROW.replace(b"{", b'{"question": "r", ')),
        ":1: the key 'question' occurs more than once",
    ),
    "nan.jsonl": (bytes_of(ROW.replace(b'"q"', b"NaN")), ":1: field 'question' is NaN"),
    "null.jsonl": (bytes_of(ROW + ROW.replace(b'"a"', b"[null]")), ":2: field 'references' is null"),
    "id.jsonl": (bytes_of(ROW.replace(b"{", b'{"id": true, ')), ":1: field 'id' is a boolean"),
    "torn.jsonl": (bytes_of((ROW * 2)[:-9]), ":2: not JSON ("),
    "empty.jsonl": (bytes_of(b""), ": contains no rows"),
    "packed.jsonl": (bytes_of(gzip.compress(ROW)), ":1: not UTF-8 (byte 0x8b at column 2)"),
    "packed.jsonl.gz": (
        bytes_of(gzip.compress(ROW)),
        ": the name of a file of rows must end in .jsonl, .csv or .parquet",
    ),
    "rows.json": (bytes_of(ROW), ": the name of a file of rows must end in .jsonl, .csv or .parquet"),
    "header.csv": (bytes_of(HEADER), ": contains no rows"),
    "many.csv": (  # to count each name among all would take minutes
        bytes_of(",".join([*map(str, range(100_000)), "99999"]).encode() + b"\n"),
        ":1: the column '99999' occurs more than once",
    ),
    "quote.csv": (bytes_of(HEADER + b'"a,b\n'), ":2: not CSV (unexpected end of data)"),
    "semicolons.csv": (
        bytes_of(HEADER.replace(b",", b";") + b"a;b\n"),
        ":2: field 'question': 'question' is undefined",
    ),
    "empty-cell.csv": (bytes_of(HEADER + b",b\n"), ":2: field 'question' is empty"),
    "folder.jsonl": (lambda path: path.mkdir(), ": a folder, but rows are read from files"),
    "pipe.jsonl": (os.mkfifo, ": a pipe or a device, but rows are read from files"),
    "pipe.csv": (os.mkfifo, ": a pipe or a device, but rows are read from files"),
    "pipe.parquet": (os.mkfifo, ": a pipe or a device, but rows are read from files"),
    "zero.jsonl": (lambda path: path.symlink_to("/dev/zero"), ": a pipe or a device, but rows are read from files"),
    "random.csv": (lambda path: path.symlink_to("/dev/urandom"), ": a pipe or a device, but rows are read from files"),
    "loop.jsonl": (lambda path: path.symlink_to(path.name), ": cannot be read (Too many levels of symbolic links)"),
    "nothing.jsonl": (lambda path: None, ": no such file"),
    "endless.jsonl": (sparse(100 * 2**30), ": 100 GiB, but a file of rows may have at most 2 GiB; split it"),
    "line.jsonl": (sparse(2**30), f":1: longer than 64 MiB, {ONE_LINE}"),
    "text.parquet": (bytes_of(b"question"), ": not Parquet ("),
    "empty.parquet": (bytes_of(b""), ": not Parquet (Parquet file size is 0 bytes)"),
    "none.parquet": (table_of(question=pa.array([], pa.string())), ": contains no rows"),
    "bytes.parquet": (table_of(question=[b"q"], references=["a"]), "[0]: field 'question' is a bytes"),
    "null.parquet": (table_of(question=["q", None], references=["a", "a"]), "[1]: field 'question' is null"),
    "float.parquet": (table_of(question=[1.0], references=["a"]), "[0]: field 'question' is a number"),
    "dates.parquet": (
        table_of(t=pa.array([2**62], pa.timestamp("us"))),
        "[0]: cannot be read (date value out of range)",
    ),
    "invalid.parquet": (table_of(question=INVALID), "[0]: cannot be read ('utf-8' codec can't decode byte 0xff"),
    "twice.parquet": (twice, ": the column 'question' occurs more than once"),
    "million.parquet": (
        table_of(question=repeated("q", 1_000_001)),
        ": 1000001 rows, more than max_rows=1000000; use a part of them, or raise 'max_rows', a key next to 'path'",
    ),
}


@pytest.mark.parametrize("name", DATA)
def test_bad_data_is_one_line_that_names_file_and_place(name, icl_eval_command, tmp_path):
    write, message = DATA[name]
    write(tmp_path / name)
    outcome = icl_eval_command("preview", "task=qa", f"task.qa.test.path={tmp_path / name}")
    assert outcome.err.startswith(f"icl-eval: {tmp_path / name}{message}")
    assert (outcome.exit_code, outcome.out, outcome.err.count("\n")) == (2, "", 1)


TASK = """# @package task.own
defaults:
  - /metrics@metrics: [exact_match]
  - _self_
pool: {path: pool.jsonl}
test: {path: test.jsonl}
"""
NESTED = "\n".join(f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))
DOUBLED = "\n".join(f"  a{n}: ${{.a{n - 1}}}${{.a{n - 1}}}" for n in range(1, 30))

CONFIGS = {
    "binary": (bytes(range(256)), ": not UTF-8 (byte 0x80 at 128)"),
    "utf-16": (TASK.encode("utf-16"), ": not UTF-8 (byte 0xff at 0)"),
    "control": (f"{TASK}instruction: 'a\1b'\n".encode(), ": not YAML (the character '\\x01' at"),
    "half": (f'{TASK}instruction: "\\ud83d"\n'.encode(), ":7: contains a lone surrogate ('\\ud83d')"),
    "aliases": (f"{TASK}labels:\n  a0: &a0 [x]\n{NESTED}\n".encode(), ":12: expands to more than 10000 values"),
    "itself": (f"{TASK}labels: &a {{x: *a}}\n".encode(), ":7: expands to more than 10000 values"),
    "interpolations": (
        f"{TASK}labels:\n  a0: ha\n{DOUBLED}\n".encode(),
        ":17: has more than 16 interpolations in values",
    ),
    "deep": (f"{TASK}labels: {'[' * 3000}\n".encode(), ":7: is nested more than 50 levels deep"),
    "large": (
        f"{TASK}# {'x' * 2**18}".encode(),
        f": has {len(TASK) + 2 + 2**18} bytes; a config file may have at most 262144",
    ),
    "no-pool": (TASK.replace("{path: pool.jsonl}", "null").encode(), ": task.own.pool=null: must be a mapping"),
    "none": (
        TASK.replace("pool.jsonl", "pool.jsonl, max_rows: 0").encode(),
        "task.own.pool.max_rows=0: must be 1 or more",
    ),
    "long": (
        TASK.replace(".own", f".{'日' * 67}").encode(),
        f"task.{'日' * 67}: a task's name becomes part of a file name",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_bad_task_file_is_one_line(name, icl_eval_command, tmp_path):
    content, message = CONFIGS[name]
    (tmp_path / "my" / "task").mkdir(parents=True)
    (tmp_path / "my" / "task" / f"{name}.yaml").write_bytes(content)
    outcome = icl_eval_command("preview", "--config-dir", "my", f"task={name}")
    assert f"task/{name}.yaml{message}" in outcome.err or outcome.err.startswith(f"icl-eval: {message}")
    assert (outcome.exit_code, outcome.out, outcome.err.count("\n")) == (2, "", 1)


def test_a_pipe_is_no_config_and_files_of_no_group_of_ours_are_left_alone(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "binary.yaml").write_bytes(b"\xff")
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "aliases.yaml").write_text("a: &a {x: y}\nb: *a\nc: {<<: *a}\nd: '${a.x} and ${b.x}'\n")
    require_readable_files([tmp_path, tmp_path / "none"])
    os.mkfifo(tmp_path / "task" / "pipe.yaml")
    with pytest.raises(ConfigError) as error:
        require_readable_files([tmp_path])
    assert str(error.value) == f"{tmp_path}/task/pipe.yaml: is a pipe or a device; a config must be a regular file"


def test_fields_of_csv_files_may_be_long(tmp_path):
    path = tmp_path / "long.csv"
    path.write_bytes(HEADER + b"a" * 1_000_000 + b",b\n")
    assert [len(row.values["question"]) for row in read_rows(DataSource(str(path)))] == [1_000_000]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_as_many_rows_as_max_rows_are_read(ending, tmp_path):
    path = tmp_path / f"rows.{ending}"
    if ending == "parquet":
        parquet.write_table(pa.table({"question": ["q"] * 3}), path)
    else:
        path.write_bytes(ROW * 3 if ending == "jsonl" else HEADER + b"a,b\n" * 3)
    assert len(read_rows(DataSource(str(path), max_rows=3))) == 3
    with pytest.raises(DataError, match=r"more than max_rows=2; use a part of them, or raise 'max_rows'"):
        read_rows(DataSource(str(path), max_rows=2))


def test_a_parquet_file_that_unpacks_without_an_end_is_read_to_the_bound_only(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_MAX_BYTES", 10_000_000)
    path = tmp_path / "bomb.parquet"
    parquet.write_table(pa.table({"nested": [{"texts": ["x" * 500_000]}] * 30, "question": repeated("q", 30)}), path)
    with pytest.raises(DataError) as error:
        read_rows(DataSource(str(path)))
    assert str(error.value) == f"{path}[19]: the rows up to here exceed 9.54 MiB uncompressed; split the file"


def test_a_data_set_of_a_folder_is_looked_at_before_it_is_loaded(tmp_path):
    table_of(question=repeated("q", 20))(tmp_path / "test.parquet")
    with pytest.raises(DataError) as error:
        read_rows(DataSource(str(tmp_path), split="test", max_rows=19))
    assert str(error.value).startswith(f"{tmp_path}/test.parquet: 20 rows, more than max_rows=19; ")
    os.mkfifo(tmp_path / "test.jsonl")
    with pytest.raises(DataError, match=r"/test\.jsonl: a pipe or a device, but rows are read from files"):
        read_rows(DataSource(str(tmp_path), split="test"))


def test_a_path_that_no_file_can_have_is_one_line():
    with pytest.raises(DataError, match=r"cannot be read \(embedded null byte\)"):
        read_rows(DataSource("a\0b.jsonl"))


def test_names_of_folders_are_cut_by_bytes():
    assert slug("task=qa") == "task=qa"
    for letter in ("x", "é", "日", "𝒳"):
        name = slug(f"template.separator={letter * 100}")
        assert len(name.encode()) <= 80
        assert name.startswith(f"template.separator={letter * 10}")
    assert slug("日" * 100) != slug("日" * 101)
