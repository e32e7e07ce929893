"""The systems that answer a workload's prompts; all of them run the same network object in the same process."""

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

import torch

from benchmarks.answers import Answer, cut_text
from benchmarks.native import VLLM_PYTHON, CTranslate2, LlamaCpp, Vllm, VllmApart
from benchmarks.workloads import Workload
from icl_eval.decoding import Completion, StreamDecoder
from icl_eval.decoding.preparing import forget
from icl_eval.models.loading import LanguageModel
from icl_eval.prompts.building import EncodedPrompt

BATCH_SIZES = (16, 32)
"""Batch sizes for systems that need one; each size gets a row in the table."""
NATIVE_BATCH_SIZES = (32, 64)
"""Batch sizes for systems that share a prefix, for which larger batches pay off."""
PACKAGES = {"lm-eval": "lm_eval", "llama.cpp": "llama_cpp", "CTranslate2": "ctranslate2", "vLLM": "vllm"}
"""The package that each family requires."""
FAMILIES = ("icl_eval", "generate", *PACKAGES, "naive")


class System(Protocol):
    """Completes prompts by greedy search."""

    @property
    def name(self) -> str:
        """The system's name in tables."""

    @property
    def most_questions(self) -> int | None:
        """The maximum number of questions, by which the time is then scaled; None for all questions."""

    def answer(self, workload: Workload) -> list[Answer]:
        """Return the answers to a workload's prompts, in their order; the whole call is timed."""


def build_systems(families: Sequence[str], workload: Workload) -> list[System]:
    """Return the systems that can run a workload, with the one-time setup for the model already done."""
    systems: list[System] = [IclEval()]  # always present, since the others are compared with it
    if "generate" in families:
        systems += [Generate(1), *map(Generate, BATCH_SIZES)]
    if workload.model.architecture == "decoder-only":
        systems += _build_others(families, workload)
    if "naive" in families:
        systems.append(Naive())
    return systems


def _build_others(families: Sequence[str], workload: Workload) -> list[System]:
    """Return the systems of other software."""
    model, systems = workload.model, list[System]()
    present = [family for family in families if find_spec(PACKAGES.get(family, "icl_eval"))]
    if "lm-eval" in present:
        systems += [LmEval(workload, size) for size in BATCH_SIZES]
    if model.device != "cpu":
        return [*systems, Vllm(workload)] if "vLLM" in present else systems
    if "vLLM" in families and os.environ.get(VLLM_PYTHON):
        systems.append(VllmApart(workload))
    if "llama.cpp" in present and model.network.config.model_type == "llama":
        systems += [LlamaCpp(workload, size) for size in NATIVE_BATCH_SIZES]
    if "CTranslate2" in present and model.dtype == "float32":
        systems += [CTranslate2(workload, size) for size in NATIVE_BATCH_SIZES]
    return systems


class IclEval:
    """This package, starting afresh each time.

    What the package keeps of a network is dropped before each run: so the trial runs that find out what the network can
    do, laying out its weights, and the shared prefix are computed anew each time, and are timed.
    """

    name = "icl_eval"
    most_questions = None

    def answer(self, workload: Workload) -> list[Answer]:
        """Return the answers, in the order of the prompts."""
        forget(workload.model)
        decoder = StreamDecoder(workload.model, workload.max_new_tokens, workload.stop)
        completions = {
            event.example_id: event for event in decoder.stream(workload.prompts) if isinstance(event, Completion)
        }
        ordered = (completions[prompt.prompt.example_id] for prompt in workload.prompts)
        return [Answer(completion.text, len(completion.token_ids)) for completion in ordered]


class Generate:
    """transformers' `generate(do_sample=False)`, one by one or in left-padded batches of similar length."""

    most_questions = None

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self.name = f"generate, batch {batch_size}" if batch_size > 1 else "generate, one by one"

    def answer(self, workload: Workload) -> list[Answer]:
        """Return the answers, in the order of the prompts."""
        order = sorted(range(len(workload.prompts)), key=lambda row: -workload.prompts[row].num_tokens)
        answers: dict[int, Answer] = {}
        for begin in range(0, len(order), self._batch_size):
            rows = order[begin : begin + self._batch_size]
            generated = self._generate(workload, [workload.prompts[row] for row in rows])
            answers |= dict(zip(rows, generated, strict=True))
        return [answers[row] for row in range(len(order))]

    @staticmethod
    def _generate(workload: Workload, prompts: Sequence[EncodedPrompt]) -> Iterator[Answer]:
        model = workload.model
        inputs = _model_inputs(model, prompts)
        begin = inputs.get("decoder_input_ids", inputs["input_ids"]).shape[1]
        stopping: dict[str, Any] = {}
        if workload.stop:
            stopping = {"stop_strings": list(workload.stop), "tokenizer": model.tokenizer}
        out = model.network.generate(
            **inputs,
            **stopping,
            max_new_tokens=workload.max_new_tokens,
            do_sample=False,
            pad_token_id=_pad_id(model),
        )
        for ids in out[:, begin:].tolist():
            yield Answer(cut_text(workload, ids), None)


class LmEval:
    """EleutherAI's lm-evaluation-harness: `HFLM.generate_until`, with its own sorting, padding and stopping."""

    most_questions = None

    def __init__(self, workload: Workload, batch_size: int):
        from lm_eval.models.huggingface import HFLM

        model = workload.model
        self.name = f"lm-eval, batch {batch_size}"
        self._hflm = HFLM(pretrained=model.network, tokenizer=model.tokenizer, batch_size=batch_size)
        for prompt in workload.prompts:  # it gets strings, which must become the same tokens
            assert tuple(self._hflm.tok_encode(prompt.prompt.decoder)) == prompt.decoder_ids

    def answer(self, workload: Workload) -> list[Answer]:
        """Return the answers, in the order of the prompts."""
        from lm_eval.api.instance import Instance

        options = {"until": list(workload.stop), "max_gen_toks": workload.max_new_tokens, "do_sample": False}
        texts = [prompt.prompt.decoder or "" for prompt in workload.prompts]
        requests = [Instance("generate_until", {}, (text, dict(options)), row) for row, text in enumerate(texts)]
        return [Answer(text, None) for text in self._hflm.generate_until(requests, disable_tqdm=True)]


class Naive:
    """The loop of a first attempt, which runs the whole text again for each token."""

    name = "naive loop"
    most_questions = 2

    def answer(self, workload: Workload) -> list[Answer]:
        """Return the answers, in the order of the prompts."""
        return [self._answer_one(workload, prompt) for prompt in workload.prompts]

    @staticmethod
    @torch.inference_mode()
    def _answer_one(workload: Workload, prompt: EncodedPrompt) -> Answer:
        model = workload.model
        inputs = _model_inputs(model, [prompt])
        inputs.pop("attention_mask")  # there is no padding
        side = "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"
        ends = model.network.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        generated: list[int] = []
        while len(generated) < workload.max_new_tokens:
            logits = model.network(**inputs, use_cache=False).logits
            generated.append(int(logits[0, -1].argmax()))
            inputs[side] = torch.cat([inputs[side], inputs[side].new_tensor([generated[-1:]])], dim=1)
            text = model.tokenizer.decode(generated)
            if generated[-1] in ends or any(stop in text for stop in workload.stop):
                break
        return Answer(cut_text(workload, generated), len(generated))


def _model_inputs(model: LanguageModel, prompts: Sequence[EncodedPrompt]) -> dict[str, torch.Tensor]:
    """Return prompts as keyword arguments of a network, each [rows, tokens]."""
    pad_id = _pad_id(model)
    device = model.network.device
    if model.architecture == "decoder-only":
        ids, mask = _pad_left([prompt.decoder_ids for prompt in prompts], pad_id, device)
        return {"input_ids": ids, "attention_mask": mask}
    ids, mask = _pad_left([prompt.encoder_ids for prompt in prompts], pad_id, device)
    start_id = model.network.config.decoder_start_token_id
    starting = [(start_id, *prompt.decoder_ids) for prompt in prompts]
    decoder_ids, decoder_mask = _pad_left(starting, pad_id, device)
    inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": decoder_ids}
    return inputs | ({} if bool(decoder_mask.all()) else {"decoder_attention_mask": decoder_mask})


def _pad_left(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = [[pad_id] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _pad_id(model: LanguageModel) -> int:
    config = model.network.generation_config
    if config.pad_token_id is not None:
        return int(config.pad_token_id)
    eos = config.eos_token_id
    return int(eos[0] if isinstance(eos, list) else eos or 0)
