"""The command `icl-eval doctor`: checks whether a model generates the same tokens however it is run.

In exact arithmetic, greedy search does not depend on batch size, cache or precision. In floating point, each of them
rounds differently. Where two tokens are almost equally likely, the choice can flip, and everything after it changes.
The table shows how often this happens for a model on some prompts of a task, and where it happens first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table

from icl_eval.decoding import Completion, StreamDecoder
from icl_eval.decoding.engines.in_process import require_in_process
from icl_eval.decoding.generate import GenerateDecoder, build_inputs
from icl_eval.decoding.networks import reset_attention
from icl_eval.decoding.preparing import capabilities_of
from icl_eval.decoding.rules import Rules, apply_rules, start_ids
from icl_eval.decoding.searches import Greedy
from icl_eval.decoding.sharing import common_length
from icl_eval.errors import ConfigError
from icl_eval.evaluation.preparation import Evaluation, PreparedTask, prepare
from icl_eval.formatting import count_noun
from icl_eval.models.loading import LanguageModel, load_model
from icl_eval.models.switching import evaluating
from icl_eval.reporting.terminal import open_console

Tokens = Mapping[str, tuple[int, ...]]
"""Generated ids, by example."""

_REFERENCE = "float32"
_FASTER = "bfloat16"


@dataclass(frozen=True)
class WayComparison:
    """A comparison of two ways of running the same prompts."""

    name: str
    same: int
    total: int
    first_difference: str
    """Example and position of the earliest token that differs; an empty string if no token differs."""


def compare(name: str, first: Tokens, second: Tokens) -> WayComparison:
    """Compare the completions of two ways of running the same prompts."""
    differences = sorted(
        (common_length(ids, second[example_id]), example_id)
        for example_id, ids in first.items()
        if ids != second[example_id]
    )
    shown = f"token {differences[0][0] + 1} of {differences[0][1]}" if differences else ""
    return WayComparison(name, len(first) - len(differences), len(first), shown)


def print_diagnosis(evaluation: Evaluation) -> None:
    """Run the prompts of a task in several ways and print how often they agree.

    Raises:
        UserError: When the evaluation cannot be run, has several tasks, or does not use greedy search.
    """
    if len(evaluation.plans) > 1:
        names = ", ".join(plan.task.name for plan in evaluation.plans)
        raise ConfigError(f"doctor: needs a single task, such as task=qa (selected tasks: {names})")
    if evaluation.search.name != "greedy":
        raise ConfigError(f"decoding={evaluation.search.name}: the doctor compares greedy search only; use greedy")
    prepared = prepare(evaluation)
    task, settings = prepared.tasks[0], prepared.conventions.settings
    if not task.plan.max_new_tokens:
        raise ConfigError("max_new_tokens=0: the doctor compares generated tokens; must be 1 or more")
    engine = require_in_process(evaluation.engine, "doctor")
    other = engine.dtype if engine.dtype != _REFERENCE else _FASTER
    model = load_model(evaluation.model, _REFERENCE, engine.device)
    reference = _generate(model, task, settings)
    comparisons = []
    batched = {}
    for dtype in (_REFERENCE, other):
        model = load_model(evaluation.model, dtype, engine.device)
        alone, batched[dtype] = _decode(model, task, settings, 1), _decode(model, task, settings, None)
        if dtype == _REFERENCE:
            # The library's generate does not know the stop strings of a task.
            truncated = {name: ids[: len(alone[name])] for name, ids in reference.items()}
            comparisons.append(compare(f"{dtype}: transformers' generate, icl_eval alone", truncated, alone))
        without = _without_cache(model, task, settings, batched[dtype])
        comparisons.append(compare(f"{dtype}: alone, batched", alone, batched[dtype]))
        comparisons.append(compare(f"{dtype}: with cache, without", batched[dtype], without))
    name = f"{_REFERENCE} batched, {other} batched"
    comparisons.append(compare(name, batched[_REFERENCE], batched[other]))
    title = f"{model.name} on {count_noun(len(task.prompts), 'prompt')} of {task.plan.task.name}"
    longest = max(len(prompt.decoder) for prompt in task.prompts) + task.plan.max_new_tokens
    _print(comparisons, title, capabilities_of(model).splits(longest))


def _print(comparisons: Sequence[WayComparison], title: str, split: bool) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("compared")
    table.add_column("same completions", justify="right")
    table.add_column("first difference")
    for comparison in comparisons:
        table.add_row(
            comparison.name, f"{comparison.same} of {comparison.total}", comparison.first_difference or "none"
        )
    console = open_console()
    console.print(table)
    how = (
        "stored once for all of them" if split else "copied for each of them, because of a window or the attention type"
    )
    console.print(f"The key/value cache of a prefix that prompts share is {how}.")


def _decode(model: LanguageModel, task: PreparedTask, settings: Mapping[str, Any], batch_size: int | None) -> Tokens:
    decoder = StreamDecoder(model, task.plan.max_new_tokens, task.plan.stop, batch_size, settings=settings)
    events = decoder.stream(task.prompts)
    return {event.example_id: event.token_ids for event in events if isinstance(event, Completion)}


def _generate(model: LanguageModel, task: PreparedTask, settings: Mapping[str, Any]) -> Tokens:
    """Run the greedy search of transformers, one prompt at a time."""
    decoder = GenerateDecoder(model, {**Greedy().settings, **settings}, task.plan.max_new_tokens)
    return {prompt.prompt.example_id: decoder.generate(prompt) for prompt in task.prompts}


def _without_cache(model: LanguageModel, task: PreparedTask, settings: Mapping[str, Any], chosen: Tokens) -> Tokens:
    """Return the tokens that one forward pass over prompt and completion predicts at the completion's positions."""
    rules = Rules(model.network, task.plan.max_new_tokens, {**Greedy().settings, **settings})
    tokens = {}
    for prompt in task.prompts:
        ids = chosen[prompt.prompt.example_id]
        with torch.inference_mode(), evaluating(model.network):
            reset_attention(model.network)
            logits = model.network(**build_inputs(model, prompt, ids[:-1]), use_cache=False).logits[0, -len(ids) :]
        context = (*start_ids(model), *prompt.decoder_ids)
        row_rules = rules.for_row(context, prompt.encoder_ids)
        histories = [(*context, *ids[:place]) for place in range(len(ids))]
        ruled = apply_rules([row_rules] * len(ids), histories, logits.float())
        tokens[prompt.prompt.example_id] = tuple(ruled.max(-1).indices.tolist())
    return tokens
