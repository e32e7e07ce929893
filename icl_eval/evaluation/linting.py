"""Warn about prompts and data that are valid but probably unintended."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from icl_eval.demonstrations.leaks import find_duplicates, find_near_duplicates
from icl_eval.evaluation.preparation import PreparedTask
from icl_eval.formatting import list_names
from icl_eval.tasks.examples import Example

_LONG, _PASSAGE = 60, 200
"""The length from which a field is a text that questions can share, and how much of it is compared."""


def lint_task(prepared: PreparedTask, tokenizer: Any) -> Iterator[str]:
    """Yield a warning for each suspicious property of a task's prompts and references."""
    plan, prompts = prepared.plan, prepared.prompts
    texts = [text for prompt in prompts for text in (prompt.prompt.encoder, prompt.prompt.decoder) if text]
    if any("  " in text for text in texts):
        yield "prompts contain runs of two or more spaces"
    unknown = {tokenizer.unk_token_id} - {None, tokenizer.bos_token_id, tokenizer.eos_token_id}  # one token in GPT-2
    with_unknown = sum(not unknown.isdisjoint(prompt.encoder_ids + prompt.decoder_ids) for prompt in prompts)
    if with_unknown:
        yield f"{with_unknown} of {len(prompts)} prompts contain the unknown token: the vocabulary lacks a character"
    yield from lint_template(prepared)
    yield from _lint_rows((*plan.task.pool, *plan.examples), plan.stop, tokenizer)
    yield from lint_leaks(prepared)
    yield from lint_pool(prepared)
    yield from lint_clusters(prepared)
    too_long = [
        example.id
        for example in plan.examples
        if 0 < plan.max_new_tokens < _count_tokens(tokenizer, example.references[0])
    ]
    if too_long:
        yield f"{list_names(too_long)}: the first reference is longer than max_new_tokens={plan.max_new_tokens}"


def lint_template(prepared: PreparedTask) -> Iterator[str]:
    """Yield a warning if the template uses no field of the question, and one if demonstrations show no target."""
    template, fields = prepared.builder.template, prepared.plan.examples[0].inputs
    texts = {"question": template.question_names}
    if any(prompt.prompt.demonstrations for prompt in prepared.prompts):
        texts["demonstration"] = template.demonstration_names
    empty = [text for text, names in texts.items() if names.isdisjoint(fields)]
    if empty:
        yield f"no field of the row ({', '.join(fields)}) is used in the template's {' and '.join(empty)}"
    target = {"answer", *prepared.plan.task.demonstration_fields}  # a whole solution contains the answer
    if target.isdisjoint(texts.get("demonstration", target)):
        yield "the template's demonstration does not use 'answer'"


def lint_leaks(prepared: PreparedTask) -> Iterator[str]:
    """Yield a warning if a prompt shows a demonstration that is nearly identical to its question."""
    plan = prepared.plan
    shown = (
        (example, prepared.builder.find_shown(prompt, example))
        for example, prompt in zip(plan.examples, prepared.prompts, strict=True)
    )
    duplicates = find_near_duplicates(shown, plan.match_field)
    if duplicates:
        pairs = [f"{pair.question_id} and {pair.demonstration_id} ({pair.similarity:.2f})" for pair in duplicates]
        yield f"{list_names(pairs)}: question and demonstration are nearly identical and may have the same answer"


def lint_pool(prepared: PreparedTask) -> Iterator[str]:
    """Yield a warning if the demonstration pool contains duplicates."""
    plan = prepared.plan
    shows_any = any(prompt.prompt.demonstrations for prompt in prepared.prompts)
    if not shows_any or plan.few_shot.selector.keeps_duplicates:
        return
    duplicates = [f"{left_out} repeats {kept}" for left_out, kept in find_duplicates(plan.task.pool, plan.match_field)]
    if duplicates:
        share = f"{len(duplicates)} of {len(plan.task.pool)} rows of the pool are duplicates"
        yield f"{share} ({list_names(duplicates)}); only one of each is drawn"


def lint_clusters(prepared: PreparedTask) -> Iterator[str]:
    """Yield a warning if at least half of the questions share a text, or their demonstrations, and name no clusters.

    A text is shared if it is the same for some questions and not for all, in the whole field or, where a field begins
    with a passage, in its first characters.
    """
    plan = prepared.plan
    if any(example.cluster is not None for example in plan.examples):
        return
    beginnings: dict[str, list[str]] = {
        field: [text[:_PASSAGE] for example in plan.examples if len(text := example.inputs[field]) >= _LONG]
        for field in plan.examples[0].inputs
    }
    shared = {field: _count_shared(texts) for field, texts in beginnings.items()}
    if plan.match_field is not None:
        shared[plan.match_field] = _count_shared([example.inputs[plan.match_field] for example in plan.examples])
    for field, (questions, groups) in shared.items():
        if groups > 1 and questions >= len(plan.examples) / 2:
            yield (
                f"{questions} of {len(plan.examples)} questions share their {field} with others ({groups} groups), so "
                f"they are not independent and intervals are too narrow: name it as fields.cluster"
            )


def _count_shared(texts: Sequence[str]) -> tuple[int, int]:
    """Return how many strings occur several times, and how many different ones these are."""
    counts = [count for count in Counter(texts).values() if count > 1]
    return sum(counts), len(counts)


def _lint_rows(examples: Sequence[Example], stop: Sequence[str], tokenizer: Any) -> Iterator[str]:
    special = [token for token in tokenizer.all_special_tokens if token.strip()]
    injected = [
        example.id for example in examples if any(token in text for text in _texts_of(example) for token in special)
    ]
    if injected:
        yield f"{list_names(injected)}: the row contains the text of a special token, which is encoded as that token"
    stopped = [example.id for example in examples if any(s in example.references[0].strip() for s in stop)]
    if stopped:
        yield f"{list_names(stopped)}: the first reference contains a stop string, so it can never be generated in full"


def _texts_of(example: Example) -> tuple[str, ...]:
    return *example.inputs.values(), *example.references, *example.demonstration_fields.values()


def _count_tokens(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
