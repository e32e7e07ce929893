"""A record and a report of a run, for tests of the code that reads them."""

import dataclasses

from icl_eval.runs.behaviour import Agreement, Behaviour
from icl_eval.runs.records import (
    AnswerLikelihood,
    QuestionLikelihood,
    Record,
    ShownDemonstration,
)
from icl_eval.runs.reports import (
    SCHEMA_VERSION,
    Counts,
    MetricResult,
    Provenance,
    Report,
    RunInfo,
    TaskResult,
    Timing,
)

FIRST = Record(
    example_id="qa-test-001",
    doc={"question": "Où ?"},
    targets=("Paris", "à Paris"),
    encoder=None,
    decoder="Q: Où ?\nA:",
    demonstration_ids=("qa-pool-007",),
    shots_requested=2,
    shots_effective=1,
    completion=" Paris\u2028\r\n\u0085😀",  # all of them line ends to somebody
    prediction="Paris",
    metrics={"exact_match": 1.0, "numeric_strict": None},
    prompt_tokens=9,
    completion_tokens=3,
    finish_reason="eos",
    prompt_hash="0123456789abcdef",
    demonstrations=(ShownDemonstration("qa-pool-007", "Rom", 0.25),),
)


PARIS = AnswerLikelihood("Paris", -1.0 / 3, 2, 5, None)


SECOND = dataclasses.replace(
    FIRST,
    example_id="qa-test-002",
    encoder="Q",
    decoder=None,
    metrics={},
    likelihood=QuestionLikelihood((PARIS,), (PARIS, dataclasses.replace(PARIS, calibrated=0.1)), "N/A"),
)


REPORT = Report(
    schema_version=SCHEMA_VERSION,
    run=RunInfo(
        model="tiny-gpt2",
        architecture="decoder-only",
        template="labelled",
        placement="decoder",
        conventions={},
        num_fewshot=2,
        demonstrations="random",
        order="as_selected",
        control="none",
        leave_out=None,
        seed=0,
        decoding={"search": "greedy", "tasks": {"qa": {"stop": ["\n"], "max_new_tokens": 16}}},
        fingerprint="0123456789abcdef",
    ),
    results={
        "qa": TaskResult(
            n=3,
            num_fewshot=2,
            metrics={
                "exact_match": MetricResult(1 / 3, 0.27, (0.0, 1.0), "exact_match|case:ignored", True),
                "hub": MetricResult(12.5, None, None, "hub|name:perplexity", False),
            },
            counts=Counts(120, 80, 31, {"eos": 1, "stop": 2}, {"exact_match": 0}, {"2": 3}, 1, {"\n": 1}),
            behaviour=Behaviour(Agreement(3, 1 / 3, 0.0), None, Agreement(3, 1 / 3, 2 / 3)),
        )
    },
    timing=Timing({"prompts": 0.1, "decoding": 0.2}, None),
    provenance=Provenance(
        {"torch": "2.9"}, None, "sha256:…", {"qa": "abc"}, {"num_fewshot": 2}, {"cpu": "é"}, ("num_fewshot=2",)
    ),
)
