"""The systems that find the most likely of a prompt's choices; all of them run the same network object."""

from collections.abc import Sequence
from importlib.util import find_spec

import torch

from benchmarks.answers import Answer
from benchmarks.systems import BATCH_SIZES, PACKAGES, System
from benchmarks.workloads import Workload, encode_choices
from icl_eval.decoding import LikelihoodScorer
from icl_eval.decoding.preparing import forget
from icl_eval.prompts.tokenization import Continuations


def build_choosers(families: Sequence[str], workload: Workload) -> list[System]:
    """Return the systems that can choose; they get prompts and choices as token ids, lm-eval gets them as strings."""
    choosers: list[System] = [IclEvalChooser(workload)]
    if "generate" in families:
        choosers.append(ForwardChooser(workload))
    if "lm-eval" in families and find_spec(PACKAGES["lm-eval"]):
        choosers += [LmEvalChooser(workload, size) for size in BATCH_SIZES]
    return choosers


class IclEvalChooser:
    """This package, without caches from earlier runs."""

    name = "icl_eval"
    most_questions = None

    def __init__(self, workload: Workload):
        self._choices = encode_choices(workload)

    def answer(self, workload: Workload) -> list[Answer]:
        """Return the choices, in the order of the prompts."""
        forget(workload.model)
        scorer = LikelihoodScorer(workload.model)
        scores = dict(scorer.score([self._choices[prompt.prompt.example_id] for prompt in workload.prompts]))
        totals = [[sum(scored.logprobs) for scored in scores[number]] for number in range(len(workload.prompts))]
        return _pick_most_likely(workload, totals)


class ForwardChooser:
    """The reference: a full forward pass over prompt and choice for each choice."""

    name = "forward pass, one by one"
    most_questions = None

    def __init__(self, workload: Workload):
        self._choices = encode_choices(workload)

    @torch.inference_mode()
    def answer(self, workload: Workload) -> list[Answer]:
        """Return the choices, in the order of the prompts."""
        totals = []
        for prompt in workload.prompts:
            choices = self._choices[prompt.prompt.example_id]
            totals.append([self._score(workload, choices, text) for text in choices.texts])
        return _pick_most_likely(workload, totals)

    @staticmethod
    def _score(workload: Workload, choices: Continuations, text: tuple[int, ...]) -> float:
        network = workload.model.network
        ids = torch.tensor([[*choices.context.decoder_ids, *text[:-1]]], device=network.device)
        logits = network(input_ids=ids, logits_to_keep=len(text), use_cache=False).logits[0]
        return float(logits.float().log_softmax(-1).gather(1, ids.new_tensor(text)[:, None]).sum())


class LmEvalChooser:
    """EleutherAI's lm-evaluation-harness: `HFLM.loglikelihood`."""

    most_questions = None

    def __init__(self, workload: Workload, batch_size: int):
        from lm_eval.models.huggingface import HFLM

        self.name = f"lm-eval, batch {batch_size}"
        self._hflm = HFLM(pretrained=workload.model.network, tokenizer=workload.model.tokenizer, batch_size=batch_size)

    def answer(self, workload: Workload) -> list[Answer]:
        """Return the choices, in the order of the prompts."""
        from lm_eval.api.instance import Instance

        pairs = [
            (prompt.prompt.decoder or "", text)
            for prompt in workload.prompts
            for text in workload.choices[prompt.prompt.example_id]
        ]
        requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
        results = iter(self._hflm.loglikelihood(requests, disable_tqdm=True))
        totals = [[next(results)[0] for _ in workload.choices[prompt.prompt.example_id]] for prompt in workload.prompts]
        return _pick_most_likely(workload, totals)


def _pick_most_likely(workload: Workload, totals: Sequence[Sequence[float]]) -> list[Answer]:
    """Return the choice with the largest total log-probability for each prompt."""
    answers = []
    for prompt, values in zip(workload.prompts, totals, strict=True):
        best = max(range(len(values)), key=values.__getitem__)
        answers.append(Answer(workload.choices[prompt.prompt.example_id][best], None))
    return answers
