import tempfile
from itertools import groupby
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TUTORIAL = Path(__file__).resolve().parents[1] / "docs" / "tutorial.ipynb"
SCORES = """\
induction_numbers   encoder   0.04 0.88 0.98 1.00 1.00
                    split     0.00 0.92 0.96 0.99 0.98
induction_rearrange encoder   0.00 0.78 0.98 1.00 1.00
                    split     0.00 0.32 0.31 0.33 0.38
"""
ANSWERS = """\
add 4            62 -> 66
subtract 3       62 -> 59
add 7            62 -> 69
"""


@pytest.fixture
def committed():
    return nbformat.read(TUTORIAL, as_version=4)


def outputs(notebook):
    """Return the outputs of each code cell, without stderr."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [[output for output in cell.outputs if output.get("name") != "stderr"] for cell in cells]


def kinds(notebook):
    """Return the kinds of each cell's outputs; how many pieces printed text arrives in depends on timing."""
    return [[kind for kind, _ in groupby(output.output_type for output in cell)] for cell in outputs(notebook)]


def printed(notebook):
    return "".join(output.get("text", "") for cell in outputs(notebook) for output in cell)


@pytest.mark.slow
def test_the_tutorial_runs_from_top_to_bottom_and_prints_the_committed_scores(committed, tmp_path):
    notebook = nbformat.read(TUTORIAL, as_version=4)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # raises what a cell raises
    assert kinds(notebook) == kinds(committed)
    for text in (printed(notebook), printed(committed)):
        assert SCORES in text
        assert ANSWERS in text


def test_the_tutorial_is_committed_with_its_outputs_and_nothing_of_a_machine(committed):
    cells = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell.outputs for cell in cells if "print(" in cell.source or "plt.show" in cell.source)
    assert not any(output.get("name") == "stderr" for cell in cells for output in cell.outputs)
    text = TUTORIAL.read_text(encoding="utf-8")
    assert len(text) < 150_000
    for trace in ("\\u001b[", tempfile.gettempdir(), f"{Path.home()}/", str(TUTORIAL.parents[1])):
        assert trace not in text
