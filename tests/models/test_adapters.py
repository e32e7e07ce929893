"""A PEFT adapter changes what a model computes exactly as PEFT says, or is refused in one line."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapters
import pytest
import tiny_models
import torch
from peft import (
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    TrainableTokensConfig,
    VeraConfig,
)

from icl_eval.decoding import Completion, StreamDecoder
from icl_eval.decoding.preparing import capabilities_of
from icl_eval.errors import ConfigError, IclEvalError
from icl_eval.models.loading import load_model
from icl_eval.models.specs import ModelSpec
from icl_eval.models.weights import identify
from icl_eval.prompts.building import EncodedPrompt, Prompt

IDS = torch.tensor([[100, 110, 120, 130, 140]])


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_llama(tmp_path_factory.mktemp("models") / "llama")


def logits(network: Any) -> torch.Tensor:
    options = {"decoder_input_ids": IDS} if network.config.is_encoder_decoder else {}
    with torch.inference_mode():
        found: torch.Tensor = network(input_ids=IDS, **options).logits
    return found


def spec_of(base: Path, adapter: Path, **options: Any) -> ModelSpec:
    return ModelSpec(str(base), adapter=str(adapter), **options)


def refusal(base: Path, adapter: Path | str) -> str:
    with pytest.raises(IclEvalError) as caught:
        load_model(ModelSpec(str(base), adapter=str(adapter)), device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


KINDS = {
    "LoRA": LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "up_proj"]),
    "LoRA of all layers": LoraConfig(r=2, lora_alpha=64, target_modules="all-linear", bias="lora_only"),
    "rank-stabilized": LoraConfig(r=4, lora_alpha=64, target_modules=["v_proj"], use_rslora=True),
    "DoRA": LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "down_proj"], use_dora=True),
    "with a whole layer": LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "with tokens": LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=[100, 120]),
    "tokens": TrainableTokensConfig(token_indices=[100, 120], target_modules=["embed_tokens"]),
    "IA3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "LoHa": LoHaConfig(r=4, alpha=512, target_modules=["q_proj"]),
    "LoKr": LoKrConfig(r=4, target_modules=["q_proj"]),
    "VeRA": VeraConfig(r=8, target_modules=["q_proj"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_adapter_computes_what_peft_computes(llama: Path, tmp_path: Path, kind: str) -> None:
    from transformers import AutoModelForCausalLM

    folder = adapters.save_adapter(tmp_path / "adapter", llama, KINDS[kind])
    before = AutoModelForCausalLM.from_pretrained(llama)
    plain = logits(before)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = logits(PeftModel.from_pretrained(before, str(folder)).eval())
    model = load_model(spec_of(llama, folder), device="cpu")
    found = logits(model.network)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (expected - plain).abs().max() > 1e-2 * expected.abs().max()
    assert type(model.network) is type(load_model(ModelSpec(str(llama)), device="cpu").network)
    assert capabilities_of(model).split
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert not model.network.training


@pytest.mark.parametrize(
    ("save", "modules"), [(tiny_models.save_gpt2, ["c_attn", "c_fc"]), (tiny_models.save_t5, ["q", "wi"])]
)
def test_a_merged_adapter_decodes_as_generate_does(
    tmp_path: Path, save: Callable[[Path], Path], modules: list[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    base = save(tmp_path / "base")
    folder = adapters.save_lora(tmp_path / "adapter", base, modules)
    model = load_model(spec_of(base, folder), device="cpu")
    ids = tuple(IDS[0].tolist())
    is_seq2seq = model.architecture == "encoder-decoder"
    prompt = EncodedPrompt(Prompt("a", None, None), *((ids, ()) if is_seq2seq else ((), ids)))
    events = StreamDecoder(model, 12).stream([prompt])
    [completion] = [event for event in events if isinstance(event, Completion)]
    auto = AutoModelForSeq2SeqLM if is_seq2seq else AutoModelForCausalLM
    adapted = PeftModel.from_pretrained(auto.from_pretrained(base), str(folder))
    found = adapted.generate(input_ids=IDS, max_new_tokens=12, do_sample=False)[0].tolist()
    assert list(completion.token_ids) == found[1 if is_seq2seq else len(ids) :]


def test_an_adapter_is_part_of_the_identity(llama: Path, tmp_path: Path) -> None:
    first = adapters.save_lora(tmp_path / "first", llama, ["q_proj"])
    second = adapters.save_lora(tmp_path / "second", llama, ["q_proj"], seed=1)
    copy = adapters.save_lora(tmp_path / "copy", llama, ["q_proj"])
    (first / "trainer_state.json").write_text("{}")  # nothing that is loaded
    plain, one, other, again = (
        identify(ModelSpec(str(llama), adapter=adapter and str(adapter))) for adapter in (None, first, second, copy)
    )
    assert one == again
    assert len({plain, one, other}) == 3
    assert one.startswith(f"{plain}, adapter folder:sha256=")


def test_a_pickled_adapter_loads_when_it_is_trusted(llama: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = adapters.save_lora(tmp_path / "lora", llama, ["q_proj"])
    expected = logits(load_model(spec_of(llama, folder), device="cpu").network)
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    assert "has its weights only as a pickle file (adapter_model.bin), which can run code" in refusal(llama, folder)
    found = logits(load_model(spec_of(llama, folder, allow_pickle=True), device="cpu").network)
    assert torch.equal(found, expected)


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "adapter_model.safetensors")
    change(weights)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no configuration": (lambda f: (f / "adapter_config.json").unlink(), "contains no adapter_config.json, so that"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "contains no weights (adapter_model.safetens"),
    "no JSON": (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json is damaged: Expecting"),
    "half a file": (
        lambda f: (f / "adapter_model.safetensors").write_bytes((f / "adapter_model.safetensors").read_bytes()[:-9]),
        "adapter_model.safetensors is damaged: it has",
    ),
    "an unknown kind": (lambda f: edit(f, peft_type="MAGIC"), "adapter_config.json of the adapter lora cannot be read"),
    "a newer option": (lambda f: edit(f, use_magic=True), "the adapter lora needs another version of peft: "),
    "another task": (lambda f: edit(f, task_type="SEQ_CLS"), "the adapter lora is for SEQ_CLS, not for a model that"),
    "code": (
        lambda f: edit(f, megatron_config={"a": 1}, megatron_core="evil.module"),
        "imports the module 'evil.module', which its configuration names (megatron_config): adapters that run code",
    ),
    "some inputs": (lambda f: edit(f, alora_invocation_tokens=[5]), "(aLoRA) acts on some inputs only"),
    "no such layers": (lambda f: edit(f, target_modules=["query"]), "the adapter lora does not fit llama (Target mod"),
    "other layers": (lambda f: edit(f, target_modules=["k_proj"]), "llama has no place for base_model.model.model."),
    "another rank": (
        lambda f: edit(f, r=8),
        f"is for another model (it was trained on acme/base): {A} has the shape [4, 32], and llama needs [8, 32]",
    ),
    "a lost weight": (lambda f: edit_weights(f, lambda w: w.pop(A)), f"the adapter lora lacks 1 weight: {A}"),
    "no number": (
        lambda f: edit_weights(f, lambda w: w[A].fill_(float("nan"))),
        "the adapter lora cannot be applied (NaNs detected in the merged weights. The adapter default seems to be",
    ),
}


@pytest.mark.parametrize("damage", REFUSED)
def test_an_adapter_that_cannot_be_followed_is_one_line(llama: Path, tmp_path: Path, damage: str) -> None:
    folder = adapters.save_lora(tmp_path / "lora", llama, ["q_proj"])
    edit(folder, base_model_name_or_path="acme/base")
    change, message = REFUSED[damage]
    change(folder)
    assert message in refusal(llama, folder)


def test_an_adapter_of_a_model_of_another_name_is_reported(
    llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = adapters.save_lora(tmp_path / "lora", llama, ["q_proj"])
    load_model(spec_of(llama, folder), device="cpu")
    assert caplog.text == ""
    edit(folder, base_model_name_or_path="acme/base")
    load_model(spec_of(llama, folder), device="cpu")
    assert "the adapter lora fits llama, but is for another model (it was trained on acme/base)" in caplog.text


@pytest.mark.parametrize("kind", [PromptTuningConfig(num_virtual_tokens=4), PrefixTuningConfig(num_virtual_tokens=4)])
def test_a_learned_prompt_is_no_change_of_the_weights(llama: Path, tmp_path: Path, kind: Any) -> None:
    folder = adapters.save_adapter(tmp_path / "soft", llama, kind)
    assert "learns a prompt, not a change of the weights" in refusal(llama, folder)


def test_an_adapter_of_a_wider_model_is_refused_before_weights_are_read(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    wide = LlamaConfig.from_pretrained(llama, hidden_size=64)
    LlamaForCausalLM(wide).save_pretrained(tmp_path / "wide")
    folder = adapters.save_lora(tmp_path / "lora", tmp_path / "wide", ["q_proj"])
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    assert f"{A} has the shape [4, 64], and llama needs [4, 32]" in refusal(llama, folder)


def test_a_missing_adapter_is_one_line(llama: Path) -> None:
    assert refusal(llama, "./nowhere").startswith("model.adapter=./nowhere does not exist (working directory: ")
    assert refusal(llama, "./x.gguf") == "model.adapter=./x.gguf: must be a folder (./name) or a hub name (acme/lora)"
    assert "or set model.adapter to ./FOLDER" in refusal(llama, "acme/nowhere")
    assert refusal(llama, "acme..x").startswith("model.adapter=acme..x is not a valid hub name")


def test_a_missing_package_is_one_line(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = adapters.save_lora(tmp_path / "lora", llama, ["q_proj"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        load_model(spec_of(llama, folder), device="cpu")
    assert str(caught.value) == "model.adapter: requires the package peft: pip install 'icl-eval[adapters]'"


def test_a_folder_with_an_adapter_alone_says_what_to_do(llama: Path, tmp_path: Path) -> None:
    folder = adapters.save_lora(tmp_path / "lora", llama, ["q_proj"])
    with pytest.raises(IclEvalError, match=r"give its base model as model\.source, and this folder as model\.adapter"):
        load_model(ModelSpec(str(folder)), device="cpu")
