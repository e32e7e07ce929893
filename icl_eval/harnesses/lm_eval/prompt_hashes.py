"""Prompt hashes: comparing prompts with those of a log of lm-evaluation-harness, without running a model.

The harness logs a digest of every prompt beside its samples. A published log can therefore be checked: whether these
tasks, with these options, ask what was asked there.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from icl_eval.errors import DataError
from icl_eval.formatting import list_names
from icl_eval.harnesses.lm_eval.documents import example_id, task_name
from icl_eval.harnesses.lm_eval.logged_runs import find_logged_runs, read_documents
from icl_eval.prompts.building import Prompt


@dataclass(frozen=True)
class HashComparison:
    """How many prompts of a task have the digests of a log."""

    task: str
    path: Path
    num_equal: int
    differing: tuple[str, ...]
    """The ids of the questions whose prompts differ."""
    num_unlogged: int
    """The number of questions that the log does not have."""

    def __str__(self) -> str:
        """Return the comparison as a sentence."""
        total = self.num_equal + len(self.differing)
        sentence = f"{self.task}: {self.num_equal} of {total} prompts have the hashes of {self.path.name}"
        if self.differing:
            sentence += f"; different: {list_names(self.differing)}"
        return sentence + (f"; {self.num_unlogged} questions are not in that file" if self.num_unlogged else "")


def compare_hashes(path: Path, prompts: Mapping[str, Sequence[Prompt]]) -> list[HashComparison]:
    """Compare the prompts of tasks with the hashes in logged samples.

    Args:
        path: A samples file, or a folder with the files of one run.
        prompts: The prompts of each task, whose example ids are the harness's numbers of documents.

    Raises:
        DataError: If there is no such log, several runs are in the folder, or a task is not in it.
    """
    runs = find_logged_runs(path)
    if len(runs) > 1:
        raise DataError(f"logged={path}: contains {len(runs)} runs; give the samples file of one")
    files = {task_name(task): file for task, file in runs[0].samples.items()}
    missing = [task for task in prompts if task not in files]
    if missing:
        raise DataError(f"logged={path}: has no samples of {list_names(missing)} (it has: {list_names(sorted(files))})")
    return [_compare(task, files[task], of_task) for task, of_task in prompts.items()]


def _compare(task: str, path: Path, prompts: Sequence[Prompt]) -> HashComparison:
    logged = {example_id(document.doc_id): document.prompt_hash for document in read_documents(path)}
    known = [prompt for prompt in prompts if prompt.example_id in logged]
    differing = tuple(each.example_id for each in known if _hash(each) != logged[each.example_id])
    return HashComparison(task, path, len(known) - len(differing), differing, len(prompts) - len(known))


def _hash(prompt: Prompt) -> str:
    text = prompt.decoder if prompt.encoder is None else prompt.encoder
    return hashlib.sha256((text or "").encode()).hexdigest()
