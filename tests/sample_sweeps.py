"""Sweeps, analyses and comparisons, for tests of pages, figures and tables."""

import json
from dataclasses import asdict, replace

import sample_runs
from parsed_pages import assert_self_contained
from sample_runs import FIRST

from icl_eval.analysis import CellScore, Component, ShotCurve, ShotCurvePoint, SweepAnalysis, VarianceAnalysis
from icl_eval.analysis.comparison import Difference
from icl_eval.analysis.gaps import NoiseGap
from icl_eval.analysis.influence import Influence, InfluenceAnalysis, SetEffect
from icl_eval.analysis.leave_one_out import Effect, LeaveOneOutAnalysis, LeftOut
from icl_eval.analysis.order_probing import OrderProbing, ProbedOrder
from icl_eval.analysis.prompts import PromptQuantiles, ScoreOverPrompts
from icl_eval.analysis.wording import WordingSpread
from icl_eval.reporting.pages.sweep_page import write_sweep_page
from icl_eval.runs.behaviour import Agreement, Behaviour
from icl_eval.runs.folders import read_run
from icl_eval.runs.reports import write_json, write_report

NOTHING = SweepAnalysis((), (), ())


def record(number, prediction, score, **changes):
    question = {"example_id": f"q{number}", "doc": {"question": f"{number}?"}, "targets": (str(number),)}
    answer = {"completion": f" {prediction}", "prediction": prediction, "metrics": {"exact_match": score, "hub": None}}
    return replace(FIRST, **(question | answer | changes))


def write_run(folder, *records):
    """Write the files of a run of one task."""
    folder.mkdir(parents=True, exist_ok=True)
    result = replace(sample_runs.REPORT.results["qa"], n=len(records))
    report = replace(sample_runs.REPORT, results={"qa": result})
    write_report(report, folder / "report.json")
    lines = "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)
    (folder / "samples_qa.jsonl").write_text(lines, encoding="utf-8")
    return read_run(folder)


def write_sweep(folder, cells, analysis=NOTHING):
    """Write a sweep of runs or failures, by their overrides, and return its parsed page."""
    entries = []
    for number, (overrides, records) in enumerate(cells):
        entry = {"cell": f"cell {number}#?", "overrides": overrides}
        if isinstance(records, str):
            entry["error"] = {"error": "ConfigError", "message": records, "exit_code": 2}
        else:
            report = asdict(write_run(folder / entry["cell"], *records).report)
            entry |= {"run": report["run"], "results": report["results"]}
        entries.append(entry)
    write_json({"schema_version": 1, "cells": entries, "analysis": asdict(analysis)}, folder / "sweep.json")
    write_sweep_page(folder)
    return assert_self_contained((folder / "sweep.html").read_bytes().decode())


def curve(*points, conditions=(), **changes):
    points = tuple(ShotCurvePoint(number, scores, mean, None, ci95, 0.05) for number, scores, mean, ci95 in points)
    return replace(ShotCurve("qa", "exact_match", True, dict(conditions), ("seed",), 24, points), **changes)


CURVE = curve(
    (0, {"": 0.0}, 0.0, None),
    (1, {"seed=0": 0.4, "seed=1": 0.6}, 0.5, (0.3, 0.7)),
    (8, {"seed=0": 0.8, "seed=1": 0.8}, 0.8, (0.7, 0.9)),
)


COMPONENTS = (
    Component(("seed",), 0.01, 0.25, 0.01, 0.04, (0.0, 0.25), (0.0, 0.75)),
    Component(("template",), 0.0, 0.0, -0.001, 0.6),
    Component(("seed", "template"), 0.01, 0.25, 0.01, 0.5),
    Component(("questions",), 0.01, 0.25, 0.01, None),
    Component(("seed", "questions"), 0.01, 0.25, 0.01, None),
)


VARIANCE = VarianceAnalysis(
    task="qa", metric="exact_match", higher_is_better=True, conditions={"control": "none"},
    factors={"seed": ("0", "1"), "template": ("a", "b")}, n=24, mean=0.5, stdev=0.1,
    worst=CellScore({"seed": "0", "template": "a"}, 0.4), best=CellScore({"seed": "1", "template": "b"}, 0.6),
    test_set_stderr=0.05, components=COMPONENTS, level_means={"seed": {"0": 0.45, "1": 0.55}}, num_clusters=6,
    test_set_at_least=0.125, noise_gap=NoiseGap(0.22, 0.28),
    wording=WordingSpread(("template",), 2, 0.125, 0.0625, (0.0, 0.25)),
)  # fmt: skip


PROMPTS = ScoreOverPrompts(
    "qa", "exact_match", {"control": "none"}, ("seed", "template"), 12, 24, 8.0, (0.05, 0.25, 0.5, 0.75, 0.95),
    PromptQuantiles((0.1, 0.2, 0.3, 0.4, 0.5), (0.15, 0.25, 0.35, 0.45, 0.55), (0.2, 0.25, 0.3, 0.35, 0.4)),
)  # fmt: skip


INFLUENCE = InfluenceAnalysis(
    task="qa",
    conditions={"control": "none"},
    num_sets=40,
    demonstrations=(
        Influence("pool-1", "Paris", 16, 24, {"exact_match": SetEffect(0.25, (-0.25, 0.75), 0.125)}),
        Influence("pool-2", None, 5, 35, {"exact_match": SetEffect(-0.5, None, -0.25)}),
    ),
)


LEAVE_ONE_OUT = LeaveOneOutAnalysis(
    task="qa",
    conditions={"control": "none"},
    demonstrations=(
        LeftOut("pool-1", "Paris", {"exact_match": Effect(24, 0.25, (-0.25, 0.75), {"q1": 1.0, "q2": 1.0}, {})}),
        LeftOut("pool-2", None, {"logprob": Effect(24, -2.5, None, {}, {"q1": -2.5})}),
    ),
    behaviour=Behaviour(Agreement(24, 0.5, 0.25), None, None),
)


ORDER_PROBING = OrderProbing(
    task="qa",
    conditions={"num_fewshot": "2"},
    n=24,
    orders=(
        ProbedOrder({"order.seed": "1"}, ("pool-2", "pool-1"), 0.69, 0.5, 0.75),
        ProbedOrder({"order.seed": "0"}, ("pool-1", "pool-2"), 0.0, 0.25, 0.5),
    ),
    global_correlation=1.0,
    local_correlation=None,
)


BEYOND = curve(
    (0, {"": 0.0}, 0.0, None), (1, {"seed=0": 0.0, "seed=1": 0.4}, 0.2, (-2.3, 2.7)), (2, {"": 0.4}, 0.4, (0.4, 0.4))
)


def difference(run, **changes):
    found = Difference(
        run=run, task="qa", metric="exact_match", higher_is_better=True, n=2, baseline_score=0.5, score=0.0,
        difference=-0.5, ci95=(-0.75, 0.25), test="bonett_price", p_value=0.25, p_adjusted=0.0004,
        better=("q1",), worse=(),
    )  # fmt: skip
    return replace(found, **changes)
