"""Joint analysis of a sweep's cells, computed from their records alone.

The options that vary from cell to cell determine which analyses apply: see `icl_eval.analysis.designs`.
"""

from icl_eval.analysis.designs import SweepCell
from icl_eval.analysis.influence import Effect, Influence, InfluenceAnalysis
from icl_eval.analysis.shot_curve import ShotCurve, ShotCurvePoint
from icl_eval.analysis.sweeps import SweepAnalysis, analyse_runs
from icl_eval.analysis.variance import CellScore, Component, VarianceAnalysis

__all__ = [
    "CellScore",
    "Component",
    "Effect",
    "Influence",
    "InfluenceAnalysis",
    "ShotCurve",
    "ShotCurvePoint",
    "SweepAnalysis",
    "SweepCell",
    "VarianceAnalysis",
    "analyse_runs",
]
