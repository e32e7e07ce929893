"""Measure what each attention head attends to: patterns of repeated sequences, and the demonstrations' answers.

The attention to the answers is that of the answering position, whose logits choose the first token of the answer. Wang
et al. (2023, https://arxiv.org/abs/2305.14160) call labels anchors, because later tokens read the demonstrations from
them. They weight attention with its gradient; here it is the attention itself.
"""

from collections.abc import Sequence

from icl_eval.commands.trace.attention import read_last_token
from icl_eval.commands.trace.repetition import NUM_SEQUENCES, SEED, draw_sequences, score_repetition
from icl_eval.commands.trace.subjects import Question, TraceSubject
from icl_eval.commands.trace.traces import AnswerTokens, HeadMap, Heads
from icl_eval.decoding.rules import forced_ids, start_ids
from icl_eval.prompts.shown_answers import ShownAnswer, find_shown_answers


def measure_heads(subject: TraceSubject) -> Heads:
    """Return what the heads of a subject's model attend to, in repeated sequences and in its prompt.

    Raises:
        ConfigError: If the network gives no attention weights.
    """
    sequences = draw_sequences(subject.model)
    maps = score_repetition(subject.model, sequences)
    answers: tuple[AnswerTokens, ...] = ()
    question = subject.question
    if question:
        found = list(find_shown_answers(question.builder, question.tokenizer, subject.prompt, question.example))
        answers = tuple(_describe(subject, question, each) for each in found)
        if found:
            maps += _score_answers(subject, answers, found[0].side)
    return Heads(NUM_SEQUENCES, len(sequences[0]), SEED, answers, tuple(maps))


def _describe(subject: TraceSubject, question: Question, found: ShownAnswer) -> AnswerTokens:
    answer = found.demonstration.references[0]
    shift = len(start_ids(subject.model)) if found.side == "decoder" else 0
    return AnswerTokens(
        demonstration_id=found.demonstration.id,
        answer=answer,
        first=found.tokens.start + shift,
        last=found.tokens.stop - 1 + shift,
        right=answer in question.example.references,
    )


def _score_answers(subject: TraceSubject, answers: Sequence[AnswerTokens], side: str) -> list[HeadMap]:
    """Return the attention of the answering position to all answers, and to the right ones if there are any."""
    model, prompt = subject.model, subject.prompt
    ids = start_ids(model) + (prompt.decoder_ids or forced_ids(model, subject.settings))
    attention = "cross" if side == "encoder" else "self"
    weights = read_last_token(model, prompt.encoder_ids, ids, attention)  # [heads, 1, tokens] of each layer
    kinds = {"answers": list(answers), "right_answers": [each for each in answers if each.right]}
    maps = []
    for target, members in kinds.items():
        places = sorted({place for each in members for place in range(each.first, each.last + 1)})
        if places:
            scores = tuple(tuple(layer[:, 0, places].sum(-1).tolist()) for layer in weights)
            maps.append(HeadMap(attention, target, len(places) / weights[0].shape[-1], scores))
    return maps
