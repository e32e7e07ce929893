"""Run llama.cpp, CTranslate2 and vLLM, each with its own prefix sharing and a copy of the same weights.

They are compared only if they are installed. Converting and loading the weights is not timed.
"""

import ctypes
import json
import os
import subprocess
import weakref
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType

from benchmarks.answers import Answer, cut_text
from benchmarks.gguf_export import write_gguf
from benchmarks.workloads import Workload
from icl_eval.decoding.rules import end_ids
from icl_eval.decoding.sharing import common_length

Ids = Sequence[int]

_KINDS = {"float32": GGMLQuantizationType.F32, "bfloat16": GGMLQuantizationType.BF16}
_LAST_TOKENS = 4
"""Maximum number of tokens that a stop string spans."""
_SHARE_OF_GPU = 0.4
"""The share of a GPU's memory that vLLM may take; the same weights and their caches need the rest."""
VLLM_PYTHON = "ICL_EVAL_VLLM"
"""The environment variable that names the Python of an environment with vLLM for the processor."""
_WORKER = Path(__file__).parent / "vllm_worker.py"


class LlamaCpp:
    """llama.cpp: the shared prefix is one sequence, copied by reference to all rows of a batch."""

    most_questions = None

    def __init__(self, workload: Workload, batch_size: int):
        import llama_cpp

        self.name = f"llama.cpp, batch {batch_size}"
        self._lib = llama_cpp
        self._batch_size = batch_size
        self._silence = llama_cpp.llama_log_callback(
            lambda *_: None
        )  # keep a reference: the library stores only the address
        llama_cpp.llama_log_set(self._silence, ctypes.c_void_p())
        llama_cpp.llama_backend_init()
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.gguf"
            write_gguf(workload.model.network, path)
            options = llama_cpp.llama_model_default_params()
            options.use_mmap = False
            self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        self._vocabulary = workload.model.network.config.vocab_size
        self._context = llama_cpp.llama_init_from_model(self._model, self._context_options(workload))
        self._memory = llama_cpp.llama_get_memory(self._context)

    def _context_options(self, workload: Workload) -> Any:
        longest = max(len(prompt.decoder_ids) for prompt in workload.prompts) + workload.max_new_tokens
        options = self._lib.llama_context_default_params()
        options.n_ctx = longest * (self._batch_size + 1)
        options.n_batch = options.n_ctx
        options.n_seq_max = self._batch_size + 1
        options.n_threads = options.n_threads_batch = torch.get_num_threads()
        options.kv_unified = True  # one buffer for all sequences, so that a copied prefix is shared
        options.type_k = options.type_v = _KINDS[workload.model.dtype].value
        return options

    def answer(self, workload: Workload) -> list[Answer]:
        """Return the answers, in the order of the prompts."""
        prompts = [prompt.decoder_ids for prompt in workload.prompts]
        prefix = prompts[0][: _shared_length(prompts)]
        self._lib.llama_memory_clear(self._memory, True)
        if prefix:
            self._decode([(0, place, token_id) for place, token_id in enumerate(prefix)], logits_at=())
        answers = []
        for begin in range(0, len(prompts), self._batch_size):
            own = [ids[len(prefix) :] for ids in prompts[begin : begin + self._batch_size]]
            answers += self._answer_batch(workload, own, len(prefix))
        return answers

    def _answer_batch(self, workload: Workload, own: Sequence[Ids], prefix_length: int) -> list[Answer]:
        generated: list[list[int]] = [[] for _ in own]
        for row in range(len(own)):
            self._lib.llama_memory_seq_cp(self._memory, 0, row + 1, -1, -1)
        feed = [
            (row + 1, prefix_length + place, ids[place]) for row, ids in enumerate(own) for place in range(len(ids))
        ]
        rows = list(range(len(own)))
        last = np.cumsum([len(ids) for ids in own]) - 1
        while rows:
            logits = self._decode(feed, last.tolist())
            for row, token_id in zip(rows, logits.argmax(-1).tolist(), strict=True):
                generated[row].append(token_id)
            finished = [row for row in rows if _is_finished(workload, generated[row])]
            for row in finished:
                self._lib.llama_memory_seq_rm(self._memory, row + 1, -1, -1)
            rows = [row for row in rows if row not in finished]
            feed = [
                (row + 1, prefix_length + len(own[row]) + len(generated[row]) - 1, generated[row][-1]) for row in rows
            ]
            last = np.arange(len(rows))
        return [Answer(cut_text(workload, ids), len(ids)) for ids in generated]

    def _decode(self, feed: Sequence[tuple[int, int, int]], logits_at: Sequence[int]) -> npt.NDArray[np.float32]:
        """Run tokens (sequence, position, id) and return the logits of those at `logits_at`, [tokens, vocabulary]."""
        batch = self._lib.llama_batch_init(len(feed), 0, 1)
        batch.n_tokens = len(feed)
        for place, (sequence, position, token_id) in enumerate(feed):
            batch.token[place], batch.pos[place] = token_id, position
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
            batch.logits[place] = 0
        for place in logits_at:
            batch.logits[place] = 1
        code = self._lib.llama_decode(self._context, batch)
        self._lib.llama_batch_free(batch)
        if code:
            raise RuntimeError(f"llama_decode returned {code}")
        if not logits_at:
            return np.empty((0, self._vocabulary), np.float32)
        pointer = self._lib.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, (len(logits_at), self._vocabulary))


class CTranslate2:
    """CTranslate2's generator, with the shared prefix as its cached static prompt."""

    most_questions = None

    def __init__(self, workload: Workload, batch_size: int):
        import ctranslate2

        self.name = f"CTranslate2, batch {batch_size}"
        self._batch_size = batch_size
        with TemporaryDirectory() as folder:
            workload.model.network.save_pretrained(folder)
            workload.model.tokenizer.save_pretrained(folder)
            converted = ctranslate2.converters.TransformersConverter(folder).convert(f"{folder}/converted")
            self._generator = ctranslate2.Generator(
                converted, device="cpu", compute_type="float32", intra_threads=torch.get_num_threads()
            )

    def answer(self, workload: Workload) -> list[Answer]:
        """Return the answers, in the order of the prompts."""
        tokenizer = workload.model.tokenizer
        prompts = [prompt.decoder_ids for prompt in workload.prompts]
        prefix = prompts[0][: _shared_length(prompts)]
        results = self._generator.generate_batch(
            [tokenizer.convert_ids_to_tokens(ids[len(prefix) :]) for ids in prompts],
            static_prompt=tokenizer.convert_ids_to_tokens(prefix) or None,
            max_batch_size=self._batch_size,
            max_length=workload.max_new_tokens,
            end_token=[*_end_tokens(workload)],
            include_prompt_in_result=False,
            sampling_topk=1,
        )
        return [Answer(cut_text(workload, result.sequences_ids[0]), None) for result in results]


class Vllm:
    """vLLM with its automatic prefix cache, which is emptied before each run; it gets all prompts at once."""

    name = "vLLM"
    most_questions = None

    def __init__(self, workload: Workload):
        from vllm import LLM

        longest = max(len(prompt.decoder_ids) for prompt in workload.prompts) + workload.max_new_tokens
        with TemporaryDirectory() as folder:
            workload.model.network.save_pretrained(folder)
            workload.model.tokenizer.save_pretrained(folder)
            self._engine = LLM(
                model=folder,
                dtype=workload.model.dtype,
                enable_prefix_caching=True,
                max_model_len=longest,
                gpu_memory_utilization=_SHARE_OF_GPU,
                seed=0,
            )

    def answer(self, workload: Workload) -> list[Answer]:
        """Return the answers, in the order of the prompts."""
        from vllm import SamplingParams

        self._engine.reset_prefix_cache()
        options = SamplingParams(temperature=0, max_tokens=workload.max_new_tokens, stop=list(workload.stop))
        prompts = [{"prompt_token_ids": list(prompt.decoder_ids)} for prompt in workload.prompts]
        completed = [each.outputs[0] for each in self._engine.generate(prompts, options, use_tqdm=False)]
        return [Answer(each.text, len(each.token_ids)) for each in completed]


class VllmApart:
    """vLLM for the processor, in a process with the packages that it needs; else as `Vllm`."""

    name = "vLLM"
    most_questions = None

    def __init__(self, workload: Workload):
        longest = max(len(prompt.decoder_ids) for prompt in workload.prompts) + workload.max_new_tokens
        python = os.environ[VLLM_PYTHON]
        cores = sorted(os.sched_getaffinity(0))[: torch.get_num_threads()]
        settings = {
            "VLLM_CPU_KVCACHE_SPACE": "1",  # gigabytes
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),  # else it leaves one core without work
            "HF_HUB_OFFLINE": "1",
            "PYTHONSAFEPATH": "1",  # nothing beside the worker is imported
        }
        with TemporaryDirectory() as folder:
            workload.model.network.save_pretrained(folder)
            workload.model.tokenizer.save_pretrained(folder)
            self._process = subprocess.Popen(
                [python, str(_WORKER), folder, workload.model.dtype, str(longest)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | settings,
            )
            weakref.finalize(self, self._process.communicate)  # closes its input, upon which it ends
            self._read()  # that it is ready

    def answer(self, workload: Workload) -> list[Answer]:
        """Return the answers, in the order of the prompts."""
        prompts = [prompt.decoder_ids for prompt in workload.prompts]
        asked = {"prompts": prompts, "max_tokens": workload.max_new_tokens, "stop": workload.stop}
        assert self._process.stdin
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return [Answer(text, num_tokens) for text, num_tokens in self._read()]

    def _read(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"vLLM in {os.environ[VLLM_PYTHON]} ended with exit code {self._process.wait()}")
        return json.loads(line)


def _shared_length(prompts: Sequence[Ids]) -> int:
    shortest = min(map(len, prompts))
    return min(shortest - 1, *(common_length(prompts[0], ids) for ids in prompts))


def _is_finished(workload: Workload, ids: Ids) -> bool:
    if len(ids) == workload.max_new_tokens or ids[-1] in end_ids(workload.model.network, {}):
        return True
    text = workload.model.tokenizer.decode(ids[-_LAST_TOKENS:])
    return any(stop in text for stop in workload.stop)


def _end_tokens(workload: Workload) -> list[str]:
    """Return the end-of-sequence tokens and the stop strings that are single tokens; it supports no others."""
    tokenizer = workload.model.tokenizer
    ids = sorted(end_ids(workload.model.network, {}))
    for stop in workload.stop:
        encoded = tokenizer(stop, add_special_tokens=False)["input_ids"]
        ids += encoded if len(encoded) == 1 else []
    return list(tokenizer.convert_ids_to_tokens(ids))
