"""A model in another form than its files: quantized, spread over devices, with another attention or tokenizer.

What runs is what was asked for, it is part of the run's identity, and the report shows it; or it is one line.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adapters
import pytest
import tiny_models
import torch

import icl_eval
from icl_eval.decoding import Completion, StreamDecoder
from icl_eval.decoding.generate import GenerateDecoder
from icl_eval.decoding.preparing import capabilities_of, prepare
from icl_eval.decoding.searches import Greedy
from icl_eval.errors import ConfigError, IclEvalError, ModelUnavailableError
from icl_eval.models import loading
from icl_eval.models.cards import read_card
from icl_eval.models.loading import LanguageModel, load_model
from icl_eval.models.networks import plan_network
from icl_eval.models.specs import ModelSpec
from icl_eval.models.states import read_state
from icl_eval.models.weights import identify
from icl_eval.prompts.building import EncodedPrompt, Prompt

WORDS = ("the house is small", "one two three one two", "Q: What is 7 + 8?", "sky")
EIGHT_BITS = {"quant_method": "bitsandbytes", "load_in_8bit": True}
FOUR_BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
ON_DISK = {"model.embed_tokens": "cpu", "model.layers.0": "disk", "model.layers.1": "cpu", "model.norm": "disk"}
ON_DISK |= {"model.rotary_emb": "cpu", "lm_head": "cpu"}


@pytest.fixture(autouse=True)
def nothing_loaded() -> Iterator[None]:
    loading._loaded.clear()
    yield
    loading._loaded.clear()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model whose layers are as wide as the blocks of 4 bits need."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    return tiny_models.save_llama(folder, hidden_size=64, intermediate_size=128, initializer_range=0.15)


def load(folder: Path, dtype: str = "float32", device: str = "auto", **form: Any) -> LanguageModel:
    return load_model(ModelSpec(str(folder), **form), dtype, device)


def refusal(folder: Path, dtype: str = "float32", device: str = "auto", **form: Any) -> str:
    with pytest.raises(IclEvalError) as caught:
        load(folder, dtype, device, **form)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def encode(model: LanguageModel) -> list[EncodedPrompt]:
    """Return prompts that share their first tokens."""
    first = "The answer is yes. The answer is no. "
    texts = [first + words for words in WORDS]
    return [EncodedPrompt(Prompt(text, None, None), (), tuple(model.tokenizer(text).input_ids)) for text in texts]


def decode(model: LanguageModel, batch_size: int | None = None) -> dict[str, tuple[int, ...]]:
    events = StreamDecoder(model, 12, batch_size=batch_size).stream(encode(model))
    return {event.example_id: event.token_ids for event in events if isinstance(event, Completion)}


def generate(model: LanguageModel) -> dict[str, tuple[int, ...]]:
    decoder = GenerateDecoder(model, Greedy().settings, 12)
    return {prompt.prompt.example_id: decoder.generate(prompt) for prompt in encode(model)}


# Quantization


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_in_4_bits_decode_as_generate_does(llama: Path, dtype: str) -> None:
    model = load(llama, dtype, "cpu", quantization=FOUR_BITS)
    kinds = {type(module).__name__ for module in model.network.modules()}
    assert "Linear4bit" in kinds
    assert capabilities_of(model).split
    found = decode(model, batch_size=1)
    assert found == generate(model)
    assert found != decode(load(llama, dtype, "cpu"))


def test_weights_in_8_bits_decode_as_generate_does(llama: Path) -> None:
    model = load(llama, "bfloat16", "cpu", quantization=EIGHT_BITS)
    assert capabilities_of(model).split
    assert decode(model, batch_size=1) == generate(model)


def test_a_quantized_network_stays_known_between_calls(llama: Path) -> None:
    model = load(llama, device="cpu", quantization=FOUR_BITS)
    decode(model)
    state = read_state(model.network)
    assert state is not None
    assert prepare(model).prefixes is prepare(model).prefixes
    weight = model.network.model.layers[0].mlp.up_proj.weight
    weight.quant_state.absmax = weight.quant_state.absmax * 2
    changed = read_state(model.network)
    assert changed is not None
    assert changed.structure == state.structure
    assert changed.contents != state.contents


def test_files_that_are_quantized_load_as_they_are(llama: Path, tmp_path: Path) -> None:
    model = load(llama, device="cpu", quantization=FOUR_BITS)
    model.network.save_pretrained(tmp_path / "packed")  # before it runs: for the processor it packs its weights anew
    expected = decode(model)
    model.tokenizer.save_pretrained(tmp_path / "packed")
    packed = load(tmp_path / "packed", device="cpu")
    assert decode(packed) == expected
    assert read_card(ModelSpec(str(tmp_path / "packed"))).quantization["bnb_4bit_quant_type"] == "nf4"
    message = refusal(tmp_path / "packed", quantization={"quant_method": "quanto", "weights": "int8"})
    assert message == "model.quantization: packed is quantized already (bitsandbytes); leave it out"
    message = refusal(tmp_path / "packed", quantization=FOUR_BITS)
    assert message.startswith("model.quantization.bnb_4bit_quant_type: packed is quantized already (bitsandbytes); the")


def test_files_whose_library_is_missing_are_refused_before_weights_are_read(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_models.save_llama(tmp_path / "packed")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"quantization_config": {"quant_method": "gptq", "bits": 4}})
    )
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    assert refusal(folder) == (
        "packed is quantized (gptq): Loading a GPTQ quantized model requires optimum (`pip install optimum`)"
    )


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"quant_method": "magic"}, "model.quantization: quant_method=magic: must be one of aqlm, auto-round, awq, "),
        ({"bits": 4}, "model.quantization: quant_method=None: must be one of aqlm, "),
        ({"quant_method": "gguf"}, "model.quantization: quant_method=gguf: must be one of aqlm, "),
        ({"quant_method": "bitsandbytes"}, "bitsandbytes needs either load_in_4bit: true or load_in_8bit: true"),
        ({"load_in_4bit": True, "load_in_8bit": True}, "bitsandbytes needs either load_in_4bit: true or load_in_8bit"),
        (
            {"load_in_4bit": True, "bits": 4},
            "model.quantization.bits: not an option of bitsandbytes (its options: bnb_",
        ),
        ({"load_in_4bit": "yes"}, "model.quantization: load_in_4bit must be a boolean"),
        ({"quant_method": "quanto", "weights": "int5"}, "model.quantization: Only support weights in ['float8', "),
        (
            {"quant_method": "quanto", "weights": "int8"},
            "requires optimum-quanto library (`pip install optimum-quanto`)",
        ),
        (
            {"quant_method": "torchao", "quant_type": "int8"},
            "torchao requires the package torchao: pip install torchao",
        ),
        (
            {"quant_method": "awq"},
            "model.quantization: The quantization method QuantizationMethod.AWQ does require the",
        ),
    ],
)
def test_a_quantization_that_cannot_be_followed_is_one_line(
    llama: Path, quantization: dict[str, Any], message: str
) -> None:
    assert message in refusal(llama, quantization=quantization)


def test_the_size_of_quantized_weights_is_known_before_they_are_read(llama: Path) -> None:
    def count(**form: Any) -> int:
        spec = ModelSpec(str(llama), **form)
        return plan_network(spec, read_card(spec), "float32", "cpu").num_bytes

    linear = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 64 * 128 * 3)  # two layers: q and o, k and v, and three of 64 to 128
    rest = 2 * 384 * 64 + 5 * 64  # embedding, head and norms
    assert count() == 4 * (linear + rest)
    assert count(quantization=FOUR_BITS) == linear // 2 + 4 * rest
    assert count(quantization=EIGHT_BITS) == linear + 4 * rest


def test_an_adapter_stays_beside_quantized_weights(llama: Path, tmp_path: Path) -> None:
    folder = adapters.save_lora(tmp_path / "lora", llama, ["q_proj", "up_proj"])
    model = load(llama, device="cpu", quantization=FOUR_BITS, adapter=str(folder))
    layer = model.network.model.layers[0].self_attn.q_proj
    assert type(layer.base_layer).__name__ == "Linear4bit"
    assert capabilities_of(model).split
    found = decode(model, batch_size=1)
    assert found == generate(model)
    assert found != decode(load(llama, device="cpu", quantization=FOUR_BITS), batch_size=1)
    assert read_state(model.network) is not None


# Devices


def test_layers_on_disk_decode_as_they_do_in_memory(llama: Path) -> None:
    model = load(llama, device_map=ON_DISK)
    assert [str(parameter.device) for parameter in model.network.model.layers[0].parameters()][:1] == ["meta"]
    assert model.device == "cpu"
    assert capabilities_of(model).split
    assert decode(model) == decode(load(llama, device="cpu"))
    assert read_state(model.network) is None  # the numbers on disk cannot be watched


def test_a_word_chooses_the_devices(llama: Path) -> None:
    model = load(llama, device_map="auto")
    assert decode(model) == decode(load(llama, device="cpu"))


@pytest.mark.parametrize(
    ("device_map", "message"),
    [
        (
            "everywhere",
            "model.device_map=everywhere: must be one of auto, balanced, balanced_low_0, sequential, or map",
        ),
        ({}, "model.device_map={}: must be one of auto, "),
        ({"": "tpu"}, "model.device_map: ='tpu' is not available on this machine; must be one of cpu, "),
        ({"": 99}, "model.device_map: =99 is not available on this machine; must be one of cpu, "),
        ({"model": "cpu"}, "model.device_map: gives no device for lm_head.weight"),
        ({"model": "cpu", "head": "cpu"}, "model.device_map: head: the network has no such module"),
        (ON_DISK | {"model.embed_tokens": "disk"}, "llama: model.device_map offloads the first layer (the embedding)"),
    ],
)
def test_devices_that_cannot_be_used_are_one_line(llama: Path, device_map: Any, message: str) -> None:
    assert refusal(llama, device_map=device_map).startswith(message)


def test_one_device_and_several_exclude_each_other(llama: Path) -> None:
    assert refusal(llama, device="cpu", device_map="auto") == (
        "device=cpu: model.device_map chooses the devices of every layer; leave one of the two out"
    )


def test_an_adapter_needs_weights_on_a_device(llama: Path, tmp_path: Path) -> None:
    folder = adapters.save_lora(tmp_path / "lora", llama, ["q_proj"])
    assert "an adapter can only change weights that are on a device" in refusal(
        llama, device_map=ON_DISK, adapter=str(folder)
    )


def test_weights_that_do_not_fit_are_refused_before_they_are_read(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "free_bytes", lambda device: 100_000)
    monkeypatch.setattr(loading, "swap_bytes", lambda device: 0)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    assert refusal(llama, device="cpu") == (
        "llama needs 0.0 GB in float32, and cpu has 0.0 GB free: use another dtype, model.quantization, or "
        "model.device_map=auto, which spreads its layers over devices"
    )


# Attention


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_the_attention_that_is_asked_for_runs(llama: Path, name: str) -> None:
    model = load(llama, device="cpu", attn_implementation=name)
    assert model.network.config._attn_implementation == name
    assert capabilities_of(model).split == (name == "sdpa")
    assert decode(model) == decode(load(llama, device="cpu"))


@pytest.mark.parametrize(
    ("dtype", "name", "message"),
    [
        ("float32", "flash", "model.attn_implementation=flash: must be one of eager, flash_attention_2, "),
        ("float32", "icl_eval_split", "model.attn_implementation=icl_eval_split: must be one of eager, "),
        ("float32", "paged|eager", "model.attn_implementation=paged|eager: must be one of eager, "),
        ("float32", "flash_attention_2", "computes in float16 or bfloat16 only, and dtype=float32"),
        ("bfloat16", "flash_attention_2", "doesn't seem to be installed."),
        ("float32", "acme/kernel", "runs a kernel from the hub: set model.trust_remote_code=true if you trust its"),
    ],
)
def test_an_attention_that_does_not_run_is_one_line(llama: Path, dtype: str, name: str, message: str) -> None:
    assert message in refusal(llama, dtype, attn_implementation=name)


def test_an_attention_that_the_network_does_not_support_is_one_line(tmp_path: Path) -> None:
    folder = tiny_models.save_gpt2(tmp_path / "gpt2")
    message = refusal(folder, attn_implementation="flex_attention")
    assert message.startswith("model.attn_implementation=flex_attention: GPT2LMHeadModel does not support")


# Tokenizers


def test_another_tokenizer_is_used_and_is_part_of_the_identity(llama: Path, tmp_path: Path) -> None:
    tiny_models.train_bpe(single_special=True).save_pretrained(tmp_path / "other")
    spec = ModelSpec(str(llama), tokenizer=str(tmp_path / "other"))
    card = read_card(spec)
    assert len(card.tokenizer.all_special_ids) == 1
    assert len(read_card(ModelSpec(str(llama))).tokenizer.all_special_ids) == 3
    assert load_model(spec).tokenizer.all_special_ids == card.tokenizer.all_special_ids
    assert identify(spec).startswith(f"{identify(ModelSpec(str(llama)))}, tokenizer folder:sha256=")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./nowhere", "model.tokenizer=./nowhere does not exist (working directory: "),
        ("acme/nowhere", "acme/nowhere (revision main) cannot be fetched from "),
        ("a b", "model.tokenizer='a b': must be a folder (./name), a .gguf or .whl file, "),
        ("{empty}", "contains no tokenizer (tokenizer.json): it is empty"),
        ("{large}", "the tokenizer of large has 484 tokens and its network only 384: "),
    ],
)
def test_a_tokenizer_that_cannot_be_used_is_one_line(llama: Path, tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    large = tiny_models.train_bpe()
    vocabulary = json.loads(large.backend_tokenizer.to_str())
    vocabulary["model"]["vocab"] |= {f"word{number}": 384 + number for number in range(100)}
    large.save_pretrained(tmp_path / "large")
    (tmp_path / "large" / "tokenizer.json").write_text(json.dumps(vocabulary))
    places = {name: str(tmp_path / name) for name in ("empty", "large")}
    assert message in refusal(llama, tokenizer=source.format(**places))


# Runs


@pytest.fixture
def evaluate(icl_eval_command: Any, llama: Path, tmp_path: Path) -> Any:
    """Evaluate into the folder `run`, and return the outcome and the report."""

    def evaluate(*words: str) -> tuple[Any, dict[str, Any]]:
        quick = ("task=qa", "limit=3", "num_fewshot=1", "max_new_tokens=4", "template=chat")
        given = ("model.chat_template=" + str(tmp_path / "chat.jinja"),)
        (tmp_path / "chat.jinja").write_text(tiny_models.CHAT_TEMPLATE)
        outcome = icl_eval_command(f"model.source={llama}", *quick, *given, "hydra.run.dir=run", *words)
        path = tmp_path / "run" / "report.json"
        return outcome, json.loads(path.read_text()) if path.exists() else {}

    return evaluate


FORMS = {
    "adapter": ("model.adapter={adapter}", "model.adapter={other}", "adapter: 'folder:sha256=", {"adapter": "adapter"}),
    "tokenizer": ("model.tokenizer={tokenizer}", "", "tokenizer: 'folder:sha256=", {"tokenizer": "tokenizer"}),
    "quantization": (
        "model.quantization.load_in_8bit=true",
        "model.quantization.load_in_4bit=true",
        "model.quantization.load_in_4bit: None there, True now; model.quantization.load_in_8bit: True there, None now",
        {"quantization": {"load_in_8bit": True}},
    ),
    "attention": (
        "model.attn_implementation=eager",
        "model.attn_implementation=sdpa",
        "model.attn_implementation: 'eager' there, 'sdpa' now",
        {"attn_implementation": "eager"},
    ),
    "chat template": ("", "model.chat_template={short}", "model.chat_template: 'sha256=", {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_run_is_resumed_in_its_own_form_alone_and_its_report_shows_it(
    evaluate: Any, llama: Path, tmp_path: Path, form: str
) -> None:
    places = {name: str(tmp_path / name) for name in ("adapter", "other", "tokenizer", "short")}
    for seed, name in enumerate(("adapter", "other")):
        adapters.save_lora(tmp_path / name, llama, ["q_proj"], seed)
    tiny_models.train_bpe().save_pretrained(tmp_path / "tokenizer")
    places["short"] += ".jinja"
    Path(places["short"]).write_text(tiny_models.CHAT_TEMPLATE.replace("<|eos|>", "\n"))
    first, second, refused, shown = FORMS[form]
    words = [first.format(**places)] if first else []
    outcome, report = evaluate(*words)
    assert outcome.exit_code == 0
    assert report["run"]["loading"] == shown
    libraries = {{"adapter": "peft", "quantization": "bitsandbytes"}.get(name) for name in shown} - {None}
    assert {"peft", "bitsandbytes"} & set(report["provenance"]["versions"]) == libraries
    network = report["provenance"]["network"]
    assert network["attn_implementation"] == shown.get("attn_implementation", "sdpa")
    assert network["quantization"] == ("bitsandbytes" if "quantization" in shown else None)
    assert report["run"]["conventions"]["chat_template"].startswith("chat.jinja (")
    page = (tmp_path / "run" / "report.html").read_text()
    for name, value in shown.items():
        assert f"{name} " in outcome.out
        if isinstance(value, str):
            assert f"{name} {value}" in " ".join(outcome.out.split())
            assert f"{name} {value}" in page
    again, _ = evaluate(*words)
    assert again.exit_code == 0
    assert "nothing was decoded" in again.out
    other, _ = evaluate(*([second.format(**places)] if second else []))
    assert other.exit_code == 2
    assert other.err.count("\n") == 1
    assert refused in other.err


@pytest.mark.slow
def test_the_devices_are_not_part_of_the_identity(evaluate: Any) -> None:
    outcome, report = evaluate("model.device_map=auto")
    assert (outcome.exit_code, report["run"]["loading"]) == (0, {})
    assert report["provenance"]["network"]["devices"] == {"": "cpu"}
    assert "nothing was decoded" in evaluate("device=cpu")[0].out


@pytest.mark.slow
def test_a_contradiction_is_refused_before_anything_is_read(icl_eval_command: Any) -> None:
    for words in (["model.device_map=auto", "device=cpu"], ["model.device_map=everywhere"]):
        outcome = icl_eval_command("model.source=./nowhere", *words)
        assert (outcome.exit_code, outcome.err.count("\n")) == (2, 1)
        assert "model.device_map" in outcome.err


def test_a_quantized_model_in_memory_is_reported_as_one(llama: Path, tmp_path: Path) -> None:
    model = load(llama, device="cpu", quantization=EIGHT_BITS)
    quick = {"task": "qa", "limit": 2, "num_fewshot": 1, "max_new_tokens": 2}
    report = icl_eval.evaluate(model=model, folder=tmp_path / "run", **quick).report
    assert report.run.loading["quantization"]["quant_method"] == "bitsandbytes"
    assert report.run.decoding["batch_invariant"] is False


@pytest.mark.parametrize(
    "option",
    [
        "model.adapter=./lora",
        "model.tokenizer=./other",
        "model.quantization.load_in_4bit=true",
        "model.device_map=auto",
        "model.attn_implementation=eager",
    ],
)
def test_a_model_in_memory_has_its_form(llama: Path, option: str) -> None:
    model = load(llama, device="cpu")
    for call in (lambda: icl_eval.preview(option, model=model, task="qa"), lambda: icl_eval.stream(model, "a", option)):
        with pytest.raises(
            ConfigError, match=rf"^{option.split('=')[0].removesuffix('.load_in_4bit')}=.*: the model is"
        ):
            call()


def test_memory_that_ran_out_says_what_can_be_done(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", run_out)
    with pytest.raises(ModelUnavailableError, match=r"model\.quantization or model\.device_map=auto"):
        load(llama, device="cpu")


@pytest.mark.parametrize("option", ["model.adapter=.", "model.quantization.load_in_4bit=true"])
def test_a_server_decides_the_form_of_its_model_itself(icl_eval_command: Any, llama: Path, option: str) -> None:
    server = ("engine=openai", "engine.base_url=http://127.0.0.1:9/v1", "engine.model=served")
    outcome = icl_eval_command(f"model.source={llama}", *server, option)
    key = option.split("=")[0].removesuffix(".load_in_4bit")
    assert (outcome.exit_code, outcome.err.count("\n")) == (2, 1)
    assert f"{key}: has no effect with engine=openai; start its server with it" in outcome.err
