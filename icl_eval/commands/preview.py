"""The command `icl-eval preview`: shows the prompts, using only the tokenizer."""

from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from icl_eval.decoding.engines import Engine
from icl_eval.evaluation.channel import ChannelAnswers
from icl_eval.evaluation.linting import lint_task
from icl_eval.evaluation.preparation import Evaluation, PreparedEvaluation, PreparedTask, prepare
from icl_eval.evaluation.volume import describe_volume, measure_volume
from icl_eval.formatting import count_noun, escape_controls
from icl_eval.harnesses.lm_eval.prompt_hashes import compare_hashes
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.reporting.terminal import open_console

_MOST_LINES = 200
"""Lines of a prompt that are shown; of a longer one, its beginning and its end."""


def print_preview(evaluation: Evaluation, logged: Path | None = None) -> None:
    """Print the first prompt of each task, the lengths of all prompts, and warnings about them.

    Args:
        evaluation: The evaluation.
        logged: Samples that lm-evaluation-harness logged, with whose prompts all prompts are compared.

    Raises:
        UserError: When the evaluation cannot be run, or the logged samples cannot be read.
    """
    console = open_console()
    if evaluation.encoder is not None:
        selector = evaluation.plans[0].few_shot.selector
        console.print(f"demonstrations={selector.name}: loads weights to embed the questions and the pool")
    prepared = prepare(evaluation)
    if conventions := prepared.conventions.summary():
        console.print(f"conventions: {conventions}", soft_wrap=True)
    for task in prepared.tasks:
        _print_task(console, evaluation.engine, prepared, task)
    console.print(describe_volume(evaluation, measure_volume(evaluation, prepared)), soft_wrap=True)
    if logged is not None:
        prompts = {task.plan.task.name: [each.prompt for each in task.prompts] for task in prepared.tasks}
        for comparison in compare_hashes(logged, prompts):
            console.print(str(comparison), soft_wrap=True)


def _print_task(console: Console, engine: Engine, prepared: PreparedEvaluation, task: PreparedTask) -> None:
    name = task.plan.task.name
    lengths = sorted(prompt.num_tokens for prompt in task.prompts)
    _print_prompt(console, name, task.prompts[0])
    for answers in task.answers[:1]:
        if isinstance(answers, ChannelAnswers):
            _print_scored(console, f"{name} · {answers.example_id}", answers)
    positions = task.builder.context.positions
    limit = "no limit" if prepared.card.max_length is None else f"the model's limit is {positions}"
    span = f"{lengths[0]} to {lengths[-1]}" if lengths[0] < lengths[-1] else lengths[0]
    console.print(
        f"{name}: {count_noun(len(lengths), 'prompt')} of {span} tokens, {limit}; "
        f"up to {task.plan.max_new_tokens} new tokens, stop at {list(task.plan.stop)}",
    )
    encoded = max(len(prompt.encoder_ids) for prompt in task.prompts)
    if room := engine.describe_room(prepared.card, lengths[-1] + task.plan.max_new_tokens, encoded):
        console.print(f"{name}: {room}")
    for sentence in lint_task(task, prepared.card.tokenizer):
        console.print(f"{name}: {sentence}", style="yellow")
    console.print()


def _print_prompt(console: Console, name: str, encoded: EncodedPrompt) -> None:
    prompt = encoded.prompt
    sides = (
        ("encoder", prompt.encoder, encoded.encoder_ids),
        ("decoder", prompt.decoder, encoded.decoder_ids),
    )
    ids_shown = ", ".join(prompt.demonstration_ids) or "no demonstrations"
    for side, text, ids in sides:
        if text is not None:
            _print_panel(console, f"{name} · {prompt.example_id} · {side} · {len(ids)} tokens", text, ids_shown)


def _print_scored(console: Console, name: str, answers: ChannelAnswers) -> None:
    """Print what likelihood=channel scores: a question, and the prompt that it continues."""
    scored = answers.scored
    for side, text in (("encoder", scored.encoder), ("decoder", scored.decoder)):
        if text is not None:
            _print_panel(console, f"{name} · likelihood=channel · {side}", text, f"answer: {answers.references[0]}")
    number = count_noun(len(answers.parts), "answer")
    _print_panel(console, f"{name} · likelihood=channel · scored", scored.question, f"after each of {number}")


def _print_panel(console: Console, title: str, text: str, subtitle: str) -> None:
    texts = [Text(escape_controls(each)) for each in (_cut(text), title, _cut(subtitle, ", "))]
    console.print(Panel(texts[0], title=texts[1], subtitle=texts[2], title_align="left"))


def _cut(text: str, separator: str = "\n") -> str:
    """Return a text without the middle of its lines, if there are very many."""
    lines = text.split(separator)
    if len(lines) <= _MOST_LINES:
        return text
    first, last = lines[: _MOST_LINES // 2], lines[-_MOST_LINES // 2 :]
    return separator.join([*first, f"[… {len(lines) - _MOST_LINES:,} more …]", *last])
