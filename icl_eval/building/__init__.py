"""Building: from a composed configuration to the objects that do the work. Hydra ends here."""

from icl_eval.building.evaluations import build_evaluation
from icl_eval.building.options import build_conventions, build_model_spec, build_search, check_model_options

__all__ = [
    "build_conventions",
    "build_evaluation",
    "build_model_spec",
    "build_search",
    "check_model_options",
]
