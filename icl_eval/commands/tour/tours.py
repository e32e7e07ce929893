"""Complete one prompt in every way of generating, and write the results to `tour.json` and `cost.svg`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from icl_eval.commands.tour.plotting import plot_costs
from icl_eval.commands.tour.ways import (
    TourSubject,
    Way,
    generate_at_once,
    generate_by_hand,
    generate_in_stream,
    generate_one_by_one,
)
from icl_eval.config.free_prompts import open_prompts
from icl_eval.config.schema import TourConfig
from icl_eval.decoding import Completion, StreamDecoder
from icl_eval.decoding.rules import start_ids, stop_strings
from icl_eval.decoding.searches import Sample, build_search
from icl_eval.errors import ConfigError
from icl_eval.prompts.building import EncodedPrompt
from icl_eval.prompts.tokenization import pieces_of
from icl_eval.runs import provenance
from icl_eval.runs.reports import write_json

DEFAULT_MAX_NEW_TOKENS = 40
_WARM_UP_TOKENS = 2
_MOST_DRAWS = 100


@dataclass(frozen=True)
class Tour:
    """The results of a tour."""

    subject: TourSubject
    prompt: EncodedPrompt
    search: Sample
    draws: tuple[Completion, ...]
    """Sampled continuations, in order."""
    ways: tuple[Way, ...]
    """The greedy ways, in the order in which they are shown."""

    @property
    def agree(self) -> bool:
        """Whether all greedy ways generated the same text."""
        return len({way.text for way in self.ways}) == 1


def take_tour(config: TourConfig, folder: Path) -> Tour:
    """Complete the prompt in every way and write the results into a folder.

    Raises:
        UserError: When an option is invalid or the prompt does not fit.
    """
    search = build_search(config.decoding)
    if not isinstance(search, Sample):
        raise ConfigError(
            f"decoding={search.name}: the tour always decodes greedily and also samples continuations; use sample"
        )
    if not 0 <= config.num_return_sequences <= _MOST_DRAWS:
        raise ConfigError(f"num_return_sequences={config.num_return_sequences}: must be from 0 to {_MOST_DRAWS}")
    opened = open_prompts(config, search, [config.prompt], default_max_new_tokens=DEFAULT_MAX_NEW_TOKENS)
    model, [prompt] = opened.model, opened.encoded
    stop = stop_strings(model.network.generation_config, search.stop or ())
    subject = TourSubject(model, opened.conventions, config.prompt, opened.max_new_tokens, stop)
    ways = _generate_all_ways(subject)
    tour = Tour(subject, prompt, search, _draw(subject, prompt, search, config.num_return_sequences), ways)
    write_json(describe(tour), folder / "tour.json")
    plot_costs(ways, folder / "cost.svg")
    return tour


def describe(tour: Tour) -> dict[str, Any]:
    """Return a tour in the form of `tour.json`."""
    tokenizer = tour.subject.model.tokenizer
    sides = {"encoder": tour.prompt.encoder_ids, "decoder": (*start_ids(tour.subject.model), *tour.prompt.decoder_ids)}
    return {
        "schema_version": 1,
        "model": tour.subject.model.name,
        "prompt": tour.subject.text,
        "conventions": tour.subject.conventions.describe(),
        "max_new_tokens": tour.subject.max_new_tokens,
        "stop": list(tour.subject.stop),
        "input": {
            side: {"ids": list(ids), "tokens": pieces_of(tokenizer, ids, from_encoder=side == "encoder")}
            for side, ids in sides.items()
        },
        "sampling": dict(tour.search.recipe),
        "continuations": [asdict(draw) for draw in tour.draws],
        "same_text": tour.agree,
        "ways": [
            {**asdict(way), "tokens_per_second": way.tokens_per_second, "tokens_fed": way.tokens_fed}
            for way in tour.ways
        ],
        "versions": provenance.read_versions(),
        "weights": tour.subject.model.identify(),
        "host": provenance.describe_host(),
    }


def _generate_all_ways(subject: TourSubject) -> tuple[Way, ...]:
    """Generate greedily in all ways, each after a warm-up of a few tokens."""
    brief = TourSubject(subject.model, subject.conventions, subject.text, _WARM_UP_TOKENS, ())
    ways = []
    for generate in (generate_at_once, generate_one_by_one, generate_by_hand, generate_in_stream):
        generate(brief)
        ways.append(generate(subject))
    return tuple(ways)


def _draw(subject: TourSubject, prompt: EncodedPrompt, search: Sample, count: int) -> tuple[Completion, ...]:
    """Sample continuations. Each has its own example id, and therefore its own random draws."""
    prompts: Sequence[EncodedPrompt] = [
        replace(prompt, prompt=replace(prompt.prompt, example_id=f"continuation {number}"))
        for number in range(1, count + 1)
    ]
    decoder = StreamDecoder(
        subject.model,
        subject.max_new_tokens,
        subject.stop,
        search=search,
        settings=subject.conventions.settings,
    )
    completions = {event.example_id: event for event in decoder.stream(prompts) if isinstance(event, Completion)}
    return tuple(completions[prompt.prompt.example_id] for prompt in prompts)
