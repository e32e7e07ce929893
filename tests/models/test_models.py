import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models

from icl_eval.errors import ConfigError, IclEvalError, ModelUnavailableError
from icl_eval.models import loading as models
from icl_eval.models.cards import read_card
from icl_eval.models.devices import choose_device
from icl_eval.models.loading import LanguageModel, find_card, load_model
from icl_eval.models.specs import ModelSpec
from icl_eval.prompts.conventions import RequestedConventions, find_conventions


@pytest.fixture(autouse=True)
def nothing_loaded() -> Iterator[None]:
    models._loaded.clear()
    yield
    models._loaded.clear()


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return tiny_models.save_llama(tmp_path / "llama")


def refusal(
    folder: Path,
    error: type[IclEvalError] = ModelUnavailableError,
    call: Callable[[ModelSpec], Any] = lambda spec: load_model(spec, device="cpu"),
) -> str:
    """The one sentence with which a folder is refused."""
    with pytest.raises(error) as caught:
        call(ModelSpec(str(folder)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def edit_weights(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("save", "architecture", "max_length"),
    [
        (tiny_models.save_gpt2, "decoder-only", 256),
        (tiny_models.save_llama, "decoder-only", 512),
        (tiny_models.save_phi, "decoder-only", 512),
        (tiny_models.save_t5, "encoder-decoder", None),
    ],
)
def test_what_a_model_is_is_read_from_its_configuration(
    tmp_path: Path, save: Callable[[Path], Path], architecture: str, max_length: int | None
) -> None:
    model = load_model(ModelSpec(str(save(tmp_path / "tiny"))), device="cpu")
    card = read_card(ModelSpec(str(tmp_path / "tiny")))
    assert (model.architecture, model.max_length, model.name) == (architecture, max_length, "tiny")
    assert (card.architecture, card.max_length, card.name) == (architecture, max_length, "tiny")
    assert model.identity == card.identity
    assert model.network.config.is_encoder_decoder == (architecture == "encoder-decoder")


def test_two_sides_may_have_different_numbers_of_positions(tmp_path: Path) -> None:
    import transformers

    positions = {"max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 32}
    transformers.LEDConfig(**positions, attention_window=8).save_pretrained(tmp_path)
    tiny_models.train_bpe().save_pretrained(tmp_path)
    card = read_card(ModelSpec(str(tmp_path)))
    assert (card.max_encoder_length, card.max_length) == (64, 32)


def test_positions_under_a_name_of_their_own_are_a_limit() -> None:
    import transformers

    config = transformers.MptConfig(max_seq_len=64)
    assert not hasattr(config, "max_position_embeddings")
    assert models.read_max_length(config) == 64


def test_a_name_says_nothing(tmp_path: Path) -> None:
    folder = tiny_models.save_gpt2(tmp_path / "flan-t5-large")
    edit_config(folder, _name_or_path="google/flan-t5-large", relative_attention=True)
    assert load_model(ModelSpec(str(folder))).architecture == "decoder-only"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_a_model_is_ready_for_decoding(llama: Path, dtype: str) -> None:
    model = load_model(ModelSpec(str(llama)), dtype, "cpu")
    assert (model.dtype, model.device) == (dtype, "cpu")
    assert str(model.network.dtype) == f"torch.{dtype}"
    assert not model.network.training
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert model.tokenizer.decode(model.tokenizer("Q: 1 + 2?\n").input_ids) == "Q: 1 + 2?\n"


def test_weights_come_out_as_they_were_saved(llama: Path) -> None:
    import torch
    from safetensors.torch import load_file

    loaded = load_model(ModelSpec(str(llama)), device="cpu").network.state_dict()
    assert all(torch.equal(loaded[name], saved) for name, saved in load_file(llama / "model.safetensors").items())


def test_loading_is_silent(llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(ModelSpec(str(llama)), device="cpu")
    assert capfd.readouterr() == ("", "")


# Models that stay loaded


def test_a_loaded_model_is_used_again(llama: Path) -> None:
    spec = ModelSpec(str(llama))
    model = load_model(spec, device="cpu")
    assert load_model(spec, device="cpu") is model
    assert load_model(spec, "bfloat16", "cpu") is not model
    assert load_model(spec, "float32", "cpu") is model


def test_a_folder_that_changed_is_loaded_again(llama: Path) -> None:
    spec = ModelSpec(str(llama))
    before = load_model(spec, device="cpu")
    tiny_models.save_llama(llama, seed=1)
    after = load_model(spec, device="cpu")
    assert after.identity != before.identity
    assert not after.network.lm_head.weight.equal(before.network.lm_head.weight)


def test_the_least_recently_used_model_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (ModelSpec(str(tiny_models.save_llama(tmp_path / str(i), seed=i))) for i in range(3))
    room_for_two = 2 * 4 * sum(p.numel() for p in load_model(first, device="cpu").network.parameters()) * 1.2

    def free(_: str) -> int:
        used = sum(4 * sum(p.numel() for p in model.network.parameters()) for model in models._loaded.values())
        return int(room_for_two) - used

    monkeypatch.setattr(models, "free_bytes", free)
    load_model(second, device="cpu")
    load_model(first, device="cpu")
    load_model(third, device="cpu")
    assert [model.name for model in models._loaded.values()] == ["0", "2"]


def test_free_memory_is_known_here() -> None:
    assert models.free_bytes("cpu") > 1e8


# What is refused


@pytest.mark.parametrize("dtype", ["int8", "fp32", "torch.float32", ""])
def test_an_unknown_dtype_is_refused(llama: Path, dtype: str) -> None:
    with pytest.raises(ConfigError, match="must be one of float32, bfloat16, float16, float64"):
        load_model(ModelSpec(str(llama)), dtype, "cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "tpu", ""])
def test_a_device_that_is_not_here_is_refused(device: str) -> None:
    with pytest.raises(
        ConfigError, match=f"device='{device}': not available on this machine; must be one of auto, cpu"
    ):
        choose_device(device)


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    message = refusal(tiny_models.save_bert(tmp_path / "bert"))
    assert message == "bert is neither decoder-only nor encoder-decoder: its tokens attend to later tokens"


def test_a_decoder_whose_configuration_looks_like_an_encoders_is_not_refused(tmp_path: Path) -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    folder = tiny_models.save_llama(tmp_path / "pythia")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=384, **sizes)).save_pretrained(folder)
    network = load_model(ModelSpec(str(folder)), device="cpu").network
    assert not network.config.is_decoder


def test_a_network_in_training_is_tried_without_its_dropout(llama: Path) -> None:
    import torch
    from transformers import AutoTokenizer, GPTNeoXConfig, GPTNeoXForCausalLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    network = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=384, hidden_dropout=0.5, **sizes)).train()
    before = torch.get_rng_state()
    assert LanguageModel.of(network, AutoTokenizer.from_pretrained(llama)).architecture == "decoder-only"
    assert network.training
    assert torch.equal(torch.get_rng_state(), before)  # the caller's random numbers go on as they would have


def test_a_model_that_writes_no_text_is_refused_before_its_weights_are_looked_for(llama: Path) -> None:
    edit_config(llama, model_type="vit")
    (llama / "model.safetensors").unlink()
    assert refusal(llama) == "llama is a model of type vit, which does not complete text"


def test_weights_that_do_not_fill_the_network_are_refused(llama: Path) -> None:
    edit_weights(llama, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    assert refusal(llama) == "llama lacks 1 of its weights: model.layers.1.mlp.up_proj.weight"


def test_weights_that_do_not_fit_the_network_are_refused(llama: Path) -> None:
    edit_config(llama, intermediate_size=96)
    message = "llama has weights whose sizes contradict config.json: model.layers.0.mlp.down_proj.weight, "
    assert refusal(llama).startswith(message)


def test_weights_that_are_not_used_are_reported(llama: Path, caplog: pytest.LogCaptureFixture) -> None:
    from torch import zeros

    edit_weights(llama, lambda weights: weights.update({"lora_A": zeros(2)}))
    with caplog.at_level(logging.WARNING):
        load_model(ModelSpec(str(llama)), device="cpu")
    assert "llama has weights that its network does not use: lora_A" in caplog.text


def test_a_clock_that_would_end_completions_is_reported(llama: Path, caplog: pytest.LogCaptureFixture) -> None:
    (llama / "generation_config.json").write_text('{"max_time": 2.0}', encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        load_model(ModelSpec(str(llama)), device="cpu")
    assert "llama: max_time=2.0 of its generation config is ignored" in caplog.text


def test_a_model_that_runs_its_own_code_is_refused(llama: Path) -> None:
    edit_config(llama, model_type="acme", auto_map={"AutoConfig": "code.AcmeConfig"})
    (llama / "code.py").write_text("raise SystemExit('this ran')")
    message = refusal(llama)
    assert message.startswith("llama runs its own Python code (transformers does not know its model type acme)")
    assert "model.trust_remote_code=true" in message


def test_code_that_is_not_needed_is_not_a_reason_to_refuse(llama: Path) -> None:
    edit_config(llama, auto_map={"AutoModelForCausalLM": "code.Acme"})
    (llama / "code.py").write_text("raise SystemExit('this ran')")
    assert load_model(ModelSpec(str(llama)), device="cpu").name == "llama"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", '{"a"', "config.json is damaged: Expecting ':' delimiter"),
        ("config.json", "{}", "config.json of llama cannot be read (Unrecognized model"),
        ("tokenizer.json", '{"a"', "the tokenizer of llama cannot be read (Expecting ':' delimiter"),
    ],
)
def test_a_damaged_file_is_one_sentence(llama: Path, file: str, content: str, message: str) -> None:
    (llama / file).write_text(content)
    assert message in refusal(llama)


UP = "model.layers.0.mlp.up_proj.weight"
DEEP = "[" * 100_000
SHARD = "model-00001-of-00001.safetensors"


def edit_header(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    edit(header)
    edited = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(edited).to_bytes(8, "little") + edited + content[8 + length :])


def set_index(folder: Path, index: object) -> None:
    (folder / "model.safetensors").rename(folder / SHARD)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def set_generation(folder: Path, **changes: object) -> None:
    (folder / "generation_config.json").write_text(json.dumps(changes))


def write_adapter(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")


DAMAGED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "layers in words": (lambda f: edit_config(f, num_hidden_layers="two"), "Field 'num_hidden_layers' expected int"),
    "layers below 0": (lambda f: edit_config(f, num_hidden_layers=-1), "num_hidden_layers=-1"),
    "no layers": (lambda f: edit_config(f, num_hidden_layers=0), "num_hidden_layers=0 must be 1 or more"),
    "a billion layers": (
        lambda f: edit_config(f, num_hidden_layers=10**9),
        "num_hidden_layers=1000000000, but the files have only 21",
    ),
    "too few layers": (lambda f: edit_config(f, num_hidden_layers=1), "config.json does not describe: model.layers.1."),
    "a huge width": (lambda f: edit_config(f, hidden_size=10**9), "its sizes give 1,349,000,000,000 parameters"),
    "a huge middle": (
        lambda f: edit_config(f, intermediate_size=10**10),
        "its sizes give 1,920,000,030,880 parameters",
    ),
    "no positions": (lambda f: edit_config(f, max_position_embeddings=0), "max_position_embeddings=0 must be"),
    "null": (lambda f: edit_config(f, vocab_size=None), "Field 'vocab_size' expected int"),
    "few tokens": (lambda f: edit_config(f, vocab_size=100), "has 384 tokens and its network only 100: "),
    "an unknown function": (lambda f: edit_config(f, hidden_act="klingon"), "config.json of llama cannot be read"),
    "no angles": (
        lambda f: edit_config(f, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 0}),
        "its rope_parameters give no valid rotary frequencies",
    ),
    "no tasks": (lambda f: edit_config(f, task_specific_params=5), "task_specific_params=5 must map each task"),
    "no object": (lambda f: (f / "config.json").write_text("[]"), "config.json is damaged: it must contain an object"),
    "too deep": (lambda f: (f / "config.json").write_text(DEEP), "config.json is damaged: maximum recursion depth"),
    "no JSON": (
        lambda f: (f / "generation_config.json").write_text("{"),
        "generation_config.json is damaged: Expecting",
    ),
    "an end in words": (lambda f: set_generation(f, eos_token_id="x"), "eos_token_id='x' must be a token id or a list"),
    "an end of null": (lambda f: set_generation(f, eos_token_id=[1, None]), "eos_token_id=[1, None] must be"),
    "an end that is no id": (lambda f: set_generation(f, eos_token_id=True), "eos_token_id=True must be"),
    "an end of others": (
        lambda f: set_generation(f, eos_token_id=384),
        "must be one of the network's 384 token ids",
    ),
    "no penalty": (lambda f: set_generation(f, repetition_penalty=0), "repetition_penalty=0 must be a number above 0"),
    "a length in words": (
        lambda f: (f / "tokenizer_config.json").write_text('{"model_max_length": "x"}'),
        "model_max_length='x' must be a number above 0",
    ),
    "a list of tokens": (
        lambda f: (f / "special_tokens_map.json").write_text("[]"),
        "special_tokens_map.json is damaged: it must contain an object",
    ),
    "an endless header": (
        lambda f: (f / "model.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}"),
        "model.safetensors is damaged: it has 10 bytes instead of 1,152,921,504,606,846,984",
    ),
    "a deep header": (
        lambda f: (f / "model.safetensors").write_bytes((10**5).to_bytes(8, "little") + DEEP.encode()),
        "model.safetensors is damaged: maximum recursion depth",
    ),
    "no offsets": (
        lambda f: edit_header(f, lambda h: h[UP].pop("data_offsets")),
        "its header lacks the data_offsets of a tensor",
    ),
    "offsets in words": (lambda f: edit_header(f, lambda h: h[UP].update(data_offsets="ab")), "is damaged: its header"),
    "offsets of another": (
        lambda f: edit_header(f, lambda h: h[UP].update(data_offsets=h["lm_head.weight"]["data_offsets"])),
        "is damaged: Error while deserializing header: invalid",
    ),
    "an unknown dtype": (lambda f: edit_header(f, lambda h: h[UP].update(dtype="K9")), "is damaged: Error while"),
    "integers": (lambda f: edit_header(f, lambda h: h[UP].update(dtype="I32")), f"has weights of dtype I32 ({UP})"),
    "a shape in words": (lambda f: edit_header(f, lambda h: h[UP].update(shape="x")), "is damaged: Error while"),
    "no number": (
        lambda f: edit_weights(f, lambda w: w[UP].__setitem__((0, 0), float("nan"))),
        f"llama has weights that are not finite in float32 ({UP})",
    ),
    "no shards": (lambda f: set_index(f, {}), "its weight_map must map each tensor to a file"),
    "a list of shards": (lambda f: set_index(f, {"weight_map": [SHARD]}), "its weight_map must map each tensor"),
    "a shard of 5": (
        lambda f: set_index(f, {"weight_map": {"a": 5}}),
        "its weight_map has 5 for a, which is not a file",
    ),
    "a shard elsewhere": (lambda f: set_index(f, {"weight_map": {"a": "../b"}}), "its weight_map has '../b' for a"),
    "no metadata": (lambda f: set_index(f, {"weight_map": {"a": SHARD}}), "its metadata must be an object"),
    "two sets of weights": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}'),
        "has two sets of weights, model.safetensors and the files listed in model.safetensors.index.json",
    ),
    "an adapter": (write_adapter, "contains an adapter (adapter_config.json), which would not be applied"),
    "an adapter below": (
        lambda f: write_adapter(f / "a"),
        "contains an adapter (a/adapter_config.json), which would not",
    ),
    "an adapter alone": (
        lambda f: (write_adapter(f), (f / "config.json").unlink()),
        "contains only an adapter (adapter_config.json): give its base model as model.source",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_whatever_is_damaged_in_a_folder_is_one_line(llama: Path, damage: str, icl_eval_command: Any) -> None:
    edit, message = DAMAGED[damage]
    edit(llama)
    outcome = icl_eval_command("stream", f"model.source={llama}", "prompt=a", "max_new_tokens=1")
    assert outcome.exit_code == 2
    assert message in outcome.err
    lines = [line for line in outcome.err.splitlines() if line.startswith("icl-eval: ")]
    assert len(lines) == 1
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


def test_a_bias_that_the_network_would_not_add_is_refused(llama: Path) -> None:
    from torch import ones

    edit_weights(llama, lambda weights: weights.update({"model.layers.0.self_attn.q_proj.bias": ones(32)}))
    message = "llama has weights that config.json does not describe: model.layers.0.self_attn.q_proj.bias"
    assert refusal(llama) == message


def test_weights_that_become_infinite_in_a_narrow_dtype_are_refused(llama: Path) -> None:
    edit_weights(llama, lambda weights: weights[UP].__setitem__((0, 0), 1e6))
    load_model(ModelSpec(str(llama)), "bfloat16", "cpu")
    with pytest.raises(ModelUnavailableError, match="are not finite in float16"):
        load_model(ModelSpec(str(llama)), "float16", "cpu")


def test_tokens_without_a_vector_are_refused_where_a_prompt_has_them(llama: Path) -> None:
    tokenizer = tiny_models.train_bpe()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|image|>"]})
    tokenizer.save_pretrained(llama)
    conventions = find_conventions(read_card(ModelSpec(str(llama))), RequestedConventions())
    assert conventions.encode_text("a", "no picture").decoder_ids
    with pytest.raises(ModelUnavailableError, match=r"has 385 tokens and its network only 384: <\|image\|> cannot"):
        conventions.encode_text("a", "a picture: <|image|>")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_is_not_blamed_on_the_files(
    llama: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", run_out)
    message = refusal(llama)
    assert message.startswith("memory ran out while loading llama: use a smaller model or dtype")
    assert "delete" not in message


def test_a_sentencepiece_model_asks_for_what_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_models.save_llama(tmp_path / "pieces")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    (folder / "tokenizer.model").write_bytes(b"pieces")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    monkeypatch.setattr("transformers.utils.is_protobuf_available", lambda: False)
    message = refusal(folder)
    assert message.startswith("the tokenizer of pieces cannot be read (reading a SentencePiece model requires protobuf")


def test_pickled_weights_load_when_they_are_trusted(llama: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(llama / "model.safetensors"), llama / "pytorch_model.bin")
    (llama / "model.safetensors").unlink()
    assert "only as pickle files" in refusal(llama)
    assert load_model(ModelSpec(str(llama), allow_pickle=True), device="cpu").architecture == "decoder-only"


def test_a_card_needs_no_weights(llama: Path) -> None:
    (llama / "model.safetensors").unlink()
    card = read_card(ModelSpec(str(llama)))
    assert (card.name, card.architecture, len(card.tokenizer)) == ("llama", "decoder-only", 384)
    assert "contains no weights" in refusal(llama)


def test_a_card_is_read_once_and_again_when_a_file_has_changed(llama: Path) -> None:
    card = find_card(ModelSpec(str(llama)))
    assert find_card(ModelSpec(str(llama))) is card
    assert load_model(ModelSpec(str(llama)), device="cpu").tokenizer is card.tokenizer
    (llama / ".#config.json").symlink_to("user@host.123")  # an editor's mark on a file that it has open
    edit_config(llama, max_position_embeddings=77)
    assert find_card(ModelSpec(str(llama))).max_length == 77


def test_a_private_copy_shares_no_tokenizer(llama: Path) -> None:
    assert models.load_own(ModelSpec(str(llama)), "float32", "cpu").tokenizer is not (
        find_card(ModelSpec(str(llama))).tokenizer
    )
