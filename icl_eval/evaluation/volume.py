"""How much a run asks of its engine, before anything is sent."""

from dataclasses import dataclass

from icl_eval.evaluation.answers import deduplicate
from icl_eval.evaluation.preparation import Evaluation, PreparedEvaluation, PreparedTask
from icl_eval.formatting import count_noun


@dataclass(frozen=True)
class Volume:
    """The requests of a run, and their tokens."""

    requests: int = 0
    """One for each completion, and one for each continuation that is scored."""
    prompt_tokens: int = 0
    """The tokens of all requests, as if nothing was shared."""
    max_new_tokens: int = 0
    """The most tokens that can be generated."""

    def __add__(self, other: "Volume") -> "Volume":
        return Volume(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.max_new_tokens + other.max_new_tokens,
        )


def measure_volume(evaluation: Evaluation, prepared: PreparedEvaluation) -> Volume:
    """Return the requests and the tokens of a run that has no records yet."""
    num_samples, new_tokens = evaluation.search.num_samples, evaluation.engine.new_tokens_per_score
    return sum((_measure(task, num_samples, new_tokens) for task in prepared.tasks), Volume())


def _measure(task: PreparedTask, num_samples: int, new_tokens_per_score: int) -> Volume:
    volume = Volume()
    if task.plan.max_new_tokens:
        count = len(task.prompts) * num_samples
        tokens = num_samples * sum(prompt.num_tokens for prompt in task.prompts)
        volume += Volume(count, tokens, count * task.plan.max_new_tokens)
    requests, _ = deduplicate(task.answers)
    for asked in requests:
        tokens = len(asked.texts) * asked.context.num_tokens + sum(map(len, asked.texts))
        volume += Volume(len(asked.texts), tokens, len(asked.texts) * new_tokens_per_score)
    return volume


def describe_volume(evaluation: Evaluation, volume: Volume) -> str:
    """Return a sentence about a run's requests, and what they cost at most if the engine has prices."""
    sentence = (
        f"in all {count_noun(volume.requests, 'request')} of {count_noun(volume.prompt_tokens, 'token')}, and up to "
        f"{count_noun(volume.max_new_tokens, 'new token')}"
    )
    if prices := evaluation.engine.prices:
        cost = prices.cost(volume.prompt_tokens, volume.max_new_tokens)
        sentence += f", at most {cost:.4g} at engine.prices, beside a probe of some hundred tokens"
    return sentence
