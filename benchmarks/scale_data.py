"""A tiny random model and tasks of any size, for measuring what an evaluation costs beside its network.

The model is a Llama of two layers whose byte-level tokenizer is trained on the packaged tasks. Each shape of data
stresses something else:

| shape        | a row                                                          |
|--------------|----------------------------------------------------------------|
| `short`      | a question of six words with one reference                     |
| `long`       | a question of about 2,000 characters                           |
| `references` | the short question with 40 references                          |
| `unicode`    | a question whose characters take two to four bytes of UTF-8    |
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

_DATA = Path(__file__).parent.parent / "data"
_VOCABULARY = 2048
_POOL_SIZE = 100
_NUM_REFERENCES = 40
_METRICS = ("exact_match", "token_f1", "chrf")
TASK = "scale"
"""The name of the task."""


def write_model(folder: Path) -> Path:
    """Write a random network and its tokenizer into a folder, and return the folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=_VOCABULARY, max_position_embeddings=8192, initializer_range=0.3, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    _train_tokenizer().save_pretrained(folder)
    return folder


def _train_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|bos|>", "<|eos|>", "<|pad|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    texts = [path.read_text(encoding="utf-8") for path in sorted(_DATA.glob("[cmqst]*/*.jsonl"))]
    backend.train_from_iterator(texts, trainer)
    names = dict(zip(("bos_token", "eos_token", "pad_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def write_task(folder: Path, shape: str, num_questions: int) -> Path:
    """Write a task of one shape and its config, and return the config folder for `--config-dir`."""
    folder.mkdir(parents=True)
    for name, first, count in (("pool", 0, _POOL_SIZE), ("test", _POOL_SIZE, num_questions)):
        rows = (SHAPES[shape](number) for number in range(first, first + count))
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    config = folder / "conf" / "task" / f"{TASK}.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(
        f"# @package task.{TASK}\n"
        f"defaults:\n  - /metrics@metrics: [{', '.join(_METRICS)}]\n  - _self_\n"
        "instruction: Answer the question.\n"
        "labels: {question: Question, answer: Answer}\n"
        f"pool: {{path: {json.dumps(str(folder / 'pool.jsonl'))}}}\n"
        f"test: {{path: {json.dumps(str(folder / 'test.jsonl'))}}}\n"
        "max_new_tokens: 4\n"
    )
    return folder / "conf"


def _short(number: int) -> dict[str, Any]:
    return _row(number, f"What is {number} plus {number * 7 % 1000}?", [str(number + number * 7 % 1000)])


def _long(number: int) -> dict[str, Any]:
    sentences = (f"In step {number * 11 + step} the pot holds {step * 37 % 100} litres." for step in range(45))
    return _row(number, " ".join(sentences) + " How much is left?", [str(number % 100)])


def _many_references(number: int) -> dict[str, Any]:
    return {**_short(number), "references": [f"{number + step} units" for step in range(_NUM_REFERENCES)]}


def _unicode(number: int) -> dict[str, Any]:
    return _row(number, f"Сколько будет {number} плюс 七百 — 🦉🧮{number * 7 % 1000}?", [f"ответ {number} 🦉"])


def _passages(number: int) -> dict[str, Any]:
    sentences = (f"Town {number // 8 * 13 + step} has {step * 379 % 1000} houses." for step in range(25))
    return _row(number, " ".join(sentences) + f" How many has town {number}?", [str(number % 1000)])


def _row(number: int, question: str, references: list[str]) -> dict[str, Any]:
    return {"id": f"q{number:06}", "question": question, "references": references}


SHAPES: dict[str, Callable[[int], dict[str, Any]]] = {
    "short": _short,
    "long": _long,
    "passages": _passages,
    "references": _many_references,
    "unicode": _unicode,
}
"""The rows of each shape, by their number."""
