import json
import shutil
import sqlite3
import weakref

import numpy as np
import pytest
import tiny_models

from icl_eval.demonstrations import encoder as embedding
from icl_eval.demonstrations import vectors
from icl_eval.demonstrations.encoder import Encoder
from icl_eval.errors import ConfigError, ModelUnavailableError
from icl_eval.models.loading import load_model
from icl_eval.models.specs import ModelSpec
from icl_eval.tasks.examples import Example

TEXTS = ("The house is small.", "12 + 30", "The house is small and old.", "café")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A folder in which nothing is embedded yet."""
    return forget(monkeypatch, tmp_path / "cache")


def forget(monkeypatch, folder):
    monkeypatch.setenv("ICL_EVAL_CACHE", str(folder))
    vectors._open.cache_clear()
    return folder


def examples(*texts):
    return [Example(f"pool-{n}", {"question": text, "hint": "why?"}, ("x",)) for n, text in enumerate(texts)]


def mean_state(folder, text, auto_class):
    """The definition, from the library's parts."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = getattr(__import__("transformers"), auto_class).from_pretrained(folder).eval()
    with torch.inference_mode():
        states = network(**tokenizer(text, return_tensors="pt")).last_hidden_state
    mean = states[0].mean(0).numpy()
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize(
    ("model", "auto_class"), [("gpt2", "GPT2Model"), ("t5", "T5EncoderModel"), ("bert", "BertModel")]
)
def test_a_vector_is_the_mean_of_the_last_hidden_states(model, auto_class, gpt2, t5, tmp_path):
    folders = {"gpt2": gpt2, "t5": t5, "bert": tiny_models.save_bert(tmp_path / "bert")}
    own = Encoder(ModelSpec(str(folders[model])), "cpu")
    other = Encoder(ModelSpec(str(gpt2)), "cpu", source=str(folders[model]))
    for encoder in (own, other) if model != "bert" else (other,):
        for text, vector in zip(TEXTS, encoder.embed(examples(*TEXTS)), strict=True):
            assert vector == pytest.approx(mean_state(folders[model], f"{text}\nwhy?", auto_class), abs=1e-5)


def test_a_vector_does_not_depend_on_its_company(gpt2, monkeypatch, tmp_path):
    encoder = Encoder(ModelSpec(str(gpt2)), "cpu")
    texts = [*TEXTS, *(f"{n} and {n + 1}" for n in range(40))]  # more than a batch of one length
    together = encoder.embed(examples(*texts))
    forget(monkeypatch, tmp_path / "other")
    alone = [encoder.embed(examples(text))[0] for text in texts[::-1]][::-1]
    assert [vector.tobytes() for vector in together] == [vector.tobytes() for vector in alone]


def test_the_next_run_finds_the_vectors_of_the_same_weights_alone(gpt2, t5, cache, monkeypatch):
    first = Encoder(ModelSpec(str(gpt2)), "cpu").embed(examples(*TEXTS))
    vectors._open.cache_clear()  # as in another process
    assert Encoder(ModelSpec(str(t5)), "cpu").embed(examples(*TEXTS)).tobytes() != first.tobytes()
    monkeypatch.setattr(embedding, "load_model", lambda *_: pytest.fail("loaded"))
    assert Encoder(ModelSpec(str(gpt2)), "cpu").embed(examples(*TEXTS[::-1]))[::-1].tobytes() == first.tobytes()
    assert len(list((cache / "vectors").iterdir())) == 2


def test_the_vectors_of_a_model_in_memory_stay_in_memory(gpt2, cache, monkeypatch):
    encoder = Encoder(load_model(ModelSpec(str(gpt2))), "cpu")
    first = encoder.embed(examples(*TEXTS))
    assert not cache.exists()
    monkeypatch.setattr(embedding, "load_model", lambda *_: pytest.fail("loaded"))
    assert encoder.embed(examples(*TEXTS)).tobytes() == first.tobytes()


@pytest.mark.parametrize(
    "damage", ["no database", "damaged in the middle", "lost while it is read", "a folder that is a file", "read only"]
)
def test_a_cache_that_cannot_be_used_costs_the_time_and_nothing_else(gpt2, cache, damage, monkeypatch, caplog):
    encoder = Encoder(ModelSpec(str(gpt2)), "cpu")
    first = encoder.embed(examples(*TEXTS))
    [file] = (cache / "vectors").iterdir()
    vectors._open.cache_clear()
    if damage == "no database":
        file.write_text("these are no vectors, " * 100)
    elif damage == "damaged in the middle":
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) - 4096] + b"?" * 4096)
    elif damage == "read only":  # for root, only SQLite says so
        file.unlink()
        monkeypatch.setattr(vectors, "_make_table", refuse_to_write(vectors._make_table))
    elif damage == "lost while it is read":
        monkeypatch.setattr(vectors, "_ASKED_TOGETHER", len(TEXTS) - 1)  # two parts to find, and two to read
        monkeypatch.setattr(vectors, "_make_table", lose_at_the_fourth_part(vectors._make_table))
    else:
        shutil.rmtree(cache)
        cache.write_text("")
    assert encoder.embed(examples(*TEXTS)).tobytes() == first.tobytes()
    [warning] = [each for each in caplog.messages if "cannot be kept" in each]
    assert warning.startswith(f"embeddings cannot be kept in {file} (")
    assert warning.endswith("); this run computes its own")


def refuse_to_write(make_table):
    def make(path):
        table = make_table(path)
        if path != ":memory:":
            table.execute("PRAGMA query_only = ON")
        return table

    return make


def test_none_is_read_if_some_are_lost_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "_ASKED_TOGETHER", 1)
    monkeypatch.setattr(vectors, "_make_table", lose_at_the_fourth_part(vectors._make_table))
    vectors.Vectors(tmp_path / "file").add(["one", "two", "three"], np.ones((3, 2), np.float32))
    known = vectors.Vectors(tmp_path / "file")
    assert known.read(["one", "two"]).tolist() == [[1, 1]] * 2
    assert known.read(["three", "two"]) is None
    assert known.find_missing(["one", "two"]) == ["one", "two"]


def lose_at_the_fourth_part(make_table):
    class Table(sqlite3.Connection):
        parts_read = 0

        def execute(self, query, *values):
            self.parts_read += query.startswith("SELECT")
            if self.parts_read == 4:
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(query, *values)

    def make(path):
        make_table(path)
        return make_table(path) if path == ":memory:" else sqlite3.connect(path, factory=Table)

    return make


@pytest.mark.parametrize("number", [0, np.nan])
def test_a_vector_without_a_direction_is_refused(number, gpt2, monkeypatch):
    encoder = Encoder(ModelSpec(str(gpt2)), "cpu")
    monkeypatch.setattr(Encoder, "_load", lambda *_: lambda texts: [(texts, np.full((len(texts), 2), number))])
    with pytest.raises(ConfigError, match=rf"^demonstrations\.encoder: the vector of .* has length {number}"):
        encoder.embed(examples("a question"))


def test_a_text_is_embedded_once_and_one_that_is_too_long_by_its_beginning(gpt2, monkeypatch):
    encoder, long = Encoder(ModelSpec(str(gpt2)), "cpu"), "one two three " * 200
    first = encoder.embed(examples(long, *TEXTS, *TEXTS))
    assert np.linalg.norm(first, axis=1) == pytest.approx(np.ones(9), abs=1e-6)
    monkeypatch.setattr(embedding, "load_model", None)
    assert encoder.embed(examples(long, *TEXTS, *TEXTS)).tobytes() == first.tobytes()
    assert first[1:5].tobytes() == first[5:].tobytes()


def test_an_encoder_that_cannot_be_had_is_named_by_its_key(gpt2, tmp_path):
    missing = Encoder(ModelSpec(str(gpt2)), "cpu", source="./nowhere")
    with pytest.raises(ModelUnavailableError, match=r"^demonstrations\.encoder: .*nowhere does not exist"):
        missing.embed(examples("a"))
    incomplete = tiny_models.save_bert(tmp_path / "bert")
    config = json.loads((incomplete / "config.json").read_text())
    (incomplete / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(ConfigError, match=r"^demonstrations\.encoder: .*bert lacks 16 of its weights, such as encoder"):
        Encoder(ModelSpec(str(gpt2)), "cpu", source=str(incomplete)).embed(examples("a"))


def test_an_encoder_whose_files_have_changed_is_loaded_again(gpt2, tmp_path):
    folder = tiny_models.save_bert(tmp_path / "bert")
    encoder = Encoder(ModelSpec(str(gpt2)), "cpu", source=str(folder))
    before = encoder.embed(examples("a"))
    tiny_models.save_bert(folder, seed=1)
    [after] = encoder.embed(examples("a"))
    assert after == pytest.approx(mean_state(folder, "a\nwhy?", "BertModel"), abs=1e-5)
    assert after != pytest.approx(before[0], abs=1e-2)


def test_an_attention_in_half_precision_is_not_that_of_the_encoder(gpt2):
    encoder = Encoder(ModelSpec(str(gpt2), attn_implementation="flash_attention_2"), "cpu")
    [vector] = encoder.embed(examples("a"))
    assert vector == pytest.approx(mean_state(gpt2, "a\nwhy?", "GPT2Model"), abs=1e-5)


def test_only_a_few_tables_of_models_in_memory_are_kept():
    first = weakref.ref(vectors.open_vectors("memory:0", "cpu", kept=False))
    assert first() is vectors.open_vectors("memory:0", "cpu", kept=False)
    for number in range(1, 5):
        vectors.open_vectors(f"memory:{number}", "cpu", kept=False)
    assert first() is None


def test_a_sentence_transformers_folder_asks_for_its_package(gpt2, tmp_path, monkeypatch):
    folder = tmp_path / "sentences"
    shutil.copytree(gpt2, folder)
    (folder / "modules.json").write_text("[]")
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"it has a modules\.json\): pip install 'icl-eval\[retrieval\]'$"):
        Encoder(ModelSpec(str(gpt2)), "cpu", source=str(folder)).embed(examples("a"))


def test_an_encoder_that_runs_its_own_code_is_refused_and_nobody_is_asked(gpt2, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    for name, config in {"unknown": {"model_type": "acme"}, "known": {}}.items():
        folder = shutil.copytree(gpt2, tmp_path / name)
        config = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoModel": "code.Acme"}} | config
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "code.py").write_text("raise SystemExit('this ran')")
    with pytest.raises(ModelUnavailableError, match=r"^demonstrations\.encoder: .*unknown runs its own Python code"):
        Encoder(ModelSpec(str(gpt2)), "cpu", source=str(tmp_path / "unknown")).embed(examples("a"))
    own = Encoder(ModelSpec(str(gpt2)), "cpu").embed(examples("a"))
    assert (Encoder(ModelSpec(str(gpt2)), "cpu", source=str(tmp_path / "known")).embed(examples("a")) == own).all()


@pytest.mark.parametrize("kind", ["code.Acme", "os.system", None])
def test_a_sentence_transformers_folder_with_modules_of_its_own_is_refused(gpt2, tmp_path, kind):
    folder = shutil.copytree(gpt2, tmp_path / "sentences")
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "path": "", "type": kind}]))
    with pytest.raises(ModelUnavailableError, match=f"modules.json names {kind!r}, which is not part of sentence_t"):
        Encoder(ModelSpec(str(gpt2)), "cpu", source=str(folder)).embed(examples("a"))


def test_a_preview_says_that_it_loads_weights_and_a_run_records_what_was_retrieved(icl_eval_command, gpt2, tmp_path):
    options = [f"model.source={gpt2}", "task=[qa]", "demonstrations=nearest", "limit=2", "num_fewshot=2"]
    preview = icl_eval_command("preview", *options).out
    assert preview.startswith("demonstrations=nearest: loads weights to embed the questions and the pool\n")
    assert icl_eval_command(*options, "max_new_tokens=2", "hydra.run.dir=run").exit_code == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["run"]["demonstrations"], report["run"]["order"]) == ("nearest", "as_selected")
    for line in (tmp_path / "run" / "samples_qa.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        nearer, farther = record["demonstrations"]
        assert [nearer["id"], farther["id"]] == record["demonstration_ids"]
        assert 1 > nearer["similarity"] >= farther["similarity"]
        assert record["decoder"].index(nearer["target"]) < record["decoder"].index(farther["target"])
