"""This package as a model of lm-evaluation-harness: `--model icl_eval`.

Prompts become the tokens that the harness's own model `hf` makes of them, and are cut on the left where it cuts them.
Everything after that is this package's: what prompts share is computed once, whatever the order and the batch.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import fsum
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import TemplateLM
from tqdm import tqdm

from icl_eval.errors import ConfigError
from icl_eval.harnesses.lm_eval.arguments import read_model_arguments
from icl_eval.harnesses.lm_eval.cutting import Cutting
from icl_eval.harnesses.lm_eval.generation import Generation, read_generation
from icl_eval.harnesses.serving import ServedModel
from icl_eval.models.loading import LanguageModel

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

logger = logging.getLogger(__name__)

Pair = tuple[tuple[str, str] | None, list[int], list[int]]
"""A request for a likelihood: its two strings for the harness's cache, and the tokens of prompt and continuation."""


class IclEvalLM(TemplateLM):  # type: ignore[misc]  # lm_eval has no type hints
    """A model that the harness evaluates.

    >>> from icl_eval.harnesses.lm_eval.model import IclEvalLM
    >>> results = lm_eval.simple_evaluate(model=IclEvalLM("gpt2", batch_size="auto"), tasks=["arc_easy"])
    """

    def __init__(self, pretrained: str | LanguageModel, **arguments: Any):
        """Load the model.

        Args:
            pretrained: Where the weights come from, or a model in memory.
            arguments: The fields of `ModelArguments`.

        Raises:
            ConfigError: If an argument is unknown or not allowed.
            ModelUnavailableError: If the weights cannot be fetched or read, are not trusted, or do not complete text.
        """
        super().__init__()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError("WORLD_SIZE: icl_eval runs in one process; start it without accelerate launch")
        if isinstance(pretrained, LanguageModel):
            model, options = pretrained, read_model_arguments({"pretrained": pretrained.name, **arguments})
            options.require_no_loading()
        else:
            options = read_model_arguments({"pretrained": pretrained, **arguments})
            model = options.load()
        self._served = ServedModel(model, options.batch_size, options.prefix_cache_mb)
        self._options = options
        self.tokenizer = model.tokenizer
        self.backend = "seq2seq" if model.architecture == "encoder-decoder" else "causal"
        self.max_length = options.choose_max_length(model)
        self._cutting = Cutting(self.max_length, self.backend == "seq2seq")

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: Mapping[str, Any] | None = None) -> "IclEvalLM":
        """Return the model for a string such as `pretrained=gpt2,dtype=bfloat16`."""
        from lm_eval.utils import simple_parse_args_string

        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> "IclEvalLM":
        """Return the model for arguments and what the harness adds to them; raises ConfigError if one is in both."""
        added = {key: value for key, value in (additional_config or {}).items() if value is not None}
        if twice := sorted(arg_dict.keys() & added.keys()):
            raise ConfigError(f"model_args: {twice[0]} is an option of the harness itself; give it there")
        if "pretrained" not in arg_dict:
            raise ConfigError("model_args: pretrained is missing; it says where the weights come from")
        return cls(**arg_dict, **added)

    @property
    def device(self) -> str:
        """The device that the network is on."""
        return self._served.model.device

    @property
    def tokenizer_name(self) -> str:
        """A name for the harness's cache of prompts."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    @property
    def eot_token_id(self) -> int | None:
        """The token that ends a text."""
        token_id: int | None = self.tokenizer.eos_token_id
        return token_id

    @property
    def prefix_token_id(self) -> int | None:
        """The token that precedes a text without a prompt."""
        first = (self._options.prefix_token_id, self.tokenizer.bos_token_id)
        return next((token_id for token_id in first if token_id is not None), self.eot_token_id)

    def get_model_info(self) -> dict[str, Any]:
        """Return what the harness's results say about the model."""
        model = self._served.model
        identity = model.identify()
        return {
            "model_num_parameters": model.network.num_parameters(),
            "model_dtype": model.dtype,
            "model_revision": self._options.revision or "",
            "model_sha": identity.rpartition("@")[2] if identity.startswith("hub:") else "",
            "model_identity": identity,
        }

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """Render a conversation; if the template refuses a system message, without it."""
        from jinja2 import TemplateError

        def render(turns: Sequence[Mapping[str, str]]) -> str:
            options = {
                "add_generation_prompt": add_generation_prompt,
                "continue_final_message": not add_generation_prompt,
            }
            return str(self.tokenizer.apply_chat_template(list(turns), tokenize=False, **options))

        try:
            return render(chat_history)
        except TemplateError:
            logger.warning("the chat template refuses the system message, which is left out")
            return render([turn for turn in chat_history if turn["role"] != "system"])

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options: Any) -> list[int]:
        """Return the tokens of a string, with special tokens as the tokenizer and `add_bos_token` say."""
        prefix_id = self.prefix_token_id
        opened = prefix_id is not None and string.startswith(self.tokenizer.decode(prefix_id))
        if add_special_tokens is None:
            add_special_tokens = False if opened else self._options.add_bos_token
        return self._encode(string, add_special_tokens)

    def _encode(self, string: str, add_special_tokens: bool | None) -> list[int]:
        options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer(string, verbose=False, **options)["input_ids"])

    def _loglikelihood_tokens(
        self, requests: Sequence[Pair], disable_tqdm: bool = False, **options: Any
    ) -> list[tuple[float, bool]]:
        answers: dict[int, tuple[float, bool]] = {}
        for place, answer in self._score([(prompt, ids) for _, prompt, ids in requests], disable_tqdm):
            answers[place] = answer
            self.cache_hook.add_partial("loglikelihood", requests[place][0], answer)
        return [answers[place] for place in range(len(requests))]

    def loglikelihood_rolling(self, requests: Sequence["Instance"], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of whole texts, in windows of `max_length` tokens."""
        windows = [self._split(request.args[0]) for request in requests]
        owners = [number for number, pairs in enumerate(windows) for _ in pairs]
        parts: dict[int, list[float]] = {number: [] for number in range(len(requests))}
        for place, (logprob, _) in self._score([pair for pairs in windows for pair in pairs], disable_tqdm):
            number = owners[place]
            parts[number].append(logprob)
            if len(parts[number]) == len(windows[number]):
                self.cache_hook.add_partial("loglikelihood_rolling", requests[number].args, fsum(parts[number]))
        return list(map(fsum, parts.values()))

    def generate_until(self, requests: Sequence["Instance"], disable_tqdm: bool = False) -> list[str]:
        """Return the greedy completions of prompts, up to their stop strings."""
        end = None if self.eot_token_id is None else self.tokenizer.decode(self.eot_token_id)
        alike: defaultdict[Generation, list[Instance]] = defaultdict(list)
        for request in requests:
            alike[read_generation(request.args[1], end)].append(request)
        texts: dict[int, str] = {}
        with tqdm(total=len(requests), desc="icl_eval: completions", disable=disable_tqdm) as bar:
            for generation, members in alike.items():
                for request, text in self._complete(members, generation):
                    texts[id(request)] = text
                    self.cache_hook.add_partial("generate_until", request.args, text)
                    bar.update()
        return [texts[id(request)] for request in requests]

    def _complete(self, requests: Sequence["Instance"], generation: Generation) -> Iterator[tuple["Instance", str]]:
        encoded = [self._encode_prompt(request.args[0]) for request in requests]
        prompts = self._cutting.cut_prompts(encoded, generation.max_gen_toks)
        limits = [self._cutting.limit(prompt, generation.max_gen_toks) for prompt in prompts]
        for place, completion in self._served.complete(prompts, max(limits), generation.until):
            ids = completion.token_ids[: limits[place]]
            yield requests[place], generation.cut(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _score(
        self, pairs: Sequence[tuple[list[int], list[int]]], disable_tqdm: bool
    ) -> Iterator[tuple[int, tuple[float, bool]]]:
        scores = self._served.score(self._cutting.cut_pairs(pairs))
        for place, scored in tqdm(scores, total=len(pairs), desc="icl_eval: likelihoods", disable=disable_tqdm):
            yield place, (fsum(scored.logprobs), scored.is_greedy)

    def _split(self, text: str) -> list[tuple[list[int], list[int]]]:
        """Return a text as windows of tokens, each with the tokens before it that still fit."""
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        if self.prefix_token_id is None:
            raise ConfigError("model_args: prefix_token_id is missing; the tokenizer has no token that begins a text")
        windows = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
        return list(map(make_disjoint_window, windows))

    def _encode_prompt(self, string: str) -> list[int]:
        """Return the tokens of a prompt to complete, for which `hf` has other rules than for likelihoods."""
        if self.backend == "seq2seq":
            return self._encode(string, None)
        bos = self.tokenizer.bos_token
        return self._encode(string, False if bos and string.startswith(bos) else self._options.add_bos_token)
