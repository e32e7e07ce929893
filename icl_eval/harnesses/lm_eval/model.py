"""This package as a model of the harness: `icl-eval lm-eval run --model icl_eval --model_args pretrained=…`.

Texts are encoded, cut and stopped as the harness's own model `hf` does it; prompts run as in this package, so that what
they share is computed once.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import has_bos_prefix, resolve_max_length
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from icl_eval.decoding import LikelihoodScorer
from icl_eval.errors import ConfigError
from icl_eval.harnesses.lm_eval.generation import MAX_GEN_TOKS, TextRequest, complete, read_text_options
from icl_eval.harnesses.lm_eval.likelihoods import EncodedRequest, fit_request, score_requests
from icl_eval.harnesses.lm_eval.loading import load_source, open_texts, read_count

logger = logging.getLogger(__name__)

EncodedPair = tuple[tuple[str, str] | None, list[int], list[int]]
"""The strings of a request (None for a part of a longer text), its context and its continuation."""


class IclEvalLM(TemplateLM):  # type: ignore[misc]  # lm_eval has no type hints
    """A model that answers the harness's requests."""

    def __init__(
        self,
        pretrained: Any = None,
        batch_size: int | str = "auto",
        max_length: int | None = None,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        prefix_cache_mb: int | str = "auto",
        **model_arguments: Any,
    ):
        """Load the model.

        Args:
            pretrained: The model's name in the results, and where it comes from: a hub name, a folder, a .gguf or .whl
                file. A `LanguageModel` is used as it is.
            batch_size: The number of prompts to run together; `auto` for as many as fit.
            max_length: The number of tokens to which prompts are cut on the left; None for the model's own.
            add_bos_token: Whether a text opens with the tokenizer's first token; None for the tokenizer's own habit.
            prefix_token_id: The token before a text without a context; None for the tokenizer's first token.
            prefix_cache_mb: The size of the cache of shared prefixes, in megabytes; auto for as much as there is room.
            model_arguments: The form of the model; see `ModelArguments`.

        Raises:
            ConfigError: If an argument is unknown or invalid.
            ModelUnavailableError: If the weights cannot be fetched, read or trusted.
        """
        super().__init__()
        self.model = open_texts(load_source(pretrained, model_arguments), add_bos_token)
        self.tokenizer: Any = self.model.tokenizer
        self.backend = "causal" if self.model.architecture == "decoder-only" else "seq2seq"
        self.add_bos_token = add_bos_token
        self._revision = model_arguments.get("revision")
        self._batch_size = None if str(batch_size).startswith("auto") else read_count("batch_size", batch_size)
        self._max_length = None if max_length is None else read_count("max_length", max_length)
        self._first_id = None if prefix_token_id is None else read_count("prefix_token_id", prefix_token_id, 0)
        self._cache_mb = None if prefix_cache_mb == "auto" else read_count("prefix_cache_mb", prefix_cache_mb, 0)
        longest = self.model.max_length
        if longest is not None and self.max_length > longest:
            raise ConfigError(f"max_length={self.max_length}: {self.model.name} has {longest} positions")

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without a context."""
        if self._first_id is not None:
            return self._first_id
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    @cached_property
    def max_length(self) -> int:
        """The number of tokens that the model holds."""
        return self._max_length or int(resolve_max_length(self.model.network.config, self.tokenizer))

    @property
    def max_gen_toks(self) -> int:
        """The number of tokens to generate if a task sets none."""
        return MAX_GEN_TOKS

    @property
    def batch_size(self) -> int | str:
        """The number of prompts to run together."""
        return self._batch_size or "auto"

    @property
    def tokenizer_name(self) -> str:
        """The name under which the harness keeps prompts of this tokenizer."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """Return what the results say of the model."""
        return {
            "model_num_parameters": self.model.network.num_parameters(),
            "model_dtype": self.model.dtype,
            "model_revision": self._revision,
            "model_identity": self.model.identify(),
        }

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return a conversation as a string, without its system message if the template refuses it."""
        from jinja2 import TemplateError

        options = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
        try:
            return str(self.tokenizer.apply_chat_template(chat_history, tokenize=False, **options))
        except TemplateError:
            logger.warning("the chat template refuses a conversation; it is tried without the system message")
            others = [message for message in chat_history if message["role"] != "system"]
            return str(self.tokenizer.apply_chat_template(others, tokenize=False, **options))

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Return the token ids of a text; it is opened as `add_bos_token` says, unless it is already."""
        special = self.add_bos_token if add_special_tokens is None else add_special_tokens
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
            special = False
        return list(self.tokenizer.encode(string, **({} if special is None else {"add_special_tokens": special})))

    def _encode_prompt(self, string: str) -> list[int]:
        """Return the token ids of a text that the model continues."""
        special = self.add_bos_token if self.backend == "causal" else None
        if self.backend == "causal" and has_bos_prefix(string, self.tokenizer.bos_token):
            special = False
        return list(self.tokenizer(string, **({} if special is None else {"add_special_tokens": special}))["input_ids"])

    def _loglikelihood_tokens(
        self, requests: Sequence[EncodedPair], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        answers: dict[int, tuple[float, bool]] = {}
        fitted = [self._fit(context, continuation) for _, context, continuation in requests]
        # scored after the start token, as `hf` does, even if generation forces another token behind it
        scorer = LikelihoodScorer(self.model, self._batch_size, {"forced_bos_token_id": None})
        scores = score_requests(scorer, fitted)
        for number, value, is_greedy in tqdm(scores, "likelihoods", len(requests), disable=disable_tqdm):
            answers[number] = value, is_greedy
            if (strings := requests[number][0]) is not None:
                self.cache_hook.add_partial("loglikelihood", strings, answers[number])
        self._tell_cut([len(each.context or each.encoder_ids) for each in fitted], [len(each[1]) for each in requests])
        return [answers[number] for number in range(len(requests))]

    def _fit(self, context: Sequence[int], continuation: Sequence[int]) -> EncodedRequest:
        return fit_request(context, continuation, self.max_length, self.backend == "seq2seq")

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of each whole text, in windows of the model's length."""
        pairs: list[EncodedPair] = []
        ends = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
            pairs += [(None, *make_disjoint_window(window)) for window in windows]
            ends.append(len(pairs))
        values = [value for value, _ in self._loglikelihood_tokens(pairs, disable_tqdm)]
        totals = [sum(values[begin:end]) for begin, end in zip([0, *ends], ends, strict=False)]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return the greedy text after each prompt, up to what ends it."""
        by_options: defaultdict[str, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            by_options[json.dumps(request.args[1], sort_keys=True, default=str)].append(number)
        plans = [(read_text_options(requests[some[0]].args[1], self.model), some) for some in by_options.values()]
        texts: dict[int, str] = {}
        with tqdm(desc="texts", total=len(requests), disable=disable_tqdm) as bar:
            for options, numbers in plans:
                prompts = self._cut_prompts([requests[number].args[0] for number in numbers], options.max_gen_toks)
                asked = [TextRequest(number, ids) for number, ids in zip(numbers, prompts, strict=True)]
                for number, text in complete(self.model, options, asked, self._batch_size, self._cache_mb):
                    texts[number] = text
                    self.cache_hook.add_partial("generate_until", requests[number].args, text)
                    bar.update()
        return [texts[number] for number in range(len(requests))]

    def _cut_prompts(self, strings: Iterable[str], max_gen_toks: int) -> list[tuple[int, ...]]:
        """Return the ids of prompts, each cut on the left until its text fits behind it."""
        room = self.max_length - (max_gen_toks if self.backend == "causal" else 0)
        if room < 1:
            raise ConfigError(
                f"max_gen_toks={max_gen_toks}: must be less than the number of tokens that the model holds, "
                f"{self.max_length} (max_length)"
            )
        whole = [self._encode_prompt(string) or [self.prefix_token_id] for string in strings]
        cut = [tuple(ids[-room:]) for ids in whole]
        self._tell_cut(list(map(len, cut)), list(map(len, whole)))
        return cut

    def _tell_cut(self, kept: Sequence[int], whole: Sequence[int]) -> None:
        cut = sum(short < long for short, long in zip(kept, whole, strict=True))
        if cut:
            logger.warning(
                "%d of %d prompts were cut on the left: the model holds %d tokens", cut, len(whole), self.max_length
            )
