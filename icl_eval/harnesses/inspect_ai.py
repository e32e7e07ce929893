"""This package as a model provider of inspect_ai (UK AI Security Institute, https://inspect.aisi.org.uk).

    inspect eval task.py --model icl_eval/HuggingFaceTB/SmolLM2-135M-Instruct -M dtype=bfloat16

inspect_ai asks for one completion at a time, from many samples at once; `gathering` decodes them together. Completions
are greedy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from pydantic import Field

from icl_eval.errors import ConfigError
from icl_eval.formatting import format_value
from icl_eval.harnesses.gathering import CompletionRequest, Gatherer
from icl_eval.harnesses.model_arguments import ModelArguments, read_model_arguments
from icl_eval.prompts.building import Context, EncodedPrompt, Prompt
from icl_eval.prompts.chats import build_chat
from icl_eval.prompts.tokenization import encode_prompt

_POLLING_SECONDS = 0.01
_MOST_AT_ONCE = 128
_MAX_TOKENS = 2048
"""The limit on a completion's tokens if nothing sets one, as that of inspect_ai's own `hf`."""
_WITHOUT_EFFECT = {
    *("max_retries", "timeout", "attempt_timeout", "stream_idle_timeout", "max_connections", "adaptive_connections"),
    *("system_message", "top_p", "top_k", "seed", "parallel_tool_calls", "internal_tools", "max_tool_output"),
    *("cache_prompt", "fail_on_refusal", "cache", "reasoning_history"),
}
"""Options that inspect_ai applies itself, or that have no effect on a greedy completion without tools."""


@modelapi(name="icl_eval")  # type: ignore[untyped-decorator]  # inspect_ai may be missing
def provide() -> type[ModelAPI]:
    """Return the class of the provider."""
    return IclEvalAPI


@dataclass(frozen=True)
class ProviderArguments(ModelArguments):
    """What inspect_ai passes on (`-M key=value`)."""

    batch_size: Annotated[int, Field(ge=1)] | None = None
    """The maximum number of prompts in a batch; None for as many as fit."""
    prefix_cache_mb: Annotated[int, Field(ge=0)] | None = None
    """The size of the cache of shared prefixes, in megabytes; None for as much as there is room for."""
    use_chat_template: bool = True
    """Whether conversations are rendered with the model's chat template; otherwise a single message is continued."""


class IclEvalAPI(ModelAPI):  # type: ignore[misc]
    """A model that inspect_ai evaluates."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        **model_args: Any,
    ):
        """Load the model.

        Args:
            model_name: The model's name; without `source`, where its weights come from.
            base_url: Refused, since no server is involved.
            api_key: Has no effect.
            config: The options of all completions.
            model_args: The fields of `ProviderArguments`.

        Raises:
            ConfigError: If an argument is unknown or not allowed, or the model has no chat template.
            ModelUnavailableError: If the weights cannot be fetched or read, are not trusted, or do not complete text.
        """
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        if base_url is not None:
            raise ConfigError(f"base_url={base_url}: icl_eval runs models itself; leave it out")
        own = read_model_arguments(ProviderArguments, model_args)
        self._model = own.load(model_name)
        self._chat = build_chat(self._model.tokenizer, model_name) if own.use_chat_template else None
        end_of_turn = None if self._chat is None else self._chat.end_id
        self._gatherer = Gatherer(self._model, own.batch_size, own.prefix_cache_mb, end_of_turn)

    async def generate(
        self, input: list[ChatMessage], tools: Sequence[Any], tool_choice: Any, config: GenerateConfig
    ) -> ModelOutput:
        """Complete a conversation.

        Raises:
            ConfigError: If tools, images or options are asked for that have no place in a greedy completion of text.
            PromptTooLongError: If the conversation does not fit into the model.
        """
        if tools:
            raise ConfigError("tools: icl_eval's models call none; run this task with another provider")
        _check_options(config)
        prompt = self._encode(input)
        request, room = self._plan(prompt, config)
        future = self._gatherer.submit(request)
        while not future.done():
            await anyio.sleep(_POLLING_SECONDS)
        completion = future.result()
        cut = "model_length" if request.max_new_tokens == room else "max_tokens"
        return ModelOutput(
            model=self.model_name,
            choices=[
                ChatCompletionChoice(
                    message=ChatMessageAssistant(content=completion.text, model=self.model_name, source="generate"),
                    stop_reason=cut if completion.finish_reason == "length" else "stop",
                )
            ],
            usage=ModelUsage(
                input_tokens=prompt.num_tokens,
                output_tokens=len(completion.token_ids),
                total_tokens=prompt.num_tokens + len(completion.token_ids),
            ),
        )

    def max_tokens(self) -> int:
        """Return the limit on a completion's tokens if nothing sets one."""
        return _MAX_TOKENS

    def max_connections(self) -> int:
        """Return how many completions are asked for at once."""
        return _MOST_AT_ONCE

    def _plan(self, prompt: EncodedPrompt, config: GenerateConfig) -> tuple[CompletionRequest, int | None]:
        """Return what to decode, and how many tokens the model has room for; None if it has no limit."""
        Context(self._model.max_length, 1).require_fit(prompt)
        limit, room = config.max_tokens or _MAX_TOKENS, None
        has_encoder = self._model.architecture == "encoder-decoder"
        if self._model.max_length is not None:
            room = self._model.max_length - (1 if has_encoder else len(prompt.decoder))
            limit = min(limit, room)
        return CompletionRequest(prompt, limit, tuple(config.stop_seqs or ())), room

    def _encode(self, messages: Sequence[ChatMessage]) -> EncodedPrompt:
        for message in messages:
            if not isinstance(message.content, str) and any(part.type != "text" for part in message.content):
                raise ConfigError("input: icl_eval's models read text, and a message holds something else")
        if self._chat is not None:
            turns = [{"role": message.role, "content": message.text} for message in messages]
            text = self._chat(turns)
        elif len(messages) == 1:
            text = messages[0].text
        else:
            raise ConfigError(
                f"use_chat_template=false: continues the text of a single message, and there are {len(messages)}"
            )
        if self._model.architecture == "encoder-decoder":
            return encode_prompt(self._model.tokenizer, Prompt("", text, None))
        return encode_prompt(self._model.tokenizer, Prompt("", None, text, is_chat=self._chat is not None))


def _check_options(config: GenerateConfig) -> None:
    """Refuse options that a greedy completion cannot honour."""
    given = config.model_dump(exclude_none=True)
    honoured = {"max_tokens", "stop_seqs"} | {name for name, value in given.items() if value in (False, [], {})}
    honoured |= {name for name, value in (("temperature", 0), ("num_choices", 1)) if given.get(name) == value}
    if others := sorted(given.keys() - honoured - _WITHOUT_EFFECT):
        shown = f"{others[0]}={format_value(given[others[0]])}"
        raise ConfigError(f"{shown}: icl_eval completes greedily, and without this option; leave it out")
