import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models

from icl_eval.errors import ConfigError, IclEvalError, ModelUnavailableError
from icl_eval.models import loading as models
from icl_eval.models.loading import choose_device, load_model, read_card
from icl_eval.models.weights import ModelSpec


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
    with pytest.raises(ConfigError, match="is not one of float32, bfloat16, float16, float64"):
        load_model(ModelSpec(str(llama)), dtype, "cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "tpu", ""])
def test_a_device_that_is_not_here_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match=f"device='{device}' is not available here: auto, cpu"):
        choose_device(device)


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    message = refusal(tiny_models.save_bert(tmp_path / "bert"))
    assert message == "bert is neither decoder-only nor encoder-decoder: its tokens see those that follow them"


def test_a_decoder_whose_configuration_looks_like_an_encoders_is_not_refused(tmp_path: Path) -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    folder = tiny_models.save_llama(tmp_path / "pythia")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=384, **sizes)).save_pretrained(folder)
    network = load_model(ModelSpec(str(folder)), device="cpu").network
    assert not network.config.is_decoder


def test_a_model_that_writes_no_text_is_refused_before_its_weights_are_looked_for(llama: Path) -> None:
    edit_config(llama, model_type="vit")
    (llama / "model.safetensors").unlink()
    assert refusal(llama) == "llama is a model of type vit, which does not complete text"


def test_weights_that_do_not_fill_the_network_are_refused(llama: Path) -> None:
    edit_weights(llama, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    assert refusal(llama) == "llama lacks 1 of its weights: model.layers.1.mlp.up_proj.weight"


def test_weights_that_do_not_fit_the_network_are_refused(llama: Path) -> None:
    edit_config(llama, intermediate_size=96)
    message = "llama has weights of other sizes than config.json says: model.layers.0.mlp.down_proj.weight, "
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
    assert "llama: max_time=2.0 of its generation config is not followed" in caplog.text


def test_a_model_that_runs_its_own_code_is_refused(llama: Path) -> None:
    edit_config(llama, model_type="acme", auto_map={"AutoConfig": "code.AcmeConfig"})
    (llama / "code.py").write_text("raise SystemExit('this ran')")
    message = refusal(llama)
    assert message.startswith("llama runs Python code of its own (transformers does not know its model type acme)")
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
    assert "holds no weights" in refusal(llama)
