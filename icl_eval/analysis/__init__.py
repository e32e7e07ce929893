"""Joint analysis of a sweep's cells, computed from their records alone.

The options that vary from cell to cell determine which analyses apply: see `icl_eval.analysis.designs`.

From runs to cells with scores:

    measurements   scores per question, computed again from records
    designs        which options vary, and which cells belong together

The analyses:

    draws          the mean over draws and questions
    crossed        its error, for tables of draws by questions
    shot_curve     score against the number of demonstrations
    variance       shares of the variance
    mean_squares   the sums of squares of a crossed design
    quasi_f        the F test that `variance` needs
    generalised    the intervals that `variance` needs
    gaps           best minus worst by noise alone
    wording        best minus worst wording, with noise taken off
    prompts        the distribution of a score over prompts
    rasch          the model of answers that `prompts` needs
    influence      what each demonstration adds to a random set of the others
    leave_one_out  what each demonstration adds beside all the others
    order_probing  which order of demonstrations to use, from predictions without references
    comparison     differences from a baseline
    conditions     runs that are draws of one condition, in pairs
    matching       whether two runs answered the same questions
    testing        which test suits a difference
    significance   tests and intervals of paired scores

Before a study:

    planning      what so many draws and questions would find
    pilots        the variances and costs that planning needs, from records
    studies       the plan: a grid of studies, the cheapest and the best, and `plan.json`

Their results:

    sweeps         all analyses of a sweep, and `sweep.json`
    tables         rows of plain values, for the terminal, exported files and notebooks
"""

from icl_eval.analysis.designs import SweepCell
from icl_eval.analysis.draws import ScoreOverDraws
from icl_eval.analysis.influence import Influence, InfluenceAnalysis, SetEffect
from icl_eval.analysis.leave_one_out import Effect, LeaveOneOutAnalysis, LeftOut
from icl_eval.analysis.order_probing import OrderProbing, ProbedOrder
from icl_eval.analysis.prompts import ScoreOverPrompts
from icl_eval.analysis.shot_curve import ShotCurve, ShotCurvePoint
from icl_eval.analysis.sweeps import SweepAnalysis, analyse_runs
from icl_eval.analysis.variance import CellScore, Component, VarianceAnalysis

__all__ = [
    "CellScore",
    "Component",
    "Effect",
    "Influence",
    "InfluenceAnalysis",
    "LeaveOneOutAnalysis",
    "LeftOut",
    "OrderProbing",
    "ProbedOrder",
    "ScoreOverDraws",
    "ScoreOverPrompts",
    "SetEffect",
    "ShotCurve",
    "ShotCurvePoint",
    "SweepAnalysis",
    "SweepCell",
    "VarianceAnalysis",
    "analyse_runs",
]
