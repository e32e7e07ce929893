"""Print a tour on the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from icl_eval.commands.tour.tours import Tour
from icl_eval.commands.tour.ways import Way
from icl_eval.decoding.rules import start_ids
from icl_eval.formatting import count_noun
from icl_eval.prompts.tokenization import pieces_of
from icl_eval.reporting.terminal import open_console, print_path

_EXPLANATIONS = {
    "all at once": "transformers' generate produces all tokens in one call",
    "one by one": "the whole text goes through the whole pipeline again for each token, without a cache",
    "by hand": "the prompt is run once, its keys and values are cached, and then each token is run alone",
    "stream": "the decoder of this package, which also caches keys and values, for many prompts at once",
}


def print_tour(tour: Tour, folder: Path) -> None:
    """Print a tour, and the paths of its files in a folder."""
    console = open_console()
    model = tour.subject.model
    console.rule(f"{model.name}, {model.architecture}", align="left")
    _line(console, "prompt", tour.prompt.prompt.encoder or tour.prompt.prompt.decoder or "")
    _print_draws(console, tour)
    _print_stages(console, tour)
    for way in tour.ways[1:]:
        _heading(console, way)
        _line(console, "text", way.text)
        if way.stages:
            _line(console, "seconds", _format_stages(way))
    _print_table(console, tour)
    for name in ("tour.json", "cost.svg"):
        print_path(console, name.partition(".")[0], folder / name)


def _print_draws(console: Console, tour: Tour) -> None:
    recipe = ", ".join(f"{name} {value}" for name, value in tour.search.recipe.items() if value is not None)
    console.print()
    console.print(f"Sampled: {count_noun(len(tour.draws), 'continuation')} ({recipe})", style="bold")
    for draw in tour.draws:
        _line(console, draw.example_id.removeprefix("continuation "), draw.text)


def _print_stages(console: Console, tour: Tour) -> None:
    """Print the first way, with the ids that pass between its stages."""
    way = tour.ways[0]
    tokenizer = tour.subject.model.tokenizer
    _heading(console, way)
    if encoder_ids := tour.prompt.encoder_ids:
        _print_tokens(console, "to the encoder", encoder_ids, pieces_of(tokenizer, encoder_ids, from_encoder=True))
    begin = (*start_ids(tour.subject.model), *tour.prompt.decoder_ids)
    for side, ids in (("to the decoder", begin), ("generated", way.token_ids)):
        _print_tokens(console, side, ids, pieces_of(tokenizer, ids))
    _line(console, "text", way.text)
    _line(console, "seconds", _format_stages(way))


def _print_tokens(console: Console, name: str, ids: Sequence[int], pieces: Sequence[str]) -> None:
    _line(console, name, " ".join(map(str, ids)))
    _line(console, "", " | ".join(pieces))


def _print_table(console: Console, tour: Tour) -> None:
    console.print()
    table = Table(title=f"{len(tour.ways[0].token_ids)} new tokens, {_describe_prompt(tour)}", title_justify="left")
    table.add_column("way")
    for column in ("seconds", "new tokens per second", "tokens fed"):
        table.add_column(column, justify="right")
    for way in tour.ways:
        table.add_row(way.name, f"{way.seconds:.3f}", f"{way.tokens_per_second:.1f}", str(way.tokens_fed))
    console.print(table)
    if tour.agree:
        console.print("All greedy ways generated the same text.")
    else:
        differing = [way.name for way in tour.ways if way.text != tour.ways[0].text]
        console.print(f"The text differs from all at once: {', '.join(differing)}.", style="yellow")
    for way in tour.ways:
        if way.remark:
            console.print(f"{way.name}: {way.remark}", style="yellow")


def _describe_prompt(tour: Tour) -> str:
    sides = [f"{len(tour.prompt.encoder_ids)} in the encoder"] if tour.prompt.encoder_ids else []
    begin = len(start_ids(tour.subject.model)) + len(tour.prompt.decoder_ids)
    return f"after a prompt of {' and '.join([*sides, f'{begin} in the decoder'])}"


def _heading(console: Console, way: Way) -> None:
    console.print()
    console.print(f"{way.name.capitalize()}: {_EXPLANATIONS[way.name]}", style="bold")


def _format_stages(way: Way) -> str:
    return ", ".join(f"{name} {seconds:.4f}" for name, seconds in way.stages.items())


def _line(console: Console, name: str, text: str) -> None:
    shown: Sequence[str] = text.split("\n")
    console.print(Text(f"  {name:<16}") + Text("⏎".join(shown)), soft_wrap=True)
