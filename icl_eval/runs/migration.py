"""Migration: what runs stored before their files named choices as users do, in the form of today.

Reports of schema version 1, and the fingerprints of their time, say where a class was: `icl_eval.searches.Greedy`. The
classes are listed here as they were called then, whatever became of them since.
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
    """Return the configuration that a report holds in the form of today.

    Args:
        config: In either form.
        template: The name of the run's template, of which a configuration of version 1 has the wording alone.
    """
    upgraded = map_choices(config, lambda group, _, choice: _upgrade_choice(group, choice))
    if isinstance(config.get("template"), Mapping):
        upgraded["template"] = {"name": template, **config["template"]}
    return upgraded


def upgrade_identity(identity: Mapping[str, Any], template: Any) -> dict[str, Any]:
    """Return what a fingerprint says of a run, flat, in the form of today.

    Args:
        identity: In either form.
        template: What the template is called now, of which the earlier form has the wording alone.
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
        classes[class_name] = class_name  # of no version that there was; whoever looks for it will say so
    options = {option: value for option, value in choice.items() if option != _TARGET}
    return name_choice(classes, class_name, options)
