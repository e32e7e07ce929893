"""Linting: what in a prompt, or in the data behind it, is allowed and yet probably not meant."""

from collections.abc import Iterator, Sequence
from typing import Any

from icl_eval.demonstrations.leaks import find_duplicates, find_near_duplicates
from icl_eval.evaluation.preparation import PreparedTask
from icl_eval.formatting import list_names
from icl_eval.tasks.examples import Example


def lint_task(prepared: PreparedTask, tokenizer: Any) -> Iterator[str]:
    """Yield one sentence for each suspicious thing in a task's prompts and references."""
    plan, prompts = prepared.plan, prepared.prompts
    texts = [text for prompt in prompts for text in (prompt.prompt.encoder, prompt.prompt.decoder) if text]
    if any("  " in text for text in texts):
        yield "prompts contain runs of two or more spaces"
    unknown = {tokenizer.unk_token_id} - {None, tokenizer.bos_token_id, tokenizer.eos_token_id}  # GPT-2's are one
    with_unknown = sum(not unknown.isdisjoint(prompt.encoder_ids + prompt.decoder_ids) for prompt in prompts)
    if with_unknown:
        yield f"{with_unknown} of {len(prompts)} prompts contain the unknown token: the vocabulary lacks a character"
    yield from lint_template(prepared)
    yield from _lint_rows((*plan.task.pool, *plan.examples), plan.stop, tokenizer)
    yield from lint_leaks(prepared)
    yield from lint_pool(prepared)
    too_long = [
        example.id
        for example in plan.examples
        if 0 < plan.max_new_tokens < _num_tokens(tokenizer, example.references[0])
    ]
    if too_long:
        yield f"{list_names(too_long)}: the first reference is longer than max_new_tokens={plan.max_new_tokens}"


def lint_template(prepared: PreparedTask) -> Iterator[str]:
    """Yield one sentence where the template's texts show nothing of a question, and one where they show no answer."""
    template, fields = prepared.builder.template, prepared.plan.examples[0].inputs
    texts = {"question": template.question_names}
    if any(prompt.prompt.demonstrations for prompt in prepared.prompts):
        texts["demonstration"] = template.demonstration_names
    empty = [text for text, names in texts.items() if names.isdisjoint(fields)]
    if empty:
        yield f"no field of the row ({', '.join(fields)}) is used in the template's {' and '.join(empty)}"
    if "answer" not in texts.get("demonstration", {"answer"}):
        yield "the template's demonstration does not use 'answer'"


def lint_leaks(prepared: PreparedTask) -> Iterator[str]:
    """Yield one sentence where questions are shown demonstrations that read nearly like them."""
    plan = prepared.plan
    shown = (
        (example, prepared.builder.find_shown(prompt, example))
        for example, prompt in zip(plan.examples, prepared.prompts, strict=True)
    )
    found = find_near_duplicates(shown, plan.match_field)
    if found:
        pairs = [f"{pair.question_id} and {pair.demonstration_id} ({pair.similarity:.2f})" for pair in found]
        yield f"{list_names(pairs)}: question and demonstration read nearly the same, and may share their answer"


def lint_pool(prepared: PreparedTask) -> Iterator[str]:
    """Yield one sentence where the pool that demonstrations are drawn from holds some of them more than once."""
    plan = prepared.plan
    if not any(prompt.prompt.demonstrations for prompt in prepared.prompts):
        return
    found = [f"{left_out} repeats {kept}" for left_out, kept in find_duplicates(plan.task.pool, plan.match_field)]
    if found:
        share = f"{len(found)} of {len(plan.task.pool)} rows of the pool are duplicates"
        yield f"{share} ({list_names(found)}); each is drawn once"


def _lint_rows(examples: Sequence[Example], stop: Sequence[str], tokenizer: Any) -> Iterator[str]:
    special = [token for token in tokenizer.all_special_tokens if token.strip()]
    injected = [
        example.id
        for example in examples
        if any(token in text for text in (*example.inputs.values(), *example.references) for token in special)
    ]
    if injected:
        yield f"{list_names(injected)}: the row's text contains a special token, which the model will take for one"
    stopped = [example.id for example in examples if any(s in example.references[0].strip() for s in stop)]
    if stopped:
        yield f"{list_names(stopped)}: the first reference contains a stop string, so it can never be generated whole"


def _num_tokens(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
