"""Demonstrations: which examples of the pool a prompt shows, and in which order.

    pool ── leak guard, strategy ──▶ ranked ── first num_fewshot ──▶ selected ── control ──▶ changed ── order ──▶ shown

Every strategy is a pure function of question, pool, `num_fewshot` and seed, and keeps no random state: batch size,
evaluation order, `limit` and resuming cannot change a prompt. Demonstration sets are nested: the first four of eight
selected demonstrations are the four that `num_fewshot=4` selects.

For every question:

    selection       the whole path of the diagram
    leaks           copies of the question
    ranking         the interface of strategies, and how ties are broken
    controls        changes to what is selected
    label_mappings  controls that show other labels than the right ones
    ordering        the order in a prompt
    candidates      what another draw from the pool would show

The strategies:

    first           in the order of the pool
    random          drawn by seed
    fixed           named by the user
    balanced        one of each label in turn
    bm25            words shared with the question
    nearest         similar embeddings
    diverse         similar embeddings that differ from each other
    dpp             similar embeddings that span much
    votek           embeddings that represent the pool

What they need:

    searching       the best candidates of a large pool
    encoder         examples as unit vectors
    vectors         embeddings that were computed before
    labels          the few answers of a pool
    words           nouns for meaningless inputs
"""

from icl_eval.demonstrations.balanced import BalancedDemonstrations
from icl_eval.demonstrations.bm25 import Bm25Demonstrations
from icl_eval.demonstrations.candidates import CandidateTargets, count_candidates
from icl_eval.demonstrations.controls import (
    Change,
    Control,
    InstructionOnly,
    NoControl,
    NoTargets,
    RandomTargets,
    ShuffledTargets,
    UnrelatedInputs,
)
from icl_eval.demonstrations.diverse import DiverseDemonstrations
from icl_eval.demonstrations.dpp import DppDemonstrations
from icl_eval.demonstrations.first import FirstDemonstrations
from icl_eval.demonstrations.fixed import FixedDemonstrations
from icl_eval.demonstrations.label_mappings import AbstractLabels, FlippedLabels, bind_mapping
from icl_eval.demonstrations.nearest import NearestDemonstrations
from icl_eval.demonstrations.ordering import (
    AsSelectedOrder,
    MostRelevantLastOrder,
    Order,
    RandomOrder,
    ReversedOrder,
)
from icl_eval.demonstrations.random import RandomDemonstrations
from icl_eval.demonstrations.ranking import Allowed, Demonstration, DemonstrationSelector, Ranking
from icl_eval.demonstrations.selection import FewShot, Selection, build_selection, build_shown
from icl_eval.demonstrations.votek import VotekDemonstrations
from icl_eval.targets import Family

__all__ = [
    "CONTROLS",
    "ORDERS",
    "SELECTORS",
    "AbstractLabels",
    "Allowed",
    "AsSelectedOrder",
    "BalancedDemonstrations",
    "Bm25Demonstrations",
    "CandidateTargets",
    "Change",
    "Control",
    "Demonstration",
    "DemonstrationSelector",
    "DiverseDemonstrations",
    "DppDemonstrations",
    "FewShot",
    "FirstDemonstrations",
    "FixedDemonstrations",
    "FlippedLabels",
    "InstructionOnly",
    "MostRelevantLastOrder",
    "NearestDemonstrations",
    "NoControl",
    "NoTargets",
    "Order",
    "RandomDemonstrations",
    "RandomOrder",
    "RandomTargets",
    "Ranking",
    "ReversedOrder",
    "Selection",
    "ShuffledTargets",
    "UnrelatedInputs",
    "VotekDemonstrations",
    "bind_mapping",
    "build_selection",
    "build_shown",
    "count_candidates",
]

SELECTORS = Family(
    __name__,
    {
        "balanced": "BalancedDemonstrations",
        "bm25": "Bm25Demonstrations",
        "diverse": "DiverseDemonstrations",
        "dpp": "DppDemonstrations",
        "first": "FirstDemonstrations",
        "fixed": "FixedDemonstrations",
        "nearest": "NearestDemonstrations",
        "random": "RandomDemonstrations",
        "votek": "VotekDemonstrations",
    },
)
CONTROLS = Family(
    __name__,
    {
        "abstract_labels": "AbstractLabels",
        "flipped_labels": "FlippedLabels",
        "instruction_only": "InstructionOnly",
        "no_targets": "NoTargets",
        "none": "NoControl",
        "random_targets": "RandomTargets",
        "shuffled_targets": "ShuffledTargets",
        "unrelated_inputs": "UnrelatedInputs",
    },
)
ORDERS = Family(
    __name__,
    {
        "as_selected": "AsSelectedOrder",
        "most_relevant_last": "MostRelevantLastOrder",
        "random": "RandomOrder",
        "reversed": "ReversedOrder",
    },
)
