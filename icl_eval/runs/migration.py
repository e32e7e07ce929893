"""Convert the files of earlier versions to the current format.

Reports of schema version 1, and the fingerprints written with them, name classes (`icl_eval.searches.Greedy`) where
current files name choices (`greedy`). The table below lists the class names of that version; they must not follow later
renames.
"""

from collections.abc import Mapping
from typing import Any

from icl_eval.runs.choices import map_choices
from icl_eval.targets import name_choice

_TARGET = "_target_"
_CLASSES: Mapping[str, Mapping[str, str]] = {
    "decoding": {"greedy": "Greedy", "sample": "Sample", "generate": "Generate"},
    "placement": {"decoder": "DecoderPlacement", "encoder": "EncoderPlacement", "split": "SplitPlacement"},
    "demonstrations": {
        "balanced": "BalancedDemonstrations",
        "bm25": "Bm25Demonstrations",
        "diverse": "DiverseDemonstrations",
        "first": "FirstDemonstrations",
        "fixed": "FixedDemonstrations",
        "nearest": "NearestDemonstrations",
        "random": "RandomDemonstrations",
    },
    "order": {
        "as_selected": "AsSelectedOrder",
        "most_relevant_last": "MostRelevantLastOrder",
        "random": "RandomOrder",
        "reversed": "ReversedOrder",
    },
    "control": {
        "flipped_labels": "FlippedLabels",
        "instruction_only": "InstructionOnly",
        "no_targets": "NoTargets",
        "none": "NoControl",
        "random_targets": "RandomTargets",
        "shuffled_targets": "ShuffledTargets",
        "unrelated_inputs": "UnrelatedInputs",
    },
    "likelihood": {"choices": "ChoiceLikelihood", "references": "ReferenceLikelihood"},
    "postprocessing": {"extract": "Extract", "first_line": "FirstLine", "strip": "Strip"},
    "metrics": {
        "bleu": "BLEU",
        "chrf": "CHRF",
        "exact_match": "ExactMatch",
        "hub": "HubMetric",
        "numeric_strict": "NumericMatch",
        "numeric_flexible": "NumericMatch",
        "ter": "TER",
        "token_f1": "TokenF1",
    },
}


def upgrade_config(config: Mapping[str, Any], template: str) -> dict[str, Any]:
    """Return a report's configuration in the current format.

    Args:
        config: The configuration, in either format.
        template: The name of the run's template. A configuration of version 1 only has its wording.
    """
    upgraded = map_choices(config, lambda group, _, choice: _upgrade_choice(group, choice))
    if isinstance(config.get("template"), Mapping):
        upgraded["template"] = {"name": template, **config["template"]}
    return upgraded


def upgrade_identity(identity: Mapping[str, Any], template: Any) -> dict[str, Any]:
    """Return the flat identity stored in a fingerprint in the current format.

    Args:
        identity: The identity, in either format.
        template: The current name of the template. The earlier format only has its wording.
    """
    if not any(key.endswith(f".{_TARGET}") for key in identity):
        return dict(identity)
    upgraded = {"template": template}
    for key, value in identity.items():
        group = key.removesuffix(f".{_TARGET}")
        if group != key:
            upgraded[group] = _upgrade_choice(group, {_TARGET: value})["name"]
        else:
            upgraded["decoding" if key == "decoding.search" else key] = value
    return upgraded


def _upgrade_choice(group: str, choice: Any) -> Any:
    if not isinstance(choice, Mapping) or _TARGET not in choice:
        return choice
    class_name = str(choice[_TARGET]).rpartition(".")[2]
    classes = {**_CLASSES.get(group, {})}
    if class_name not in classes.values():
        classes[class_name] = class_name  # unknown in every version; reported where the name is looked up
    options = {option: value for option, value in choice.items() if option != _TARGET}
    return name_choice(classes, class_name, options)
