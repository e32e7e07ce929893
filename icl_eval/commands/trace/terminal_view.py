"""Print a trace on the terminal, in the order in which things happen."""

from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from icl_eval.commands.trace.phrases import (
    count_cached,
    describe_attention,
    describe_end,
    describe_label,
    describe_layers,
    describe_probability,
    describe_shape,
    describe_strongest,
    describe_target,
    explain_heads,
    visible,
    visible_lines,
)
from icl_eval.commands.trace.traces import Candidate, Heads, InputToken, Side, Step, Trace
from icl_eval.formatting import count_noun

_MOST_TOKENS = 120
"""Of a longer prompt, only the beginning and the end are shown."""


def print_trace(trace: Trace, console: Console) -> None:
    """Print a trace."""
    console.rule(
        f"{trace.model} · {trace.architecture} · {trace.search} · {trace.dtype} on {trace.device}", align="left"
    )
    for part in _parts(trace):
        console.print(part)


def _parts(trace: Trace) -> Iterator[RenderableType]:
    yield _heading("Text in")
    for name, text in trace.written.items():
        yield Panel(Text(visible_lines(text)), title=Text(f"{name}, as written"), title_align="left")
    for name, side in _sides(trace):
        if side.text is not None and list(trace.written.values()) != [side.text]:
            how = f"template {trace.template}, placement {trace.placement}" if trace.template else "task prefix"
            yield Panel(Text(visible_lines(side.text)), title=Text(f"input of the {name}: {how}"), title_align="left")
    for name, side in _sides(trace):
        yield _heading(f"Tokens in, {name}: {len(side.tokens)}")
        yield _tokens(side.tokens)
    yield _heading("Shapes")
    yield _shapes(trace)
    yield _heading("Step by step")
    yield _steps(trace.steps)
    yield Text(f"Decoding ended after {count_noun(len(trace.steps), 'token')}: {visible(describe_end(trace))}.")
    yield _heading("Text out")
    yield from _outcome(trace)
    if trace.influences:
        yield _heading("Influence of each demonstration")
        yield _influences(trace)
    if trace.heads:
        yield _heading("Attention heads")
        yield _heads(trace.heads)


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _sides(trace: Trace) -> list[tuple[str, Side]]:
    return [*([("encoder", trace.encoder)] if trace.encoder else []), ("decoder", trace.decoder)]


def _tokens(tokens: Sequence[InputToken]) -> Text:
    """Return the pieces with their ids, highlighting tokens that were added to the text."""
    line = Text()
    left_out = len(tokens) - _MOST_TOKENS
    for number, each in enumerate(tokens):
        if left_out > 0 and _MOST_TOKENS // 2 <= number < _MOST_TOKENS // 2 + left_out:
            if number == _MOST_TOKENS // 2:
                line.append(f"… {left_out} more (see trace.json) … ", style="yellow")
            continue
        piece = visible(each.token.piece)
        line.append(*((f"+{piece}", "bold magenta") if each.added else (piece,)))
        line.append(f" {each.token.id}  ", style="dim")
    if any(each.added for each in tokens):
        line.append("\n(+: added by the tokenizer or the model)", style="dim")
    return line


def _shapes(trace: Trace) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, side in _sides(trace):
        table.add_row(f"{name} embeddings", describe_shape(side.embeddings))
        if name == "encoder" and trace.encoder_output:
            table.add_row("encoder output", describe_shape(trace.encoder_output))
    table.add_row("logits of a pass", describe_shape(trace.steps[0].logits))
    passes = {"after prefill": trace.steps[0]}
    if len(trace.steps) > 1:
        passes[f"after pass {len(trace.steps)}"] = trace.steps[-1]
    for name, step in passes.items():
        for block in step.cache.blocks:
            table.add_row(f"cache {name}", describe_layers(block))
    return table


def _steps(steps: Sequence[Step]) -> Table:
    table = Table()
    for column in ("pass", "fed", "cache after pass", "token", "id", "probability", "entropy", "runners-up"):
        table.add_column(
            column, justify="right" if column in ("pass", "fed", "id", "probability", "entropy") else "left"
        )
    for number, step in enumerate(steps, start=1):
        choice = step.choice
        token = Text(describe_label(choice.chosen.token))
        if choice.rules:
            token.append(f"\nchoice changed by the generation config: {', '.join(choice.rules)}", style="yellow")
        table.add_row(
            str(number),
            str(step.fed),
            count_cached(step.cache),
            token,
            str(choice.chosen.token.id),
            describe_probability(choice.chosen.probability),
            f"{choice.entropy_bits:.2f} bits",
            _runners_up(choice.runners_up),
        )
    return table


def _runners_up(candidates: Sequence[Candidate]) -> Text:
    line = Text()
    for candidate in candidates:
        line.append(describe_label(candidate.token))
        line.append(f" {describe_probability(candidate.probability)}  ", style="dim")
    return line


def _outcome(trace: Trace) -> Iterator[RenderableType]:
    yield Panel(Text(visible_lines(trace.completion)), title="completion", title_align="left")
    if trace.prediction != trace.completion:
        yield Panel(Text(visible_lines(trace.prediction)), title="after postprocessing", title_align="left")
    if trace.reference is not None:
        yield Panel(Text(visible_lines(trace.reference)), title="first reference", title_align="left")
    yield Text(f"log-likelihood of the generated answer: {trace.generated_log_likelihood:.3f} nats")
    if trace.reference_log_likelihood is not None:
        yield Text(f"log-likelihood of the first reference: {trace.reference_log_likelihood:.3f} nats")


def _influences(trace: Trace) -> Table:
    table = Table(
        caption="Change in the answer's log-likelihood (nats) due to the demonstration. Above zero, it helped.",
        caption_justify="left",
    )
    for column in ("demonstration", "question", "answer"):
        table.add_column(column)
    for column in ("generated answer", "first reference"):
        table.add_column(column, justify="right")
    for influence in trace.influences:
        table.add_row(
            influence.demonstration_id,
            visible(influence.question),
            visible(influence.answer or ""),
            f"{influence.generated:+.3f}",
            "" if influence.reference is None else f"{influence.reference:+.3f}",
        )
    return table


def _heads(heads: Heads) -> Table:
    table = Table(caption=explain_heads(heads), caption_justify="left")
    for column in ("attention", "goes to", "evenly", "strongest heads"):
        table.add_column(column, justify="right" if column == "evenly" else "left")
    for index, shown in enumerate(heads.maps):
        following = heads.maps[index + 1 : index + 2]
        table.add_row(
            describe_attention(shown),
            describe_target(shown),
            f"{shown.uniform:.3f}",
            describe_strongest(shown),
            end_section=any(each.attention != shown.attention for each in following),
        )
    return table
