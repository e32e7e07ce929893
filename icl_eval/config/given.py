"""Find out which options the user gave, as opposed to those left at their default.

A task may bring its own wording. It holds unless the run gives one, which then holds for every task:

    icl-eval task=boolq                      the task's own
    icl-eval task=boolq template=labelled    labelled, although it is also the default
"""

import re
from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from icl_eval.config.composing import ComposedConfig
from icl_eval.config.setup import conf_dir


def is_given(composed: ComposedConfig, key: str) -> bool:
    """Return whether an override or a chosen experiment sets a key, one of its parts, or the choice of its group."""
    return key in {*map(find_root, composed.overrides), *_list_experiment_keys(composed)}


def find_root(place: str) -> str:
    """Return the first part of the key that an override or an entry of a defaults list sets.

    >>> find_root("+template.separator=x"), find_root("template@task.qa.template=plain")
    ('template', 'task')
    """
    key = place.removeprefix("override ").lstrip("+~/").partition("=")[0]
    return re.split(r"[./]", key.rpartition("@")[2], maxsplit=1)[0]


def _list_experiment_keys(composed: ComposedConfig) -> Iterator[str]:
    chosen = composed.choices.get("experiment")
    for name in [chosen] if isinstance(chosen, str) else list(chosen or ()):
        files = (folder / "experiment" / f"{name}.yaml" for folder in (conf_dir(), *composed.search_path))
        path = next((path for path in files if path.is_file()), None)
        content: Any = {} if path is None else OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        yield from map(str, content)
        for entry in content.get("defaults", ()):
            yield from map(find_root, entry if isinstance(entry, dict) else [entry])
