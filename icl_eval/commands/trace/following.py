"""Trace a subject: decode its prompt and collect everything that happened."""

import math

from icl_eval.commands.trace.heads import measure_heads
from icl_eval.commands.trace.leaving_out import AnswerScorer, forces_first, measure_gains
from icl_eval.commands.trace.subjects import TraceSubject
from icl_eval.commands.trace.tracer import DecodedPrompt, Tracer
from icl_eval.commands.trace.traces import LogLikelihoodGain, Trace
from icl_eval.formatting import count_noun


def follow(subject: TraceSubject, num_runners_up: int, heads: bool) -> Trace:
    """Decode a subject's prompt and return everything that happened.

    Args:
        subject: The prompt.
        num_runners_up: How many of the tokens that were not chosen to record at each step.
        heads: Whether to measure what the attention heads attend to.

    Raises:
        ConfigError: When the model cannot be decoded token by token, or gives no attention weights for its heads.
    """
    model, prompt, question = subject.model, subject.prompt, subject.question
    decoded = Tracer(model, subject.limits, subject.search, num_runners_up, subject.settings).trace(prompt)
    completion = decoded.completion
    reference_log_likelihood: float | None = None
    influences: tuple[LogLikelihoodGain, ...] = ()
    if question:
        scorer = AnswerScorer(model, completion.token_ids, question, subject.settings)
        whole = scorer.score(prompt)
        reference_log_likelihood = whole.reference
        influences = tuple(measure_gains(scorer, question, prompt, whole))
    return Trace(
        model=model.name,
        architecture=model.architecture,
        dtype=model.dtype,
        device=model.device,
        written=subject.written,
        task=question.builder.task.name if question else None,
        example_id=question.example.id if question else None,
        template=question.template if question else None,
        placement=question.placement if question else None,
        search=subject.search.name,
        encoder=decoded.encoder,
        encoder_output=decoded.encoder_output,
        decoder=decoded.decoder,
        steps=decoded.steps,
        finish_reason=completion.finish_reason,
        ended_by=_find_end(decoded),
        completion=completion.text,
        prediction=question.postprocess(completion.text) if question else completion.text,
        reference=question.example.references[0] if question else None,
        generated_log_likelihood=math.fsum(
            step.choice.log_probability for step in decoded.steps[forces_first(model, prompt, subject.settings) :]
        ),
        reference_log_likelihood=reference_log_likelihood,
        influences=influences,
        heads=measure_heads(subject) if heads else None,
    )


def _find_end(decoded: DecodedPrompt) -> str:
    if decoded.completion.finish_reason == "eos":
        return decoded.steps[-1].choice.chosen.token.piece
    if decoded.stop_string is not None:
        return decoded.stop_string
    return count_noun(len(decoded.steps), "token")
